//! A damaged file is noticed by who trips over it, takes no writes, and can be read as far as it is sound.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Depth;
use houseboat::database::Error;
use houseboat::database::Result;
use reqwest::Client;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::database::database;
use crate::database::insert;
use crate::database::settings;
use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::targets::Target;
use crate::support::targets::Webhook;
use crate::support::waiting::is_pending;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);
const PAGE: usize = 4_096;

/// Makes nonsense of every page that holds this text.
fn damage(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut damaged = 0;
    for page in bytes.chunks_mut(PAGE).skip(1) {
        if page
            .windows(text.len())
            .any(|window| window == text.as_bytes())
        {
            page[..PAGE / 2].fill(0xa5);
            damaged += 1;
        }
    }
    assert!(damaged > 0, "{text} is nowhere in the file");
    std::fs::write(path, bytes).unwrap();
}

/// A database with 500 notes, one of which lies on a damaged page; and the file as it was.
async fn damaged() -> (TempDir, Database, PathBuf, Vec<u8>) {
    let (folder, database) = database().await;
    for number in 0..500 {
        let text = format!("note {number} {}", "x".repeat(200));
        insert(&database, &text).await.unwrap();
    }
    database.close().await;
    let path = settings(folder.path()).path;
    let sound = std::fs::read(&path).unwrap();
    damage(&path, "note 300 ");
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    (folder, database, path, sound)
}

async fn all(database: &Database) -> Result<Vec<String>> {
    let read = database.read(|conn| {
        let mut statement = conn.prepare("SELECT text FROM notes NOT INDEXED")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    });
    read.await
}

async fn note(database: &Database, id: i64) -> Result<String> {
    let read = database.read(move |conn| {
        Ok(
            conn.query_row("SELECT text FROM notes WHERE id = ?1", [id], |row| {
                row.get(0)
            })?,
        )
    });
    read.await
}

#[tokio::test]
async fn a_read_that_trips_over_damage_stops_writes_and_not_reads() {
    let (_folder, database, path, _) = damaged().await;
    assert_eq!(database.damage(), None);
    insert(&database, "before it is known").await.unwrap();
    let mut told = database.watch_damage();
    assert!(matches!(all(&database).await, Err(Error::Sqlite(_))));
    let found = database.damage().unwrap();
    assert!(
        found.found_by.starts_with("a read at tests/it/damage.rs:"),
        "{}",
        found.found_by
    );
    assert!(found.problem.contains("malformed"), "{}", found.problem);
    assert!(told.has_changed().unwrap());
    assert_eq!(told.borrow_and_update().as_ref(), Some(&found));
    let refused = insert(&database, "after it").await;
    assert!(matches!(refused, Err(Error::Damaged)), "{refused:?}");
    assert!(note(&database, 1).await.unwrap().starts_with("note 0 "));
    assert!(path.with_added_extension("damaged").exists());
    assert_eq!(database.stats().await.damage, Some(found));
}

#[tokio::test]
async fn an_error_that_the_closure_makes_something_else_of_is_noticed_too() {
    let (_folder, database, ..) = damaged().await;
    let read = database.read(|conn| {
        let sql = "SELECT count(DISTINCT length(text)) FROM notes NOT INDEXED";
        let count = conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(Error::from).unwrap_or(-1))
    });
    assert_eq!(read.await.unwrap(), -1);
    assert!(database.damage().is_some());
    let (_folder, database, ..) = damaged().await;
    let read = database.read(|conn| {
        let sql = "SELECT count(DISTINCT length(text)) FROM notes NOT INDEXED";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(Error::abort)
    });
    assert!(matches!(read.await, Err(Error::Abort(_))));
    assert!(database.damage().is_some());
}

#[tokio::test]
async fn a_write_that_trips_over_damage_takes_its_group_with_it() {
    let (_folder, database, ..) = damaged().await;
    let write = database.write(|tx| {
        tx.execute("INSERT INTO notes (text) VALUES ('half right')", [])?;
        tx.execute("UPDATE notes SET text = text || '!' WHERE id = 301", [])?;
        Ok(())
    });
    let error = write.await.unwrap_err();
    assert!(
        matches!(error, Error::Sqlite(_) | Error::Damaged),
        "{error}"
    );
    let found = database.damage().unwrap();
    assert!(
        found.found_by.starts_with("a write at tests/it/damage.rs:"),
        "{}",
        found.found_by
    );
    assert!(note(&database, 501).await.is_err());
}

#[tokio::test]
async fn the_mark_outlives_a_restart_until_a_full_check_passes() {
    let (folder, database, path, sound) = damaged().await;
    let report = database.check(Depth::Quick).await.unwrap();
    assert!(!report.problems.is_empty());
    let found = database.damage().unwrap();
    assert_eq!(found.found_by, "a check (quick)");
    database.close().await;

    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    assert_eq!(database.damage(), Some(found));
    assert!(matches!(
        insert(&database, "refused").await,
        Err(Error::Damaged)
    ));
    database.close().await;

    std::fs::write(&path, sound).unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    assert!(database.check(Depth::Quick).await.unwrap().is_ok());
    assert!(database.damage().is_some(), "a quick check is not enough");
    assert!(database.check(Depth::Full).await.unwrap().is_ok());
    assert_eq!(database.damage(), None);
    assert!(!path.with_added_extension("damaged").exists());
    insert(&database, "taken again").await.unwrap();
}

#[tokio::test]
async fn a_backup_that_shows_damage_marks_the_database() {
    let (folder, database, ..) = damaged().await;
    let to = folder.path().join("copy.sqlite3");
    assert!(database.backup(&to, |_| ()).await.is_err());
    assert!(!to.exists());
    assert_eq!(database.damage().unwrap().found_by, "a backup");
}

#[tokio::test]
async fn a_mark_that_cannot_be_written_is_not_taken_for_mended() {
    let (_folder, database, path, _) = damaged().await;
    let mark = path.with_added_extension("damaged");
    // A folder of that name: the mark cannot be made, and something is there.
    std::fs::create_dir(&mark).unwrap();
    assert!(all(&database).await.is_err());
    assert!(database.damage().is_some());
    std::fs::remove_dir(&mark).unwrap();
    database.look_for_mark();
    assert!(database.damage().is_some(), "nobody has mended it");
}

#[tokio::test]
async fn what_another_process_has_found_or_mended_is_heard_of() {
    let (folder, database, path, sound) = damaged().await;
    let other = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    assert!(!other.check(Depth::Quick).await.unwrap().is_ok());
    assert_eq!(database.damage(), None);
    database.look_for_mark();
    assert_eq!(database.damage(), other.damage());
    database.close().await;
    other.close().await;

    std::fs::write(&path, &sound).unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    let other = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    assert!(other.check(Depth::Full).await.unwrap().is_ok());
    assert!(database.damage().is_some());
    database.look_for_mark();
    assert_eq!(database.damage(), None);
    insert(&database, "taken again").await.unwrap();
}

#[tokio::test]
async fn damage_that_is_found_while_a_check_runs_is_not_taken_back_by_it() {
    let (_folder, database) = database().await;
    let rows = database.write(|tx| {
        Ok(tx.execute_batch(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 200000)
             INSERT INTO notes (text) SELECT 'note ' || i FROM n;",
        )?)
    });
    rows.await.unwrap();
    let mut check = Box::pin(database.check(Depth::Full));
    assert!(is_pending(&mut check).await);
    let read = database.read(|_| -> Result<()> {
        let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(rusqlite::Error::SqliteFailure(corrupt, None).into())
    });
    assert!(read.await.is_err());
    assert!(check.await.unwrap().is_ok());
    assert!(database.damage().is_some());
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_is_reported_and_is_no_damage() {
    let (_folder, database) = database().await;
    let write = database.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE parents (id INTEGER PRIMARY KEY);
             CREATE TABLE children (parent INTEGER REFERENCES parents (id));",
        )?;
        Ok(())
    });
    write.await.unwrap();
    let path = database.path().to_owned();
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let other = rusqlite::Connection::open(path).unwrap();
    other
        .execute_batch("PRAGMA foreign_keys = 0; INSERT INTO children VALUES (7)")
        .unwrap();
    let report = database.check(Depth::Full).await.unwrap();
    assert!(report.problems.is_empty() && !report.is_ok());
    let expected = "row 1 of children refers to a row of parents that is not there";
    assert_eq!(report.violations, [expected]);
    assert_eq!(database.damage(), None);
}

/// The answer of `/ready`.
async fn ready(site: &TestProcess) -> (u16, Value) {
    let answer = client().get(site.url("/ready")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn status(url: String) -> u16 {
    client().get(url).send().await.unwrap().status().as_u16()
}

async fn stop(mut site: TestProcess) {
    site.terminate();
    assert!(site.wait(SOON).await.success(), "{}", site.log());
}

/// A site whose only monitor lies on a damaged page; and the monitor's page.
async fn damaged_site(folder: &TempDir, webhook: &Webhook) -> (TestProcess, String, Client) {
    let target = Target::answers("hello").await;
    let builder = || TestProcess::builder().folder(folder.path());
    let site = builder().start().await;
    let expected = json!({
        "ready": true, "role": "serving", "progress": null, "problems": [], "warnings": [],
    });
    assert_eq!(ready(&site).await, (200, expected));
    let monitor = Monitor::new("a monitor of some name", &target.url("/"));
    let page = monitor.create(&site).await;
    let owner = site.owner().await;
    stop(site).await;
    damage(
        &folder.path().join("data/site.sqlite3"),
        "a monitor of some name",
    );
    let told = builder().variable("HOUSEBOAT_SITE__WEBHOOK_URL", webhook.url());
    (told.start().await, page, owner)
}

#[tokio::test]
async fn a_damaged_site_stays_up_says_so_and_tells_its_owner() {
    let (folder, webhook) = (TempDir::new().unwrap(), Webhook::listen().await);
    let (site, page, owner) = damaged_site(&folder, &webhook).await;
    // The jobs trip over it as well, and may be first.
    let _ = status(site.url(&page)).await;
    let (code, answer) = wait_for("not ready", SOON, async || {
        let answer = ready(&site).await;
        (answer.0 != 200).then_some(answer)
    })
    .await;
    assert_eq!(code, 503);
    assert_eq!(answer["ready"], false);
    let problem = answer["problems"][0].as_str().unwrap();
    let begin = "the database is damaged (found 20";
    assert!(problem.starts_with(begin), "{answer}");
    assert_eq!(status(site.url("/up")).await, 200);
    let new = Monitor::new("another", &site.url("/up"));
    let refused = post_form(&owner, &site.url("/monitors"), &new.pairs()).await;
    assert_eq!(refused.unwrap().status(), 503);
    let alert = wait_for("alert", SOON, async || {
        let posts = webhook.posts().into_iter();
        let mut of_damage = posts.filter(|post| post["event"] == "database_damaged");
        of_damage.next()
    })
    .await;
    let problem = alert["problem"].as_str().unwrap();
    assert!(problem.contains("malformed"), "{alert}");
    let words = "the database is damaged: it takes no writes";
    assert_eq!(site.log().matches(words).count(), 1, "{}", site.log());
}

#[tokio::test]
async fn a_site_that_was_found_damaged_starts_and_says_so() {
    let (folder, webhook) = (TempDir::new().unwrap(), Webhook::listen().await);
    let (site, page, _) = damaged_site(&folder, &webhook).await;
    let _ = status(site.url(&page)).await;
    wait_for("not ready", SOON, async || {
        (ready(&site).await.0 != 200).then_some(())
    })
    .await;
    stop(site).await;
    let site = TestProcess::builder().folder(folder.path()).start().await;
    assert_eq!(ready(&site).await.0, 503);
    let log = site.log();
    assert!(log.contains("found damaged earlier"), "{log}");
    stop(site).await;
    let check = run(folder.path(), &["check", "--full"], &[]);
    assert_eq!(check.code, Some(1));
    assert!(
        check.out.contains("site.sqlite3: damaged\n"),
        "{}",
        check.out
    );
}

#[tokio::test]
async fn a_killed_site_is_checked_and_a_closed_one_is_not() {
    if !slow("the check after a kill") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let start = async || TestProcess::builder().folder(folder.path()).start().await;
    let checked = async |site: &TestProcess| {
        wait_for("check", SOON, async || {
            let log = site.log();
            log.contains("the database has been checked").then_some(log)
        })
        .await
    };
    let mut site = start().await;
    // A file that nobody has ever checked is.
    assert!(checked(&site).await.contains("depth=Full"));
    site.kill();
    let mut site = start().await;
    let log = checked(&site).await;
    assert!(
        log.contains("did not close the database") && log.contains("depth=Quick"),
        "{log}"
    );
    site.terminate();
    assert!(site.wait(SOON).await.success());
    let site = start().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!site.log().contains("checked"), "{}", site.log());
}

#[tokio::test]
async fn only_a_full_check_finds_an_index_that_lacks_rows() {
    let (_folder, database) = database().await;
    insert(&database, "one").await.unwrap();
    let write = database.write(|tx| {
        tx.execute_batch(
            "CREATE INDEX by_text ON notes (text);
             PRAGMA writable_schema = 1;
             UPDATE sqlite_schema SET sql = 'CREATE INDEX by_text ON notes (text || 1)'
             WHERE name = 'by_text';
             PRAGMA writable_schema = 0;",
        )?;
        Ok(())
    });
    write.await.unwrap();
    assert!(database.check(Depth::Quick).await.unwrap().is_ok());
    assert_eq!(database.damage(), None);
    let report = database.check(Depth::Full).await.unwrap();
    assert_eq!(report.violations, [""; 0]);
    assert!(
        report.problems[0].contains("missing from index by_text"),
        "{report:?}"
    );
    assert_eq!(database.damage().unwrap().found_by, "a check (full)");
}

#[tokio::test]
async fn a_quick_check_of_a_marked_file_says_that_it_is_marked() {
    let folder = TempDir::new().unwrap();
    assert_eq!(run(folder.path(), &["migrate"], &[]).code, Some(0));
    let mark = folder.path().join("data/site.sqlite3.damaged");
    std::fs::write(&mark, "found by somebody").unwrap();
    let quick = run(folder.path(), &["check"], &[]);
    assert_eq!(quick.code, Some(1), "{}", quick.out);
    assert!(quick.out.contains("marked as damaged by"), "{}", quick.out);
    let full = run(folder.path(), &["check", "--full"], &[]);
    assert_eq!(full.code, Some(0), "{}{}", full.out, full.err);
    assert!(!mark.exists());
    assert_eq!(run(folder.path(), &["check"], &[]).code, Some(0));
}
