//! Another file in the place of the database.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::backup::DATABASE;
use crate::backup::assert_sound;
use crate::backup::damage;
use crate::backup::fill;
use crate::backup::names;
use crate::backup::notes;
use crate::backup::open;
use crate::database::database;
use crate::support::cache::put_in;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::number;

/// A folder with a database of `rows` notes, and a copy of it named `copy` that has half of them.
pub(crate) async fn two_files(rows: i64) -> (TempDir, PathBuf) {
    let (folder, database) = database().await;
    let path = database.path().to_owned();
    fill(&database, rows / 2).await;
    let copy = folder.path().join("copy");
    database.backup(&copy, |_| {}).await.unwrap();
    let more = "INSERT INTO notes (text) SELECT 'more ' || text FROM notes";
    database
        .write(|tx| Ok(tx.execute(more, [])?))
        .await
        .unwrap();
    database.close().await;
    (folder, path)
}

pub(crate) fn restore(folder: &Path, from: &str) -> Printed {
    run(folder, &["restore", from], &[DATABASE])
}

/// Waits for nobody.
fn restore_soon(folder: &Path, from: &str) -> Printed {
    let wait = ("HOUSEBOAT_DATABASE__BUSY_TIMEOUT_MS", "50");
    run(folder, &["restore", from], &[DATABASE, wait])
}

/// Every file of a folder and its bytes, but for the lock.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = names(folder).into_iter();
    files
        .filter(|name| Path::new(name).extension() != Some("lock".as_ref()))
        .map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// The one file that was kept.
fn kept(folder: &Path) -> PathBuf {
    let kept = kept_names(folder);
    assert_eq!(kept.len(), 1, "{kept:?}");
    folder.join(&kept[0])
}

pub(crate) fn kept_names(folder: &Path) -> Vec<String> {
    let mut kept = names(folder);
    kept.retain(|name| name.starts_with("test.sqlite3.before-restore-"));
    kept
}

#[tokio::test]
async fn the_file_is_there_then_and_the_old_one_is_kept() {
    let (folder, path) = two_files(200).await;
    let data = path.parent().unwrap();
    let notes_of_litestream = data.join(".test.sqlite3-litestream");
    std::fs::create_dir_all(notes_of_litestream.join("ltx")).unwrap();
    std::fs::write(data.join("test.sqlite3.damaged"), "").unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    let kept = kept(data);
    let kept_notes = format!(
        ".{}-litestream",
        kept.file_name().unwrap().to_str().unwrap()
    );
    for part in [
        "restored from copy (",
        kept.file_name().unwrap().to_str().unwrap(),
        &kept_notes,
    ] {
        assert!(restored.out.contains(part), "{part}: {}", restored.out);
    }
    assert_eq!((notes(&path), notes(&kept)), (100, 200));
    let mut expected = vec![
        kept_notes.clone(),
        "test.sqlite3".to_owned(),
        kept.file_name().unwrap().to_str().unwrap().to_owned(),
        "test.sqlite3.lock".to_owned(),
    ];
    expected.sort();
    assert_eq!(names(data), expected);
    assert!(data.join(kept_notes).join("ltx").is_dir());
    assert_eq!(notes(&folder.path().join("copy")), 100);
}

#[tokio::test]
async fn a_server_on_the_file_is_not_robbed_of_it() {
    let site = TestProcess::start().await;
    let made = run(site.folder(), &["backup", "copy"], &[]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let refused = run(site.folder(), &["restore", "copy"], &[]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("another process serves"),
        "{}",
        refused.err
    );
    assert!(
        !names(&site.folder().join("data"))
            .iter()
            .any(|name| name.contains("restor"))
    );
}

#[tokio::test]
async fn another_program_on_the_file_is_not_robbed_of_it_either() {
    let (folder, path) = two_files(20).await;
    let other = open(&path);
    assert_eq!(number(&other, "SELECT count(*) FROM notes"), 20);
    let refused = restore_soon(folder.path(), "copy");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("another program has") && refused.err.contains("stop it first"),
        "{}",
        refused.err
    );
    // It is said before anything else that takes long.
    std::fs::write(folder.path().join("text"), "this is no database. ").unwrap();
    let refused = restore_soon(folder.path(), "text");
    assert!(
        refused.err.contains("another program has"),
        "{}",
        refused.err
    );
    drop(other);
    assert_eq!(notes(&path), 20);
    assert_eq!(
        names(path.parent().unwrap()),
        ["test.sqlite3", "test.sqlite3.lock"]
    );
}

#[tokio::test]
async fn nor_is_it_robbed_of_a_damaged_file() {
    let (folder, path) = two_files(20).await;
    let other = open(&path);
    assert_eq!(number(&other, "SELECT count(*) FROM notes"), 20);
    let garbage = "this is no database any more. ".repeat(300);
    // By another process: to close the file here would end the locks of the connection.
    let source = folder.path().join("garbage");
    std::fs::write(&source, &garbage).unwrap();
    let copied = Command::new("cp").arg(&source).arg(&path).status().unwrap();
    assert!(copied.success());
    let refused = restore_soon(folder.path(), "copy");
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(
        refused.err.contains("another program has"),
        "{}",
        refused.err
    );
    drop(other);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), garbage);
}

#[tokio::test]
async fn what_is_no_sound_database_is_refused_and_nothing_is_changed() {
    let (folder, path) = two_files(400).await;
    let data = path.parent().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("text"), "this is no database. ".repeat(100)).unwrap();
    std::fs::write(file("empty"), "").unwrap();
    let whole = std::fs::read(file("copy")).unwrap();
    std::fs::write(file("cut"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(file("flipped"), &whole).unwrap();
    damage(&file("flipped"), 9);
    let before = (contents(data), names(folder.path()));
    for (from, reason) in [
        ("text", "text cannot be read: file is not a database"),
        ("empty", "empty is not a database"),
        (
            "cut",
            "cut cannot be read: database disk image is malformed",
        ),
        ("flipped", "flipped is damaged ("),
        ("missing", "missing: No such file"),
        ("data", "data is not a database"),
        ("data/test.sqlite3", "is the database itself"),
    ] {
        let refused = restore(folder.path(), from);
        assert_eq!(refused.code, Some(1), "{from}: {}", refused.out);
        assert!(
            refused.err.starts_with("cannot restore: ") && refused.err.contains(reason),
            "{from}: {}",
            refused.err
        );
        assert_eq!((contents(data), names(folder.path())), before, "{from}");
    }
}

#[tokio::test]
async fn a_wal_that_was_left_is_not_applied_to_the_new_file() {
    for is_damaged in [false, true] {
        let (folder, path) = two_files(2_000).await;
        let data = path.parent().unwrap();
        // What a kill leaves: a `-wal` with all of the newer half.
        let wal = wal_of_the_newer_half(&folder.path().join("copy"));
        std::fs::write(data.join("test.sqlite3-wal"), &wal).unwrap();
        if is_damaged {
            std::fs::write(&path, "this is no database any more. ".repeat(300)).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let restored = restore(folder.path(), "copy");
        assert_eq!(restored.code, Some(0), "{}", restored.err);
        assert_eq!(notes(&path), 1_000);
        let kept = kept_names(data);
        let kept_wal = kept.last().unwrap();
        assert!(kept_wal.ends_with("Z-wal"), "{kept:?}");
        assert_eq!(std::fs::read(data.join(kept_wal)).unwrap(), wal);
        assert_eq!(kept.len(), 1 + usize::from(is_damaged));
    }
}

#[tokio::test]
async fn what_is_no_database_any_more_is_kept_as_it_is_with_its_wal() {
    let (folder, path) = two_files(20).await;
    let data = path.parent().unwrap();
    let wal_path = data.join("test.sqlite3-wal");
    // A row that fits into pages that are there: the first page, which says what file this is, is not in the `-wal`.
    let conn = open(&path);
    conn.execute_batch("DELETE FROM notes WHERE id = 3")
        .unwrap();
    let wal = std::fs::read(&wal_path).unwrap();
    drop(conn);
    let garbage = "this is no database any more. ".repeat(3_000);
    std::fs::write(&path, &garbage).unwrap();
    std::fs::write(&wal_path, &wal).unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&path), 10);
    let kept = kept_names(data);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(
        std::fs::read_to_string(data.join(&kept[0])).unwrap(),
        garbage
    );
    assert_eq!(std::fs::read(data.join(&kept[1])).unwrap(), wal);
}

/// The `-wal` of this file after more notes, as long as somebody has it open.
pub(crate) fn wal_of_the_newer_half(path: &Path) -> Vec<u8> {
    let other = path.with_file_name("other");
    std::fs::copy(path, &other).unwrap();
    let conn = open(&other);
    conn.execute_batch(
        "PRAGMA wal_autocheckpoint = 0; INSERT INTO notes (text) SELECT 'late ' || text FROM notes",
    )
    .unwrap();
    assert_eq!(number(&conn, "SELECT count(*) FROM notes"), 2_000);
    std::fs::read(path.with_file_name("other-wal")).unwrap()
}

#[tokio::test]
async fn what_a_killed_server_left_in_the_wal_is_in_the_kept_file() {
    let (folder, path) = two_files(2_000).await;
    let data = path.parent().unwrap();
    std::fs::copy(folder.path().join("copy"), &path).unwrap();
    let wal = wal_of_the_newer_half(&folder.path().join("copy"));
    std::fs::write(data.join("test.sqlite3-wal"), wal).unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!((notes(&path), notes(&kept(data))), (1_000, 2_000));
}

#[tokio::test]
async fn a_file_is_restored_with_its_own_wal_and_left_as_it_is() {
    let (folder, path) = two_files(2_000).await;
    let from = folder.path().join("copy");
    let wal = wal_of_the_newer_half(&from);
    std::fs::write(folder.path().join("copy-wal"), &wal).unwrap();
    let main = std::fs::read(&from).unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&path), 2_000);
    let late = "SELECT count(*) FROM notes WHERE text LIKE 'late %'";
    assert_eq!(number(&open(&path), late), 1_000);
    assert_eq!(std::fs::read(&from).unwrap(), main);
    assert_eq!(std::fs::read(folder.path().join("copy-wal")).unwrap(), wal);
}

#[tokio::test]
async fn a_write_that_was_broken_off_is_rolled_back_in_the_old_file_and_refused_in_the_new() {
    let (folder, path) = two_files(2_000).await;
    let data = path.parent().unwrap();
    let other = folder.path().join("other");
    let conn = open(&path);
    let sql =
        "PRAGMA journal_mode = delete; PRAGMA cache_size = 1; BEGIN; UPDATE notes SET text = id";
    conn.execute_batch(sql).unwrap();
    std::fs::copy(&path, &other).unwrap();
    std::fs::copy(
        data.join("test.sqlite3-journal"),
        folder.path().join("other-journal"),
    )
    .unwrap();
    drop(conn);
    let refused = restore(folder.path(), "other");
    assert!(
        refused
            .err
            .contains("other is amid a write that was broken off"),
        "{}",
        refused.err
    );
    std::fs::copy(&other, &path).unwrap();
    std::fs::copy(
        folder.path().join("other-journal"),
        data.join("test.sqlite3-journal"),
    )
    .unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&path), 1_000);
    let longest = "SELECT min(length(text)) FROM notes";
    assert!(number(&open(&kept(data)), longest) > 100);
    assert_eq!(notes(&kept(data)), 2_000);
}

#[tokio::test]
async fn a_second_name_that_a_kill_left_is_the_name_of_the_kept_file() {
    let (folder, path) = two_files(20).await;
    let data = path.parent().unwrap();
    let left = data.join("test.sqlite3.before-restore-20200101T000000Z");
    let others = data.join("test.sqlite3.before-restore-20190101T000000Z");
    std::fs::hard_link(&path, &left).unwrap();
    std::fs::write(&others, "an older one").unwrap();
    let restored = restore(folder.path(), "copy");
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&left), 20);
    assert_eq!(kept_names(data).len(), 2);
    assert_eq!(std::fs::read_to_string(others).unwrap(), "an older one");
}

#[tokio::test]
async fn what_was_cached_of_the_old_file_is_gone() {
    let mut site = TestProcess::start().await;
    let made = run(site.folder(), &["backup", "copy"], &[]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    site.kill();
    let data = site.folder().join("data");
    put_in(&data, "page").await;
    let conn = open(&data.join("cache.sqlite3"));
    assert_eq!(number(&conn, "SELECT count(*) FROM entries"), 1);
    let restored = run(site.folder(), &["restore", "copy"], &[]);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(number(&conn, "SELECT count(*) FROM entries"), 0);
    assert_sound(&conn);
}
