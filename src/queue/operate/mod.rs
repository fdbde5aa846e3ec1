//! What an operator sees of the jobs, and does to them: list, look, retry, cancel, discard, pause.
//!
//! All of it works from any process beside a site that runs. A job that is changed while a worker runs it is not that
//! worker's any more: what it says of it later counts for nothing.

mod store;

use jiff::Timestamp;
use serde::Serialize;

use crate::database;
use crate::queue::Error;
use crate::queue::NAME_BYTES_MAX;
use crate::queue::Priority;
use crate::queue::Queue;
use crate::queue::State;

use self::store::Cancelled;

/// So many jobs are listed at once, at the most.
pub const LIST_MAX: u32 = 10_000;

/// So many are changed in one transaction, so that a visitor's write waits a few milliseconds at the most.
const BATCH: u32 = 200;

/// So many refusals are kept of one [`Queue::retry_all`]; the rest is counted.
const REFUSED_KEPT: usize = 100;

/// Which jobs are meant: those that fit all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Those in this state.
    pub state: Option<State>,
    /// Those of this queue.
    pub queue: Option<String>,
    /// Those of this name ([`Job::NAME`](crate::queue::Job::NAME)).
    pub kind: Option<String>,
    /// So many at the most, the newest first; 100 by default, at most [`LIST_MAX`].
    pub limit: u32,
    /// Those that were enqueued before the job with this id, for the next page.
    pub before: Option<i64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            state: None,
            queue: None,
            kind: None,
            limit: 100,
            before: None,
        }
    }
}

/// A job as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// What it is known by.
    pub id: i64,
    /// The name of its type ([`Job::NAME`](crate::queue::Job::NAME)).
    pub kind: String,
    /// The queue it is in.
    pub queue: String,
    /// Where it stands.
    pub state: State,
    /// Which of those that are due is first.
    pub priority: Priority,
    /// The attempt it is at, from 1; 0 before the first.
    pub attempt: u32,
    /// How often it is tried.
    pub attempts_max: u32,
    /// When it is due, or was.
    pub run_at: Timestamp,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When its last attempt was begun.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
    /// Of the last attempt that failed, or why it was cancelled.
    pub error: Option<String>,
    /// How far it is, 0 to 1, if it has said so.
    pub progress: Option<f64>,
    /// What it has said of that.
    pub progress_text: Option<String>,
    /// Whether it waits for a program that knows its kind and its arguments.
    pub parked: bool,
    /// The limit that it waits for: `concurrency:` or `rate:`, and the key.
    pub blocked_by: Option<String>,
}

/// All that is known of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detail {
    /// What a list shows of it.
    #[serde(flatten)]
    pub listed: Listed,
    /// Its fields, as JSON.
    pub arguments: String,
    /// The unique key that it holds, with its kind before it.
    pub unique_key: Option<String>,
    /// Where its next attempt goes on, as JSON.
    pub cursor: Option<String>,
    /// How often in a row the process died while it ran.
    pub deaths: u32,
    /// Every attempt that failed, the oldest first.
    pub errors: Vec<AttemptError>,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptError {
    /// Which one, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: Timestamp,
    /// What it said.
    pub error: String,
}

/// How a queue is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// What it is known by.
    pub name: String,
    /// Whether none of its jobs is begun.
    pub is_paused: bool,
    /// How many jobs wait for their time, for a worker, or for a limit.
    pub waiting: u64,
    /// How many run.
    pub running: u64,
}

/// What came of retrying many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retried {
    /// So many wait again.
    pub retried: u64,
    /// So many could not be retried.
    pub refused: u64,
    /// Why, of the first hundred of them: the id and the reason.
    pub reasons: Vec<(i64, String)>,
}

impl Queue {
    /// Lists jobs, the newest first.
    ///
    /// Filters by queue and kind read the table from its end until there are enough.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`](crate::database::Database::read).
    pub async fn list(&self, filter: &Filter) -> database::Result<Vec<Listed>> {
        let filter = filter.clone();
        self.database
            .read(move |connection| Ok(store::list(connection, &filter)?))
            .await
    }

    /// All that is known of a job; `None` if there is none of this id, any more or yet.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`](crate::database::Database::read).
    pub async fn get(&self, id: i64) -> database::Result<Option<Detail>> {
        let now = self.database.now().as_millisecond();
        self.database
            .read(move |connection| Ok(store::get(connection, id, now)?))
            .await
    }

    /// Lets a job run again at once, with an attempt at least: one that has ended, failed, or is parked.
    ///
    /// Its errors are kept, and so is its cursor unless it was completed. `false` if there is nothing to do: it runs,
    /// or waits already, or there is no such job.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write); [`Error::Taken`] by
    /// [`abort_reason`](database::Error::abort_reason) when another job has its unique key by now.
    pub async fn retry(&self, id: i64) -> database::Result<bool> {
        let queue = self.clone();
        self.database
            .write(move |tx| {
                let is_retried = store::retry(tx, id)?;
                if is_retried {
                    queue.wake_after(tx);
                }
                Ok(is_retried)
            })
            .await
    }

    /// Retries all that fit the filter's state, queue and kind, the oldest first, in small batches.
    ///
    /// Jobs that are enqueued meanwhile are left alone. Does nothing without a state.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write): what was retried before stays so.
    pub async fn retry_all(&self, filter: &Filter) -> database::Result<Retried> {
        let mut all = Retried::default();
        let Some(state) = filter.state else {
            return Ok(all);
        };
        let last = self
            .database
            .read(|connection| Ok(store::last(connection)?))
            .await?;
        let mut after = 0;
        loop {
            let filter = filter.clone();
            // Not in the write: it may read the whole table.
            let ids = self.database.read(move |connection| {
                let range = after..=last;
                Ok(store::ids(connection, &filter, range, BATCH)?)
            });
            let ids = ids.await?;
            let Some(reached) = ids.last() else {
                break;
            };
            after = *reached;
            let queue = self.clone();
            let batch = self.database.write(move |tx| {
                let mut batch = Retried::default();
                for id in ids {
                    if store::is_in(tx, id, state)? {
                        batch.note(id, store::retry(tx, id))?;
                    }
                }
                queue.wake_after(tx);
                Ok(batch)
            });
            all.add(batch.await?);
        }
        Ok(all)
    }

    /// Cancels a job that waits, for this reason, or tells one that runs to stop.
    ///
    /// One that runs is cancelled once it has stopped, unless it completes all the same.
    /// `false` if it has ended already, or there is no such job.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write).
    pub async fn cancel(&self, id: i64, reason: impl Into<String>) -> database::Result<bool> {
        let (queue, reason) = (self.clone(), reason.into());
        let cancelled = self.database.write(move |tx| {
            let cancelled = store::cancel(tx, id, &reason)?;
            if let Some(Cancelled::Waiting(freed)) = &cancelled
                && store::free(tx, freed)?
            {
                queue.wake_after(tx);
            }
            Ok(cancelled)
        });
        let cancelled = cancelled.await?;
        if let Some(Cancelled::Running) = cancelled {
            self.tell_cancelled(id);
        }
        Ok(cancelled.is_some())
    }

    /// Gives up a job that failed, or is parked, and waits.
    ///
    /// `false` if it does not.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write).
    pub async fn discard(&self, id: i64) -> database::Result<bool> {
        let queue = self.clone();
        self.database
            .write(move |tx| {
                let freed = store::discard(tx, id)?;
                if let Some(freed) = &freed
                    && store::free(tx, freed)?
                {
                    queue.wake_after(tx);
                }
                Ok(freed.is_some())
            })
            .await
    }

    /// Begins no more jobs of a queue, in any process, until it is [resumed](Self::resume); what runs goes on.
    ///
    /// There need be no job of it yet. It stays so over restarts.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write); [`Error::QueueName`] by
    /// [`abort_reason`](database::Error::abort_reason).
    pub async fn pause(&self, queue: &str) -> database::Result<()> {
        let name = checked(queue)?;
        self.database
            .write(move |tx| Ok(store::pause(tx, &name)?))
            .await
    }

    /// Lets the jobs of a queue be begun again.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, queue: &str) -> database::Result<()> {
        let (name, queue) = (checked(queue)?, self.clone());
        self.database
            .write(move |tx| {
                store::resume(tx, &name)?;
                queue.wake_after(tx);
                Ok(())
            })
            .await
    }

    /// The queues that have jobs waiting or running, or are paused, by name.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`](crate::database::Database::read).
    pub async fn queues(&self) -> database::Result<Vec<QueueStatus>> {
        self.database
            .read(|connection| Ok(store::queues(connection)?))
            .await
    }
}

impl Retried {
    fn note(&mut self, id: i64, retried: Result<bool, Error>) -> database::Result<()> {
        let reason = match retried {
            Ok(true) => {
                self.retried += 1;
                return Ok(());
            }
            Ok(false) => "there is nothing to retry".to_owned(),
            Err(error @ Error::Taken { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        self.refused += 1;
        self.reasons.push((id, reason));
        Ok(())
    }

    fn add(&mut self, batch: Self) {
        self.retried += batch.retried;
        self.refused += batch.refused;
        let room = REFUSED_KEPT.saturating_sub(self.reasons.len());
        self.reasons.extend(batch.reasons.into_iter().take(room));
    }
}

fn checked(name: &str) -> Result<String, Error> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::QueueName {
            bytes_max: NAME_BYTES_MAX,
        });
    }
    Ok(name.to_owned())
}
