//! Containers that are killed, and processes that are paused for too long: what the next one has.

use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::LEASE;
use crate::support::ledger::end;
use crate::support::ledger::record;
use crate::support::ledger::restored;
use crate::support::ledger::rows;
use crate::support::s3::S3;
use crate::support::visitors::Visitors;
use crate::support::visitors::missing;
use crate::support::waiting::slow;

/// What a killed container may lose: `replication.sync_ms`, and the same again for a machine that does much else.
const LOST_MAX: Duration = Duration::from_secs(2);

/// Long enough that a part of the writes must be in the bucket.
const LOAD: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_container_that_is_killed() {
    if !slow("a_standby_takes_over_from_a_container_that_is_killed") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut first = fleet.serve(folders[0].path()).await;
    let mut second = fleet.start(folders[1].path()).await;
    second.is("standby").await;
    let mut visitors = Visitors::come(&[&first, &second]);
    tokio::time::sleep(LOAD).await;
    let killed = Instant::now();
    first.crash();
    // Until then it may be the first one's answer that was read, and from then on it is the second one's.
    let gone = Instant::now() + LEASE / 2;
    visitors.go_to(&[&second]);
    second.is("serving").await;
    assert!(killed.elapsed() >= LEASE / 2, "{}", second.log());
    visitors.are_answered(&[&second], 20).await;
    visitors.leave().await;
    second.terminate();
    assert_eq!(second.end().await, Some(0), "{}", second.log());
    let acknowledged = visitors.acknowledged();
    let has_to_be_there = || {
        acknowledged
            .iter()
            .filter(|row| row.at + LOST_MAX < killed || row.at > gone)
    };
    let here = rows(&folders[1].path().join(DATABASE));
    missing(has_to_be_there(), &here, "the second container");
    missing(has_to_be_there(), &restored(&s3).await, "the replica");
    let log = second.log();
    assert!(log.contains("is gone without giving it back"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_common_disk_a_standby_takes_over_at_once_and_nothing_is_lost() {
    if !slow("on_a_common_disk_a_standby_takes_over_at_once_and_nothing_is_lost") {
        return;
    }
    let s3 = S3::start().await;
    for s3 in [None, Some(&s3)] {
        // With a bucket it is known from the disk that the holder is gone, and nothing has to run out.
        let fleet = Fleet::new(s3).set("HOUSEBOAT_REPLICATION__LEASE_MS", "300000");
        let folder = TempDir::new().unwrap();
        let mut first = fleet.serve(folder.path()).await;
        let mut second = fleet.start(folder.path()).await;
        second.is("standby").await;
        let mut visitors = Visitors::come(&[&first, &second]);
        visitors.are_answered(&[&first, &second], 50).await;
        // Its Litestream lives on, and is ended by the next one.
        first.crash_alone();
        visitors.go_to(&[&second]);
        second.is("serving").await;
        visitors.are_answered(&[&second], 20).await;
        visitors.leave().await;
        let told = Instant::now();
        second.terminate();
        assert_eq!(second.end().await, Some(0), "{}", second.log());
        // It serves by itself: nothing is passed on, and so nobody is waited for. `handover.linger_ms` is 4000 here.
        assert!(told.elapsed() < Duration::from_secs(4), "{}", second.log());
        visitors.are_in(&rows(&folder.path().join(DATABASE)), "the disk");
        if let Some(s3) = s3 {
            visitors.are_in(&restored(s3).await, "the replica");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_killed_while_it_hands_over_costs_no_more_than_ever() {
    if !slow("a_holder_that_is_killed_while_it_hands_over_costs_no_more_than_ever") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let mut folder = TempDir::new().unwrap();
    let mut old = fleet.serve(folder.path()).await;
    let mut visitors = Visitors::come(&[&old]);
    let mut lost_at_most = Vec::new();
    // A hand-over takes some 200 ms.
    for after_ms in [0, 20, 60, 120, 240] {
        let next = TempDir::new().unwrap();
        let new = fleet.start(next.path()).await;
        new.is("standby").await;
        visitors.go_to(&[&new]);
        visitors.are_answered(&[&new], 50).await;
        tokio::time::sleep(LOAD).await;
        let told = Instant::now();
        old.terminate();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        old.crash();
        // Until then it may be the first one's answer that was read.
        lost_at_most.push((told, Instant::now() + LEASE / 2));
        new.is("serving").await;
        visitors.are_answered(&[&new], 50).await;
        (old, folder) = (new, next);
    }
    visitors.leave().await;
    old.stop().await;
    let acknowledged = visitors.acknowledged();
    let has_to_be_there = || {
        acknowledged.iter().filter(|row| {
            let mut lost = lost_at_most.iter();
            !lost.any(|(told, gone)| row.at + LOST_MAX >= *told && row.at <= *gone)
        })
    };
    let here = rows(&folder.path().join(DATABASE));
    missing(has_to_be_there(), &here, "the last container");
    missing(has_to_be_there(), &restored(&s3).await, "the replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_litestream_that_was_left_uploads_nothing_that_is_restored() {
    if !slow("a_litestream_that_was_left_uploads_nothing_that_is_restored") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut first = fleet.serve(folders[0].path()).await;
    assert!(first.writes("before").await);
    let left = first.litestreams();
    assert_eq!(left.len(), 1);
    first.crash_alone();
    let mut second = fleet.serve(folders[1].path()).await;
    assert!(second.writes("after").await);
    // Some syncs of both.
    tokio::time::sleep(LEASE).await;
    second.terminate();
    assert_eq!(second.end().await, Some(0), "{}", second.log());
    end(&left);
    let here = rows(&folders[1].path().join(DATABASE));
    assert_eq!(restored(&s3).await, here);
    assert!(here.contains("after"), "{here:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_paused_beyond_its_lease_writes_no_more() {
    if !slow("a_holder_that_was_paused_beyond_its_lease_writes_no_more") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    paused(&s3, [&fleet, &fleet]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_minutes_apart_change_nothing() {
    if !slow("clocks_that_are_minutes_apart_change_nothing") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    for offset in ["+120s", "-120s"] {
        let skewed = fleet
            .clone()
            // `$LIB` is the loader's word for the folder of this machine's libraries; Debian's package is `faketime`.
            .set("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
            .set("FAKETIME", offset)
            .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .set("DONT_FAKE_MONOTONIC", "1");
        paused(&s3, [&skewed, &fleet]).await;
    }
}

/// How far the holder's clock is from this one.
fn skew(s3: &S3) -> i64 {
    let since: Timestamp = record(s3)["holder"]["since"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    since.duration_since(Timestamp::now()).as_secs()
}

/// Pauses the first container until the second one serves.
async fn paused(s3: &S3, fleets: [&Fleet; 2]) {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut first = fleets[0].serve(folders[0].path()).await;
    let is_skewed = fleets[0].has("FAKETIME");
    assert_eq!(skew(s3).abs() > 100, is_skewed, "is `faketime` installed?");
    let mut second = fleets[1].start(folders[1].path()).await;
    second.is("standby").await;
    // They write to the first one all the time, also while it sleeps and when it wakes.
    let mut visitors = Visitors::come(&[&first]);
    tokio::time::sleep(LOAD).await;
    first.signal("STOP");
    let stopped = Instant::now();
    second.is("serving").await;
    assert!(second.writes("by the second").await);
    let epoch = record(s3)["epoch"].as_u64();
    let woken = Instant::now();
    first.signal("CONT");
    assert_eq!(first.end().await, Some(1), "{}", first.log());
    let log = first.log();
    assert!(log.contains("the lease is lost: "), "{log}");
    visitors.leave().await;
    assert!(second.writes("later").await);
    assert_eq!(record(s3)["epoch"].as_u64(), epoch);
    second.terminate();
    assert_eq!(second.end().await, Some(0), "{}", second.log());
    let acknowledged = visitors.acknowledged();
    let here = rows(&folders[1].path().join(DATABASE));
    // What was copied before it was paused, and what it acknowledged after it woke: it had to be the second's.
    let has_to_be_there = || {
        acknowledged
            .iter()
            .filter(|row| row.at + LOST_MAX < stopped || row.at > woken)
    };
    missing(has_to_be_there(), &here, "the second container");
    let restored = restored(s3).await;
    missing(has_to_be_there(), &restored, "the replica");
    assert!(restored.contains("by the second") && restored.contains("later"));
}
