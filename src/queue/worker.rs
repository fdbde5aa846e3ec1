//! What runs jobs.
//!
//! One loop: in a single transaction it records what ended and claims what is due, then it waits for the first of:
//! a commit that brings a job, the end of a job, the time of the next one, the stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::database;
use crate::queue::Queue;
use crate::queue::Settings;
use crate::queue::job::Jobs;
use crate::queue::job::Kind;
use crate::queue::job::Outcome;
use crate::queue::store;
use crate::queue::store::Claimed;
use crate::queue::store::End;

/// How long to wait before the queue is asked again after the database refused.
const REFUSED_WAIT: Duration = Duration::from_millis(500);

/// A job whose arguments cannot be read waits this long for a program that can.
const PARKED_WAIT: Duration = Duration::from_hours(1);

/// Runs the jobs of a queue, so many at a time.
#[derive(Debug)]
pub struct Worker<C> {
    queue: Queue,
    jobs: Jobs<C>,
    context: C,
    settings: Settings,
    /// The names of the jobs it knows, as a JSON array; others stay where they are.
    kinds: Arc<str>,
}

/// What the loop holds between two rounds.
#[derive(Default)]
struct Hands {
    tasks: JoinSet<End>,
    running: HashMap<tokio::task::Id, Claimed>,
    /// What ended and is not recorded yet.
    ended: Arc<Vec<(Claimed, End)>>,
}

impl<C: Clone + Send + Sync + 'static> Worker<C> {
    /// A worker for the jobs given; each gets a clone of `context`.
    #[must_use]
    pub fn new(queue: Queue, jobs: Jobs<C>, context: C, settings: Settings) -> Self {
        let kinds = serde_json::Value::from(jobs.names()).to_string().into();
        Self {
            queue,
            jobs,
            context,
            settings,
            kinds,
        }
    }

    /// Runs jobs until `stop`; then lets those that run end, or puts them back after `queue.stop_ms`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut hands = Hands::default();
        while !stop.is_cancelled() {
            let wait = match self.round(&mut hands).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "the queue could not be asked");
                    REFUSED_WAIT
                }
            };
            self.wait(&mut hands, wait, &stop).await;
        }
        self.end(hands).await;
    }

    /// Records what ended, claims what is due, and says how long nothing more will be.
    async fn round(&self, hands: &mut Hands) -> database::Result<Duration> {
        let free = self.settings.workers.saturating_sub(hands.tasks.len());
        let ended = Arc::clone(&hands.ended);
        let kinds = Arc::clone(&self.kinds);
        let (claimed, due) = self
            .queue
            .database
            .write(move |tx| {
                for (job, end) in ended.iter() {
                    store::finish(tx, job.id, job.attempt, end)?;
                }
                let claimed = store::claim(tx, &kinds, free)?;
                Ok((claimed, store::next_due(tx, &kinds)?))
            })
            .await?;
        hands.ended = Arc::default();
        for job in claimed {
            self.start(hands, job);
        }
        Ok(self.until(due))
    }

    async fn wait(&self, hands: &mut Hands, wait: Duration, stop: &CancellationToken) {
        // With no hand free, what a commit or the clock brings cannot be claimed anyway.
        let free = hands.tasks.len() < self.settings.workers;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.queue.wake.notified(), if free => {}
            () = tokio::time::sleep(wait), if free => {}
            Some(ended) = hands.tasks.join_next_with_id() => self.collect(hands, ended),
        }
        while let Some(ended) = hands.tasks.try_join_next_with_id() {
            self.collect(hands, ended);
        }
    }

    fn until(&self, due: Option<i64>) -> Duration {
        let poll = self.settings.poll();
        due.map_or(poll, |due| {
            let wait = due.saturating_sub(self.queue.database.now().as_millisecond());
            Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(poll)
        })
    }

    fn start(&self, hands: &mut Hands, job: Claimed) {
        let Some(kind) = self.jobs.get(&job.kind) else {
            tracing::error!(job.kind, job.id, "a job of an unknown kind was claimed");
            return;
        };
        let span = tracing::info_span!("job", job.id, job.kind, job.attempt);
        let (attempt, attempts_max) = (job.attempt, job.attempts_max);
        let (backoff, timeout) = (kind.backoff, kind.timeout);
        let work = (kind.start)(&job.arguments, self.context.clone());
        let task = async move {
            let work = match work {
                Ok(work) => work,
                Err(error) => return parked(&error),
            };
            match tokio::time::timeout(timeout, work).await {
                Ok(Ok(outcome)) => succeeded(outcome),
                Ok(Err(error)) => failed(
                    attempt,
                    attempts_max,
                    backoff,
                    database::chain(error.as_ref()),
                ),
                Err(_) => {
                    let text = format!("it took longer than {timeout:?}");
                    failed(attempt, attempts_max, backoff, text)
                }
            }
        };
        let handle = hands.tasks.spawn(task.instrument(span));
        hands.running.insert(handle.id(), job);
    }

    fn collect(&self, hands: &mut Hands, ended: Result<(tokio::task::Id, End), JoinError>) {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let Some(job) = hands.running.remove(&id) else {
            return;
        };
        let end = end.unwrap_or_else(|| {
            let kind = self.jobs.get(&job.kind);
            let backoff = kind.map_or(no_backoff as fn(u32) -> Duration, |kind: &Kind<C>| {
                kind.backoff
            });
            let span = tracing::info_span!("job", job.id, job.kind, job.attempt);
            span.in_scope(|| {
                failed(
                    job.attempt,
                    job.attempts_max,
                    backoff,
                    "it panicked".to_owned(),
                )
            })
        });
        Arc::make_mut(&mut hands.ended).push((job, end));
    }

    /// Gives what runs its grace, puts back what does not end in it, and records both.
    async fn end(&self, mut hands: Hands) {
        let grace = tokio::time::sleep(self.settings.stop());
        tokio::pin!(grace);
        while !hands.tasks.is_empty() {
            tokio::select! {
                () = &mut grace => break,
                Some(ended) = hands.tasks.join_next_with_id() => self.collect(&mut hands, ended),
            }
        }
        hands.tasks.shutdown().await;
        let left = hands.running.len();
        let put_back = |job| {
            let wait = Duration::ZERO;
            (job, End::PutBack { wait, error: None })
        };
        Arc::make_mut(&mut hands.ended).extend(hands.running.drain().map(|(_, job)| put_back(job)));
        let ended = Arc::clone(&hands.ended);
        let recorded = self
            .queue
            .database
            .write(move |tx| {
                for (job, end) in ended.iter() {
                    store::finish(tx, job.id, job.attempt, end)?;
                }
                Ok(())
            })
            .await;
        match recorded {
            Ok(()) => tracing::info!(put_back = left, "the worker has stopped"),
            Err(error) => {
                tracing::error!(%error, "what the jobs did could not be recorded; they run again");
            }
        }
    }
}

fn succeeded(outcome: Outcome) -> End {
    match outcome {
        Outcome::Complete => {
            tracing::debug!("completed");
            End::Complete
        }
        Outcome::Snooze(wait) => {
            tracing::debug!(?wait, "snoozed");
            End::PutBack { wait, error: None }
        }
        Outcome::Cancel(reason) => {
            tracing::info!(reason, "cancelled");
            End::Cancel { reason }
        }
    }
}

fn failed(attempt: u32, attempts_max: u32, backoff: fn(u32) -> Duration, error: String) -> End {
    if attempt >= attempts_max {
        tracing::error!(error, "discarded: it has no attempt left");
        return End::Discard { error };
    }
    let wait = backoff(attempt);
    tracing::warn!(error, ?wait, "failed and will be tried again");
    End::Retry { wait, error }
}

/// The arguments do not fit the type: another version of the program may know them.
fn parked(error: &serde_json::Error) -> End {
    let error = format!("its arguments cannot be read: {error}");
    tracing::error!(error, "parked: it waits for a program that knows it");
    let wait = PARKED_WAIT;
    let error = Some(error);
    End::PutBack { wait, error }
}

fn no_backoff(_attempt: u32) -> Duration {
    Duration::ZERO
}
