//! What can still be read of a damaged file, in a new one.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use crate::database::Error;
use crate::database::Result;
use crate::database::backup;
use crate::database::backup::Partial;
use crate::database::connection;
use crate::database::files;
use crate::database::place;
use crate::database::salvage;
use crate::database::shell;

/// What was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Why the `sqlite3` shell was not used, if it was not: the rows were read one by one then.
    pub(crate) without_shell: Option<String>,
    /// Every table of the damaged file and of the new one, by name.
    pub(crate) tables: Vec<Table>,
    /// What could not be brought over, in SQLite's words.
    pub(crate) complaints: Vec<String>,
    /// Rows of the new file that break a rule of the schema, in words; at most 100.
    pub(crate) violations: Vec<String>,
}

/// How many rows of a table there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) before: Rows,
    pub(crate) after: Rows,
}

/// How many rows a file has of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// So many.
    Counted(u64),
    /// It is not known, for they cannot all be read.
    Unreadable,
    /// There is no such table.
    NoTable,
}

/// Makes the most of the damaged file `from` and writes it into the new file `to`; `from` is not changed.
///
/// The shell's `.recover` finds rows that no table leads to any more. Where there is no shell that can do it, the
/// tables are read row by row, around what is damaged.
///
/// # Errors
///
/// [`Error::Recover`] when `to` exists or has no room, or when nothing can be recovered.
pub(crate) fn recover(from: &Path, to: &Path) -> Result<Recovered> {
    let partial = Partial::begin(to).map_err(not_recovered)?;
    refuse_if_no_room(from, to)?;
    let before = counts(from).unwrap_or_default();
    let (without_shell, complaints) = match shell::missing() {
        None => (None, shell::recover(from, &partial.path)?),
        Some(reason) => {
            let complaints = salvage::salvage(from, &partial.path).map_err(no_room(to))?;
            (Some(reason), complaints)
        }
    };
    let after = counts(&partial.path)?;
    if after.is_empty() {
        return refuse(format!(
            "nothing of {} can be read{}",
            from.display(),
            without_shell.map_or_else(String::new, |reason| format!(" ({reason})"))
        ));
    }
    let report = backup::verify(&partial.path).map_err(not_recovered)?;
    if let Some(first) = report.problems.first() {
        return refuse(format!("what could be read makes no sound file ({first})"));
    }
    let synced = partial.file.sync_all();
    synced.map_err(|error| Error::Recover(format!("{}: {error}", to.display())))?;
    partial.finish(to).map_err(not_recovered)?;
    Ok(Recovered {
        without_shell,
        tables: tables(&before, &after),
        complaints,
        violations: report.violations,
    })
}

fn refuse_if_no_room(from: &Path, to: &Path) -> Result<()> {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let bytes = size(from) + size(&connection::beside(from, "-wal"));
    let room = backup::room(files::folder(to)).map_err(not_recovered)?;
    let left = backup::room_left(&place::real(from), files::folder(to));
    if room < bytes.saturating_add(left) {
        return refuse(format!(
            "there may be no room for {}: {} has {bytes} bytes{}, and {room} are free on its disk",
            to.display(),
            from.display(),
            backup::besides(left)
        ));
    }
    Ok(())
}

fn counts(path: &Path) -> Result<BTreeMap<String, Rows>> {
    let connection = connection::open_as_it_is(path)?;
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    // As far as the schema can be read.
    let names: Vec<String> = names.map_while(std::result::Result::ok).collect();
    let count = |name: String| {
        let rows = count(&connection, &name).map_or(Rows::Unreadable, Rows::Counted);
        (name, rows)
    };
    Ok(names.into_iter().map(count).collect())
}

/// Reads every row of the table itself: an index may be whole and count what is gone.
fn count(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let table = quoted(table);
    let all = format!("SELECT count(*) FROM {table} NOT INDEXED");
    connection.query_row(&all, [], |row| row.get(0))
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn tables(before: &BTreeMap<String, Rows>, after: &BTreeMap<String, Rows>) -> Vec<Table> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let rows = |counts: &BTreeMap<String, Rows>, name: &String| {
        let rows = counts.get(name).copied();
        rows.unwrap_or(Rows::NoTable)
    };
    let table = |name: &String| Table {
        name: name.clone(),
        before: rows(before, name),
        after: rows(after, name),
    };
    names.into_iter().map(table).collect()
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Recover(reason))
}

/// A full disk is told by the file that it had no room for.
fn no_room(to: &Path) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::DiskFull => Error::Recover(format!(
            "there is no room for {}, and what was written is removed: make room, or name a file on another disk",
            to.display()
        )),
        error => error,
    }
}

/// What fails with the new file is no backup here.
fn not_recovered(error: Error) -> Error {
    match error {
        Error::Backup(reason) => Error::Recover(reason),
        error => error,
    }
}
