//! Named sets of embedded SQL files, applied in order, once.
//!
//! Each set has books of its own, a table of names and checksums, so that the framework's and the site's stand side by
//! side in one file. All that is missing is applied in one transaction, after a copy was put beside the file: when a
//! statement fails, or the process dies, the file is as it was.

mod books;
mod copies;
mod dry_run;
mod references;
mod statements;
mod target;

use std::time::Duration;
use std::time::Instant;

use refinery_core::Migration;
use rusqlite::Connection;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;

pub use self::target::Target;

use self::copies::Copy;
use crate::database::Clock;
use crate::database::Error;
use crate::database::Result;
use crate::database::connection;
use crate::database::connection::Options;
use crate::database::connection::Role;

pub(super) use self::books::status;
pub(super) use self::dry_run::dry_run;

/// How long to wait for another process that migrates, or writes: longer than most migrations take, and not for ever.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// How long SQLite waits for a lock before it is asked again.
const LOCK_STEP: Duration = Duration::from_millis(500);

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

    /// The files, the lowest version first.
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
        let mut files = self.files.iter().map(parse).collect::<Result<Vec<_>>>()?;
        files.sort();
        match files
            .windows(2)
            .find(|pair| pair[0].version() == pair[1].version())
        {
            Some(pair) => Err(Error::Migrate(format!(
                "{} {} and {} have the same number: give what is new the highest one",
                self.set, pair[0], pair[1]
            ))),
            None => Ok(files),
        }
    }
}

/// One migration and whether it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The set it belongs to.
    pub set: &'static str,
    /// Its name, such as `V1__monitors`.
    pub name: String,
    /// When it was applied before (RFC 3339), or `None` if it was not.
    pub applied_at: Option<String>,
    /// How long it took, if it was applied just now.
    pub time: Option<Duration>,
}

/// A migration that the file lacks.
struct Pending {
    set: Migrations,
    migration: Migration,
}

/// Applies what is missing of every set, as far as `target` goes, in one transaction, and says what that was.
pub(super) fn apply(
    options: &Options,
    clock: &Clock,
    sets: &[Migrations],
    target: Option<&Target>,
) -> Result<Vec<Step>> {
    let connection = connection::open(options, Role::Writer)?;
    let pending = |connection: &Connection| missing(connection, options, sets, target);
    // Where nothing is missing nobody is waited for.
    if pending(&connection)?.is_empty() {
        return Ok(Vec::new());
    }
    // So that a table can be made anew; they are checked before the commit.
    connection.pragma_update(None, "foreign_keys", false)?;
    let transaction = begin(&connection, LOCK_WAIT)?;
    // Another process may have been here meanwhile.
    let pending = pending(&transaction)?;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let copy = copies::before(&transaction, options, clock)?;
    match apply_all(transaction, options, clock, &pending) {
        Ok(steps) => {
            copies::remove_old(&options.path, copies::KEPT);
            Ok(steps)
        }
        Err(error) => {
            // The file is as it was, and a copy of that is of no use.
            copy.as_ref().map(Copy::remove);
            Err(error)
        }
    }
}

fn missing(
    connection: &Connection,
    options: &Options,
    sets: &[Migrations],
    target: Option<&Target>,
) -> Result<Vec<Pending>> {
    if let Some(target) = target {
        target.check(connection, &options.path, sets)?;
    }
    let mut pending = Vec::new();
    for set in sets {
        let migrations = books::pending(connection, set)?.into_iter();
        let wanted = migrations.filter(|migration| target.is_none_or(|to| to.has(set, migration)));
        pending.extend(wanted.map(|migration| Pending {
            set: *set,
            migration,
        }));
    }
    Ok(pending)
}

/// Begins the one transaction of all of it: one process migrates, and the others wait.
fn begin(connection: &Connection, wait: Duration) -> Result<Transaction<'_>> {
    let end = Instant::now() + wait;
    let mut is_told = false;
    connection.busy_timeout(LOCK_STEP.min(wait))?;
    loop {
        let begun = Transaction::new_unchecked(connection, TransactionBehavior::Immediate);
        match begun.map_err(Error::from) {
            Err(Error::Busy) if Instant::now() < end => {}
            begun => return begun,
        }
        if !is_told {
            tracing::info!(at_most = ?wait, "another process holds the database: waiting for it, to migrate");
            is_told = true;
        }
    }
}

fn apply_all(
    transaction: Transaction<'_>,
    options: &Options,
    clock: &Clock,
    pending: &[Pending],
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for Pending { set, migration } in pending {
        let start = Instant::now();
        statements::run(&transaction, set, migration)?;
        books::enter(&transaction, set, migration, clock.now())?;
        steps.push(Step {
            set: set.set,
            name: migration.to_string(),
            applied_at: None,
            time: Some(start.elapsed()),
        });
    }
    // Another connection sees the file as it was until the commit.
    references::check(&transaction, || connection::open(options, Role::Reader))?;
    transaction.commit()?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Synchronous;

    #[test]
    fn a_lock_that_is_held_for_too_long_is_busy() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            path: folder.path().join("test.sqlite3"),
            busy_timeout_ms: 5_000,
            synchronous: Synchronous::Normal,
            cache_pages: 100,
            journal_size_limit_bytes: 0,
            mmap_bytes: 0,
            copy_before_migration: true,
            warnings: Vec::new(),
        };
        let one = connection::open(&options, Role::Writer).unwrap();
        let other = connection::open(&options, Role::Writer).unwrap();
        let held = begin(&one, LOCK_WAIT).unwrap();
        let wait = Duration::from_millis(50);
        let start = Instant::now();
        assert!(matches!(begin(&other, wait), Err(Error::Busy)));
        assert!(start.elapsed() >= wait);
        drop(held);
        begin(&other, wait).unwrap();
    }
}
