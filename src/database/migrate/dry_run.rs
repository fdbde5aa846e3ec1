//! A migration tried on a copy.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::database::Clock;
use crate::database::Error;
use crate::database::Migrations;
use crate::database::Result;
use crate::database::Step;
use crate::database::backup;
use crate::database::backup::ROOM_LEFT;
use crate::database::connection;
use crate::database::connection::Options;
use crate::database::files;
use crate::database::migrate::Target;
use crate::database::migrate::apply;

/// The folder beside the database in which it is tried, and the copy in it.
const FOLDER: &str = ".dry-run";
const COPY: &str = "copy.sqlite3";

/// Applies to a copy what is missing, says what that was, and removes the copy; the file is only read.
pub(in crate::database) fn dry_run(
    options: &Options,
    sets: &[Migrations],
    target: Option<&Target>,
) -> Result<Vec<Step>> {
    let on_copy = |path: PathBuf| {
        let options = Options {
            path,
            copy_before_migration: false,
            ..options.clone()
        };
        apply(&options, &Clock::system(), sets, target)
    };
    if !options.path.exists() {
        let folder = tempfile::tempdir().map_err(|error| no_folder(&error))?;
        return on_copy(folder.path().join(COPY));
    }
    let place = Place::take(&options.path)?;
    copy(&options.path, &place.copy())?;
    on_copy(place.copy())
}

/// A folder on the file's own disk, always of the same name: what a killed process left is found and removed.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// Locked, for whoever is here removes what is here.
    _lock: File,
}

impl Place {
    fn take(database: &Path) -> Result<Self> {
        let folder = connection::beside(database, FOLDER);
        let made = fs::create_dir(&folder);
        made.or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => Err(no_folder(&error)),
        })?;
        let lock = File::open(&folder).map_err(|error| no_folder(&error))?;
        // The one who had the lock until now has removed the folder.
        let is_still = |lock: &File| {
            let of = |file: fs::Metadata| (file.dev(), file.ino());
            lock.metadata().ok().map(of) == folder.symlink_metadata().ok().map(of)
        };
        match lock.try_lock() {
            Ok(()) if is_still(&lock) => {}
            Ok(()) | Err(TryLockError::WouldBlock) => {
                return Err(Error::Migrate(format!(
                    "another process tries migrations in {} at this moment",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(no_folder(&error)),
        }
        let place = Self {
            folder,
            _lock: lock,
        };
        place.empty();
        Ok(place)
    }

    fn copy(&self) -> PathBuf {
        self.folder.join(COPY)
    }

    fn empty(&self) {
        for ending in ["", "-journal", "-wal", "-shm"] {
            // Most of them are not there, and one that stays is in the way of the copy, which says so.
            let _ = fs::remove_file(connection::beside(&self.copy(), ending));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.empty();
        // What somebody else has put there is theirs, and stays with it.
        let _ = fs::remove_dir(&self.folder);
    }
}

fn no_folder(error: &std::io::Error) -> Error {
    Error::Migrate(format!(
        "cannot make a folder for the copy to try it on: {error}"
    ))
}

fn copy(database: &Path, to: &Path) -> Result<()> {
    // A connection of ours would bring the WAL home when it closes, and change the file.
    let source = connection::open_as_it_is(database)?;
    let bytes = backup::bytes(&source)?;
    let room = backup::room(files::folder(database))?;
    if room < bytes.saturating_add(ROOM_LEFT) {
        return Err(Error::Migrate(format!(
            "it is tried on a copy, which takes {bytes} bytes, and {room} are free on its disk"
        )));
    }
    backup::copy(&source, to, &mut |_| {})
}
