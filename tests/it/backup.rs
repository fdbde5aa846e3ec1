//! Copies of a live database, and the command that makes them.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Progress;
use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
use crate::database::settings;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site;
use crate::support::site::Monitor;
use crate::support::site::number;
use crate::support::tmpfs::Tmpfs;

/// On a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// Rows that make the file some megabytes large.
pub(crate) async fn fill(database: &Database, rows: i64) {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
               INSERT INTO notes (text) SELECT i || ' ' || hex(randomblob(200)) FROM n";
    database
        .write(move |tx| Ok(tx.execute(sql, [rows])?))
        .await
        .unwrap();
}

/// Opens a copy as another program would.
pub(crate) fn open(path: &Path) -> Connection {
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file as another program would"
    )]
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What the program is told, so that its database is the one that [`database`] makes.
pub(crate) const DATABASE: (&str, &str) = ("HOUSEBOAT_DATABASE__PATH", "data/test.sqlite3");

pub(crate) fn assert_sound(conn: &Connection) {
    let sound: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
}

/// How many notes the sound file `path` has.
pub(crate) fn notes(path: &Path) -> i64 {
    let conn = open(path);
    assert_sound(&conn);
    number(&conn, "SELECT count(*) FROM notes")
}

/// Overwrites a part of a page with what is no page.
pub(crate) fn damage(path: &Path, page: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[page * 4_096..page * 4_096 + 1_024].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_copy_made_amid_writes_is_one_state_and_ends() {
    let (folder, database) = database().await;
    fill(&database, 10_000).await;
    let ended = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (writes, done) = (Arc::clone(&ended), Arc::clone(&acknowledged));
    let live = database.clone();
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while !writes.load(Ordering::SeqCst) {
            insert(&live, &format!("live {number}")).await.unwrap();
            number += 1;
            done.store(number, Ordering::SeqCst);
        }
    });
    while acknowledged.load(Ordering::SeqCst) < 10 {
        assert!(!writing.is_finished(), "the writes have ended");
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
        let start = Instant::now();
        while live.load(Ordering::SeqCst) == last {
            assert!(start.elapsed() < SOON, "no write is done any more");
            std::thread::yield_now();
        }
        let step = steps.fetch_add(1, Ordering::SeqCst);
        assert!(step < 1_000, "the copy begins anew again and again");
    });
    let made = made.await.unwrap();
    ended.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    assert!(seen.load(Ordering::SeqCst) > 5, "{seen:?}");
    assert_eq!(made.bytes, std::fs::metadata(&to).unwrap().len());
    assert_eq!(names(folder.path()), ["copy.sqlite3", "data"]);
    let copy = open(&to);
    let live = number(&copy, "SELECT count(*) FROM notes WHERE text LIKE 'live %'");
    assert!(live >= i64::try_from(before).unwrap(), "{live} of {before}");
    assert_eq!(number(&copy, "SELECT count(*) FROM notes") - live, 10_000);
    assert_sound(&copy);
}

fn backup(folder: &Path, to: &str) -> Printed {
    run(folder, &["backup", to], &[DATABASE])
}

#[tokio::test]
async fn the_command_copies_a_live_site_with_all_that_it_acknowledged() {
    let site = TestProcess::start().await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let create = async |number: u64| {
        let name = format!("monitor {number}");
        let monitor = Monitor::new(&name, "http://127.0.0.1:1/");
        monitor.create(&site).await;
        acknowledged.store(number + 1, Ordering::SeqCst);
    };
    for number in 0..5 {
        create(number).await;
    }
    let before = acknowledged.load(Ordering::SeqCst);
    let folder = site.folder().to_owned();
    let mut backup =
        tokio::task::spawn_blocking(move || run(&folder, &["backup", "copy.sqlite3"], &[]));
    let mut number_next = before;
    let printed = loop {
        tokio::select! {
            biased;
            () = create(number_next) => number_next += 1,
            printed = &mut backup => break printed.unwrap(),
        }
    };
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    assert!(
        printed.out.starts_with("copy.sqlite3: ") && printed.out.ends_with(" s, verified\n"),
        "{}",
        printed.out
    );
    assert_eq!(printed.err, "", "no terminal, no progress");
    let copy = open(&site.folder().join("copy.sqlite3"));
    assert_sound(&copy);
    let copied = number(&copy, "SELECT count(*) FROM monitors");
    assert!(copied >= i64::try_from(before).unwrap(), "{copied}");
    assert!(
        number(
            &site::database(site.folder()),
            "SELECT count(*) FROM monitors"
        ) >= copied
    );
}

#[tokio::test]
async fn a_file_that_exists_is_left_alone() {
    let (folder, database) = database().await;
    database.close().await;
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let refused = backup(folder.path(), "mine");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("mine exists already"),
        "{}",
        refused.err
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join("mine")).unwrap(),
        "mine"
    );
    assert_eq!(names(folder.path()), ["data", "mine"]);
}

#[tokio::test]
async fn a_file_that_is_made_meanwhile_is_left_alone() {
    let (folder, database) = database().await;
    let to = folder.path().join("copy");
    let made = to.clone();
    let backup = database.backup(&to, move |_| std::fs::write(&made, "mine").unwrap());
    let error = backup.await.unwrap_err().to_string();
    assert!(error.contains("copy exists already"), "{error}");
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "mine");
    assert_eq!(names(folder.path()), ["copy", "data"]);
}

#[tokio::test]
async fn two_backups_to_one_name_are_refused_by_no_lock_on_the_copy_itself() {
    let (folder, database) = database().await;
    let (others, other) = (folder.path().to_owned(), Arc::new(Mutex::new(None)));
    let refused = Arc::clone(&other);
    let to = folder.path().join("copy");
    let made = database.backup(&to, move |_| {
        // SQLite would meet this lock on a file system where both kinds of locks are one.
        let copy = std::fs::File::open(others.join("copy.partial")).unwrap();
        copy.try_lock().unwrap();
        *refused.lock().unwrap() = Some(backup(&others, "copy"));
    });
    made.await.unwrap();
    let refused = other.lock().unwrap().take().unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(
        refused.err.contains("copy.partial at this moment"),
        "{}",
        refused.err
    );
    assert_eq!(names(folder.path()), ["copy", "data"]);
}

#[tokio::test]
async fn a_copy_is_read_by_no_more_people_than_the_database() {
    let (folder, database) = database().await;
    let rights = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(database.path(), rights).unwrap();
    let to = folder.path().join("copy");
    database.backup(&to, |_| {}).await.unwrap();
    let mode = std::fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn a_damaged_database_is_said_to_be_and_no_copy_is_kept() {
    let (folder, database) = database().await;
    fill(&database, 500).await;
    let path = database.path().to_owned();
    database.close().await;
    damage(&path, 9);
    let refused = backup(folder.path(), "copy");
    assert_eq!(refused.code, Some(1));
    for part in ["the database itself is damaged", "`recover`", "`restore`"] {
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    assert_eq!(names(folder.path()), ["data"]);
}

#[tokio::test]
async fn rows_that_refer_to_nothing_are_named_and_copied() {
    let (folder, database) = database().await;
    let path = database.path().to_owned();
    database.close().await;
    let sql = "PRAGMA foreign_keys = OFF;
        CREATE TABLE remarks (note_id INTEGER REFERENCES notes (id));
        INSERT INTO remarks VALUES (7)";
    open(&path).execute_batch(sql).unwrap();
    let made = backup(folder.path(), "copy");
    assert_eq!(made.code, Some(0), "{}", made.err);
    let line = "row 1 of remarks refers to a row of notes that is not there";
    assert!(made.out.contains(line), "{}", made.out);
}

#[tokio::test]
async fn no_room_is_said_before_anything_is_copied() {
    let Some(disk) = Tmpfs::mount("1m") else {
        return;
    };
    let (folder, database) = database().await;
    fill(&database, 3_000).await;
    database.close().await;
    let refused = backup(folder.path(), disk.path().join("copy").to_str().unwrap());
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("there is no room for") && !refused.err.contains(" and 0 are free"),
        "{}",
        refused.err
    );
    assert!(names(disk.path()).is_empty());
}

#[tokio::test]
async fn a_copy_does_not_take_the_last_room_of_the_database() {
    let Some(disk) = Tmpfs::mount("40m") else {
        return;
    };
    let database = Database::open(&settings(disk.path()), Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    fill(&database, 10_000).await;
    let to = disk.path().join("copy");
    let error = database.backup(&to, |_| {}).await.unwrap_err().to_string();
    assert!(
        error.contains("have to stay free for the database"),
        "{error}"
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    database.backup(&copy, |_| {}).await.unwrap();
    database.close().await;
    let refused = run(
        disk.path(),
        &["restore", copy.to_str().unwrap()],
        &[DATABASE],
    );
    assert!(
        refused.err.contains("have to stay free for the database"),
        "{}",
        refused.err
    );
    assert_eq!(names(disk.path()), ["data"]);
}

#[tokio::test]
async fn a_disk_that_fills_up_meanwhile_is_left_as_it_was() {
    let Some(disk) = Tmpfs::mount("16m") else {
        return;
    };
    let (_folder, database) = database().await;
    fill(&database, 10_000).await;
    let filler = disk.path().join("filler");
    let others = filler.clone();
    let to = disk.path().join("copy");
    let made = database.backup(&to, move |_| {
        if !others.exists() {
            let _ = std::fs::write(&others, vec![1; 16 << 20]);
        }
    });
    let error = made.await.unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error:?}");
    assert!(
        error.to_string().contains("there is no room for"),
        "{error}"
    );
    assert_eq!(names(disk.path()), ["filler"]);
    std::fs::remove_file(filler).unwrap();
    let again = database.backup(&to, |_| {}).await;
    assert!(again.unwrap().bytes > 6 << 20);
}
