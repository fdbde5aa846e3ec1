//! For the tests of a site: its jobs run at once and in order, and what was enqueued can be looked at.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use tokio::task::JoinSet;

use crate::database;
use crate::database::Error;
use crate::queue::Job;
use crate::queue::Queue;
use crate::queue::State;
use crate::queue::Worker;
use crate::queue::hands::Grip;
use crate::queue::run::run;
use crate::queue::store;
use crate::queue::store::claim::Claimed;
use crate::queue::store::finish;
use crate::queue::store::finish::End;
use crate::queue::store::workers;

/// So many jobs are run by one drain: more means that they bring forth one another without end.
const JOBS_MAX: usize = 10_000;

/// A job that was run, and how it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The job.
    pub id: i64,
    /// Its name.
    pub kind: String,
    /// Where it stands; one that failed and is to be tried again later is `retryable`.
    pub state: State,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl<C: Clone + Send + Sync + 'static> Worker<C> {
    /// Runs what is due, one after the other, with what that enqueues, until nothing is due; for tests.
    ///
    /// Nothing else runs jobs of the database meanwhile. What is due later waits for the clock:
    /// [`Clock::held`](crate::database::Clock::held) can be advanced.
    ///
    /// ```no_run
    /// # async fn example(site: houseboat::app::Site, clock: houseboat::database::Clock) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// let ran = site.worker().drain().await?;
    /// assert!(ran.iter().all(|job| job.error.is_none()));
    /// clock.advance(Duration::from_secs(3600));
    /// site.worker().drain().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write); and one when 10 000 jobs have run and there still
    /// are some.
    pub async fn drain(&self) -> database::Result<Vec<Drained>> {
        let kinds = self.kinds_json();
        let write = self
            .queue
            .database
            .write(move |tx| Ok(workers::enter(tx, "a test", &kinds)?));
        let worker = AtomicI64::new(write.await?);
        let mut drained = Vec::new();
        while let Some(job) = self.claim_one(&worker).await? {
            if drained.len() == JOBS_MAX {
                return Err(Error::abort(format!(
                    "{JOBS_MAX} jobs have run, and there are more: do they enqueue one another without end?"
                )));
            }
            drained.push(self.run_one(job).await?);
        }
        let id = worker.into_inner();
        let leave = self
            .queue
            .database
            .write(move |tx| Ok(workers::leave(tx, id)?));
        leave.await?;
        Ok(drained)
    }

    async fn run_one(&self, mut job: Claimed) -> database::Result<Drained> {
        let grip = Arc::new(Grip::new(job.claims, 0));
        let end = match self.kind(&job) {
            Some(kind) => {
                let run = run(kind, &job, self.attempt(&job, &grip), Arc::clone(&grip));
                // In a task of its own, for a panic's sake.
                let mut tasks = JoinSet::new();
                tasks.spawn(run);
                match tasks.join_next().await {
                    Some(Ok(end)) => end,
                    Some(Err(error)) => self.panicked(&job, error),
                    None => End::Complete,
                }
            }
            None => End::Complete,
        };
        job.last_word = grip.progress.last();
        let (id, kind, is_open) = (job.id, job.kind.clone(), grip.is_to_be_there());
        let ended = self.queue.database.write(move |tx| {
            if is_open {
                finish::finish(tx, &job, &end)?;
            }
            Ok(store::stands(tx, id)?)
        });
        let (state, error) = ended.await?;
        Ok(Drained {
            id,
            kind,
            state,
            error,
        })
    }
}

impl Queue {
    /// The jobs of a kind that wait, the oldest first, 10 000 at the most; for tests.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`](crate::database::Database::read), and one where the arguments are not a `J`.
    pub async fn waiting<J: Job>(&self) -> database::Result<Vec<J>> {
        let read = self.database.read(|connection| {
            let limit = i64::try_from(JOBS_MAX).unwrap_or(i64::MAX);
            Ok(store::waiting(connection, J::NAME, limit)?)
        });
        let waiting = read.await?;
        let parse = |text: &String| serde_json::from_str(text).map_err(Error::abort);
        waiting.iter().map(parse).collect()
    }
}
