//! What the database layer promises.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Result;
use houseboat::database::Settings;
use houseboat::settings::Auto;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::waiting::is_pending;

pub(crate) const NOTES: Migrations = Migrations::new(
    "notes",
    &[(
        "V1__notes",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;",
    )],
);

pub(crate) fn settings(folder: &Path) -> Settings {
    Settings {
        path: folder.join("data").join("test.sqlite3"),
        ..Settings::default()
    }
}

/// A fresh database with the table `notes`.
pub(crate) async fn database() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    (folder, database)
}

pub(crate) async fn insert(database: &Database, text: &str) -> Result<i64> {
    let text = text.to_owned();
    database
        .write(move |tx| {
            tx.execute("INSERT INTO notes (text) VALUES (?1)", [text])?;
            Ok(tx.last_insert_rowid())
        })
        .await
}

pub(crate) async fn texts(database: &Database) -> Vec<String> {
    let read = database.read(|conn| {
        let mut statement = conn.prepare("SELECT text FROM notes ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    });
    read.await.unwrap()
}

#[tokio::test]
async fn what_is_written_is_read() {
    let (_folder, database) = database().await;
    insert(&database, "one").await.unwrap();
    insert(&database, "two").await.unwrap();
    assert_eq!(texts(&database).await, ["one", "two"]);
}

#[tokio::test]
async fn a_write_that_fails_takes_back_only_itself() {
    let (_folder, database) = database().await;
    let writes = (0..20).map(|number| {
        let database = database.clone();
        tokio::spawn(async move {
            database
                .write(move |tx| {
                    tx.execute("INSERT INTO notes (text) VALUES (?1)", [number.to_string()])?;
                    if number % 2 == 1 {
                        return Err(Error::abort("odd"));
                    }
                    Ok(())
                })
                .await
        })
    });
    let mut failed = 0;
    for write in writes.collect::<Vec<_>>() {
        failed += u32::from(write.await.unwrap().is_err());
    }
    let mut kept: Vec<u32> = texts(&database)
        .await
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    kept.sort_unstable();
    assert_eq!(failed, 10);
    assert_eq!(kept, (0..20).step_by(2).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_write_that_panics_is_rolled_back_and_the_next_one_works() {
    let (_folder, database) = database().await;
    let write = database.write(|tx| -> Result<()> {
        tx.execute("INSERT INTO notes (text) VALUES ('lost')", [])?;
        panic!("on purpose");
    });
    let error = write.await.unwrap_err();
    assert!(
        matches!(&error, Error::Panicked(text) if text == "on purpose"),
        "{error}"
    );
    insert(&database, "kept").await.unwrap();
    assert_eq!(texts(&database).await, ["kept"]);
}

#[tokio::test]
async fn a_read_that_panics_costs_no_connection() {
    let (_folder, database) = database().await;
    for _ in 0..100 {
        let read = database.read(|_| -> Result<()> { panic!("on purpose") });
        assert!(matches!(read.await, Err(Error::Panicked(_))));
    }
    assert!(texts(&database).await.is_empty());
}

#[tokio::test]
async fn a_read_cannot_write_and_says_what_to_use() {
    let (_folder, database) = database().await;
    let read = database.read(|conn| Ok(conn.execute("INSERT INTO notes (text) VALUES ('x')", [])?));
    let error = read.await.unwrap_err().to_string();
    assert!(error.contains("use `write`"), "{error}");
    assert!(texts(&database).await.is_empty());
}

#[tokio::test]
async fn a_write_cannot_end_its_own_transaction() {
    let (_folder, database) = database().await;
    for sql in [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "RELEASE houseboat",
        "PRAGMA defer_foreign_keys = ON",
    ] {
        let write = database.write(move |tx| {
            tx.execute("INSERT INTO notes (text) VALUES ('x')", [])?;
            Ok(tx.execute_batch(sql)?)
        });
        let error = write.await.unwrap_err().to_string();
        assert!(
            error.contains("begins and commits by itself"),
            "{sql}: {error}"
        );
    }
    assert!(texts(&database).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_constraint_fails_the_write_that_broke_it_and_no_other() {
    let (_folder, database) = database().await;
    let schema = database.write(|tx| {
        let sql = "CREATE TABLE tags (note INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED) STRICT";
        Ok(tx.execute_batch(sql)?)
    });
    schema.await.unwrap();
    let (go_on, held) = hold_writer(&database);
    let good = [insert(&database, "1"), insert(&database, "2")].map(Box::pin);
    let [mut first, mut second] = good;
    let mut bad = Box::pin(database.write(|tx| Ok(tx.execute("INSERT INTO tags VALUES (7)", [])?)));
    assert!(is_pending(&mut first).await);
    assert!(is_pending(&mut bad).await && is_pending(&mut second).await);
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    first.await.unwrap();
    second.await.unwrap();
    let error = bad.await.unwrap_err();
    assert_eq!(error.constraint(), Some("FOREIGN KEY constraint failed"));
    assert_eq!(texts(&database).await, ["1", "2"]);
}

#[tokio::test]
async fn nothing_is_stored_by_a_write_that_rolled_everything_back() {
    let (_folder, database) = database().await;
    insert(&database, "same").await.unwrap();
    let write = database.write(|tx| {
        let broken = tx.execute("INSERT OR ROLLBACK INTO notes (text) VALUES ('same')", []);
        assert!(broken.is_err());
        // The transaction is gone; this would commit by itself.
        let _ = tx.execute("INSERT INTO notes (text) VALUES ('stray')", []);
        Ok(())
    });
    assert!(matches!(write.await, Err(Error::RolledBack(_))));
    assert_eq!(texts(&database).await, ["same"]);
    insert(&database, "next").await.unwrap();
}

#[tokio::test]
async fn savepoints_of_ones_own_are_allowed() {
    let (_folder, database) = database().await;
    let write = database.write(|tx| {
        tx.execute_batch(
            "INSERT INTO notes (text) VALUES ('kept');
             SAVEPOINT mine;
             INSERT INTO notes (text) VALUES ('lost');
             ROLLBACK TO mine;
             RELEASE mine;",
        )?;
        Ok(())
    });
    write.await.unwrap();
    assert_eq!(texts(&database).await, ["kept"]);
}

#[tokio::test]
async fn a_transaction_left_open_by_a_read_does_not_show_old_rows_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let one_reader = Settings {
        readers: Auto::Given(1),
        ..settings(folder.path())
    };
    let database = Database::open(&one_reader, Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    let left_open = database.read(|conn| {
        conn.execute_batch("BEGIN; SELECT * FROM notes;")?;
        Ok(())
    });
    left_open.await.unwrap();
    insert(&database, "new").await.unwrap();
    assert_eq!(texts(&database).await, ["new"]);
}

#[tokio::test]
async fn what_follows_a_commit_runs_after_it_and_only_then() {
    let (_folder, database) = database().await;
    let (sender, events) = mpsc::channel();
    let committed = sender.clone();
    let write = database.write(move |tx| {
        tx.after_commit(move || committed.send("committed").unwrap());
        Ok(())
    });
    write.await.unwrap();
    let write = database.write(move |tx| -> Result<()> {
        tx.after_commit(move || sender.send("rolled back").unwrap());
        Err(Error::abort("no"))
    });
    write.await.unwrap_err();
    assert_eq!(events.into_iter().collect::<Vec<_>>(), ["committed"]);
}

#[tokio::test]
async fn a_panic_in_what_follows_a_commit_loses_nothing() {
    let (_folder, database) = database().await;
    let write = database.write(|tx| {
        tx.after_commit(|| panic!("on purpose"));
        tx.execute("INSERT INTO notes (text) VALUES ('kept')", [])?;
        Ok(())
    });
    write.await.unwrap();
    insert(&database, "next").await.unwrap();
    assert_eq!(texts(&database).await, ["kept", "next"]);
}

#[tokio::test]
async fn a_transaction_has_one_time_which_a_test_can_hold() {
    let folder = tempfile::tempdir().unwrap();
    let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    let clock = Clock::held(start);
    let database = Database::open(&settings(folder.path()), clock.clone()).unwrap();
    let write = database.write(move |tx| {
        let before = tx.now();
        clock.advance(Duration::from_mins(1));
        Ok((before, tx.now()))
    });
    assert_eq!(write.await.unwrap(), (start, start));
    assert_eq!(database.now(), "2026-11-21T10:01:00Z".parse().unwrap());
}

/// Keeps the writer busy until it is told to go on.
pub(crate) fn hold_writer(
    database: &Database,
) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
    let (go_on, told) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let database = database.clone();
    let held = tokio::spawn(async move {
        database
            .write(move |_| {
                started.send(()).unwrap();
                told.recv().ok();
                Ok(())
            })
            .await
    });
    // The runtime has more threads than this one.
    has_started.recv_timeout(Duration::from_secs(10)).unwrap();
    (go_on, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_than_may_wait_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let small = Settings {
        waiting_max: 2,
        ..settings(folder.path())
    };
    let database = Database::open(&small, Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    let (go_on, held) = hold_writer(&database);
    let waiting = [insert(&database, "1"), insert(&database, "2")].map(Box::pin);
    let [mut first, mut second] = waiting;
    // Polled once, they wait in the queue.
    assert!(is_pending(&mut first).await && is_pending(&mut second).await);
    let refused = insert(&database, "3").await;
    assert!(
        matches!(refused, Err(Error::Overloaded { waiting_max: 2 })),
        "{refused:?}"
    );
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(texts(&database).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_has_left_is_not_begun() {
    let (_folder, database) = database().await;
    let (go_on, held) = hold_writer(&database);
    let mut abandoned = Box::pin(insert(&database, "abandoned"));
    assert!(is_pending(&mut abandoned).await);
    drop(abandoned);
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    insert(&database, "kept").await.unwrap();
    assert_eq!(texts(&database).await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_write_takes_its_time() {
    let (_folder, database) = database().await;
    let (go_on, held) = hold_writer(&database);
    assert!(texts(&database).await.is_empty());
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_all_succeed_in_the_order_of_each_task() {
    let (_folder, database) = database().await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let database = database.clone();
            tokio::spawn(async move {
                for number in 0..50 {
                    insert(&database, &format!("{task}/{number}"))
                        .await
                        .unwrap();
                    assert!(!texts(&database).await.is_empty());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let texts = texts(&database).await;
    assert_eq!(texts.len(), 16 * 50);
    for task in 0..16 {
        let of_task = texts
            .iter()
            .filter_map(|text| text.strip_prefix(&format!("{task}/")));
        let numbers: Vec<u32> = of_task.map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_constraint_of_the_schema_is_named() {
    let (_folder, database) = database().await;
    insert(&database, "same").await.unwrap();
    let error = insert(&database, "same").await.unwrap_err();
    assert_eq!(
        error.constraint(),
        Some("UNIQUE constraint failed: notes.text")
    );
}
