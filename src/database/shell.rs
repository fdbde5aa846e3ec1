//! The `sqlite3` shell, which has the best way to recover rows.

use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use crate::database::Error;
use crate::database::Result;
use crate::database::connection;

const SHELL: &str = "sqlite3";

/// `.recover` reads pages by this table, which Debian and Ubuntu leave out of their shell; it ends in a few lines then.
const HAS_PAGES: &str = "SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'";

/// More complaints than these say nothing new.
const COMPLAINTS_MAX: usize = 20;

/// Says why the shell cannot recover anything here, if it cannot.
pub(super) fn missing() -> Option<String> {
    let get = "one that has it is at https://sqlite.org/download.html";
    match command().args([":memory:", HAS_PAGES]).output() {
        Err(_) => Some(format!(
            "there is no {SHELL} on the PATH, whose .recover may find more: {get}"
        )),
        Ok(answer) if answer.stdout.trim_ascii() != b"1" => Some(format!(
            "the {SHELL} on the PATH was built without .recover, which may find more: {get}"
        )),
        Ok(_) => None,
    }
}

/// Lets one shell write down what it finds in `from` and another one read that into `to`; gives their complaints.
pub(super) fn recover(from: &Path, to: &Path) -> Result<Vec<String>> {
    let mut reader = command()
        .arg("-readonly")
        .arg(connection::address(from))
        .arg(".recover")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let sql = reader.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let mut writer = command()
        // What is half done is thrown away.
        .args(["-cmd", "PRAGMA journal_mode = off"])
        .args(["-cmd", "PRAGMA synchronous = off"])
        .arg(std::path::absolute(to).map_err(failed)?)
        .stdin(sql)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let threads = [listen(&mut reader), listen(&mut writer)];
    let ends = [
        reader.wait().map_err(failed)?,
        writer.wait().map_err(failed)?,
    ];
    let [read, written] = threads.map(|thread| thread.join().unwrap_or_default());
    if let Some(line) = written.lines().find(|line| is_of_the_disk(line)) {
        return Err(Error::Recover(format!(
            "{} cannot be written, and was removed ({line})",
            to.display()
        )));
    }
    let mut said = complaints(&read);
    said.extend(complaints(&written));
    // The writer's code tells of statements that failed, which are among its complaints; a signal has none.
    let failed = (!ends[0].success()).then_some(ends[0]);
    if let Some(end) = failed.or_else(|| ends[1].code().is_none().then_some(ends[1])) {
        return Err(Error::Recover(format!(
            "{SHELL} failed ({end}): {}",
            said.join("; ")
        )));
    }
    Ok(said)
}

/// Whether the writer says that it could not write, or not go on: what is missing then is missing without a word.
fn is_of_the_disk(line: &str) -> bool {
    let words = ["disk is full", "disk I/O error", "out of memory"];
    words.iter().any(|words| line.contains(words))
}

/// A shell that asks nothing, and reads no file of the user's own first.
fn command() -> Command {
    let mut command = Command::new(SHELL);
    command
        .args(["-batch", "-init", "/dev/null"])
        .stdin(Stdio::null());
    command
}

/// Collects what a shell says on stderr, beside it: a full pipe would stop it.
fn listen(child: &mut Child) -> thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until then is good.
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn complaints(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.take(COMPLAINTS_MAX).map(str::to_owned).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn failed(error: std::io::Error) -> Error {
    Error::Recover(format!("{SHELL}: {error}"))
}
