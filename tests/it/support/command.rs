//! A command of the program that ends by itself.

use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use crate::support::process::command;

/// The steps of the program's migrations, in their order.
pub(crate) const STEPS: [&str; 11] = [
    "queue V1__jobs",
    "queue V2__queues",
    "queue V3__schedule",
    "queue V4__requests",
    "queue V5__unread",
    "auth V1__users",
    "auth V2__totp",
    "auth V3__users_by_role",
    "http V1__assets",
    "http V2__once",
    "site V1__monitors",
];

/// What `migrate` says of a new database.
pub(crate) fn all_applied() -> String {
    STEPS.map(|step| format!("{step}: applied now\n")).concat()
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program in `folder` until it ends.
pub(crate) fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Printed {
    let mut command: Command = command(folder);
    printed(command.args(arguments).envs(variables.iter().copied()))
}

/// Runs a command until it ends.
pub(crate) fn printed(command: &mut Command) -> Printed {
    let output: Output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    Printed {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
