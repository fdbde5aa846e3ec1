//! The command `restore` without a file, and a start that takes the replica in place of its database.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::command::run;
use crate::support::holder::FILE;
use crate::support::holder::command;
use crate::support::holder::done;
use crate::support::holder::generation;
use crate::support::holder::insert;
use crate::support::holder::objects;
use crate::support::holder::refused;
use crate::support::holder::start;
use crate::support::holder::words;
use crate::support::replica::names;
use crate::support::s3::S3;
use crate::support::waiting::slow;

const SECONDS: Duration = Duration::from_secs(20);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A replica of two generations, of one word and of two; gives the time between them and their names.
async fn replica(s3: &S3, folder: &Path) -> (Timestamp, [String; 2]) {
    done(s3, folder, &["migrate"]);
    insert(folder, "one");
    done(s3, folder, &["replicate", "--once"]);
    let (time, first) = (Timestamp::now(), generation(s3));
    // The times of the objects are whole seconds with some providers, as those in the names are.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    insert(folder, "two");
    done(s3, folder, &["replicate", "--once"]);
    (time, [first, generation(s3)])
}

/// The file that was kept aside, the only one.
fn kept(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let mut kept = names(&data);
    kept.retain(|name| name.starts_with("site.sqlite3.before-restore-"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    data.join(&kept[0])
}

#[tokio::test]
async fn the_replica_comes_back_as_it_is_or_was_and_what_was_there_is_kept() {
    if !slow("restores of the replica by hand") {
        return;
    }
    let (s3, one, other) = (S3::start().await, folder(), folder());
    let (time, [first, second]) = replica(&s3, one.path()).await;
    let file = other.path().join(FILE);

    let said = done(&s3, other.path(), &["restore"]);
    assert!(said.contains(&second), "{said}");
    assert_eq!(words(&file), ["one", "two"]);

    let at = time.to_string();
    let said = done(&s3, other.path(), &["restore", "--at", &at]);
    for part in [first.as_str(), at.as_str(), "what was there is kept: "] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(words(&file), ["one"]);
    assert_eq!(words(&kept(other.path())), ["one", "two"]);
    // It was asked for, and so it is the site's from now on, whatever the record names.
    done(&s3, other.path(), &["replicate", "--once"]);

    let third = folder();
    done(&s3, third.path(), &["restore"]);
    assert_eq!(words(&third.path().join(FILE)), ["one"]);
    let said = done(&s3, third.path(), &["restore", "--generation", &second]);
    assert!(said.contains(&second), "{said}");
    assert_eq!(words(&third.path().join(FILE)), ["one", "two"]);
    // Also where no note beside it knows of the generation that the record names.
    let fourth = folder();
    done(&s3, fourth.path(), &["restore", "--at", &at]);
    done(&s3, fourth.path(), &["replicate", "--once"]);
    let left = names(&third.path().join("data"));
    assert!(
        left.iter().all(|name| !name.contains("fetched")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_start_takes_the_replica_in_place_of_another_database_if_it_is_told_to() {
    let (s3, one, other) = (S3::start().await, folder(), folder());
    done(&s3, one.path(), &["migrate"]);
    insert(one.path(), "here");
    done(&s3, one.path(), &["replicate", "--once"]);
    done(&s3, other.path(), &["restore"]);
    insert(other.path(), "there");
    done(&s3, other.path(), &["replicate", "--once"]);

    let error = refused(&s3, one.path(), &["replicate", "--once"]);
    assert!(error.contains("replication.conflict"), "{error}");
    let conflict = [("REPLICATION__CONFLICT", "replica")];
    let mut site = start(&s3, one.path(), &conflict).await;
    assert_eq!(words(&one.path().join(FILE)), ["here", "there"]);
    assert_eq!(words(&kept(one.path())), ["here"]);

    // While it serves, nobody else makes a database of what it writes.
    let error = refused(&s3, folder().path(), &["restore"]);
    assert!(
        error.contains("holds the lease: stop that one first"),
        "{error}"
    );
    let error = refused(&s3, one.path(), &["restore"]);
    assert!(error.contains("another process serves"), "{error}");
    site.terminate();
    assert!(site.wait(SECONDS).await.success(), "{}", site.log());
    done(&s3, one.path(), &["restore"]);
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let (s3, one) = (S3::start().await, folder());
    let (_, [_, second]) = replica(&s3, one.path()).await;
    let file = one.path().join(FILE);
    insert(one.path(), "three");
    for (arguments, part) in [
        (
            &["restore", "--generation", "x"][..],
            "\"x\" is no generation",
        ),
        (
            &["restore", "--at", "2020-01-01T00:00:00Z"],
            "no generation reaches back",
        ),
    ] {
        let error = refused(&s3, one.path(), arguments);
        assert!(error.contains(part), "{error}");
    }
    for arguments in [
        &["restore", "x", "--at", "2026-11-21T07:30:00Z"][..],
        &["restore", "--at", "monday"],
        &["restore", "x", "--from-snapshot", "latest"],
    ] {
        assert_eq!(command(&s3, one.path(), arguments, &[]).code, Some(2));
    }
    let bare = run(one.path(), &["restore"], &[]);
    assert!(bare.err.contains("replication.bucket"), "{bare:?}");
    assert_eq!(bare.code, Some(1));

    for object in objects(&s3, &second) {
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&object, bytes).unwrap();
    }
    let before = names(&one.path().join("data"));
    let error = refused(&s3, one.path(), &["restore"]);
    for part in ["is damaged", "restore --at", "--from-snapshot"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(names(&one.path().join("data")), before);
    assert_eq!(words(&file), ["one", "two", "three"]);
}
