//! A new version that cannot start: it is never healthy, and the one that serves goes on.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::client;
use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::SOON;
use crate::support::ledger::open;
use crate::support::ledger::restored;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::replica::names;
use crate::support::s3::S3;
use crate::support::s3::free_port;
use crate::support::visitors::Visitors;
use crate::support::waiting::slow;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_older_than_the_database_is_never_healthy() {
    if !slow("a_program_that_is_older_than_the_database_is_never_healthy") {
        return;
    }
    let s3 = S3::start().await;
    for s3 in [Some(&s3), None] {
        let fleet = Fleet::new(s3);
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let first = fleet.serve(folders[0].path()).await;
        assert!(first.writes("before").await);
        add_a_migration(folders[0].path());
        if s3.is_some() {
            let copied = async || {
                let log = first.log();
                log.contains("everything is in the bucket").then_some(())
            };
            first.wait_for("first copy", copied).await;
        }
        let mut visitors = Visitors::come(&[&first]);
        visitors.are_answered(&[&first], 20).await;
        if let Some(s3) = s3 {
            // What was added is in the bucket, once a row is that came after it.
            let row = visitors.acknowledged()[0].text.clone();
            let copied = async || restored(s3).await.contains(&row).then_some(());
            first.wait_for("copied row", copied).await;
        }
        let folder = &folders[usize::from(s3.is_some())];
        let said = ends_without_being_healthy(&fleet, folder.path()).await;
        assert!(said.contains("V99__of_the_future"), "{said}");
        visitors.are_answered(&[&first], 20).await;
        visitors.leave().await;
        assert_eq!(visitors.failures(), [""; 0]);
        assert_eq!(first.ready().await.1["role"], "serving");
        first.stop().await;
    }
}

/// As a newer version of the site would have left it.
fn add_a_migration(folder: &Path) {
    let conn = open(&folder.join(DATABASE));
    conn.execute_batch(
        "INSERT INTO migrations_ledger VALUES (99, 'of_the_future', '2026-11-21T00:00:00Z', '1')",
    )
    .unwrap();
}

/// Starts one and asks all the time whether it is healthy, until it is gone; gives what it said.
async fn ends_without_being_healthy(fleet: &Fleet, folder: &Path) -> String {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}/up");
    let fleet = fleet.clone().set("HOUSEBOAT_SERVER__PORT", port);
    let healthy = async {
        let client = client();
        loop {
            let answer = client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (code, said) = tokio::select! {
        ended = fleet.ends(folder, SOON) => ended,
        () = healthy => panic!("it was healthy"),
    };
    assert_eq!(code, Some(1), "{said}");
    said
}

#[tokio::test]
async fn a_copy_that_comes_slowly_is_not_waited_for() {
    if !slow("a_copy_that_comes_slowly_is_not_waited_for") {
        return;
    }
    let s3 = S3::start().await;
    let fleet = Fleet::new(Some(&s3));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = fleet.serve(folders[0].path()).await;
    first.says("everything is in the bucket").await;
    let proxy = Proxy::start(&s3.endpoint(), Fault::HoldsReplica).await;
    let slow = fleet
        .clone()
        .set("HOUSEBOAT_REPLICATION__ENDPOINT", proxy.endpoint());
    let second = slow.start(folders[1].path()).await;
    second.is("rehearsing").await;
    second.is("standby").await;
    assert_eq!(second.up().await, 200);
    let log = second.log();
    assert!(
        log.contains("are not tried on a copy: that takes too long"),
        "{log}"
    );
    let left = names(&folders[1].path().join("data"));
    let is_copy = |name: &&String| name.contains("rehearsal");
    assert_eq!(left.iter().find(is_copy), None);
    second.stop().await;
    first.stop().await;
}
