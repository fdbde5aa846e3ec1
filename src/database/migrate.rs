//! Named sets of embedded SQL files, applied in order, once.
//!
//! `refinery` keeps the books (order, checksums, what was applied); a table for each set lets the framework's
//! and the site's own stand side by side in one file. All that is missing is applied in one transaction:
//! when a statement fails, the file is as it was.

use refinery_core::Migration;
use refinery_core::Runner;
use refinery_core::error::Kind;
use refinery_core::traits::sync::Migrate;
use refinery_core::traits::sync::Query;
use refinery_core::traits::sync::Transaction as Migrator;
use rusqlite::Connection;
use rusqlite::OptionalExtension;

use crate::database::Error;
use crate::database::Result;

/// A named set of migrations, in the order in which they are applied.
///
/// ```
/// use houseboat::database::Migrations;
///
/// const MIGRATIONS: Migrations = Migrations::new(
///     "site",
///     &[("V1__notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;")],
/// );
/// # let _ = MIGRATIONS;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    set: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl Migrations {
    /// A set by its name (lower-case letters and `_`) and its files: name (`V1__what_it_does`) and SQL.
    ///
    /// A file that has been applied somewhere must not change any more: that is noticed by its checksum, and refused.
    #[must_use]
    pub const fn new(set: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { set, files }
    }

    fn table(&self) -> String {
        format!("migrations_{}", self.set)
    }

    fn parse(&self) -> Result<Vec<Migration>> {
        let valid = |c: char| c.is_ascii_lowercase() || c == '_';
        if self.set.is_empty() || !self.set.chars().all(valid) {
            return Err(Error::Migrate(format!(
                "the set's name {:?} should be lower-case letters and _",
                self.set
            )));
        }
        let parse = |(name, sql): &(&str, &str)| {
            Migration::unapplied(name, sql)
                .map_err(|error| Error::Migrate(format!("{} {name}: {error}", self.set)))
        };
        self.files.iter().map(parse).collect()
    }
}

/// One migration and whether it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The set it belongs to.
    pub set: &'static str,
    /// Its name, such as `V1__monitors`.
    pub name: String,
    /// When it was applied (RFC 3339), or `None` if it is pending.
    pub applied_at: Option<String>,
}

/// Applies what is missing of every set, in one transaction, and says what that was.
///
/// Foreign keys are not enforced meanwhile, so that a table can be made anew, and are checked before the commit.
pub(super) fn apply(connection: &mut Connection, sets: &[Migrations]) -> Result<Vec<Step>> {
    connection.pragma_update(None, "foreign_keys", false)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut steps = Vec::new();
    for set in sets {
        steps.extend(apply_set(&transaction, set)?);
    }
    check_foreign_keys(&transaction)?;
    transaction.commit()?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(steps)
}

fn apply_set(connection: &Connection, set: &Migrations) -> Result<Vec<Step>> {
    let mut runner = Runner::new(&set.parse()?);
    runner.set_migration_table_name(set.table());
    let report = runner
        .run(&mut Books(connection))
        .map_err(|error| explain(set, &error))?;
    let step = |migration: &Migration| Step {
        set: set.set,
        name: migration.to_string(),
        applied_at: None,
    };
    Ok(report.applied_migrations().iter().map(step).collect())
}

/// Lists every migration of the sets, and when each was applied; changes nothing.
pub(super) fn status(connection: &Connection, sets: &[Migrations]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for set in sets {
        let ours = set.parse()?;
        let applied = applied(connection, set)?;
        for row in &applied {
            match ours
                .iter()
                .find(|ours| i64::from(ours.version()) == row.version)
            {
                None => return Err(newer(set, &format!("V{}__{}", row.version, row.name))),
                Some(ours) if ours.name() != row.name => {
                    return Err(another(
                        set,
                        &format!("V{}__{}", row.version, row.name),
                        &ours.to_string(),
                    ));
                }
                Some(ours) if ours.checksum().to_string() != row.checksum => {
                    return Err(changed(set, &ours.to_string()));
                }
                Some(_) => {}
            }
        }
        steps.extend(ours.iter().map(|ours| {
            let version = i64::from(ours.version());
            let row = applied.iter().find(|row| row.version == version);
            Step {
                set: set.set,
                name: ours.to_string(),
                applied_at: row.map(|row| row.applied_at.clone()),
            }
        }));
    }
    Ok(steps)
}

/// A row of the books.
struct Row {
    version: i64,
    name: String,
    applied_at: String,
    checksum: String,
}

fn applied(connection: &Connection, set: &Migrations) -> Result<Vec<Row>> {
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

fn check_foreign_keys(connection: &Connection) -> Result<()> {
    let broken = connection
        .query_row("PRAGMA foreign_key_check", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    match broken {
        Some((table, parent)) => Err(Error::Migrate(format!(
            "after it, rows of {table} would refer to rows of {parent} that are not there"
        ))),
        None => Ok(()),
    }
}

fn explain(set: &Migrations, error: &refinery_core::Error) -> Error {
    let name = set.set;
    match error.kind() {
        Kind::DivergentVersion(applied, ours) if applied.name() != ours.name() => {
            another(set, &applied.to_string(), &ours.to_string())
        }
        Kind::DivergentVersion(_, ours) => changed(set, &ours.to_string()),
        Kind::MissingVersion(ours) if ours.sql().is_some() => Error::Migrate(format!(
            "{name} {ours} is not applied, though later ones are: give what is new the highest number"
        )),
        Kind::MissingVersion(applied) => newer(set, &applied.to_string()),
        Kind::Connection(_, source) => Error::Migrate(format!("{name}: {source}")),
        kind => Error::Migrate(format!("{name}: {kind}")),
    }
}

fn changed(set: &Migrations, name: &str) -> Error {
    Error::Migrate(format!(
        "{} {name} was changed after it had been applied: \
         take the change back, and put what is new in a file of its own",
        set.set
    ))
}

fn another(set: &Migrations, applied: &str, ours: &str) -> Error {
    Error::Migrate(format!(
        "the file has {} {applied} where this program has {ours}: is it another site's database?",
        set.set
    ))
}

fn newer(set: &Migrations, name: &str) -> Error {
    Error::Migrate(format!(
        "this database is newer than the program: it has {} {name}, which the program does not know; \
         run the newer program, or restore an older copy",
        set.set
    ))
}

/// Lends a connection to refinery, whose transactions are then ours.
struct Books<'conn>(&'conn Connection);

impl Migrator for Books<'_> {
    type Error = rusqlite::Error;

    fn execute<'a, T: Iterator<Item = &'a str>>(&mut self, queries: T) -> rusqlite::Result<usize> {
        let mut count = 0;
        for query in queries {
            self.0.execute_batch(query)?;
            count += 1;
        }
        Ok(count)
    }
}

impl Query<Vec<Migration>> for Books<'_> {
    fn query(&mut self, query: &str) -> rusqlite::Result<Vec<Migration>> {
        let mut statement = self.0.prepare(query)?;
        let rows = statement.query_map([], |row| {
            let checksum: String = row.get(3)?;
            Ok(Migration::applied(
                row.get(0)?,
                row.get(1)?,
                // Compared by nobody: what counts is version, name and checksum.
                time::OffsetDateTime::UNIX_EPOCH,
                checksum.parse().unwrap_or_default(),
            ))
        })?;
        rows.collect()
    }
}

impl Migrate for Books<'_> {}
