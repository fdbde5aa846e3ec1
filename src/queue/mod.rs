//! Jobs: work that is stored with the data it belongs to, and done after the commit.
//!
//! [`Queue::enqueue`] takes the caller's transaction, so a job exists if and only if its data does.
//! The commit wakes the [`Worker`]; nothing polls while the site is idle. A job runs at least once: the attempt is
//! counted when it is claimed, and what a killed process was running runs again after the restart.
//! [`Schedule`] enqueues by the clock.
//!
//! Left to others: what the jobs do, and what they are given to do it with ([`Job::Context`]).

mod error;
mod job;
mod maintenance;
mod schedule;
mod settings;
mod store;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

pub use self::error::Error;
pub use self::job::ARGUMENTS_BYTES_MAX;
pub use self::job::Job;
pub use self::job::Jobs;
pub use self::job::Outcome;
pub use self::job::Request;
pub use self::maintenance::Maintenance;
pub use self::schedule::ByDefault;
pub use self::schedule::Entry;
pub use self::schedule::Given;
pub use self::schedule::Missed;
pub use self::schedule::Schedule;
pub use self::schedule::ScheduleError;
pub use self::schedule::Scheduled;
pub use self::schedule::Scheduler;
pub use self::settings::Settings;
pub use self::store::Priority;
pub use self::store::Rescued;
pub use self::store::State;
pub use self::worker::Worker;

use crate::database;
use crate::database::Database;
use crate::database::Migrations;
use crate::database::Transaction;

/// The queue's tables.
pub const MIGRATIONS: Migrations = Migrations::new(
    "queue",
    &[
        (
            "V1__jobs",
            include_str!("../../migrations/queue/V1__jobs.sql"),
        ),
        (
            "V3__schedule",
            include_str!("../../migrations/queue/V3__schedule.sql"),
        ),
    ],
);

/// A handle to the jobs in a database. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Queue {
    database: Database,
    /// Told by each commit that brings a job.
    wake: Arc<Notify>,
}

impl Queue {
    /// A handle to the jobs in `database`, whose tables ([`MIGRATIONS`]) must be there.
    ///
    /// A commit wakes the workers of this handle and its clones; those of another handle find the job when they look
    /// next (`queue.poll_ms`). In a site, take the one in [`Context`](crate::Context).
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self {
            database,
            wake: Arc::default(),
        }
    }

    /// Stores a job in the caller's transaction, and wakes a worker once that is committed.
    ///
    /// Takes `&job`, or a [`Request`] for more than that. Gives the job's id,
    /// or `None` if the request is [unique](Request::unique) and a job with its key waits or runs already.
    ///
    /// # Errors
    ///
    /// When the job's fields cannot be written as JSON, or make more than [`ARGUMENTS_BYTES_MAX`] bytes of it.
    pub fn enqueue(
        &self,
        tx: &Transaction<'_>,
        request: impl Into<Request>,
    ) -> Result<Option<i64>, Error> {
        let id = store::insert(tx, request.into())?;
        if id.is_some() {
            self.wake_after(tx);
        }
        Ok(id)
    }

    fn wake_after(&self, tx: &Transaction<'_>) {
        let wake = Arc::clone(&self.wake);
        tx.after_commit(move || wake.notify_one());
    }

    /// How many jobs there are in each state. Reads the whole table.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`].
    pub async fn counts(&self) -> database::Result<BTreeMap<State, u64>> {
        self.database
            .read(|connection| Ok(store::counts(connection)?))
            .await
    }

    /// Puts back the jobs that a dead process was running.
    ///
    /// Only for a process that knows that no other runs jobs of this database, before its workers start.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`].
    pub async fn rescue(&self) -> database::Result<Rescued> {
        let rescued = self.database.write(|tx| Ok(store::rescue(tx)?)).await?;
        if rescued.available + rescued.discarded > 0 {
            tracing::warn!(
                available = rescued.available,
                discarded = rescued.discarded,
                "jobs of a process that died are put back"
            );
        }
        Ok(rescued)
    }
}
