//! Whether a file is whole.

use rusqlite::Connection;

use crate::database::Result;

/// No more problems than this are listed: a damaged file has them by the thousand.
const PROBLEMS_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in SQLite's words; empty when the file is whole. At most 100 are listed.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads the whole file: its structure, its indexes, its constraints and its foreign keys.
///
/// Takes a time that grows with the file. See <https://sqlite.org/pragma.html#pragma_integrity_check>.
pub(super) fn full(connection: &Connection) -> Result<Report> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
    let lines = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut problems: Vec<_> = lines.into_iter().filter(|line| line != "ok").collect();
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let broken = statement.query_map([], |row| {
        let (table, row_id, parent): (String, Option<i64>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let row_id = row_id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        Ok(format!(
            "row {row_id} of {table} refers to a row of {parent} that is not there"
        ))
    })?;
    for line in broken.take(PROBLEMS_MAX) {
        problems.push(line?);
    }
    Ok(Report { problems })
}
