//! One container after another, under a load of visitors who try nothing twice.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::ledger::Container;
use crate::support::ledger::DATABASE;
use crate::support::ledger::Fleet;
use crate::support::ledger::restored;
use crate::support::ledger::rows;
use crate::support::s3::S3;
use crate::support::visitors::Visitors;
use crate::support::waiting::slow;

/// What is answered at least through each container before the next step.
const ANSWERS: u64 = 20;

/// So long a proxy goes on sending requests to who has ended: half of the time for which those are passed on.
const TURNS: Duration = Duration::from_secs(2);

/// Where the containers have their data.
enum Disks {
    /// Each on one of its own, which goes with it.
    Own,
    Shared(TempDir),
}

impl Disks {
    fn next(&self) -> (PathBuf, Option<TempDir>) {
        match self {
            Self::Own => {
                let folder = TempDir::new().unwrap();
                (folder.path().to_owned(), Some(folder))
            }
            Self::Shared(folder) => (folder.path().to_owned(), None),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_bucket_and_no_common_disk() {
    let s3 = S3::start().await;
    deploys("with_a_bucket_and_no_common_disk", Some(&s3), &Disks::Own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_common_disk_and_no_bucket() {
    let disk = Disks::Shared(TempDir::new().unwrap());
    deploys("with_a_common_disk_and_no_bucket", None, &disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_common_disk_and_a_bucket() {
    let s3 = S3::start().await;
    let disk = Disks::Shared(TempDir::new().unwrap());
    deploys("with_a_common_disk_and_a_bucket", Some(&s3), &disk).await;
}

/// Deploys as Coolify does: the new one beside the old, the old one ended once the new one is healthy.
async fn deploys(test: &str, s3: Option<&S3>, disks: &Disks) {
    let deploys = if slow(&format!("19 of 20 deploys {test}")) {
        20
    } else {
        1
    };
    let fleet = Fleet::new(s3);
    let (mut folder, mut kept) = disks.next();
    let mut old = fleet.serve(&folder).await;
    let mut visitors = Visitors::come(&[&old]);
    visitors.are_answered(&[&old], ANSWERS).await;
    let mut gone = Vec::new();
    for _ in 0..deploys {
        let (next_folder, next_kept) = disks.next();
        let new = fleet.start(&next_folder).await;
        new.is("standby").await;
        assert_eq!(new.up().await, 200);
        visitors.go_to(&[&old, &new]);
        visitors.are_answered(&[&old, &new], ANSWERS).await;
        let turns = Instant::now() + TURNS;
        old.terminate();
        // What a proxy sees of it; it sends some more all the same.
        old.wait_for("failing /up", async || {
            (old.up().await == 503).then_some(())
        })
        .await;
        let is_passed = async {
            new.is("serving").await;
            visitors.are_answered(&[&old, &new], ANSWERS).await;
        };
        let _ = tokio::time::timeout_at(turns.into(), is_passed).await;
        visitors.go_to(&[&new]);
        new.is("serving").await;
        visitors.are_answered(&[&new], ANSWERS).await;
        gone.push((old, kept));
        (old, folder, kept) = (new, next_folder, next_kept);
        calm(&visitors, &gone, &old);
    }
    visitors.leave().await;
    calm(&visitors, &gone, &old);
    old.terminate();
    assert_eq!(old.end().await, Some(0), "{}", old.log());
    for (container, _) in &mut gone {
        assert_eq!(container.end().await, Some(0), "{}", container.log());
    }
    report(test, &visitors, &folder.join(DATABASE));
    if let Some(s3) = s3 {
        visitors.are_in(&restored(s3).await, "the replica");
    }
    drop(kept);
}

fn calm(visitors: &Visitors, gone: &[(Container, Option<TempDir>)], last: &Container) {
    let failures = visitors.failures();
    if failures.is_empty() {
        return;
    }
    let before = gone.last().map(|(container, _)| container.log());
    panic!(
        "{} requests failed:\n{}\nthe one before said:\n{}\nthe last one said:\n{}",
        failures.len(),
        failures[..failures.len().min(10)].join("\n"),
        before.unwrap_or_default(),
        last.log()
    );
}

#[expect(
    clippy::print_stderr,
    reason = "how long visitors waited is to be seen"
)]
fn report(test: &str, visitors: &Visitors, database: &Path) {
    visitors.are_in(&rows(database), "the database");
    eprintln!(
        "{test}: {} rows, and the longest answer took {:?}",
        visitors.acknowledged().len(),
        visitors.longest()
    );
}
