//! What can go wrong with a database file.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::TrySendError;
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// A result of the database layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error at all, to be carried.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

thread_local! {
    /// What SQLite said of a damaged file on this thread, even if the closure then made something else of it.
    static CORRUPTION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What can go wrong with a database file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused a statement; the transaction it was in is rolled back.
    #[error("{}", explain(.0))]
    Sqlite(#[source] rusqlite::Error),
    /// The file could not be opened, or is not fit to be used.
    #[error("cannot open {}: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Migrations could not be applied; the file is as it was.
    #[error("cannot migrate: {0}")]
    Migrate(String),
    /// No backup was made, and none was begun that is left over.
    #[error("cannot back up: {0}")]
    Backup(String),
    /// Nothing was restored and the database is as it was, unless only the last sync of its folder failed.
    #[error("cannot restore: {0}")]
    Restore(String),
    /// Nothing was recovered.
    #[error("cannot recover: {0}")]
    Recover(String),
    /// The closure panicked; what it wrote is rolled back.
    #[error("the closure panicked: {0}")]
    Panicked(String),
    /// Too many reads or writes are waiting (`database.waiting_max`); nothing was done.
    #[error("the database is overloaded: {waiting_max} are waiting already")]
    Overloaded {
        /// The limit that was met.
        waiting_max: usize,
    },
    /// The read or the write took longer, waiting included, than it may; nothing was changed.
    #[error("the database did not answer within {time:?}")]
    Timeout {
        /// What it may take: `read_timeout_ms` or `write_timeout_ms`, or [`Database::within`](super::Database::within).
        time: Duration,
    },
    /// Another process held the file for longer than `busy_timeout_ms`.
    #[error("another process holds the database")]
    Busy,
    /// The transaction that this write shared with others was lost; nothing of it is stored.
    #[error("the transaction was rolled back: {0}")]
    RolledBack(String),
    /// There is no room on the disk (`SQLITE_FULL`); nothing of this write is stored, and reads go on.
    #[error("the disk is full: nothing was stored; make room, and it works again")]
    DiskFull,
    /// The file is damaged, so nothing is written to it any more; reads go on.
    #[error(
        "the database is damaged, and takes no writes: `check --full` says what is wrong, `restore` and `recover` mend it"
    )]
    Damaged,
    /// Another process may write in the place of this one, which is ending; this write is not the site's.
    #[error("this process has lost the right to write: another one serves the site now")]
    Fenced,
    /// The database is closed: the site is stopping.
    #[error("the database is closed")]
    Closed,
    /// The closure gave up for a reason of its own; what it wrote is rolled back.
    #[error(transparent)]
    Abort(BoxError),
}

impl Error {
    /// An error of the caller's own: the closure that returns it is rolled back.
    ///
    /// [`Error::abort_reason`] brings it back on the other side.
    pub fn abort(reason: impl Into<BoxError>) -> Self {
        Self::Abort(reason.into())
    }

    /// Why a queue took nothing more.
    pub(super) fn refused<T>(error: &TrySendError<T>, waiting_max: usize) -> Self {
        match error {
            TrySendError::Full(_) => Self::Overloaded { waiting_max },
            TrySendError::Disconnected(_) => Self::Closed,
        }
    }

    /// The error given to [`Error::abort`], if it is one of type `E`.
    #[must_use]
    pub fn abort_reason<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Abort(reason) => reason.downcast_ref(),
            _ => None,
        }
    }

    /// Whether SQLite met damage, or something that is no database.
    pub(super) fn is_corruption(&self) -> bool {
        match self {
            Self::Sqlite(error) => is_corruption(error),
            _ => false,
        }
    }

    /// Says whether a constraint of the schema refused the row, and which.
    ///
    /// SQLite's text, such as `UNIQUE constraint failed: monitors.name`.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, Some(text)))
                if error.code == ErrorCode::ConstraintViolation =>
            {
                Some(text)
            }
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            // The `-shm` could not be made longer.
            Some(ErrorCode::SystemIoFailure)
                if error.sqlite_extended_error_code() == Some(SQLITE_IOERR_SHMSIZE) =>
            {
                Self::DiskFull
            }
            _ if is_corruption(&error) => {
                CORRUPTION.set(Some(error.to_string()));
                Self::Sqlite(error)
            }
            _ => Self::Sqlite(error),
        }
    }
}

/// Whether the file is damaged, or none of SQLite's.
///
/// A virtual table whose own contents do not fit together (`SQLITE_CORRUPT_VTAB`) is mended by a write, and no damage.
fn is_corruption(error: &rusqlite::Error) -> bool {
    let Some(error) = error.sqlite_error() else {
        return false;
    };
    matches!(
        error.code,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
    ) && error.extended_code != rusqlite::ffi::SQLITE_CORRUPT_VTAB
}

/// Notes an error of SQLite that becomes something else.
pub(super) fn note(error: &rusqlite::Error) {
    if is_corruption(error) {
        CORRUPTION.set(Some(error.to_string()));
    }
}

/// Notes damage of the file that somebody works with on this thread.
pub(super) fn note_problem(problem: &str) {
    CORRUPTION.set(Some(problem.to_owned()));
}

/// What SQLite has said of a damaged file since the last call on this thread, or says in this error.
pub(super) fn take_corruption(error: Option<&Error>) -> Option<String> {
    CORRUPTION.take().or_else(|| {
        let mut source: Option<&(dyn std::error::Error + 'static)> = error.map(|error| error as _);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<rusqlite::Error>()
                && is_corruption(error)
            {
                return Some(error.to_string());
            }
            source = match error.downcast_ref::<Error>() {
                // `transparent` would skip the reason itself.
                Some(Error::Abort(reason)) => Some(reason.as_ref()),
                _ => error.source(),
            };
        }
        None
    })
}

/// Says what to do where SQLite's own words do not.
fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => {
            format!("{error}: a read cannot change anything, use `write`")
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            format!("{error}: a write is one transaction, which begins and commits by itself")
        }
        _ => error.to_string(),
    }
}

/// The text of a caught panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Many an error says what caused it in its own text already.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_shm_without_room_is_a_full_disk() {
        let error = rusqlite::ffi::Error::new(SQLITE_IOERR_SHMSIZE);
        let error = Error::from(rusqlite::Error::SqliteFailure(error, None));
        assert!(matches!(error, Error::DiskFull), "{error:?}");
    }
}
