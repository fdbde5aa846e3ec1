//! Stop signals at every stage of a container's life.

use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::client::client;
use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::SOON;
use crate::support::ledger::is_running;
use crate::support::ledger::open;
use crate::support::ledger::record;
use crate::support::ledger::restored;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::S3;
use crate::support::site::number;
use crate::support::visitors::Visitors;
use crate::support::waiting::slow;

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    if !slow("a_second_signal_ends_it_at_once") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folder = TempDir::new().unwrap();
    let mut site = fleet.serve(folder.path()).await;
    assert!(site.writes("a row").await);
    let litestreams = site.litestreams();
    assert_eq!(litestreams.len(), 1);
    // The last copy would take the whole grace.
    s3.signal("STOP");
    site.terminate();
    site.says("a second signal stops at once").await;
    let second = Instant::now();
    site.terminate();
    assert_eq!(site.end().await, Some(0), "{}", site.log());
    let took = second.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}\n{}", site.log());
    let is_gone = async || (!is_running(litestreams[0])).then_some(());
    site.wait_for("end of litestream", is_gone).await;
    s3.signal("CONT");
}

#[tokio::test]
async fn during_a_restore_nothing_is_left() {
    if !slow("during_a_restore_nothing_is_left") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3))
        .set("HOUSEBOAT_QUEUE__STOP_MS", "1000")
        .set("HOUSEBOAT_SERVER__STOP_MS", "1500");
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let site = fleet.serve(folders[0].path()).await;
    assert!(site.writes("a row").await);
    site.stop().await;
    let before = record(&s3);

    let proxy = Proxy::start(&s3.endpoint(), Fault::HoldsReplica).await;
    let slow = fleet
        .clone()
        .set("HOUSEBOAT_REPLICATION__ENDPOINT", proxy.endpoint());
    let mut site = slow.start(folders[1].path()).await;
    site.is("restoring").await;
    assert_eq!(site.up().await, 200);
    site.terminate();
    assert_eq!(site.end().await, Some(0), "{}", site.log());
    assert!(!folders[1].path().join(DATABASE).exists());
    let after = record(&s3);
    assert!(after["holder"].is_null(), "{}", site.log());
    assert_eq!(after["generation"], before["generation"]);

    let site = fleet.serve(folders[1].path()).await;
    site.stop().await;
    assert!(restored(&s3).await.contains("a row"));
}

#[tokio::test]
async fn while_the_lease_is_taken_it_is_given_back() {
    if !slow("while_the_lease_is_taken_it_is_given_back") {
        return;
    }
    let s3 = S3::start().await;
    let proxy = Proxy::start(&s3.endpoint(), Fault::HoldsFirstRecord).await;
    let fleet = Fleet::new(Some(&s3)).set("HOUSEBOAT_REPLICATION__LEASE_MS", "300000");
    let fleet = fleet.set("HOUSEBOAT_REPLICATION__ENDPOINT", proxy.endpoint());
    let folder = TempDir::new().unwrap();
    let mut site = fleet.start(folder.path()).await;
    let lease = s3.objects().join("site/lease.json");
    let taken = async || lease.exists().then_some(());
    site.wait_for("record", taken).await;
    site.terminate();
    assert_eq!(site.end().await, Some(0), "{}", site.log());
    assert!(
        !site.log().contains("this container has the lease"),
        "{}",
        site.log()
    );
    assert_eq!(record(&s3)["epoch"], 1);
    assert!(record(&s3)["holder"].is_null(), "{}", site.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_passes_requests_on_until_it_ends() {
    if !slow("a_standby_passes_requests_on_until_it_ends") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = fleet.serve(folders[0].path()).await;
    let mut second = fleet.start(folders[1].path()).await;
    second.is("standby").await;
    let mut visitors = Visitors::come(&[&first, &second]);
    visitors.are_answered(&[&first, &second], 20).await;
    let epoch = record(&s3)["epoch"].clone();
    let told = Instant::now();
    second.terminate();
    let failing = async || (second.up().await == 503).then_some(());
    second.wait_for("failing /up", failing).await;
    visitors.are_answered(&[&first, &second], 20).await;
    visitors.go_to(&[&first]);
    assert_eq!(second.end().await, Some(0), "{}", second.log());
    // `handover.linger_ms` is 4000 here.
    assert!(told.elapsed() >= Duration::from_secs(4), "{}", second.log());
    visitors.are_answered(&[&first], 20).await;
    visitors.leave().await;
    assert_eq!(visitors.failures(), [""; 0], "{}", second.log());
    assert_eq!(record(&s3)["epoch"], epoch);
    first.stop().await;
    visitors.are_in(&restored(&s3).await, "the replica");
}

#[tokio::test]
async fn while_nobody_serves_a_container_can_be_stopped() {
    if !slow("while_nobody_serves_a_container_can_be_stopped") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3)).set("HOUSEBOAT_REPLICATION__LEASE_MS", "300000");
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut first = fleet.serve(folders[0].path()).await;
    first.crash();
    // The lease of the one that was killed has minutes to go.
    let mut second = fleet.start(folders[1].path()).await;
    second.is("standby").await;
    assert_eq!(second.up().await, 200);
    second.terminate();
    let code = second.end_within(SOON).await;
    assert_eq!(code, Some(0), "{}", second.log());
}

#[tokio::test]
async fn panics_while_it_ends_cost_no_row() {
    if !slow("panics_while_it_ends_cost_no_row") {
        return;
    }
    let s3 = S3::start().await;
    let folder = TempDir::new().unwrap();
    let mut site = Fleet::new(Some(&s3)).serve(folder.path()).await;
    let failing = client()
        .post(site.url("/panics/2000"))
        .header("sec-fetch-site", "same-origin")
        .send();
    assert_eq!(failing.await.unwrap().status(), 200);
    let (request, begun) = (client().get(site.url("/panics/1500")), Instant::now());
    let request = tokio::spawn(request.send());
    // The job and the request have begun, which nothing outside can see of the request.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(site.writes("the last row").await);
    site.terminate();
    assert_eq!(
        request.await.unwrap().unwrap().status(),
        500,
        "{}",
        site.log()
    );
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert_eq!(site.end().await, Some(0), "{}", site.log());
    let log = site.log();
    for text in ["the handler was to panic", "the job was to panic"] {
        assert!(log.contains(text), "{text}:\n{log}");
    }
    assert!(restored(&s3).await.contains("the last row"));
}

#[tokio::test]
async fn a_migration_that_cannot_go_on_is_broken_off() {
    if !slow("a_migration_that_cannot_go_on_is_broken_off") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let database = folder.path().join(DATABASE);
    std::fs::create_dir(database.parent().unwrap()).unwrap();
    let other = open(&database);
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE old (id INTEGER); BEGIN IMMEDIATE;")
        .unwrap();
    let fleet = Fleet::new(None)
        .set("HOUSEBOAT_DATABASE__BUSY_TIMEOUT_MS", "60000")
        .set("HOUSEBOAT_QUEUE__STOP_MS", "1000")
        .set("HOUSEBOAT_SERVER__STOP_MS", "1500");
    let mut site = fleet.start(folder.path()).await;
    site.is("migrating").await;
    assert_eq!(site.up().await, 200);
    site.terminate();
    assert_eq!(site.end_within(SOON).await, Some(0), "{}", site.log());
    other.execute_batch("COMMIT").unwrap();
    let tables = number(
        &other,
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
    );
    assert_eq!(tables, 1);
    drop(other);
    fleet.serve(folder.path()).await.stop().await;
}
