//! A command of the program that ends by itself.

use std::path::Path;
use std::process::Command;
use std::process::Output;

use crate::support::process::command;

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
    let output: Output = command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdout(std::process::Stdio::piped())
        .output()
        .unwrap();
    Printed {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
