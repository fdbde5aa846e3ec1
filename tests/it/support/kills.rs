//! The program killed at a chosen system call, by `strace`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::support::process::command;
use crate::support::waiting::slow;

/// What changes a file, or makes sure that a change stays; those that a machine does not have are left out.
const CALLS: &str = "?rename,?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,?fchmod,?ftruncate,?fsync,\
                     ?fdatasync,?pwrite64";

/// One call of a run: which, and how many of its kind there were before it, this one counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    call: String,
    number: usize,
}

/// Whether this machine lets one trace; says that `test` was skipped where it does not, and where all tests are
/// wanted, fails it.
pub(crate) fn are_possible(test: &str) -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let are_possible = tried.is_ok_and(|status| status.success());
    assert!(are_possible || !slow(test), "`strace` cannot trace here");
    are_possible
}

/// Runs the program to its end, and gives the steps by which it changes files, in their order.
///
/// Of the writes of pages, which are many, these are the first, some between, and the last.
pub(crate) fn steps(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Vec<Step> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let ended = strace(folder, &format!("trace={CALLS}"), log.path())
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(ended.success(), "{arguments:?}: {ended}");
    let text = std::fs::read_to_string(log.path()).unwrap();
    let mut counts = BTreeMap::new();
    let mut steps = Vec::new();
    for line in text.lines() {
        // `process call(…`; what goes on after an interruption has no such name.
        let (process, rest) = line.split_once(' ').unwrap();
        let Some((call, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if call.is_empty() || !call.bytes().all(|c| c.is_ascii_alphanumeric()) {
            continue;
        }
        let count = counts.entry((process.to_owned(), call.to_owned()));
        let number = count.and_modify(|count| *count += 1).or_insert(1);
        let step = Step {
            call: call.to_owned(),
            number: *number,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    let pages = steps.iter().filter(|step| step.call == "pwrite64").count();
    let is_one_of_few = |number| number == 1 || number == pages || number % (pages / 4 + 1) == 0;
    steps.retain(|step| step.call != "pwrite64" || is_one_of_few(step.number));
    steps
}

/// Runs the program until it is about to take this step, and kills it there.
pub(crate) fn kill_at(folder: &Path, arguments: &[&str], variables: &[(&str, &str)], step: &Step) {
    let Step { call, number } = step;
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let ended = strace(folder, &inject, Path::new("/dev/null"))
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(!ended.success(), "{step:?} did not come");
}

fn strace(folder: &Path, expression: &str, log: &Path) -> Command {
    let program = command(folder);
    let given = program.get_envs();
    let mut strace = Command::new("strace");
    strace
        .current_dir(folder)
        .env_clear()
        .envs(given.filter_map(|(name, value)| Some((name, value?))))
        .args(["-f", "-q", "-e", expression, "-o"])
        .arg(log)
        .arg(program.get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    strace
}
