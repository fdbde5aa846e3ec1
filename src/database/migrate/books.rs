//! The books of a set: which of its migrations are in the file, and whether they are still the same.

use jiff::Timestamp;
use refinery_core::Migration;
use rusqlite::Connection;
use rusqlite::params;

use crate::database::Error;
use crate::database::Migrations;
use crate::database::Result;
use crate::database::migrate::Step;

/// A row of the books.
pub(super) struct Row {
    pub(super) version: i64,
    name: String,
    applied_at: String,
    checksum: String,
}

impl Row {
    /// The file's name, as it was when it was applied.
    pub(super) fn file(&self) -> String {
        format!("V{}__{}", self.version, self.name)
    }
}

/// Lists every migration of the sets, and when each was applied; changes nothing.
pub(in crate::database) fn status(
    connection: &Connection,
    sets: &[Migrations],
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for set in sets {
        let rows = rows(connection, set)?;
        let files = set.parse()?;
        check(set, &files, &rows)?;
        steps.extend(files.iter().map(|file| Step {
            set: set.set,
            name: file.to_string(),
            applied_at: find(&rows, file).map(|row| row.applied_at.clone()),
            time: None,
        }));
    }
    Ok(steps)
}

/// What the file lacks of a set.
pub(super) fn pending(connection: &Connection, set: &Migrations) -> Result<Vec<Migration>> {
    let rows = rows(connection, set)?;
    let mut files = set.parse()?;
    check(set, &files, &rows)?;
    files.retain(|file| find(&rows, file).is_none());
    Ok(files)
}

/// Enters a migration that was applied.
pub(super) fn enter(
    connection: &Connection,
    set: &Migrations,
    migration: &Migration,
    now: Timestamp,
) -> Result<()> {
    let table = set.table();
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (
             version INTEGER PRIMARY KEY,
             name TEXT NOT NULL,
             applied_on TEXT NOT NULL,
             checksum TEXT NOT NULL
         ) STRICT"
    ))?;
    connection.execute(
        &format!(
            "INSERT INTO {table} (version, name, applied_on, checksum) VALUES (?1, ?2, ?3, ?4)"
        ),
        params![
            migration.version(),
            migration.name(),
            now.to_string(),
            migration.checksum().to_string()
        ],
    )?;
    Ok(())
}

/// The rows of a set, the lowest version first; none where it has no books yet.
pub(super) fn rows(connection: &Connection, set: &Migrations) -> Result<Vec<Row>> {
    let table = set.table();
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    if !connection.query_row(sql, [&table], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version, name, applied_on, checksum FROM {table} ORDER BY version");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Row {
            version: row.get(0)?,
            name: row.get(1)?,
            applied_at: row.get(2)?,
            checksum: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn find<'a>(rows: &'a [Row], file: &Migration) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.version == i64::from(file.version()))
}

/// Refuses a file whose books do not fit the program.
fn check(set: &Migrations, files: &[Migration], rows: &[Row]) -> Result<()> {
    let name = set.set;
    for row in rows {
        let ours = files
            .iter()
            .find(|file| i64::from(file.version()) == row.version);
        match ours {
            None => return Err(unknown(set, files, row)),
            Some(ours) if ours.name() != row.name => {
                return Err(Error::Migrate(format!(
                    "the file has {name} {} where this program has {ours}: is it another site's database?",
                    row.file()
                )));
            }
            Some(ours) if ours.checksum().to_string() != row.checksum => {
                return Err(Error::Migrate(format!(
                    "{name} {ours} was changed after it had been applied: \
                     take the change back, and put what is new in a file of its own"
                )));
            }
            Some(_) => {}
        }
    }
    let last = rows.last().map_or(-1, |row| row.version);
    let late = files
        .iter()
        .filter(|file| find(rows, file).is_none() && is_versioned(file))
        .find(|file| i64::from(file.version()) < last);
    match late {
        Some(late) => Err(Error::Migrate(format!(
            "{name} {late} is not applied, though later ones are: give what is new the highest number"
        ))),
        None => Ok(()),
    }
}

/// Those that are not, `U…`, may come in any order.
fn is_versioned(file: &Migration) -> bool {
    file.to_string().starts_with('V')
}

fn unknown(set: &Migrations, files: &[Migration], row: &Row) -> Error {
    let (name, theirs) = (set.set, row.file());
    let ours = files.last().map(|last| (last.version(), last.to_string()));
    Error::Migrate(match ours {
        Some((version, ours)) if i64::from(version) > row.version => format!(
            "the file has {name} {theirs}, which this program does not know, though it has {ours}: \
             is it another site's database?"
        ),
        ours => format!(
            "this database is newer than the program: the file has {name} {theirs}, and this program ends at {}; \
             run the newer program, or restore an older copy",
            ours.map_or_else(|| "nothing".to_owned(), |(_, ours)| ours)
        ),
    })
}
