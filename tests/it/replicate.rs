//! The command `replicate`.

use std::time::Duration;

use tempfile::TempDir;

use crate::support::holder::FILE;
use crate::support::holder::done;
use crate::support::holder::generation;
use crate::support::holder::insert;
use crate::support::holder::variables;
use crate::support::holder::words;
use crate::support::process::TestProcess;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::S3;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_takes_longer_than_a_restore_may_is_still_finished() {
    if !slow("a_copy_that_takes_longer_than_a_restore_may_is_still_finished") {
        return;
    }
    let s3 = S3::start().await;
    let [one, other] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    done(&s3, one.path(), &["migrate"]);
    insert(one.path(), "late");
    let proxy = Proxy::start(&s3.endpoint(), Fault::HoldsUploads).await;
    let endpoint = proxy.endpoint();
    let more = [
        ("REPLICATION__ENDPOINT", endpoint.as_str()),
        ("REPLICATION__RESTORE_TIMEOUT_MS", "1000"),
    ];
    let builder = TestProcess::builder().folder(one.path());
    let builder = builder.argument("replicate").argument("--once");
    let variables = variables(&s3, &more).into_iter();
    let mut process = variables
        .fold(builder, |builder, (name, value)| {
            builder.variable(&name, value)
        })
        .spawn();
    wait_for("end of its time", SOON, async || {
        let log = process.log();
        log.contains("takes longer than a restore may")
            .then_some(())
    })
    .await;
    assert_eq!(s3.list("site/generations/"), [""; 0]);
    proxy.relent();
    let status = process.wait(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", process.log());
    done(&s3, other.path(), &["restore"]);
    assert_eq!(words(&other.path().join(FILE)), ["late"]);
    assert!(generation(&s3).starts_with("00000001-"));
}
