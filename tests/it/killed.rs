//! Backups and restores killed at each of their steps.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::backup::DATABASE;
use crate::backup::names;
use crate::backup::notes;
use crate::backup::open;
use crate::restore::kept_names;
use crate::restore::restore;
use crate::restore::two_files;
use crate::restore::wal_of_the_newer_half;
use crate::support::cache::put_in;
use crate::support::command::run;
use crate::support::kills;
use crate::support::kills::Step;
use crate::support::process::TestProcess;
use crate::support::site::number;
use crate::support::waiting::slow;

const ROWS: i64 = 2_000;
/// Where not all tests are wanted, each so many steps.
const FEW: usize = 5;
const SOON: Duration = Duration::from_secs(20);
const GARBAGE: &str = "this is no database any more. ";

#[tokio::test]
async fn a_killed_backup_leaves_a_whole_file_or_none() {
    const BACKUP: [&str; 2] = ["backup", "copy"];
    let test = "a_killed_backup_leaves_a_whole_file_or_none";
    if !kills::are_possible(test) {
        return;
    }
    let (template, _) = two_files(ROWS).await;
    std::fs::remove_file(template.path().join("copy")).unwrap();
    for step in wanted(test, template.path(), &BACKUP) {
        let folder = copy_of(template.path());
        let to = folder.path().join("copy");
        kills::kill_at(folder.path(), &BACKUP, &[DATABASE], &step);
        if to.exists() {
            assert_eq!(notes(&to), ROWS, "{step:?}");
            std::fs::remove_file(&to).unwrap();
        }
        let again = run(folder.path(), &BACKUP, &[DATABASE]);
        assert_eq!(again.code, Some(0), "{step:?}: {}", again.err);
        assert_eq!(notes(&to), ROWS, "{step:?}");
        assert_eq!(names(folder.path()), ["copy", "data"], "{step:?}");
    }
}

#[tokio::test]
async fn a_killed_restore_leaves_the_old_file_or_the_new_one() {
    let test = "a_killed_restore_leaves_the_old_file_or_the_new_one";
    if !kills::are_possible(test) {
        return;
    }
    let (template, _) = two_files(ROWS).await;
    cache_something(template.path()).await;
    for step in wanted(test, template.path(), &["restore", "copy"]) {
        let folder = copy_of(template.path());
        let path = folder.path().join("data/test.sqlite3");
        kills::kill_at(folder.path(), &["restore", "copy"], &[DATABASE], &step);
        let found = notes(&path);
        assert!(found == ROWS || found == ROWS / 2, "{step:?}: {found} rows");
        if found == ROWS {
            let again = restore(folder.path(), "copy");
            assert_eq!(again.code, Some(0), "{step:?}: {}", again.err);
            assert_eq!(notes(&path), ROWS / 2, "{step:?}");
        }
        assert_eq!(cached(folder.path()), 0, "{step:?}");
        let data = path.parent().unwrap();
        let kept = kept_names(data);
        assert_eq!(kept.len(), 1, "{step:?}: {kept:?}");
        assert_eq!(notes(&data.join(&kept[0])), ROWS, "{step:?}");
        assert_left_clean(data, &step);
    }
}

#[tokio::test]
async fn a_damaged_file_is_kept_with_its_wal_however_often_the_restore_is_killed() {
    let test = "a_damaged_file_is_kept_with_its_wal_however_often_the_restore_is_killed";
    if !kills::are_possible(test) {
        return;
    }
    let (template, path) = two_files(ROWS).await;
    cache_something(template.path()).await;
    let wal = wal_of_the_newer_half(&template.path().join("copy"));
    let garbage = GARBAGE.repeat(300);
    std::fs::write(path.with_file_name("test.sqlite3-wal"), &wal).unwrap();
    std::fs::write(&path, &garbage).unwrap();
    for step in wanted(test, template.path(), &["restore", "copy"]) {
        let folder = copy_of(template.path());
        let path = folder.path().join("data/test.sqlite3");
        let data = path.parent().unwrap();
        kills::kill_at(folder.path(), &["restore", "copy"], &[DATABASE], &step);
        if std::fs::read(&path).unwrap() == garbage.as_bytes() {
            let again = restore(folder.path(), "copy");
            assert_eq!(again.code, Some(0), "{step:?}: {}", again.err);
        }
        assert_eq!(notes(&path), ROWS / 2, "{step:?}");
        let kept = kept_names(data);
        assert_eq!(kept.len(), 2, "{step:?}: {kept:?}");
        assert_eq!(kept[1], format!("{}-wal", kept[0]), "{step:?}");
        let [old, old_wal] = [0, 1].map(|index| std::fs::read(data.join(&kept[index])).unwrap());
        assert!(old == garbage.as_bytes() && old_wal == wal, "{step:?}");
        assert_left_clean(data, &step);
    }
}

/// The steps of a command to kill it at; the command itself runs on a copy of `template`.
fn wanted(test: &str, template: &Path, arguments: &[&str]) -> Vec<Step> {
    let steps = kills::steps(copy_of(template).path(), arguments, &[DATABASE]);
    assert!(steps.len() > FEW, "{steps:?}");
    // The last ones are the narrowest.
    let each = if slow(test) { 1 } else { FEW };
    steps.into_iter().rev().step_by(each).collect()
}

fn copy_of(template: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for inside in ["", "data"] {
        std::fs::create_dir_all(folder.path().join(inside)).unwrap();
        for name in names(&template.join(inside)) {
            let from = template.join(inside).join(&name);
            if from.is_file() {
                std::fs::copy(from, folder.path().join(inside).join(name)).unwrap();
            }
        }
    }
    folder
}

/// Puts a cache there that holds an entry.
async fn cache_something(folder: &Path) {
    let mut site = TestProcess::start().await;
    site.terminate();
    site.wait(SOON).await;
    let made = site.folder().join("data/cache.sqlite3");
    std::fs::copy(made, folder.join("data/cache.sqlite3")).unwrap();
    put_in(&folder.join("data"), "page").await;
    assert_eq!(cached(folder), 1);
}

fn cached(folder: &Path) -> i64 {
    number(&open_cache(folder), "SELECT count(*) FROM entries")
}

fn open_cache(folder: &Path) -> rusqlite::Connection {
    open(&folder.join("data/cache.sqlite3"))
}

fn assert_left_clean(data: &Path, step: &Step) {
    let mut left = names(data);
    left.retain(|name| !name.contains(".before-restore-") && !name.starts_with("cache"));
    assert_eq!(left, ["test.sqlite3", "test.sqlite3.lock"], "{step:?}");
}
