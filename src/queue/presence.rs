//! Whether a worker is the only one of its file.

use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::path::Path;

/// A lock that every worker of a file shares while it runs jobs; the kernel gives it back when the process ends.
///
/// Who gets it for itself alone knows that nobody else runs any, not even one that hangs.
#[derive(Debug)]
pub(super) struct Presence(File);

impl Presence {
    /// Opens the file of the lock, `<database>.workers`.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push(".workers");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        Ok(Self(file))
    }

    /// Whether nobody else shares it; then nobody can until [`share`](Self::share).
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Shares it; blocks for as long as another one is alone, which is one transaction.
    pub(super) fn share(&self) -> io::Result<()> {
        self.0.lock_shared()
    }
}
