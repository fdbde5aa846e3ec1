//! What a container is doing, for `/up` and `/ready`.

use jiff::Timestamp;
use serde::Serialize;

/// What a container is doing just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Another container serves, and this one tries its migrations on a copy before it is healthy.
    Rehearsing,
    /// Another container serves, and requests are passed on to it.
    Standby,
    /// It has begun, and does not know yet whether another container serves.
    Starting,
    /// The one that served has left, and this one takes its place.
    Taking,
    /// It fetches the database from the replica.
    Restoring,
    /// It applies migrations.
    Migrating,
    /// It answers itself.
    Serving,
    /// It was told to stop.
    Draining,
}

/// How far a restore is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is there already, in bytes.
    pub done: u64,
    /// All that there will be, in bytes, if that is known.
    pub total: Option<u64>,
}

/// A role, since when, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What the container is doing.
    pub role: Role,
    /// How far that is, while it restores.
    pub progress: Option<Progress>,
    /// Since when it has had this role.
    pub since: Timestamp,
}

impl Status {
    /// A role that begins at `since`.
    #[must_use]
    pub fn new(role: Role, since: Timestamp) -> Self {
        Self {
            role,
            progress: None,
            since,
        }
    }
}
