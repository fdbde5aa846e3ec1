//! The files on this disk while a snapshot is made or fetched.

use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;
use std::path::PathBuf;

use crate::database::files;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::snapshots::packing::io;

/// What stays free on the disk, in bytes: the site that goes on there needs room.
const ROOM_LEFT: u64 = 32 * 1024 * 1024;

/// Two files beside the database, nobody else's as long as this lives, and gone then.
#[derive(Debug)]
pub(super) struct Files {
    /// A whole database.
    pub(super) plain: PathBuf,
    /// The same, packed.
    pub(super) packed: PathBuf,
    lock: PathBuf,
    _lock: File,
}

impl Files {
    /// Takes over what a killed one left. `beside` is the database, or the file to make.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when another process is at it, or less than `bytes` are free.
    pub(super) fn begin(beside: &Path, bytes: u64) -> Result<Self> {
        let folder = files::folder(beside);
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock = beside.with_added_extension("snapshot.lock");
        let file = take(&lock)?;
        let files = Self {
            plain: beside.with_added_extension("snapshot"),
            packed: beside.with_added_extension("snapshot.gz"),
            lock,
            _lock: file,
        };
        files.remove();
        let room = files::room(folder).map_err(io(folder))?;
        if room < bytes.saturating_add(ROOM_LEFT) {
            return Err(Error::Snapshot(format!(
                "there is no room in {}: it takes up to {bytes} bytes, {ROOM_LEFT} more have to stay free, and {room} \
                 are free",
                folder.display()
            )));
        }
        Ok(files)
    }

    fn remove(&self) {
        for path in [&self.plain, &self.packed] {
            // One that stays is in the way of the next, which says so.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
        let _ = std::fs::remove_file(&self.lock);
    }
}

fn take(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(path).map_err(io(path))?;
    match file.try_lock() {
        // Between the opening and the lock another one may have ended and removed it.
        Ok(()) if files::is_still(&file, path) => Ok(file),
        Ok(()) | Err(TryLockError::WouldBlock) => Err(Error::Snapshot(
            "another process makes or fetches one at this moment".to_owned(),
        )),
        Err(TryLockError::Error(error)) => Err(io(path)(error)),
    }
}
