//! A bucket that is gone for a while, and a Litestream that dies, under a load of writes.

use std::os::unix::fs::symlink;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::LEASE;
use crate::support::ledger::end;
use crate::support::ledger::is_running;
use crate::support::ledger::record;
use crate::support::ledger::restored;
use crate::support::ledger::rows;
use crate::support::s3::S3;
use crate::support::visitors::Visitors;
use crate::support::visitors::missing;
use crate::support::waiting::slow;

const RENEWAL: &str = "the lease cannot be renewed";
const BEHIND: &str = "the replica is ";

/// It is told as 3 to 4 s while all is well.
const BEHIND_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_site_goes_on_without_the_bucket_and_everything_is_there_later() {
    if !slow("the_site_goes_on_without_the_bucket_and_everything_is_there_later") {
        return;
    }
    let mut s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3)).set("HOUSEBOAT_REPLICATION__BEHIND_MS", "6000");
    let folder = TempDir::new().unwrap();
    let mut site = fleet.serve(folder.path()).await;
    let mut visitors = Visitors::come(&[&site]);
    visitors.are_answered(&[&site], 50).await;
    let before = record(&s3);
    s3.stop();
    site.warns(RENEWAL).await;
    site.warns(BEHIND).await;
    // The lease has run out more than once.
    tokio::time::sleep(LEASE * 2).await;
    visitors.are_answered(&[&site], 50).await;
    s3.resume().await;
    site.warns("").await;
    let after = record(&s3);
    assert_eq!(after["epoch"], before["epoch"]);
    assert_eq!(after["holder"]["id"], before["holder"]["id"]);
    visitors.leave().await;
    assert_eq!(visitors.failures(), [""; 0], "{}", site.log());
    // Lost with its disk it would lose no more than ever.
    let crashed = Instant::now();
    site.crash();
    let acknowledged = visitors.acknowledged();
    let old = acknowledged
        .iter()
        // Until it is as far behind as that, nothing is warned of.
        .filter(|row| row.at + BEHIND_MAX < crashed);
    missing(old, &restored(&s3).await, "the replica");
    let log = site.log();
    for line in [
        "the lease cannot be renewed: going on",
        "the lease is renewed again",
        "the replica is behind",
        "the replica has caught up",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_to_stop_without_the_bucket_takes_no_writes_meanwhile() {
    if !slow("a_site_that_is_to_stop_without_the_bucket_takes_no_writes_meanwhile") {
        return;
    }
    let mut s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3)).set("HOUSEBOAT_REPLICATION__OUTAGE", "stop");
    let folder = TempDir::new().unwrap();
    let site = fleet.serve(folder.path()).await;
    let mut visitors = Visitors::come(&[&site]);
    visitors.are_answered(&[&site], 50).await;
    let epoch = record(&s3)["epoch"].clone();
    s3.stop();
    let refused = async || {
        let status = site.write("in vain").await;
        assert!([200, 500, 503].contains(&status), "{status}");
        (status != 200).then_some(())
    };
    site.wait_for("refused write", refused).await;
    let acknowledged = visitors.acknowledged().len();
    tokio::time::sleep(LEASE).await;
    assert_eq!(visitors.acknowledged().len(), acknowledged);
    assert_eq!(site.ready().await.0, 503);
    s3.resume().await;
    let written = async || site.writes("again").await.then_some(());
    site.wait_for("write", written).await;
    assert_eq!(record(&s3)["epoch"], epoch);
    visitors.leave().await;
    site.stop().await;
    visitors.are_in(&rows(&folder.path().join(DATABASE)), "the database");
    visitors.are_in(&restored(&s3).await, "the replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_gone_at_the_end_costs_the_grace_and_no_row() {
    if !slow("a_bucket_that_is_gone_at_the_end_costs_the_grace_and_no_row") {
        return;
    }
    for is_hanging in [false, true] {
        let mut s3 = S3::start().await;
        let fleet = Fleet::new(Some(&s3))
            .set("HOUSEBOAT_HANDOVER__GRACE_MS", "8000")
            .set("HOUSEBOAT_HANDOVER__SYNC_MS", "3000");
        let folder = TempDir::new().unwrap();
        let mut site = fleet.serve(folder.path()).await;
        let mut visitors = Visitors::come(&[&site]);
        visitors.are_answered(&[&site], 50).await;
        if is_hanging {
            s3.signal("STOP");
        } else {
            s3.stop();
        }
        visitors.are_answered(&[&site], 50).await;
        visitors.leave().await;
        let left = site.litestreams();
        site.terminate();
        let grace = Duration::from_secs(8);
        assert_eq!(site.end_within(grace).await, Some(0), "{}", site.log());
        assert!(
            site.log().contains("the bucket may lack the last writes"),
            "{}",
            site.log()
        );
        assert!(
            site.log().contains("it runs out by itself"),
            "{}",
            site.log()
        );
        assert!(!left.into_iter().any(is_running));
        if is_hanging {
            s3.signal("CONT");
        } else {
            s3.resume().await;
        }
        let site = fleet.serve(folder.path()).await;
        site.stop().await;
        visitors.are_in(&rows(&folder.path().join(DATABASE)), "the database");
        visitors.are_in(&restored(&s3).await, "the replica");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_litestream_that_dies_is_started_again() {
    if !slow("a_litestream_that_dies_is_started_again") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folder = TempDir::new().unwrap();
    let site = fleet.serve(folder.path()).await;
    let mut visitors = Visitors::come(&[&site]);
    for _ in 0..3 {
        visitors.are_answered(&[&site], 50).await;
        let before = site.litestreams();
        end(&before);
        let other = async || {
            let now = site.litestreams();
            (now.len() == 1 && now != before).then_some(())
        };
        site.wait_for("another litestream", other).await;
    }
    visitors.are_answered(&[&site], 50).await;
    visitors.leave().await;
    assert_eq!(visitors.failures(), [""; 0]);
    let log = site.stop().await;
    assert_eq!(log.matches("litestream died").count(), 3, "{log}");
    visitors.are_in(&restored(&s3).await, "the replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_litestream_that_cannot_be_started_any_more_is_told_of() {
    if !slow("a_litestream_that_cannot_be_started_any_more_is_told_of") {
        return;
    }
    let s3 = S3::start().await;
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("litestream");
    let link = || symlink("/usr/local/bin/litestream", &program).unwrap();
    link();
    let fleet = Fleet::new(Some(&s3))
        .set("HOUSEBOAT_REPLICATION__LITESTREAM", &program)
        .set("HOUSEBOAT_REPLICATION__BEHIND_MS", "6000");
    let site = fleet.serve(folder.path()).await;
    let mut visitors = Visitors::come(&[&site]);
    visitors.are_answered(&[&site], 50).await;
    std::fs::remove_file(&program).unwrap();
    end(&site.litestreams());
    site.says("nothing is replicated error=").await;
    site.warns(BEHIND).await;
    visitors.are_answered(&[&site], 50).await;
    link();
    site.warns("").await;
    visitors.leave().await;
    assert_eq!(visitors.failures(), [""; 0]);
    site.stop().await;
    visitors.are_in(&restored(&s3).await, "the replica");
}
