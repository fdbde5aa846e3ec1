//! The WAL goes home, is cut back, and whoever holds it up is named.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Settings;
use tempfile::TempDir;

use crate::database::NOTES;
use crate::database::settings;
use crate::support::log;
use crate::support::waiting::is_pending;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);
const KIB: u64 = 1_024;
const LIMIT: u64 = 64 * KIB;

async fn short_wal() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let short_wal = Settings {
        journal_size_limit_bytes: LIMIT,
        ..settings(folder.path())
    };
    let database = Database::open(&short_wal, Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    (folder, database)
}

async fn write_mebibytes(database: &Database, count: u64) {
    for _ in 0..count {
        let write = database.write(|tx| {
            tx.execute(
                "INSERT INTO notes (text) VALUES (hex(randomblob(524288)))",
                [],
            )?;
            Ok(())
        });
        write.await.unwrap();
    }
}

#[tokio::test]
async fn when_nobody_writes_the_wal_goes_home_and_is_cut_back() {
    let (_folder, database) = short_wal().await;
    write_mebibytes(&database, 3).await;
    assert!(database.stats().await.wal_bytes > LIMIT);
    wait_for("short WAL", SOON, async || {
        let stats = database.stats().await;
        (stats.checkpoints > 0 && stats.wal_bytes <= LIMIT).then_some(())
    })
    .await;
}

#[tokio::test]
async fn under_litestream_the_wal_is_not_cut_back() {
    let (folder, database) = short_wal().await;
    std::fs::create_dir(folder.path().join("data/.test.sqlite3-litestream")).unwrap();
    write_mebibytes(&database, 3).await;
    wait_for("checkpoint", SOON, async || {
        (database.stats().await.checkpoints > 0).then_some(())
    })
    .await;
    // The cut would follow the checkpoint within a fraction of this.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(database.stats().await.wal_bytes > LIMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_overlap_without_end_do_not_keep_the_wal_growing() {
    let (_folder, database) = short_wal().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (database, is_over) = (database.clone(), Arc::clone(&is_over));
        readers.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let read = database.read(|conn| {
                    let tx = conn.unchecked_transaction()?;
                    tx.query_row("SELECT count(*) FROM notes", [], |_| Ok(()))?;
                    std::thread::park_timeout(Duration::from_millis(4));
                    Ok(())
                });
                read.await.unwrap();
            }
        });
    }
    // Three times as much as the WAL may hold under load, and slowly: it is cut back once a second at the most, and not
    // where readers are in the way just then.
    let mut longest = 0;
    for _ in 0..200 {
        write_mebibytes(&database, 1).await;
        longest = longest.max(database.stats().await.wal_bytes);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    while readers.join_next().await.is_some() {}
    assert!(longest < 160 * KIB * KIB, "{longest}");
}

#[tokio::test]
async fn a_read_that_keeps_the_wal_growing_is_named() {
    log::keep();
    let (_folder, database) = short_wal().await;
    let (release, held) = mpsc::channel::<()>();
    let patient = database.within(Duration::from_hours(1));
    let line = line!() + 1;
    let mut read = Box::pin(patient.read(move |conn| {
        let tx = conn.unchecked_transaction()?;
        tx.query_row("SELECT count(*) FROM notes", [], |_| Ok(()))?;
        Ok(held.recv().is_err())
    }));
    assert!(is_pending(&mut read).await);
    wait_for("read that has begun", SOON, async || {
        // A thread is held once there is one fewer that is idle; the write below needs its snapshot to be older.
        (database.stats().await.reads.running > 0).then_some(())
    })
    .await;
    let place = format!("a read at tests/it/wal.rs:{line}:");
    wait_for("word about it", SOON, async || {
        write_mebibytes(&database, 4).await;
        log::lines(&["a long read keeps the WAL growing", &place]).pop()
    })
    .await;
    assert!(database.stats().await.wal_bytes > 16 * KIB * KIB);
    drop(release);
    assert!(read.await.unwrap());
    write_mebibytes(&database, 1).await;
    wait_for("short WAL", SOON, async || {
        (database.stats().await.wal_bytes <= LIMIT).then_some(())
    })
    .await;
}
