//! Copies of a live database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use houseboat::database::Database;
use houseboat::database::Progress;
use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::database::database;
use crate::database::insert;

/// Rows that make the file some megabytes large.
async fn fill(database: &Database, rows: i64) {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
               INSERT INTO notes (text) SELECT i || ' ' || hex(randomblob(500)) FROM n";
    database
        .write(move |tx| Ok(tx.execute(sql, [rows])?))
        .await
        .unwrap();
}

/// Opens a copy as another program would.
fn open(path: &Path) -> Connection {
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file as another program would"
    )]
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
}

fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_copy_made_amid_writes_is_one_state_and_ends() {
    let (folder, database) = database().await;
    fill(&database, 10_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (writes, done) = (Arc::clone(&stop), Arc::clone(&acknowledged));
    let writer = database.clone();
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while !writes.load(Ordering::SeqCst) {
            insert(&writer, &format!("live {number}")).await.unwrap();
            number += 1;
            done.store(number, Ordering::SeqCst);
        }
    });
    while acknowledged.load(Ordering::SeqCst) < 10 {
        tokio::task::yield_now().await;
    }
    let before = acknowledged.load(Ordering::SeqCst);
    // Each step waits for a write to be done, so that none can be without one: a copy that began anew would not end.
    let (live, seen) = (Arc::clone(&acknowledged), Arc::new(AtomicU64::new(0)));
    let steps = Arc::clone(&seen);
    let to = folder.path().join("copy.sqlite3");
    let made = database.backup(&to, move |progress: Progress| {
        assert!(progress.pages_done <= progress.pages);
        let last = live.load(Ordering::SeqCst);
        while live.load(Ordering::SeqCst) == last {
            std::thread::yield_now();
        }
        let step = steps.fetch_add(1, Ordering::SeqCst);
        assert!(step < 1_000, "the copy begins anew again and again");
    });
    let made = made.await.unwrap();
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    assert!(seen.load(Ordering::SeqCst) > 5, "{seen:?}");
    assert_eq!(made.bytes, std::fs::metadata(&to).unwrap().len());
    assert_eq!(names(folder.path()), ["copy.sqlite3", "data"]);
    let copy = open(&to);
    let live = number(&copy, "SELECT count(*) FROM notes WHERE text LIKE 'live %'");
    assert!(live >= i64::try_from(before).unwrap(), "{live} of {before}");
    assert_eq!(number(&copy, "SELECT count(*) FROM notes") - live, 10_000);
    let sound: String = copy
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
}
