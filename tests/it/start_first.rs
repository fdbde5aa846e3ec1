//! The first start of a site, and those after it.

use tempfile::TempDir;

use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::record;
use crate::support::ledger::restored;
use crate::support::ledger::rows;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::S3;
use crate::support::waiting::slow;

const RESTORED: &str = "the database is restored";

#[tokio::test]
async fn without_a_bucket_it_says_that_nothing_is_replicated() {
    let folder = TempDir::new().unwrap();
    let site = Fleet::new(None).serve(folder.path()).await;
    assert_eq!(site.ready().await.0, 200);
    assert_eq!(site.up().await, 200);
    assert!(site.writes("alone").await);
    let log = site.stop().await;
    let warning =
        "WARN houseboat::app::start: nothing is replicated: replication.bucket is not set";
    assert!(log.contains(warning), "{log}");
    let again = Fleet::new(None).serve(folder.path()).await;
    assert_eq!(again.litestreams(), [0; 0]);
    again.stop().await;
    assert_eq!(rows(&folder.path().join(DATABASE)).len(), 1);
}

#[tokio::test]
async fn from_nothing_and_again_and_on_an_empty_disk() {
    if !slow("from_nothing_and_again_and_on_an_empty_disk") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folder = TempDir::new().unwrap();
    let site = fleet.serve(folder.path()).await;
    assert!(site.writes("first").await);
    let log = site.stop().await;
    assert!(log.contains("a first start"), "{log}");
    assert!(!log.contains(RESTORED), "{log}");
    let first = record(&s3)["generation"].clone();

    let site = fleet.serve(folder.path()).await;
    assert!(site.writes("second").await);
    let log = site.stop().await;
    assert!(!log.contains(RESTORED), "{log}");
    assert!(!log.contains("a first start"), "{log}");
    assert_ne!(record(&s3)["generation"], first);

    let empty = TempDir::new().unwrap();
    let site = fleet.serve(empty.path()).await;
    assert!(site.writes("third").await);
    let log = site.stop().await;
    assert!(log.contains(RESTORED), "{log}");
    let all = ["first", "second", "third"].map(str::to_owned).into();
    assert_eq!(rows(&empty.path().join(DATABASE)), all);
    assert_eq!(restored(&s3).await, all);

    // The disk of before has less than the replica by now, and must not be taken for the site's.
    let (code, said) = fleet
        .ends(folder.path(), crate::support::ledger::SOON)
        .await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("was written from another database since"),
        "{said}"
    );
}

#[tokio::test]
async fn replication_can_be_turned_on_later() {
    if !slow("replication_can_be_turned_on_later") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let site = Fleet::new(None).serve(folder.path()).await;
    assert!(site.writes("before").await);
    site.stop().await;
    let s3 = S3::start().await;
    let site = Fleet::new(Some(&s3)).serve(folder.path()).await;
    assert!(site.writes("after").await);
    site.stop().await;
    let all = ["before", "after"].map(str::to_owned).into();
    assert_eq!(rows(&folder.path().join(DATABASE)), all);
    assert_eq!(restored(&s3).await, all);
    // And off, and on again.
    let site = Fleet::new(None).serve(folder.path()).await;
    assert!(site.writes("alone").await);
    site.stop().await;
    let site = Fleet::new(Some(&s3)).serve(folder.path()).await;
    site.stop().await;
    assert!(restored(&s3).await.contains("alone"));
}

#[tokio::test]
async fn a_first_copy_that_takes_long_is_told_of_and_not_waited_for() {
    if !slow("a_first_copy_that_takes_long_is_told_of_and_not_waited_for") {
        return;
    }
    let s3 = S3::start().await;
    let proxy = Proxy::start(&s3.endpoint(), Fault::HoldsUploads).await;
    let folder = TempDir::new().unwrap();
    let fleet = Fleet::new(Some(&s3)).set("HOUSEBOAT_REPLICATION__ENDPOINT", proxy.endpoint());
    let site = fleet.serve(folder.path()).await;
    let warning = "serving, and the first copy is not in the bucket yet";
    assert!(site.log().contains(warning), "{}", site.log());
    assert!(site.writes("early").await);
    assert_eq!(site.ready().await.0, 200);
    assert!(record(&s3)["generation"].is_null());
    proxy.relent();
    site.says("everything is in the bucket").await;
    assert!(record(&s3)["generation"].is_string());
    site.stop().await;
    assert!(restored(&s3).await.contains("early"));
}
