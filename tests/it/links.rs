//! A database that is given by a link to it: what belongs to a file is beside its real name.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use tempfile::TempDir;

use crate::backup::DATABASE;
use crate::backup::names;
use crate::backup::notes;
use crate::database::NOTES;
use crate::database::insert;
use crate::database::settings;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::tmpfs::Tmpfs;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// A folder in which `data/test.sqlite3` leads to `disk/real.sqlite3`, which is not there yet.
fn linked() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path();
    std::fs::create_dir(real.join("disk")).unwrap();
    std::fs::create_dir(real.join("data")).unwrap();
    symlink("../disk/real.sqlite3", real.join("data/test.sqlite3")).unwrap();
    let real = real.join("disk/real.sqlite3");
    (folder, real)
}

async fn open(folder: &TempDir) -> Database {
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    database
}

#[tokio::test]
async fn the_wal_is_found_by_who_reads_the_file_as_it_is() {
    let (folder, real) = linked();
    let database = open(&folder).await;
    insert(&database, "in the WAL").await.unwrap();
    assert_eq!(
        std::fs::canonicalize(database.path()).unwrap(),
        std::fs::canonicalize(&real).unwrap()
    );
    assert!(!database.path().is_symlink());
    assert!(database.stats().await.wal_bytes > 0);
    let settings = settings(folder.path());
    let dry = Database::dry_run(&settings, &[NOTES], None);
    assert_eq!(dry.await.unwrap(), [], "the table is in the WAL");
    let recovered = run(folder.path(), &["recover"], &[DATABASE]);
    assert_eq!(recovered.code, Some(0), "{}", recovered.err);
    assert_eq!(
        notes(&folder.path().join("data/test.sqlite3.recovered")),
        1,
        "{}",
        recovered.out
    );
    database.close().await;
    assert_eq!(names(&folder.path().join("disk")), ["real.sqlite3"]);
}

#[tokio::test]
async fn one_server_serves_a_file_that_the_first_of_them_makes() {
    let (folder, real) = linked();
    let by_link = TestProcess::builder()
        .folder(folder.path())
        .variable(DATABASE.0, DATABASE.1)
        .start()
        .await;
    let mut by_name = TestProcess::builder()
        .folder(folder.path())
        .variable(DATABASE.0, &real)
        .variable("HOUSEBOAT_CACHE__PATH", "data/other.sqlite3")
        .spawn();
    let ended = by_name.wait(SOON).await;
    assert_eq!(ended.code(), Some(1));
    // The log is read beside this.
    let is_said = async || {
        let is_said = by_name.log().contains("another process serves");
        is_said.then_some(())
    };
    wait_for("refusal", SOON, is_said).await;
    drop(by_link);
}

#[tokio::test]
async fn a_file_whose_link_leads_nowhere_is_restored_to_the_end_of_the_link() {
    let (folder, real) = linked();
    let database = open(&folder).await;
    insert(&database, "kept").await.unwrap();
    let copy = folder.path().join("copy");
    database.backup(&copy, |_| {}).await.unwrap();
    database.close().await;
    std::fs::remove_file(&real).unwrap();
    let restored = run(folder.path(), &["restore", "copy"], &[DATABASE]);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert!(folder.path().join("data/test.sqlite3").is_symlink());
    assert_eq!(notes(&real), 1);
}

#[tokio::test]
async fn the_notes_of_litestream_are_kept_in_the_folder_that_they_are_in() {
    let Some(disk) = Tmpfs::mount("64m") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    symlink(disk.path().join("real.sqlite3"), data.join("test.sqlite3")).unwrap();
    let database = open(&folder).await;
    let copy = folder.path().join("copy");
    database.backup(&copy, |_| {}).await.unwrap();
    database.close().await;
    for notes in [
        data.join(".test.sqlite3-litestream/ltx"),
        disk.path().join(".real.sqlite3-litestream/ltx"),
    ] {
        std::fs::create_dir_all(notes).unwrap();
    }
    let restored = run(folder.path(), &["restore", "copy"], &[DATABASE]);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    for (folder, name) in [(data.as_path(), ".test"), (disk.path(), ".real")] {
        let all = names(folder);
        let notes: Vec<_> = all.iter().filter(|name| name.ends_with("stream")).collect();
        assert_eq!(notes.len(), 1, "{all:?}");
        let begin = format!("{name}.sqlite3.before-restore-");
        assert!(notes[0].starts_with(&begin), "{notes:?}");
        assert!(folder.join(notes[0]).join("ltx").is_dir());
        assert!(restored.out.contains(notes[0]), "{}", restored.out);
    }
}
