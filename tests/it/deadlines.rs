//! How long reads and writes may take.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Result;
use houseboat::database::Settings;
use houseboat::settings::Auto;
use rusqlite::Connection;

use crate::database::database;
use crate::database::hold_writer;
use crate::database::insert;
use crate::database::settings;
use crate::database::texts;
use crate::support::waiting::is_pending;
use crate::support::waiting::wait_for;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

fn endless(conn: &Connection) -> Result<i64> {
    let sql =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

fn one_reader() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let one_reader = Settings {
        readers: Auto::Given(1),
        ..settings(folder.path())
    };
    let database = Database::open(&one_reader, Clock::system()).unwrap();
    (folder, database)
}

#[tokio::test]
async fn a_read_past_its_time_is_cut_off_and_the_next_one_works() {
    let (_folder, database) = one_reader();
    let start = Instant::now();
    let error = database.within(SHORT).read(endless).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { time: SHORT }), "{error}");
    assert!(start.elapsed() < LONG);
    nothing_runs(&database).await;
    assert_eq!(database.read(|_| Ok(7)).await.unwrap(), 7);
}

/// Waits until no thread reads any more.
async fn nothing_runs(database: &Database) {
    wait_for("end of what was cut off", LONG, async || {
        (database.stats().await.reads.running == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_asks_nobody_whether_to_go_on_is_cut_off_too() {
    let (_folder, database) = one_reader();
    let fill = database.write(|tx| {
        Ok(tx.execute_batch(
            "CREATE TABLE many (n INTEGER, padding TEXT);
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 200000)
             INSERT INTO many SELECT i, hex(zeroblob(60)) FROM n;",
        )?)
    });
    fill.await.unwrap();
    // Counting a table is one step of SQLite's machine.
    let hasty = database.within(SHORT);
    let read = hasty.read(|conn| {
        for _ in 0..100_000 {
            conn.query_row("SELECT count(*) FROM many", [], |_| Ok(()))?;
        }
        Ok(())
    });
    assert!(matches!(read.await, Err(Error::Timeout { .. })));
    nothing_runs(&database).await;
}

#[tokio::test]
async fn a_read_whose_caller_has_left_is_cut_off() {
    let (_folder, database) = one_reader();
    let patient = database.within(Duration::from_hours(1));
    let mut endless = Box::pin(patient.read(endless));
    assert!(is_pending(&mut endless).await);
    // Long enough for it to have begun.
    tokio::time::sleep(SHORT).await;
    drop(endless);
    nothing_runs(&database).await;
    let answered = async || database.within(LONG).read(|_| Ok(())).await.ok();
    wait_for("free reader", LONG, answered).await;
}

#[tokio::test]
async fn a_read_that_waited_for_too_long_is_not_begun() {
    let (_folder, database) = one_reader();
    let (release, held) = mpsc::channel::<()>();
    // Not SQL: nothing cuts it off, and nobody takes its place.
    let mut before = Box::pin(database.read(move |_| Ok(held.recv().is_err())));
    assert!(is_pending(&mut before).await);
    let hasty = database.within(SHORT);
    let is_begun = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&is_begun);
    let read = hasty.read(move |_| {
        begun.store(true, Ordering::SeqCst);
        Ok(())
    });
    assert!(matches!(read.await, Err(Error::Timeout { .. })));
    assert_eq!(database.stats().await.reads.late, 1);
    drop(release);
    assert!(before.await.unwrap());
    database.read(|_| Ok(())).await.unwrap();
    assert!(!is_begun.load(Ordering::SeqCst), "it was begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_too_long_is_told_so_while_another_one_runs() {
    let (_folder, database) = database().await;
    let (release, held) = hold_writer(&database);
    let hasty = database.within(SHORT);
    let late = hasty.write(|tx| Ok(tx.execute("INSERT INTO notes (text) VALUES ('late')", [])?));
    assert!(matches!(late.await, Err(Error::Timeout { time: SHORT })));
    assert_eq!(database.stats().await.writes.late, 1);
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    insert(&database, "in time").await.unwrap();
    assert_eq!(texts(&database).await, ["in time"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_has_begun_is_finished_and_told_however_long_it_takes() {
    let (_folder, database) = database().await;
    let hasty = database.within(SHORT);
    let write = hasty.write(|tx| {
        std::thread::park_timeout(SHORT * 4);
        Ok(tx.execute("INSERT INTO notes (text) VALUES ('begun')", [])?)
    });
    assert_eq!(write.await.unwrap(), 1);
    assert_eq!(texts(&database).await, ["begun"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_gives_the_place_in_the_queue_free() {
    let folder = tempfile::tempdir().unwrap();
    let one_place = Settings {
        waiting_max: 1,
        ..settings(folder.path())
    };
    let database = Database::open(&one_place, Clock::system()).unwrap();
    let (release, held) = hold_writer(&database);
    for _ in 0..3 {
        let mut write = Box::pin(database.write(|_| Ok(())));
        assert!(is_pending(&mut write).await, "there was no place");
        let refused = database.write(|_| Ok(())).await;
        assert!(matches!(refused, Err(Error::Overloaded { waiting_max: 1 })));
        drop(write);
    }
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waited_for_too_long_is_not_begun() {
    let (_folder, database) = database().await;
    let (go_on, held) = hold_writer(&database);
    let hasty = database.within(SHORT);
    let mut late = Box::pin(insert(&hasty, "late"));
    assert!(is_pending(&mut late).await);
    tokio::time::sleep(SHORT * 2).await;
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    assert!(matches!(late.await, Err(Error::Timeout { time: SHORT })));
    insert(&database, "next").await.unwrap();
    assert_eq!(texts(&database).await, ["next"]);
}

#[tokio::test]
async fn writes_behind_a_lock_of_another_process_hear_of_it_together() {
    let folder = tempfile::tempdir().unwrap();
    let impatient = Settings {
        busy_timeout_ms: 1_000,
        ..settings(folder.path())
    };
    let database = Database::open(&impatient, Clock::system()).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "it locks the file as another program would"
    )]
    let other = Connection::open(database.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let writes: Vec<_> = (0..50)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { database.write(|_| Ok(())).await })
        })
        .collect();
    for write in writes {
        assert!(matches!(write.await.unwrap(), Err(Error::Busy)));
    }
    // One after another they would take 50 s.
    assert!(start.elapsed() < Duration::from_secs(20));
    other.execute_batch("ROLLBACK").unwrap();
    database.write(|_| Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_read_is_answered_in_its_time_though_every_reader_is_held() {
    let (_folder, database) = one_reader();
    let (go_on, told) = mpsc::channel::<()>();
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let holder = database.clone();
    let held = tokio::spawn(async move {
        let hold = move |_: &Connection| {
            began.send(()).unwrap();
            told.recv().ok();
            Ok(())
        };
        holder.within(LONG).read(hold).await
    });
    has_begun.await.unwrap();
    let start = Instant::now();
    let error = database.within(SHORT).read(|_| Ok(())).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { time: SHORT }), "{error}");
    assert!(start.elapsed() < LONG);
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
}
