//! What comes out of the bucket, and what is said when it cannot.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use houseboat::database;
use houseboat::replication::Error;
use houseboat::replication::Lineage;
use houseboat::replication::Record;
use houseboat::replication::RestoreProgress;
use houseboat::replication::Settings;
use houseboat::replication::fits;
use houseboat::replication::restore;
use houseboat::replication::restore_to;
use jiff::Timestamp;

use crate::database::settings;
use crate::support::command::run;
use crate::support::log;
use crate::support::replica::FIRST;
use crate::support::replica::LONG;
use crate::support::replica::Replicated;
use crate::support::replica::SECOND;
use crate::support::replica::names;
use crate::support::replica::open;
use crate::support::replica::replication;
use crate::support::replica::rows;
use crate::support::s3::S3;
use crate::support::tmpfs::Tmpfs;

/// More than any of these should take; they are bounded by a stall of a second.
const BOUND: Duration = Duration::from_secs(10);

/// A server with the first generation, of five transactions of 100 rows each, and nobody who writes it.
pub(crate) async fn replica() -> (S3, Settings) {
    let s3 = S3::start().await;
    let settings = Settings {
        restore_stall_ms: 1_000,
        ..replication(&s3)
    };
    let site = Replicated::start(&settings, FIRST).await;
    for part in 0..5 {
        site.write(part * 100..part * 100 + 100).await;
        site.synced().await;
    }
    site.stop(LONG).await;
    (s3, settings)
}

pub(crate) async fn into(
    replication: &Settings,
    database: &database::Settings,
) -> Result<u64, (Error, Duration)> {
    let start = Instant::now();
    restore(replication, database, FIRST, None, |_| {})
        .await
        .map(|restored| restored.bytes)
        .map_err(|error| (error, start.elapsed()))
}

/// Fails to restore, in time, and leaves the folder as it was but for Litestream's settings.
pub(crate) async fn refused(replication: &Settings) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    let (error, took) = into(replication, &database).await.unwrap_err();
    assert!(took < BOUND, "{took:?}: {error}");
    let data = database.path.parent().unwrap();
    assert_eq!(names(data), ["test.sqlite3.litestream.yml"], "{error}");
    let told = error.to_string();
    assert!(!told.contains("houseboat-test-secret"), "{told}");
    error
}

#[tokio::test]
async fn a_restore_says_how_far_it_is_and_what_came() {
    let (_s3, replication) = replica().await;
    let folder = tempfile::tempdir().unwrap();
    let database = settings(&folder.path().join("a/folder/that/is/not/there"));
    let seen = RefCell::new(Vec::new());
    let tell = |progress| seen.borrow_mut().push(progress);
    let restored = restore(&replication, &database, FIRST, None, tell).await;
    let restored = restored.unwrap();
    assert_eq!(restored.bytes, database.path.metadata().unwrap().len());
    assert!(
        u64::from_str_radix(&restored.txid, 16).unwrap() >= 5,
        "{restored:?}"
    );
    let last = seen.borrow().last().copied();
    assert_eq!(
        last,
        Some(RestoreProgress::Checking {
            bytes: restored.bytes
        })
    );
    assert_eq!(rows(&database).await.len(), 500);
    // The file is known to be of this generation.
    let note = Lineage::read(&database.path).unwrap().unwrap();
    assert_eq!(
        (note.generations(), note.epoch()),
        (&[FIRST.to_owned()][..], 1)
    );
}

#[tokio::test]
async fn an_earlier_point_in_time_comes_back() {
    let s3 = S3::start().await;
    let replication = replication(&s3);
    let before = Timestamp::now();
    let site = Replicated::start(&replication, FIRST).await;
    site.write(0..10).await;
    site.synced().await;
    let point = Timestamp::now();
    // The times of the objects are whole seconds with some providers.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    site.write(10..30).await;
    site.synced().await;
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    let at = |at| restore(&replication, &database, FIRST, Some(at), |_| {});
    at(point).await.unwrap();
    assert_eq!(rows(&database).await.len(), 10);

    fs::remove_file(&database.path).unwrap();
    let hour = jiff::SignedDuration::from_hours(1);
    let error = at(before.checked_sub(hour).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Nothing(_)), "{error}");
    assert!(
        error.to_string().contains("or before: choose a later"),
        "{error}"
    );
    assert!(!database.path.exists());

    // While it is in use, a scratch file comes out of the same bucket.
    let scratch = folder.path().join("scratch");
    let restored = restore_to(&replication, &site.settings.path, FIRST, None, &scratch).await;
    assert_eq!(restored.unwrap().took_check, Duration::ZERO);
    let scratch = database::Settings {
        path: scratch,
        ..settings(folder.path())
    };
    assert_eq!(rows(&scratch).await.len(), 30);
    let again = restore_to(
        &replication,
        &site.settings.path,
        FIRST,
        None,
        &scratch.path,
    )
    .await;
    assert!(again.unwrap_err().to_string().contains("exists already"));
}

#[tokio::test]
async fn a_bucket_that_hangs_is_an_error_in_time() {
    let (s3, replication) = replica().await;
    s3.signal("STOP");
    let error = refused(&replication).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    for part in ["restore_stall_ms", "takes connections, and does not answer"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let hurried = Settings {
        restore_stall_ms: 60_000,
        restore_timeout_ms: 1_000,
        ..replication.clone()
    };
    let error = refused(&hurried).await;
    assert!(error.to_string().contains("restore_timeout_ms"), "{error}");
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_is_an_error_in_time() {
    let (mut s3, replication) = replica().await;
    s3.stop();
    let error = refused(&replication).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let nowhere = Settings {
        endpoint: "http://nowhere.invalid".to_owned(),
        ..replication.clone()
    };
    let error = refused(&nowhere).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}

#[tokio::test]
async fn who_is_refused_is_told_by_whom_and_why() {
    let (_s3, replication) = replica().await;
    let wrong = |text: &str| text.to_owned().into();
    for settings in [
        Settings {
            secret_access_key: wrong("not-the-secret"),
            ..replication.clone()
        },
        Settings {
            access_key_id: wrong("not-the-key"),
            ..replication.clone()
        },
    ] {
        let error = refused(&settings).await;
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert!(
            error.to_string().contains("does not take the key"),
            "{error}"
        );
        assert!(!error.to_string().contains("not-the-"), "{error}");
    }
    let settings = Settings {
        bucket: "elsewhere".to_owned(),
        ..replication.clone()
    };
    let error = refused(&settings).await;
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(
        error.to_string().contains("no bucket elsewhere at http"),
        "{error}"
    );

    let settings = Settings {
        path: "another".to_owned(),
        ..replication
    };
    let error = refused(&settings).await;
    assert!(error.to_string().contains("has nothing that"), "{error}");
    let settings = Settings {
        litestream: "/nothing".to_owned(),
        ..settings
    };
    let error = refused(&settings).await;
    assert!(matches!(error, Error::Litestream(_)), "{error}");
}

#[tokio::test]
async fn what_lies_in_the_way_is_kept_or_removed_and_never_used() {
    log::keep();
    let (_s3, replication) = replica().await;
    // A foreign database whose rows are all in its `-wal`.
    let other = tempfile::tempdir().unwrap();
    let other = settings(other.path());
    let foreign = open(&other).await;
    let insert = |tx: &database::Transaction<'_>| {
        Ok(tx.execute("INSERT INTO notes (text) VALUES ('foreign')", [])?)
    };
    foreign.write(insert).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    let data = database.path.parent().unwrap();
    fs::create_dir_all(data).unwrap();
    fs::write(&database.path, "").unwrap();
    for ending in ["-wal", "-shm"] {
        fs::copy(beside(&other.path, ending), beside(&database.path, ending)).unwrap();
    }
    // What a killed one left on its way.
    for left in [
        ".restoring",
        ".restoring-0a0a0a",
        ".restoring-0a0a0a.tmp",
        ".restoring-0a0a0a-wal",
    ] {
        fs::write(beside(&database.path, left), "half").unwrap();
    }
    fs::write(beside(&database.path, ".damaged"), "{}").unwrap();
    into(&replication, &database).await.unwrap();
    assert_eq!(rows(&database).await.len(), 500);
    let names = names(data);
    let is_left = |name: &&String| name.contains(".restoring") || name.contains(".damaged");
    assert_eq!(names.iter().find(is_left), None);
    let kept = |ending: &str| {
        let begin = format!("test.sqlite3{ending}.stale-");
        names.iter().find(|name| name.starts_with(&begin)).cloned()
    };
    let wal = fs::read(data.join(kept("-wal").unwrap())).unwrap();
    assert_eq!(wal, fs::read(beside(&other.path, "-wal")).unwrap());
    assert!(kept("-shm").is_some(), "{names:?}");
    let place = data.display().to_string();
    assert_eq!(log::lines(&["without its database", &place]).len(), 2);
    assert_eq!(log::lines(&["an empty file", &place]).len(), 1);
    foreign.close().await;
}

#[tokio::test]
async fn a_database_that_is_there_is_never_touched() {
    let (s3, replication) = replica().await;
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    open(&database).await.close().await;
    let before = fs::read(&database.path).unwrap();
    let data = database.path.parent().unwrap();
    let listed = names(data);
    let (error, _) = into(&replication, &database).await.unwrap_err();
    assert!(
        error.to_string().contains("there is a database at"),
        "{error}"
    );
    assert_eq!(fs::read(&database.path).unwrap(), before);
    assert_eq!(names(data), listed);
    // By a link, too.
    let link = folder.path().join("link.sqlite3");
    std::os::unix::fs::symlink(&database.path, &link).unwrap();
    let linked = database::Settings {
        path: link,
        ..database.clone()
    };
    assert!(into(&replication, &linked).await.is_err());
    fs::remove_file(&database.path).unwrap();
    into(&replication, &linked).await.unwrap();
    assert_eq!(rows(&database).await.len(), 500);
    drop(s3);
}

#[tokio::test]
async fn one_that_is_given_up_leaves_nothing_and_a_second_one_works() {
    let (s3, replication) = replica().await;
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    s3.signal("STOP");
    let patient = Settings {
        restore_stall_ms: 60_000,
        ..replication.clone()
    };
    let begun = restore(&patient, &database, FIRST, None, |_| {});
    let given_up = tokio::time::timeout(Duration::from_millis(300), begun).await;
    assert!(given_up.is_err());
    s3.signal("CONT");
    let data = database.path.parent().unwrap();
    assert_eq!(names(data), ["test.sqlite3.litestream.yml"]);
    into(&replication, &database).await.unwrap();
    assert_eq!(rows(&database).await.len(), 500);
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let Some(disk) = Tmpfs::mount("32k") else {
        return;
    };
    let (_s3, replication) = replica().await;
    let database = settings(disk.path());
    let (error, _) = into(&replication, &database).await.unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
    let data = database.path.parent().unwrap();
    assert_eq!(names(data), ["test.sqlite3.litestream.yml"]);
}

#[tokio::test]
async fn a_file_restored_by_hand_is_of_the_same_site() {
    let folder = tempfile::tempdir().unwrap();
    let file = "site.sqlite3";
    let s3 = S3::start().await;
    let replication = s3.variables("site");
    let mut variables = vec![("HOUSEBOAT_DATABASE__PATH", file)];
    variables.extend(
        replication
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let migrated = run(folder.path(), &["migrate"], &variables);
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    let backup = run(folder.path(), &["backup", "copy.sqlite3"], &variables);
    assert_eq!(backup.code, Some(0), "{}", backup.err);
    let path = folder.path().join(file);
    Lineage::add(&path, FIRST, 1).unwrap();
    let restored = run(folder.path(), &["restore", "copy.sqlite3"], &variables);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    let note = Lineage::read(&path).unwrap();
    let record = |generation: &str| Record {
        generation: Some(generation.to_owned()),
        ..Record::new()
    };
    assert!(fits(&record(FIRST), note.as_ref()));
    assert!(!fits(&record(SECOND), note.as_ref()));
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
