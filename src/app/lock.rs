//! One process serves a database.

use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;

use crate::database::files;
use crate::database::real_path;
use crate::error::Error;
use crate::error::Result;

/// Makes this the only process that serves the database: its jobs are then nobody else's.
///
/// The operating system lets go of it when the process ends, however it ends.
pub(crate) fn lock(database: &Path) -> Result<File> {
    try_lock(database)?.ok_or_else(|| Error::Locked {
        path: database.to_owned(),
    })
}

/// As [`lock`]; `None` where another process has it.
pub(super) fn try_lock(database: &Path) -> Result<Option<File>> {
    // By its real name: a link to the file is the same file, also before there is one.
    let path = real_path(database).with_added_extension("lock");
    let failed = |error| Error::Io(format!("cannot lock {}", path.display()), error);
    let folder = files::folder(&path);
    std::fs::create_dir_all(folder).map_err(|error| {
        let folder = folder.display();
        Error::Io(
            format!("cannot make the folder {folder} for the database"),
            error,
        )
    })?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether another process has it just now.
pub(crate) fn is_locked(database: &Path) -> Result<bool> {
    Ok(try_lock(database)?.is_none())
}
