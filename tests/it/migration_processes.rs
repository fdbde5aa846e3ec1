//! Migrations by several processes, and by one that is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::command::STEPS;
use crate::support::command::all_applied;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_mins(1);

/// The site's file, opened as another program would.
fn foreign(folder: &Path) -> Connection {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "another program knows nothing of the settings"
    )]
    let connection = Connection::open(folder.join("data/site.sqlite3")).unwrap();
    connection.busy_timeout(SOON).unwrap();
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    connection
}

/// A file that has content and lacks every migration, the first of which takes long: its entry in the books
/// rewrites a table, some thousand times.
fn slow_to_migrate(folder: &Path) -> Connection {
    let connection = foreign(folder);
    let sql = "
        CREATE TABLE ballast (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO ballast (text) SELECT printf('%0500d', i) FROM n;
        CREATE TABLE migrations_queue (version INTEGER PRIMARY KEY, name TEXT, applied_on TEXT, checksum TEXT);
        CREATE TABLE turns (i INTEGER);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO turns SELECT i FROM n;
        CREATE TRIGGER rewrite AFTER UPDATE ON turns
        BEGIN UPDATE ballast SET text = text || 'x'; END;
        CREATE TRIGGER slow AFTER INSERT ON migrations_queue
        WHEN (SELECT count(*) FROM turns) > 0
        BEGIN UPDATE turns SET i = -i; END;
    ";
    connection.execute_batch(sql).unwrap();
    connection
}

/// Every row of the ballast, and the tables that there are.
fn content(connection: &Connection) -> (i64, i64, String) {
    let sql = "SELECT (SELECT count(*) FROM ballast), (SELECT sum(length(text)) FROM ballast), \
               (SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema ORDER BY name))";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    connection.query_row(sql, [], row).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn processes_that_migrate_together_apply_each_step_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let migrate = || run(folder.path(), &["migrate"], &[]);
        let printed = std::thread::scope(|scope| {
            let started: Vec<_> = (0..4).map(|_| scope.spawn(migrate)).collect();
            let ended = started.into_iter().map(|thread| thread.join().unwrap());
            ended.collect::<Vec<_>>()
        });
        let mut applied = BTreeMap::new();
        for printed in &printed {
            assert_eq!(printed.code, Some(0), "{printed:?}");
            let lines = printed
                .out
                .lines()
                .filter_map(|line| line.strip_suffix(": applied now"));
            for line in lines {
                *applied.entry(line.to_owned()).or_insert(0) += 1;
            }
        }
        let once = BTreeMap::from(STEPS.map(|step| (step.to_owned(), 1)));
        assert_eq!(applied, once, "{printed:?}");
    }
}

#[tokio::test]
async fn a_lock_is_waited_for_beyond_the_busy_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let other = foreign(folder.path());
    other
        .execute_batch("CREATE TABLE theirs (id INTEGER); BEGIN IMMEDIATE")
        .unwrap();
    let mut migrating = TestProcess::builder()
        .folder(folder.path())
        .argument("migrate")
        .variable("HOUSEBOAT_DATABASE__BUSY_TIMEOUT_MS", "0")
        .spawn();
    let waiting = async || {
        migrating
            .log()
            .contains("waiting for it, to migrate")
            .then_some(())
    };
    wait_for("line that it waits", SOON, waiting).await;
    other.execute_batch("ROLLBACK").unwrap();
    let status = migrating.wait(SOON).await;
    assert!(status.success(), "{}", migrating.log());
    let status = run(folder.path(), &["migrate", "--status"], &[]);
    assert_eq!(
        status.out.matches(": applied 20").count(),
        STEPS.len(),
        "{status:?}"
    );
}

/// Starts the migration, with a cache that holds next to nothing, and gives the process once its transaction has
/// written something.
async fn begun(folder: &Path, command: &str, variables: &[(&str, &str)]) -> TestProcess {
    let mut migrating = TestProcess::builder()
        .folder(folder)
        .argument(command)
        .variable("HOUSEBOAT_DATABASE__CACHE_PAGES", "10");
    for (name, value) in variables {
        migrating = migrating.variable(name, value);
    }
    let migrating = migrating.spawn();
    let copied = async || {
        migrating
            .log()
            .contains("copied before migrating")
            .then_some(())
    };
    wait_for("copy", SOON, copied).await;
    // Changed pages that the cache does not hold go to the WAL before the commit.
    let wal = folder.join("data/site.sqlite3-wal");
    let start = std::fs::metadata(&wal).map_or(0, |wal| wal.len());
    let written = async || (std::fs::metadata(&wal).ok()?.len() > start + 100_000).then_some(());
    wait_for("write of the migration", SOON, written).await;
    migrating
}

#[tokio::test]
async fn a_migration_that_is_killed_leaves_the_file_as_it_was_and_the_copy_whole() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let connection = slow_to_migrate(folder.path());
    let before = content(&connection);
    drop(connection);
    let mut migrating = begun(folder.path(), "migrate", &[]).await;
    migrating.kill();

    let connection = foreign(folder.path());
    assert_eq!(content(&connection), before);
    let names = names(folder.path());
    let copies: Vec<_> = names
        .iter()
        .filter(|name| name.contains(".before-migration-"))
        .collect();
    let [copy] = &copies[..] else {
        panic!("{names:?}")
    };
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let copy = Connection::open(folder.path().join("data").join(copy)).unwrap();
    assert_eq!(content(&copy), before);
    let check: String = copy
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    drop(copy);

    // Quick this time.
    connection.execute_batch("DELETE FROM turns").unwrap();
    let again = run(folder.path(), &["migrate"], &[]);
    assert_eq!(again.out, all_applied(), "{again:?}");
    let check = run(folder.path(), &["check"], &[]);
    assert_eq!(check.out, "data/site.sqlite3: ok\n", "{check:?}");
}

/// Starts a site that has to migrate for long, tells it to stop, and gives it once it has heard that.
async fn told_to_stop(folder: &Path, stop_ms: &str) -> TestProcess {
    let variables = [
        ("HOUSEBOAT_SERVER__STOP_MS", stop_ms),
        ("HOUSEBOAT_QUEUE__STOP_MS", "0"),
    ];
    let site = begun(folder, "serve", &variables).await;
    let log = site.log();
    let (before, after) = (log.find("copying the database"), log.find("copied before"));
    assert!(before.is_some() && before < after, "{log}");
    site.terminate();
    let stops = async || site.log().contains("stopping;").then_some(());
    wait_for("line that it stops", SOON, stops).await;
    site
}

#[tokio::test]
async fn a_site_that_migrates_hears_the_stop_signals() {
    // Either the second signal comes in time, or the time that the first one leaves is over.
    for (stop_ms, signals) in [("600000", 2), ("100", 1)] {
        let folder: TempDir = tempfile::tempdir().unwrap();
        let connection = slow_to_migrate(folder.path());
        let before = content(&connection);
        drop(connection);
        let mut site = told_to_stop(folder.path(), stop_ms).await;
        if signals == 2 {
            site.terminate();
        }
        let status = site.wait(SOON).await;
        assert_eq!(status.code(), Some(0), "{}", site.log());
        assert!(!site.log().contains("listening"), "{}", site.log());
        assert_eq!(content(&foreign(folder.path())), before);
    }
}

#[tokio::test]
async fn a_dry_run_works_beside_a_running_site() {
    let site = TestProcess::start().await;
    let dry_run = || run(site.folder(), &["migrate", "--dry-run"], &[]);
    let tried = dry_run();
    assert_eq!(
        (tried.code, tried.out.as_str()),
        (Some(0), "nothing to migrate\n")
    );
    // What the site has written is in the copy, and what the books lack is tried.
    let connection = foreign(site.folder());
    connection
        .execute_batch("DELETE FROM migrations_site")
        .unwrap();
    drop(connection);
    let tried = dry_run();
    assert_eq!(tried.code, Some(1), "{tried:?}");
    assert!(
        tried
            .err
            .contains("cannot migrate: site V1__monitors, line ")
            && tried.err.contains("already exists"),
        "{tried:?}"
    );
    let names = names(site.folder());
    let is_left = |name: &String| name.contains("dry-run") || name.contains("migration");
    assert!(!names.iter().any(is_left), "{names:?}");
}

#[tokio::test]
async fn a_dry_run_that_is_killed_is_cleared_away_by_the_next_one() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    drop(slow_to_migrate(folder.path()));
    let before = names(folder.path());
    let mut tried = TestProcess::builder()
        .folder(folder.path())
        .argument("migrate")
        .argument("--dry-run")
        .variable("HOUSEBOAT_DATABASE__CACHE_PAGES", "10")
        .spawn();
    let place = folder.path().join("data/site.sqlite3.dry-run");
    let wal = place.join("copy.sqlite3-wal");
    let written = async || (std::fs::metadata(&wal).ok()?.len() > 100_000).then_some(());
    wait_for("write of the migration", SOON, written).await;
    let dry_run = || run(folder.path(), &["migrate", "--dry-run"], &[]);
    let second = dry_run();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("another process tries"), "{second:?}");
    tried.kill();
    assert!(wal.exists(), "{:?}", names(folder.path()));

    // Quick this time.
    let connection = foreign(folder.path());
    connection.execute_batch("DELETE FROM turns").unwrap();
    drop(connection);
    let again = dry_run();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(names(folder.path()), before);
}

#[tokio::test]
async fn a_dry_run_changes_no_byte_of_what_a_dead_process_left() {
    let mut site = TestProcess::start().await;
    site.kill();
    let content = || {
        let read = |name| std::fs::read(site.folder().join("data").join(name)).unwrap();
        (read("site.sqlite3"), read("site.sqlite3-wal"))
    };
    let before = content();
    assert!(!before.1.is_empty(), "nothing is left in the WAL");
    let tried = run(site.folder(), &["migrate", "--dry-run"], &[]);
    assert_eq!(
        (tried.code, tried.out.as_str()),
        (Some(0), "nothing to migrate\n"),
        "{tried:?}"
    );
    assert!(content() == before, "a dry run changed something");
}

#[test]
fn a_dry_run_prints_what_would_be_applied_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tried = run(
        folder.path(),
        &["migrate", "--dry-run", "--to", "site:1"],
        &[],
    );
    assert_eq!(tried.code, Some(0), "{tried:?}");
    let lines: Vec<&str> = tried.out.lines().collect();
    assert_eq!(lines.len(), STEPS.len(), "{tried:?}");
    assert!(
        lines[0].starts_with("queue V1__jobs: would be applied, and took ")
            && lines[0].ends_with(" ms on a copy"),
        "{tried:?}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let wrong = run(folder.path(), &["migrate", "--to", "site"], &[]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.err.contains("such as site:V3"), "{wrong:?}");
}

#[tokio::test]
async fn the_status_changes_no_byte_of_what_a_dead_process_left() {
    let mut site = TestProcess::start().await;
    site.kill();
    let files = || {
        ["site.sqlite3", "site.sqlite3-wal"]
            .map(|name| std::fs::read(site.folder().join("data").join(name)).unwrap())
    };
    let before = files();
    assert!(!before[1].is_empty(), "there is nothing in the WAL");
    let status = run(site.folder(), &["migrate", "--status"], &[]);
    assert_eq!(status.code, Some(0), "{}", status.err);
    assert!(
        status.out.contains("site V1__monitors: applied "),
        "{}",
        status.out
    );
    assert!(files() == before, "it has changed a file");
}
