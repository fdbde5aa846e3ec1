//! Whether a file is whole.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use crate::database::Result;

/// No more problems than this are listed: a damaged file has them by the thousand.
const PROBLEMS_MAX: usize = 100;

/// SQLite looks no further once it has found so many; rows that break a rule must not hide damage behind them.
const LINES_MAX: usize = 10_000;

/// So many steps of SQLite's machine lie between two looks at whether to go on.
const STEPS: i32 = 100_000;

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its structure: every page and every row, but not whether the indexes hold what the tables do.
    ///
    /// See <https://sqlite.org/pragma.html#pragma_quick_check>.
    Quick,
    /// All of that, its indexes and its foreign keys.
    Full,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What is damaged, in SQLite's words; empty when the file is whole. At most 100 are listed.
    pub problems: Vec<String>,
    /// Rows that break a rule of the schema: what they refer to is missing, or a value is not what it should be.
    /// The file is whole all the same. At most 100 are listed.
    pub violations: Vec<String>,
    /// Whether the check came to its end; SQLite looks no further once it has found ten thousand of either.
    pub is_complete: bool,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.violations.is_empty()
    }
}

/// Reads the file, and gives up when `stop` is set; takes a time that grows with the file.
pub(super) fn check(
    connection: &Connection,
    depth: Depth,
    stop: &Arc<AtomicBool>,
) -> Result<Report> {
    let stop = Arc::clone(stop);
    connection.progress_handler(STEPS, Some(move || stop.load(Ordering::Relaxed)))?;
    let mut report = Report::default();
    match look(connection, depth, &mut report) {
        // Some damage ends the check itself.
        Err(error) if error.is_corruption() => report.problems.push(error.to_string()),
        done => done?,
    }
    Ok(report)
}

fn look(connection: &Connection, depth: Depth, report: &mut Report) -> Result<()> {
    let name = match depth {
        Depth::Quick => "quick_check",
        Depth::Full => "integrity_check",
    };
    let mut lines = 0;
    let mut statement = connection.prepare(&format!("PRAGMA {name}({LINES_MAX})"))?;
    for line in statement.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        lines += 1;
        let list = match line.as_str() {
            "ok" => continue,
            line if is_violation(line) => &mut report.violations,
            _ => &mut report.problems,
        };
        if list.len() < PROBLEMS_MAX {
            list.push(line);
        }
    }
    report.is_complete = lines < LINES_MAX;
    if depth == Depth::Full {
        foreign_keys(connection, report)?;
    }
    Ok(())
}

/// Whether a line is about a row that the schema does not allow, and not about the file.
fn is_violation(line: &str) -> bool {
    line.contains(" value in ") || line.starts_with("CHECK constraint failed in ")
}

fn foreign_keys(connection: &Connection, report: &mut Report) -> Result<()> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let broken = statement.query_map([], |row| {
        let (table, row_id, parent): (String, Option<i64>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let row_id = row_id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        Ok(format!(
            "row {row_id} of {table} refers to a row of {parent} that is not there"
        ))
    })?;
    for line in broken.take(PROBLEMS_MAX.saturating_sub(report.violations.len())) {
        report.violations.push(line?);
    }
    Ok(())
}

/// Lets everything else on this machine go first, for as long as this thread lives.
pub(super) fn go_last() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), 19) {
        tracing::debug!(%error, "the thread keeps its priority");
    }
}
