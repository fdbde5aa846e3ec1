//! A migration tried on a copy.

use std::path::Path;

use tempfile::TempDir;

use crate::database::Clock;
use crate::database::Error;
use crate::database::Migrations;
use crate::database::Result;
use crate::database::Step;
use crate::database::backup;
use crate::database::backup::ROOM_LEFT;
use crate::database::connection;
use crate::database::connection::Options;
use crate::database::migrate::Target;
use crate::database::migrate::apply;

/// Applies to a copy what is missing, says what that was, and removes the copy; the file is only read.
pub(in crate::database) fn dry_run(
    options: &Options,
    sets: &[Migrations],
    target: Option<&Target>,
) -> Result<Vec<Step>> {
    let (folder, path) = place(&options.path)?;
    if options.path.exists() {
        copy(&options.path, &path)?;
    }
    let options = Options {
        path,
        copy_before_migration: false,
        ..options.clone()
    };
    let steps = apply(&options, &Clock::system(), sets, target);
    drop(folder);
    steps
}

/// A folder that goes away, and the copy in it: on the file's own disk, where there is a file.
fn place(database: &Path) -> Result<(TempDir, std::path::PathBuf)> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("houseboat-dry-run-");
    let made = if database.exists() {
        builder.tempdir_in(backup::folder(database))
    } else {
        builder.tempdir()
    };
    let folder = made.map_err(|error| {
        Error::Migrate(format!(
            "cannot make a folder for the copy to try it on: {error}"
        ))
    })?;
    let path = folder.path().join("copy.sqlite3");
    Ok((folder, path))
}

fn copy(database: &Path, to: &Path) -> Result<()> {
    // A connection of ours would bring the WAL home when it closes, and change the file.
    let source = connection::open_as_it_is(database)?;
    let bytes = backup::bytes(&source)?;
    let room = backup::room(backup::folder(database))?;
    if room < bytes.saturating_add(ROOM_LEFT) {
        return Err(Error::Migrate(format!(
            "it is tried on a copy, which takes {bytes} bytes, and {room} are free on its disk"
        )));
    }
    backup::copy(&source, to, &mut |_| {})
}
