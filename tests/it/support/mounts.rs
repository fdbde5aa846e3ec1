//! The program in mounts of its own, which nobody else sees and which end with it.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::support::command::Printed;
use crate::support::command::printed;
use crate::support::process::command;
use crate::support::waiting::slow;

/// Its own mounts, and its own processes: what was started for a mount is killed with the last command.
const UNSHARE: [&str; 5] = [
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
];

/// Whether this machine lets one mount; says that `test` was skipped where it does not, and where all tests are
/// wanted, fails it.
pub(crate) fn are_possible(test: &str) -> bool {
    let tried = Command::new("unshare")
        .args(UNSHARE)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    let are_possible = tried.is_ok_and(|status| status.success());
    assert!(
        are_possible || !slow(test),
        "`unshare` cannot mount anything here"
    );
    are_possible
}

/// Runs the program in `folder` until it ends, after `script` has mounted what it wants.
pub(crate) fn run(
    folder: &Path,
    script: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Printed {
    let program = command(folder);
    let given = program
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut unshare = Command::new("unshare");
    unshare.env_clear().envs(given);
    let script = format!("{script} && \"$0\" \"$@\"");
    unshare
        .current_dir(folder)
        .args(UNSHARE)
        .args(["sh", "-c", &script])
        .arg(program.get_program())
        .args(arguments)
        .envs(variables.iter().copied());
    printed(&mut unshare)
}
