//! What can go wrong between this disk and the bucket.

use crate::database;

/// A result of the replication.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between this disk and the bucket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bucket cannot be reached, or does not answer in time; nothing was changed.
    #[error("cannot reach the bucket: {0}")]
    Unreachable(String),
    /// The provider refuses: wrong credentials, a bucket that is not there.
    #[error("the bucket refuses: {0}")]
    Refused(String),
    /// Somebody else has written the object since it was read.
    #[error("somebody else has written {0}")]
    Conflict(String),
    /// The provider has no conditional writes, on which the lease rests.
    #[error(
        "the bucket has no conditional writes ({0}), so that two containers could write at once: take another \
             provider, or set replication.conditional_writes = \"off\" and never let two containers overlap"
    )]
    NoConditionalWrites(String),
    /// Another process may write, and this one may not.
    #[error("the lease is lost: {0}")]
    Lost(String),
    /// What is in the bucket cannot be used.
    #[error("cannot restore: {0}")]
    Restore(String),
    /// There is nothing to restore, or nothing so old.
    #[error("cannot restore: {0}")]
    Nothing(String),
    /// Litestream could not be run, or did not do what it was asked.
    #[error("litestream: {0}")]
    Litestream(String),
    /// What a drill restored is not what it should be.
    #[error("the drill failed: {0}")]
    Drill(String),
    /// A snapshot could not be made or read.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The operating system refused something.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}
