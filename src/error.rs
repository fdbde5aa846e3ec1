//! What reaches `main`.

use std::path::PathBuf;

use crate::config;
use crate::database;
use crate::queue;
use crate::replication;

/// A result of the whole program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the program could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings are wrong; nothing was done.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The replica failed, or the lease.
    #[error(transparent)]
    Replication(#[from] replication::Error),
    /// The times of an end do not fit into what the platform allows.
    #[error("{0}")]
    Times(String),
    /// It was told to stop before it served.
    #[error("stopped before the site was served")]
    Stopped,
    /// The jobs or the schedule of the site are wrong.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source} (server.host and server.port say where)")]
    Listen {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Another process serves this database already.
    #[error("another process serves {} already: stop that one first, or give this one another database.path", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// Another process has the lease, and lives.
    #[error("{0} holds the lease: stop that one first")]
    Held(String),
    /// The cache's file is the database's.
    #[error("cache.path is the database, {}: give the cache a file of its own", .0.display())]
    SameFile(PathBuf),
    /// There is no database yet.
    #[error("there is no database at {}", .0.display())]
    Missing(PathBuf),
    /// There is no cache file to look at.
    #[error("there is no cache file at {}", .0.display())]
    NoCache(PathBuf),
    /// The cache has no fresh value under a key.
    #[error("the cache has nothing under the key {0:?}")]
    NotCached(String),
    /// The schema is behind the program, and nothing may migrate it now.
    #[error("{count} migrations are pending: run `migrate` first")]
    Pending {
        /// How many.
        count: usize,
    },
    /// The schedule names a job that is not registered, so nothing would run it.
    #[error("the schedule names the job {0:?}, which is not registered")]
    UnknownJob(&'static str),
    /// Something that should run as long as the site does has ended.
    #[error("the {0} ended while the site was running")]
    Ended(String),
    /// The operating system refused something.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// A check found something wrong; the report says what.
    #[error("{0}")]
    Unsound(String),
    /// The arguments do not go with the settings.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The program's exit code: 2 for wrong settings and arguments, and 1 for all else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
