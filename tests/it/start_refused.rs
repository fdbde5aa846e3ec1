//! What a container refuses to start with, in the words that an operator reads; and nothing is changed then.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::cli::litestream;
use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::record;
use crate::support::ledger::restored;
use crate::support::ledger::rows;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::S3;
use crate::support::s3::free_port;
use crate::support::waiting::slow;

/// An operator waits for it, and a platform.
const WITHIN: Duration = Duration::from_secs(15);

const ENDPOINT: &str = "HOUSEBOAT_REPLICATION__ENDPOINT";

/// A server with the replica of one row, and nobody who has the lease.
async fn with_a_replica() -> (S3, Fleet) {
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folder = TempDir::new().unwrap();
    let site = fleet.serve(folder.path()).await;
    assert!(site.writes("replicated").await);
    site.stop().await;
    (s3, fleet)
}

/// A folder with a database of one row that was never replicated.
async fn with_a_database() -> TempDir {
    let folder = TempDir::new().unwrap();
    let site = Fleet::new(None).serve(folder.path()).await;
    assert!(site.writes("local").await);
    site.stop().await;
    folder
}

/// Every file that tells of data, with what is in it: not the lock, nor who had it, nor the record of the lease.
fn data(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in folder.read_dir().unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(data(&path));
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        let endings = [".lock", ".holder", ".litestream.yml"];
        let is_of_the_seat = endings.iter().any(|ending| name.ends_with(ending));
        if !is_of_the_seat && !name.contains("lease.json") {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// It ends soon, says all of this, and has changed nothing.
async fn refuses(fleet: &Fleet, s3: Option<&S3>, folder: &Path, parts: &[&str]) {
    let all = || (data(folder), s3.map(|s3| data(&s3.objects())));
    let before = all();
    let (code, said) = fleet.ends(folder, WITHIN).await;
    assert_eq!(code, Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let after = all();
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after.0), names(&before.0), "{said}");
    assert!(after == before, "something was changed:\n{said}");
    if let Some(s3) = s3.filter(|s3| s3.objects().join("site/lease.json").exists()) {
        assert!(record(s3)["holder"].is_null(), "it kept the lease:\n{said}");
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used() {
    if !slow("a_bucket_that_cannot_be_used") {
        return;
    }
    let (s3, fleet) = with_a_replica().await;
    let folder = TempDir::new().unwrap();
    let nowhere = format!("127.0.0.1:{}", free_port());
    let endpoint = format!("http://{nowhere}");
    let refused = fleet.clone().set(ENDPOINT, endpoint);
    let parts = ["cannot reach the bucket", nowhere.as_str()];
    refuses(&refused, Some(&s3), folder.path(), &parts).await;

    let secret = fleet
        .clone()
        .set("HOUSEBOAT_REPLICATION__SECRET_ACCESS_KEY", "another");
    let parts = ["the bucket refuses"];
    refuses(&secret, Some(&s3), folder.path(), &parts).await;

    s3.signal("STOP");
    let parts = ["cannot reach the bucket"];
    refuses(&fleet, None, folder.path(), &parts).await;
    s3.signal("CONT");
    // It was not for want of a replica.
    let site = fleet.serve(folder.path()).await;
    site.stop().await;
    assert!(rows(&folder.path().join(DATABASE)).contains("replicated"));
}

#[tokio::test]
async fn a_provider_without_conditional_writes() {
    let s3 = S3::start_open().await;
    let proxy = Proxy::start(&s3.endpoint(), Fault::StripsConditions).await;
    let fleet = Fleet::new(Some(&s3)).set(ENDPOINT, proxy.endpoint());
    let folder = TempDir::new().unwrap();
    let parts = [
        "has no conditional writes",
        "replication.conditional_writes = \"off\"",
    ];
    refuses(&fleet, Some(&s3), folder.path(), &parts).await;
}

#[tokio::test]
async fn a_replica_that_is_damaged_is_no_first_start() {
    if !slow("a_replica_that_is_damaged_is_no_first_start") {
        return;
    }
    let (s3, fleet) = with_a_replica().await;
    let folder = TempDir::new().unwrap();
    let generations = s3.objects().join("site/generations");
    let ltx: Vec<_> = data(&generations)
        .into_keys()
        .filter(|path| path.extension().is_some_and(|ending| ending == "ltx"))
        .collect();
    let first = ltx.first().unwrap();
    let whole = std::fs::read(first).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0xff;
    let ways_out = ["replication.restore_at", "replication.allow_empty"];
    for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(first, damaged).unwrap();
        refuses(&fleet, Some(&s3), folder.path(), &ways_out).await;
    }
    for path in &ltx {
        std::fs::remove_file(path).unwrap();
    }
    refuses(&fleet, Some(&s3), folder.path(), &ways_out).await;
    let empty = fleet.set("HOUSEBOAT_REPLICATION__ALLOW_EMPTY", "true");
    let site = empty.serve(folder.path()).await;
    assert!(site.writes("anew").await);
    let log = site.stop().await;
    assert!(log.contains("starting empty"), "{log}");
    assert_eq!(restored(&s3).await, ["anew".to_owned()].into());
}

#[tokio::test]
async fn a_record_that_is_gone_is_no_first_start() {
    if !slow("a_record_that_is_gone_is_no_first_start") {
        return;
    }
    let (s3, fleet) = with_a_replica().await;
    let folder = TempDir::new().unwrap();
    std::fs::remove_file(s3.objects().join("site/lease.json")).unwrap();
    let parts = ["the record of this site is gone", "replication.allow_empty"];
    refuses(&fleet, Some(&s3), folder.path(), &parts).await;
    // Refused again and again, as by a platform that starts it again and again.
    refuses(&fleet, Some(&s3), folder.path(), &parts).await;
    let empty = fleet.set("HOUSEBOAT_REPLICATION__ALLOW_EMPTY", "true");
    let site = empty.serve(folder.path()).await;
    let log = site.stop().await;
    assert!(log.contains("starting empty"), "{log}");
    // No epoch comes twice.
    assert_eq!(record(&s3)["epoch"], 2);
}

#[tokio::test]
async fn a_litestream_that_is_missing_or_too_old() {
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folder = TempDir::new().unwrap();
    let programs = litestream("v0.5.16");
    let missing = folder.path().join("nowhere/litestream");
    let missing = fleet
        .clone()
        .set("HOUSEBOAT_REPLICATION__LITESTREAM", &missing);
    let parts = ["litestream", "nowhere"];
    refuses(&missing, Some(&s3), folder.path(), &parts).await;
    let path = format!("{}:/usr/bin:/bin", programs.path().display());
    let old = fleet.set("PATH", path);
    refuses(&old, Some(&s3), folder.path(), &["0.5.16", "0.5.17"]).await;
    assert!(!folder.path().join("data").exists());
}

#[tokio::test]
async fn a_database_that_the_replica_does_not_come_from() {
    if !slow("a_database_that_the_replica_does_not_come_from") {
        return;
    }
    let (s3, fleet) = with_a_replica().await;
    let folder = with_a_database().await;
    let parts = [
        "was written from another database",
        "replication.conflict = \"local\"",
        "\"replica\"",
    ];
    refuses(&fleet, Some(&s3), folder.path(), &parts).await;
    let conflict = |word: &str| fleet.clone().set("HOUSEBOAT_REPLICATION__CONFLICT", word);
    let local = rows(&folder.path().join(DATABASE));
    assert_eq!(local, ["local".to_owned()].into());

    let other = with_a_database().await;
    let site = conflict("replica").serve(other.path()).await;
    site.stop().await;
    let here = rows(&other.path().join(DATABASE));
    assert_eq!(here, ["replicated".to_owned()].into());
    let kept = data(&other.path().join("data")).into_keys().find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("site.sqlite3.") && name.contains('-') && rows_of(path) == Some(1)
    });
    assert!(kept.is_some(), "{:?}", data(other.path()).keys());

    let site = conflict("local").serve(folder.path()).await;
    site.stop().await;
    assert_eq!(rows(&folder.path().join(DATABASE)), local);
    assert_eq!(restored(&s3).await, local);
    // Once is enough.
    fleet.serve(folder.path()).await.stop().await;
}

/// The number of rows of a file that may be no database at all.
fn rows_of(path: &Path) -> Option<usize> {
    let is_database = std::fs::read(path).unwrap().starts_with(b"SQLite format 3");
    is_database.then(|| rows(path).len())
}

#[tokio::test]
async fn times_that_do_not_fit() {
    let fleet = Fleet::new(Some(&S3::start().await))
        .set("HOUSEBOAT_HANDOVER__GRACE_MS", "5000")
        .set("HOUSEBOAT_HANDOVER__SYNC_MS", "5000");
    let folder = TempDir::new().unwrap();
    let parts = ["handover.sync_ms = 5000", "handover.grace_ms = 5000"];
    refuses(&fleet, None, folder.path(), &parts).await;
    assert!(data(folder.path()).is_empty());
}
