//! The copies that are put beside a database before it is migrated, and kept for a while.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::database::Clock;
use crate::database::Error;
use crate::database::Result;
use crate::database::backup;
use crate::database::connection;
use crate::database::connection::Options;
use crate::database::connection::Role;
use crate::database::files;

/// How many copies are kept; older ones are removed after the next migration.
pub(super) const KEPT: usize = 3;

/// Between the file's name and the time.
const INFIX: &str = ".before-migration-";

/// The time in a copy's name, in UTC.
const TIME: &str = "%Y%m%dT%H%M%S.%3fZ";

/// A copy that was just made.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
}

impl Copy {
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

/// Copies the file as it is, if there is something in it, for the case that the migration was a mistake.
///
/// The caller has the write lock, so that the copy has all that is there.
pub(super) fn before(
    locked: &Connection,
    options: &Options,
    clock: &Clock,
) -> Result<Option<Copy>> {
    if !options.copy_before_migration || is_new(locked)? {
        return Ok(None);
    }
    // What kills left behind, again and again, must not fill the disk.
    remove_old(&options.path, KEPT);
    // A connection that has the write lock cannot be copied from.
    let source = connection::open(options, Role::Reader)?;
    let folder = files::folder(&options.path);
    let (bytes, room) = (backup::bytes(&source)?, backup::room(folder)?);
    if room < bytes.saturating_add(backup::room_left(&options.path, folder)) {
        tracing::warn!(
            bytes,
            room,
            "the disk has no room for a copy of the database: it is migrated without one"
        );
        return Ok(None);
    }
    let path = free_name(&options.path, clock.now());
    // It takes long where the file is large, and nobody can write meanwhile.
    tracing::info!(copy = %path.display(), bytes, "copying the database before migrating");
    let made = backup::make(&source, &path, |_| {}).map_err(|error| {
        Error::Migrate(format!(
            "the copy to be made before it failed, and nothing was changed ({error}); \
             database.copy_before_migration = false does without"
        ))
    })?;
    tracing::info!(copy = %path.display(), bytes = made.bytes, took = ?made.time, "copied before migrating");
    Ok(Some(Copy { path }))
}

fn is_new(connection: &Connection) -> Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

fn free_name(database: &Path, now: Timestamp) -> PathBuf {
    let mut time = now;
    loop {
        let ending = format!("{INFIX}{}", time.strftime(TIME));
        let path = connection::beside(database, &ending);
        if path.symlink_metadata().is_err() {
            return path;
        }
        // Another one of the same millisecond: names stay in the order of time.
        time += std::time::Duration::from_millis(1);
    }
}

/// The copies of this database, the newest first.
pub(super) fn all(database: &Path) -> Vec<PathBuf> {
    let mut copies = list(database, is_time);
    copies.sort();
    copies.reverse();
    copies
}

/// Removes all but the newest `kept`, and what a killed process did not finish.
///
/// The caller has the write lock, or has had it a moment ago: nobody else is making one.
pub(super) fn remove_old(database: &Path, kept: usize) {
    for path in all(database).iter().skip(kept) {
        tracing::info!(copy = %path.display(), "removing an old copy");
        remove(path);
    }
    let unfinished = |time: &str| {
        let partial = time.strip_suffix(".lock").unwrap_or(time);
        partial.strip_suffix(".partial").is_some_and(is_time)
    };
    for path in list(database, unfinished) {
        remove(&path);
    }
}

/// The files beside the database that are named as copies of it, with a time that is `wanted`.
fn list(database: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let folder = files::folder(database);
    let Some(prefix) = database.file_name().and_then(OsStr::to_str) else {
        return Vec::new();
    };
    let prefix = format!("{prefix}{INFIX}");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ours = names.filter(|name| name.strip_prefix(&prefix).is_some_and(&wanted));
    ours.map(|name| folder.join(name)).collect()
}

/// Whether it is a time as [`TIME`] has it; what people have named otherwise is theirs.
fn is_time(text: &str) -> bool {
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.chars().map(digits).eq("00000000T000000.000Z".chars())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, copy = %path.display(), "a copy could not be removed");
    }
}
