//! How a database's file is opened, checked and closed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Depth;
use houseboat::database::Error;
use houseboat::database::Result;

use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
use crate::database::settings;
use crate::database::texts;
use crate::support::waiting::is_pending;
use crate::support::waiting::wait_for;

#[tokio::test]
async fn closing_cuts_off_a_read_that_does_not_end() {
    let (_folder, database) = database().await;
    let endless = database.read(|conn| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    let mut endless = Box::pin(endless);
    assert!(is_pending(&mut endless).await);
    let start = Instant::now();
    database.close().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(endless.await.is_err());
}

#[tokio::test]
async fn every_connection_has_its_pragmas() {
    let (_folder, database) = database().await;
    let mut expected = vec![
        "busy_timeout 5000",
        "journal_mode wal",
        "synchronous 1",
        "foreign_keys 1",
        "journal_size_limit 27103364",
        "cache_size 2000",
        "temp_store 2",
        "trusted_schema 0",
        "query_only 1",
    ];
    assert_eq!(database.read(pragmas).await.unwrap(), expected);
    *expected.last_mut().unwrap() = "query_only 0";
    // The writer waits for other processes in its own way.
    expected[0] = "busy_timeout 0";
    assert_eq!(database.write(|tx| pragmas(tx)).await.unwrap(), expected);
}

fn pragmas(conn: &rusqlite::Connection) -> Result<Vec<String>> {
    let names = "busy_timeout journal_mode synchronous foreign_keys journal_size_limit cache_size \
                 temp_store trusted_schema query_only";
    let value = |name: &str| {
        conn.pragma_query_value(None, name, |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(value) => format!("{name} {value}"),
                value => format!("{name} {}", value.as_str()?),
            })
        })
    };
    Ok(names
        .split_whitespace()
        .map(value)
        .collect::<rusqlite::Result<_>>()?)
}

#[tokio::test]
async fn a_closed_database_answers_that_it_is() {
    let (_folder, database) = database().await;
    let other_handle = database.clone();
    insert(&database, "kept").await.unwrap();
    database.close().await;
    assert!(matches!(
        insert(&other_handle, "late").await,
        Err(Error::Closed)
    ));
    let read = other_handle.read(|_| Ok(()));
    assert!(matches!(read.await, Err(Error::Closed)));
}

#[tokio::test]
async fn closing_leaves_one_file_that_has_everything() {
    let (folder, database) = database().await;
    insert(&database, "kept").await.unwrap();
    database.close().await;
    let names: Vec<_> = std::fs::read_dir(folder.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["test.sqlite3"]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir_all(settings.path.parent().unwrap()).unwrap();
    let text = "this is a text and no database. ".repeat(200);
    std::fs::write(&settings.path, &text).unwrap();
    let error = Database::open(&settings, Clock::system())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("test.sqlite3") && error.contains("not a SQLite database"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&settings.path).unwrap(), text);
}

#[tokio::test]
async fn a_path_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("data"),
        "a file where a folder should be",
    )
    .unwrap();
    let error = Database::open(&settings(folder.path()), Clock::system())
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot make the directory"), "{error}");
}

#[tokio::test]
async fn a_check_finds_a_damaged_page() {
    let (folder, database) = database().await;
    for number in 0..500 {
        insert(&database, &format!("{number} {}", "x".repeat(200)))
            .await
            .unwrap();
    }
    assert!(database.check(Depth::Full).await.unwrap().is_ok());
    database.close().await;
    let path = settings(folder.path()).path;
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[8_192..8_192 + 512] {
        *byte ^= 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    let report = database.check(Depth::Full).await;
    assert!(report.map_or(true, |report| !report.is_ok()));
}

#[tokio::test]
async fn the_last_handle_ends_the_threads_and_keeps_what_waited() {
    let (folder, database) = database().await;
    let done = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&done);
    let write = database.write(move |tx| {
        tx.execute("INSERT INTO notes (text) VALUES ('kept')", [])?;
        mark.store(true, Ordering::SeqCst);
        Ok(())
    });
    write.await.unwrap();
    drop(database);
    assert!(done.load(Ordering::SeqCst));
    let again = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    assert_eq!(texts(&again).await, ["kept"]);
}

#[tokio::test]
async fn a_temporary_database_is_migrated_and_goes_with_its_last_handle() {
    let database = Database::open_temporary(&[NOTES]).await.unwrap();
    insert(&database, "kept as long as it lives").await.unwrap();
    assert_eq!(texts(&database).await.len(), 1);
    let other = Database::open_temporary(&[NOTES]).await.unwrap();
    assert!(texts(&other).await.is_empty());
    let folder = database.path().parent().unwrap().to_owned();
    let handle = database.clone();
    drop(database);
    assert!(folder.exists());
    drop(handle);
    assert!(!folder.exists());

    let folder = other.path().parent().unwrap().to_owned();
    other.close().await;
    assert!(folder.exists());
    drop(other);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_temporary_database_goes_though_a_closure_holds_its_last_handle() {
    let database = Database::open_temporary(&[NOTES]).await.unwrap();
    let folder = database.path().parent().unwrap().to_owned();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, has_begun) = tokio::sync::oneshot::channel();
    let inner = database.clone();
    let mut read = Box::pin(database.read(move |_| {
        let _ = begin.send(());
        // Until every other handle is gone.
        let _ = released.recv();
        drop(inner);
        Ok(())
    }));
    assert!(is_pending(&mut read).await);
    has_begun.await.unwrap();
    drop(read);
    drop(database);
    drop(release);
    let gone = async || (!folder.exists()).then_some(());
    wait_for("end of the folder", Duration::from_secs(20), gone).await;
}
