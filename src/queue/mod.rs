//! Jobs: work that is stored with the data it belongs to, and done after the commit.
//!
//! [`Queue::enqueue`] takes the caller's transaction, so a job exists if and only if its data does.
//! The commit wakes the [`Worker`]; nothing polls while the site is idle. A job runs at least once: the attempt is
//! counted when it is claimed, and what a killed process was running runs again after the restart.
//! [`Schedule`] enqueues by the clock.
//!
//! Left to others: what the jobs do, and what they are given to do it with ([`Job::Context`]).

mod attempt;
mod backoff;
mod drain;
mod entering;
mod error;
mod hands;
mod job;
mod maintenance;
#[cfg(test)]
mod model_tests;
mod operate;
mod passed;
mod presence;
mod progress;
mod pulse;
mod request;
mod round;
mod run;
mod schedule;
mod settings;
mod shares;
mod state;
mod store;
mod wake;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::attempt::Attempt;
pub use self::backoff::Backoff;
pub use self::drain::Drained;
pub use self::error::Error;
use self::hands::Hands;
pub use self::job::ARGUMENTS_BYTES_MAX;
pub use self::job::Job;
pub use self::job::Jobs;
pub use self::job::Outcome;
pub use self::maintenance::Maintenance;
pub use self::operate::AttemptError;
pub use self::operate::Detail;
pub use self::operate::Filter;
pub use self::operate::LIST_MAX;
pub use self::operate::Listed;
pub use self::operate::QueueStatus;
pub use self::operate::Retried;
pub use self::request::Concurrency;
pub use self::request::Conflict;
pub use self::request::Enqueued;
pub use self::request::NAME_BYTES_MAX;
pub use self::request::Rate;
pub use self::request::Request;
pub use self::request::Unique;
pub use self::schedule::ByDefault;
pub use self::schedule::Entry;
pub use self::schedule::Given;
pub use self::schedule::Missed;
pub use self::schedule::RunNow;
pub use self::schedule::Schedule;
pub use self::schedule::ScheduleError;
pub use self::schedule::Scheduled;
pub use self::schedule::Scheduler;
pub use self::settings::QueueSettings;
pub use self::settings::Settings;
pub use self::state::Priority;
pub use self::state::State;
pub use self::store::finish::Rescued;
use self::wake::Wake;
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
            "V2__queues",
            include_str!("../../migrations/queue/V2__queues.sql"),
        ),
        (
            "V3__schedule",
            include_str!("../../migrations/queue/V3__schedule.sql"),
        ),
        (
            "V4__requests",
            include_str!("../../migrations/queue/V4__requests.sql"),
        ),
        (
            "V5__unread",
            include_str!("../../migrations/queue/V5__unread.sql"),
        ),
    ],
);

/// A handle to the jobs in a database. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Queue {
    database: Database,
    wake: Arc<Wake>,
    /// What the workers of this handle and its clones run.
    hands: Hands,
}

impl Queue {
    /// A handle to the jobs in `database`, whose tables ([`MIGRATIONS`]) must be there.
    ///
    /// A commit wakes the workers of this handle and its clones; those of another handle find the job when they look
    /// next (`queue.poll_ms`). In a site, take the one in [`Context`](crate::Context).
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self {
            wake: Arc::new(Wake::new(&database)),
            hands: Hands::default(),
            database,
        }
    }

    /// Stores a job in the caller's transaction, and wakes a worker once that is committed.
    ///
    /// Takes `&job`, or a [`Request`] for more than that. Where another job holds its [unique](Request::unique) key,
    /// what it gives says what became of that one.
    ///
    /// # Errors
    ///
    /// When the job's fields cannot be written as JSON, or make more than [`ARGUMENTS_BYTES_MAX`] bytes of it; when a name
    /// or key is empty or longer than [`NAME_BYTES_MAX`].
    pub fn enqueue(
        &self,
        tx: &Transaction<'_>,
        request: impl Into<Request>,
    ) -> Result<Enqueued, Error> {
        let enqueued = store::enqueue::insert(tx, request.into())?;
        self.wake_after(tx);
        Ok(enqueued)
    }

    /// Stores many jobs in the caller's transaction: the same as [`enqueue`](Self::enqueue) for each, in less time.
    ///
    /// # Errors
    ///
    /// Those of [`enqueue`](Self::enqueue), for the first that has one; the transaction is to be given up then.
    pub fn enqueue_many(
        &self,
        tx: &Transaction<'_>,
        requests: impl IntoIterator<Item = impl Into<Request>>,
    ) -> Result<Vec<Enqueued>, Error> {
        let requests = requests.into_iter().map(Into::into);
        let enqueued = store::enqueue::insert_many(tx, requests.collect())?;
        self.wake_after(tx);
        Ok(enqueued)
    }

    /// Wakes whoever runs jobs once this transaction is committed.
    fn wake_after(&self, tx: &Transaction<'_>) {
        let wake = Arc::clone(&self.wake);
        tx.after_commit(move || wake.wake());
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

    /// Puts back what all processes were running, and forgets them.
    ///
    /// Only for a process that knows that no other runs jobs of this database, before its workers start; a
    /// [`Worker`] that is the first of its file does it by itself.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`].
    pub async fn rescue(&self) -> database::Result<Rescued> {
        let rescued = self
            .database
            .write(|tx| Ok(store::workers::clear(tx)?))
            .await?;
        pulse::tell_of(rescued);
        Ok(rescued)
    }

    /// Asks a job that was cancelled to end, if this process runs it; another one asks it at its next heartbeat.
    pub(crate) fn tell_cancelled(&self, id: i64) {
        self.hands.ask_to_end(id);
    }
}
