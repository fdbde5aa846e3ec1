//! The copies that are kept of a database before it is migrated, and the one that a migration is tried on.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Depth;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Settings;
use houseboat::database::Target;
use jiff::Timestamp;

use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
use crate::database::settings;
use crate::database::texts;
use crate::migrations::MORE;
use crate::support::mounts;
use crate::support::waiting::wait_for;

const INFIX: &str = ".before-migration-";

/// The names in the database's folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn copies(folder: &Path) -> Vec<PathBuf> {
    let names = names(folder).into_iter();
    let copies = names.filter(|name| name.contains(INFIX));
    copies.map(|name| folder.join("data").join(name)).collect()
}

fn open(path: &Path) -> Database {
    let settings = Settings {
        path: path.to_owned(),
        ..Settings::default()
    };
    Database::open(&settings, Clock::system()).unwrap()
}

/// One more set of one file, which no other has.
fn another(number: usize) -> Migrations {
    let name: &'static str =
        String::leak(format!("set_{}", "abcdefgh".get(number..=number).unwrap()));
    Migrations::new(name, &[("V1__nothing", "SELECT 1;")])
}

#[tokio::test]
async fn a_new_file_is_not_copied_and_nor_is_one_that_lacks_nothing() {
    let (folder, database) = database().await;
    insert(&database, "one").await.unwrap();
    assert!(database.migrate(&[NOTES]).await.unwrap().is_empty());
    assert!(copies(folder.path()).is_empty());
}

#[tokio::test]
async fn a_copy_has_everything_of_before_and_nothing_of_after() {
    let (folder, database) = database().await;
    // Still in the WAL.
    insert(&database, "one").await.unwrap();
    database.migrate(&[MORE]).await.unwrap();
    let copies = copies(folder.path());
    let [copy] = &copies[..] else {
        panic!("{copies:?}")
    };
    let copy = open(copy);
    assert_eq!(texts(&copy).await, ["one"]);
    let steps = copy.migrations(&[MORE]).await.unwrap();
    let applied: Vec<_> = steps.iter().map(|step| step.applied_at.is_some()).collect();
    assert_eq!(applied, [true, false]);
}

#[tokio::test]
async fn the_last_three_copies_are_kept_and_what_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap());
    let database = Database::open(&settings(folder.path()), clock.clone()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    let others = ["by-hand", "20261121T100000.000Z.zip", "20200101"];
    for other in others {
        let name = format!("test.sqlite3{INFIX}{other}");
        std::fs::write(folder.path().join("data").join(name), "mine").unwrap();
    }
    let partial = format!("test.sqlite3{INFIX}20261121T095959.000Z.partial");
    let data = folder.path().join("data");
    std::fs::write(data.join(format!("{partial}.lock")), "").unwrap();
    std::fs::write(data.join(partial), "half").unwrap();
    for number in 0..5 {
        // Two of them in one millisecond.
        if number != 3 {
            clock.advance(Duration::from_secs(1));
        }
        database.migrate(&[another(number)]).await.unwrap();
    }
    let found = names(folder.path());
    let found: Vec<&str> = found
        .iter()
        .filter_map(|name| name.strip_prefix("test.sqlite3.before-migration-"))
        .collect();
    assert_eq!(
        found,
        [
            "20200101",
            "20261121T100000.000Z.zip",
            "20261121T100003.000Z",
            "20261121T100003.001Z",
            "20261121T100004.000Z",
            "by-hand",
        ]
    );
}

#[tokio::test]
async fn a_migration_that_fails_leaves_no_copy_and_takes_none() {
    let (folder, database) = database().await;
    for number in 0..3 {
        database.migrate(&[another(number)]).await.unwrap();
    }
    let before = copies(folder.path());
    assert_eq!(before.len(), 3);
    let broken = Migrations::new("broken", &[("V1__broken", "SELECT nothing FROM nowhere;")]);
    for _ in 0..4 {
        database.migrate(&[broken]).await.unwrap_err();
    }
    assert_eq!(copies(folder.path()), before);
}

#[tokio::test]
async fn no_copy_is_made_where_none_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        copy_before_migration: false,
        ..settings(folder.path())
    };
    let database = Database::open(&settings, Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    database.migrate(&[MORE]).await.unwrap();
    assert!(copies(folder.path()).is_empty());
}

#[tokio::test]
async fn a_damaged_file_is_not_migrated() {
    let (folder, database) = database().await;
    for number in 0..500 {
        let text = format!("{number} {}", "x".repeat(200));
        insert(&database, &text).await.unwrap();
    }
    database.close().await;
    let path = settings(folder.path()).path;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let database = open(&path);
    let error = database.migrate(&[MORE]).await.unwrap_err().to_string();
    assert!(
        error.contains("nothing was changed") && error.contains("damaged"),
        "{error}"
    );
    assert!(copies(folder.path()).is_empty());
    database.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // Once it is known to be damaged it takes no writes at all, and what lacks nothing opens all the same.
    let database = open(&path);
    let report = database.check(Depth::Full).await;
    assert!(report.map_or(true, |report| !report.is_ok()));
    let refused = database.migrate(&[MORE]).await;
    assert!(matches!(refused, Err(Error::Damaged)), "{refused:?}");
    assert!(database.migrate(&[NOTES]).await.unwrap().is_empty());
}

#[tokio::test]
async fn there_is_no_way_down_but_a_copy_to_name() {
    let (folder, database) = database().await;
    database.migrate(&[MORE]).await.unwrap();
    database.migrate(&[another(0)]).await.unwrap();
    let target: Target = "notes:V1".parse().unwrap();
    let down = async || {
        let refused = database.migrate_to(&[MORE], &target).await;
        refused.unwrap_err().to_string()
    };
    let copies = copies(folder.path());
    assert_eq!(copies.len(), 2);
    assert_eq!(
        down().await,
        format!(
            "cannot migrate: the file has notes V2__colours, which is beyond V1, and there is no way down: \
             the copy {} is of before it",
            copies[0].display()
        )
    );
    std::fs::remove_file(&copies[0]).unwrap();
    assert!(down().await.ends_with("no copy of before it is kept"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_only_reads() {
    let (folder, database) = database().await;
    let checkpoints = database.stats().await.checkpoints;
    insert(&database, "in the WAL").await.unwrap();
    // The writer brings the WAL home when it is idle, and is not to do so between two looks.
    wait_for(
        "checkpoint of an idle writer",
        Duration::from_secs(20),
        async || (database.stats().await.checkpoints > checkpoints).then_some(()),
    )
    .await;
    let content = || {
        let names = names(folder.path()).into_iter();
        // The -shm is what readers write their marks in.
        let files = names.filter(|name| !name.ends_with("-shm"));
        let read = |name: String| {
            let bytes = std::fs::read(folder.path().join("data").join(&name)).unwrap();
            (name, bytes)
        };
        files.map(read).collect::<Vec<_>>()
    };
    let before = content();
    assert_eq!(before.len(), 2, "the file and its WAL");
    let settings = settings(folder.path());
    let steps = Database::dry_run(&settings, &[MORE], None).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].name, "V2__colours");
    assert!(steps[0].time.is_some() && steps[0].applied_at.is_none());
    assert!(content() == before, "a dry run changed something");
    let target = "notes:1".parse().unwrap();
    let steps = Database::dry_run(&settings, &[MORE], Some(&target)).await;
    assert!(steps.unwrap().is_empty());
    let broken = Migrations::new(
        "broken",
        &[(
            "V1__broken",
            "INSERT INTO notes (text) VALUES ('in the WAL');",
        )],
    );
    let error = Database::dry_run(&settings, &[broken], None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("broken V1__broken, line 1: UNIQUE constraint failed"),
        "{error}"
    );
    assert!(
        content() == before,
        "a dry run that failed changed something"
    );
}

#[tokio::test]
async fn a_dry_run_without_a_file_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let steps = Database::dry_run(&settings, &[MORE], None).await.unwrap();
    assert_eq!(steps.len(), 2);
    assert!(!folder.path().join("data").exists());
}

#[tokio::test]
async fn a_disk_without_room_for_a_copy_is_migrated_without_one() {
    if !mounts::are_possible("a_disk_without_room_for_a_copy_is_migrated_without_one") {
        return;
    }
    let (folder, database) = database().await;
    insert(&database, "one").await.unwrap();
    database.close().await;
    std::fs::create_dir(folder.path().join("small")).unwrap();
    let run = |arguments: &[&str]| {
        let script = "mount -t tmpfs -o size=8m none small && cp data/test.sqlite3 small/";
        let variables = [("HOUSEBOAT_DATABASE__PATH", "small/test.sqlite3")];
        mounts::run(folder.path(), script, arguments, &variables)
    };
    let migrated = run(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(
        migrated.err.contains("the disk has no room for a copy")
            && !migrated.err.contains("copied"),
        "{migrated:?}"
    );
    assert!(
        migrated.out.contains("site V1__monitors: applied now"),
        "{migrated:?}"
    );
    let tried = run(&["migrate", "--dry-run"]);
    assert_eq!(tried.code, Some(1), "{tried:?}");
    assert!(
        tried.err.contains("it is tried on a copy, which takes"),
        "{tried:?}"
    );
}
