//! What is counted, and which statements are told of.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Result;
use houseboat::database::Settings;
use houseboat::settings::Auto;

use crate::database::database;
use crate::database::hold_writer;
use crate::database::insert;
use crate::database::settings;
use crate::support::log;
use crate::support::waiting::is_pending;

#[tokio::test]
async fn what_was_done_is_counted_by_how_it_ended() {
    let (_folder, database) = database().await;
    for number in 0..5 {
        insert(&database, &number.to_string()).await.unwrap();
    }
    assert!(insert(&database, "0").await.is_err());
    for _ in 0..3 {
        database.read(|_| Ok(())).await.unwrap();
    }
    let failed = database.read(|_| -> Result<()> { Err(Error::abort("on purpose")) });
    assert!(failed.await.is_err());
    let stats = database.stats().await;
    assert_eq!((stats.writes.done, stats.writes.failed), (6, 1));
    assert_eq!(stats.commits, 6);
    assert_eq!((stats.reads.done, stats.reads.failed), (4, 1));
    assert_eq!((stats.reads.waiting, stats.writes.waiting), (0, 0));
    assert!(stats.writes.median <= stats.writes.p99 && stats.writes.p99 <= stats.writes.longest);
    assert!(stats.writes.longest > Duration::ZERO);
    assert!(stats.wal_bytes > 0);
    let pages = stats.pages.unwrap();
    assert!(pages.count >= 2 && pages.bytes_each == 4_096 && pages.unused == 0);
    assert_eq!(stats.damage, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_was_refused_or_came_too_late_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let small = Settings {
        waiting_max: 2,
        ..settings(folder.path())
    };
    let database = Database::open(&small, Clock::system()).unwrap();
    let (release, held) = hold_writer(&database);
    let hasty = database.within(Duration::from_millis(1));
    let mut waiting = Box::pin(hasty.write(|_| Ok(())));
    let mut patient = Box::pin(database.write(|_| Ok(())));
    assert!(is_pending(&mut waiting).await && is_pending(&mut patient).await);
    let refused = database.write(|_| Ok(())).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })));
    let stats = database.stats().await;
    assert_eq!((stats.writes.waiting, stats.writes.running), (2, 1));
    assert_eq!(stats.writes.refused, 1);
    tokio::time::sleep(Duration::from_millis(5)).await;
    drop(release);
    held.await.unwrap().unwrap();
    assert!(matches!(waiting.await, Err(Error::Timeout { .. })));
    patient.await.unwrap();
    assert_eq!(database.stats().await.writes.late, 1);
}

#[tokio::test]
async fn a_slow_statement_is_told_once_with_its_place_and_plan() {
    log::keep();
    let folder = tempfile::tempdir().unwrap();
    let impatient = Settings {
        slow_ms: 20,
        readers: Auto::Given(1),
        ..settings(folder.path())
    };
    let database = Database::open(&impatient, Clock::system()).unwrap();
    let sql =
        "WITH RECURSIVE slow_one (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM slow_one LIMIT ?1)
               SELECT count(*) FROM slow_one";
    let mut steps = 100_000_i64;
    let line = line!() + 2;
    while database.stats().await.slow == 0 {
        let read = database.read(move |conn| Ok(conn.query_row(sql, [steps], |_| Ok(()))?));
        read.await.unwrap();
        steps *= 2;
    }
    for _ in 0..3 {
        let read = database.read(move |conn| Ok(conn.query_row(sql, [steps], |_| Ok(()))?));
        read.await.unwrap();
    }
    // The lines are written after the answers, before the thread's next read.
    let stats = database.stats().await;
    assert!(stats.slow >= 3, "{}", stats.slow);
    let lines = log::lines(&["a statement was slow", "slow_one"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [
        "duration_ms=",
        &format!("place=tests/it/stats.rs:{line}:"),
        "sql=\"WITH RECURSIVE slow_one (i)",
        "SELECT count(*) FROM slow_one\"",
        "SCAN slow_one",
    ] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

#[tokio::test]
async fn a_slow_write_is_told_with_its_place() {
    log::keep();
    let folder = tempfile::tempdir().unwrap();
    let impatient = Settings {
        slow_ms: 1,
        ..settings(folder.path())
    };
    let database = Database::open(&impatient, Clock::system()).unwrap();
    let write = database.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE slow_rows AS
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 300000)
             SELECT i FROM n",
        )?;
        Ok(())
    });
    write.await.unwrap();
    let lines = log::lines(&[
        "a statement was slow",
        "CREATE TABLE slow_rows",
        "tests/it/stats.rs",
    ]);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn waiting_for_another_process_is_told_and_no_closures_fault() {
    log::keep();
    let folder = tempfile::tempdir().unwrap();
    let impatient = Settings {
        slow_ms: 20,
        ..settings(folder.path())
    };
    let database = Database::open(&impatient, Clock::system()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let other = rusqlite::Connection::open(database.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut write = Box::pin(database.write(|tx| Ok(tx.execute("SELECT 'patient' WHERE 0", [])?)));
    assert!(is_pending(&mut write).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.execute_batch("COMMIT").unwrap();
    let _ = write.await;
    assert_eq!(database.stats().await.slow, 1);
    let told = log::lines(&["another process in the way", "BEGIN IMMEDIATE"]);
    assert!(!told.is_empty());
    assert!(log::lines(&["a statement was slow", "BEGIN IMMEDIATE"]).is_empty());
}
