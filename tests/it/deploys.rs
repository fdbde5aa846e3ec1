//! Deploys and kills under a load of reads and writes, and what they must not cost.
//!
//! `tests/containers/deploys.py` says what is looked at. By hand, it does twenty and more.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::command::printed;
use crate::support::docker::ledger;
use crate::support::docker::shipped;
use crate::support::waiting::slow;

fn deploy(arguments: &[&str]) {
    if !slow(&format!("deploys {arguments:?}")) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("ledger");
    ledger(&program);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers/deploys.py");
    let mut command = Command::new("python3");
    command
        .arg("-B")
        .arg(script)
        .arg(shipped())
        .arg(program)
        .args(arguments);
    let printed = printed(&mut command);
    assert_eq!(printed.code, Some(0), "{}\n{}", printed.out, printed.err);
}

#[test]
fn a_rolling_deploy_fails_no_request_and_loses_no_row() {
    deploy(&["--deploys", "2"]);
}

#[test]
fn a_rolling_deploy_on_a_volume_fails_no_request_and_loses_no_row() {
    deploy(&["--deploys", "2", "--volume"]);
}

#[test]
fn a_killed_container_loses_what_was_not_synced_and_nothing_older() {
    deploy(&["--deploys", "2", "--mode", "kill"]);
}
