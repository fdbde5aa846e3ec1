//! A new version that cannot start: it is never healthy, and the one that serves goes on.

use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::ledger::Container;
use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::SOON;
use crate::support::ledger::open;
use crate::support::ledger::restored;
use crate::support::s3::S3;
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
        let mut second = fleet.start(folder.path()).await;
        let said = ends_without_being_healthy(&mut second).await;
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

/// Asks all the time whether it is healthy, until it is gone; gives what it said.
async fn ends_without_being_healthy(container: &mut Container) -> String {
    let begun = Instant::now();
    loop {
        match container.up().await {
            200 => panic!("it was healthy:\n{}", container.log()),
            503 => {}
            _ => break,
        }
        assert!(begun.elapsed() < SOON, "{}", container.log());
    }
    assert_eq!(container.end().await, Some(1), "{}", container.log());
    container.log()
}
