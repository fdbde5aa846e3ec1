//! What can go wrong with a job before it runs.

use crate::database;
use crate::queue::schedule::ScheduleError;

/// What can go wrong when a job is enqueued or a schedule is made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The job's fields cannot be written as JSON.
    #[error("the arguments of {kind} cannot be written as JSON: {source}")]
    Arguments {
        /// The job's name.
        kind: &'static str,
        /// What `serde_json` says.
        source: serde_json::Error,
    },
    /// The arguments are larger than a job may carry; put them in a table and enqueue their id.
    #[error(
        "the arguments of {kind} are {bytes} bytes of JSON, more than the {bytes_max} that a job may carry"
    )]
    TooLarge {
        /// The job's name.
        kind: &'static str,
        /// Their size.
        bytes: usize,
        /// The limit, [`ARGUMENTS_BYTES_MAX`](super::ARGUMENTS_BYTES_MAX).
        bytes_max: usize,
    },
    /// The name of a queue, or the key of a limit, is empty or too long.
    #[error("the {what} of {kind} is empty, or longer than the {bytes_max} bytes that it may have")]
    Name {
        /// The job's name.
        kind: &'static str,
        /// Which name.
        what: &'static str,
        /// The limit, [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX).
        bytes_max: usize,
    },
    /// What a job saved for its next attempt cannot be read as this type, or not be written as JSON.
    #[error("the cursor of the job {id}: {source}")]
    Cursor {
        /// The job.
        id: i64,
        /// What `serde_json` says.
        source: serde_json::Error,
    },
    /// The job is not this attempt's any more: it was taken for dead, and another may run it.
    #[error("the job {id} is not this attempt's any more: another may run it")]
    Lost {
        /// The job.
        id: i64,
    },
    /// A schedule's expression cannot be read.
    #[error("the schedule of {kind}: {expression:?} is not a cron expression: {reason}")]
    Cron {
        /// The job's name.
        kind: &'static str,
        /// What was given.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A job cannot run again, since another has its unique key by now.
    #[error("job {id} cannot run again: job {holder} has its unique key now")]
    Taken {
        /// The job that was to run again.
        id: i64,
        /// The one that has the key.
        holder: i64,
    },
    /// No queue can have this name.
    #[error("the name of a queue has 1 to {bytes_max} bytes")]
    QueueName {
        /// The limit, [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX).
        bytes_max: usize,
    },
    /// An entry of the schedule is wrong, or there is none of a name.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// SQLite refused.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<Error> for database::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error,
            error => Self::abort(error),
        }
    }
}
