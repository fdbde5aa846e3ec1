//! What runs jobs.
//!
//! One loop: in a single transaction it records what ended and claims what is due, then it waits for the first of:
//! a commit that brings a job, the end of a job, the time of the next one, the stop.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::database;
use crate::database::Transaction;
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

/// A suspect waits so long for a moment when nothing else runs; then nothing else is begun before it.
const SUSPECT_WAIT_MS: i64 = 60_000;

/// How often the end of the jobs is tried to be recorded at the stop.
const RECORD_TRIES: u32 = 5;

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
    /// Whether what runs is a suspect, beside which nothing else may run.
    alone: bool,
}

/// What a round has claimed.
#[derive(Default)]
struct Claim {
    jobs: Vec<Claimed>,
    /// Whether it is a suspect.
    alone: bool,
    /// When the next one is due, in milliseconds since 1970.
    due: Option<i64>,
}

/// Records how jobs ended.
fn finish(tx: &Transaction<'_>, ended: &[(Claimed, End)]) -> database::Result<()> {
    for (job, end) in ended {
        store::finish(tx, job.id, job.attempt, end)?;
    }
    Ok(())
}

/// Claims what is due: jobs that nothing is known against, or one suspect, alone.
fn claim(
    tx: &Transaction<'_>,
    kinds: &str,
    running: usize,
    free: usize,
) -> database::Result<Claim> {
    let now = tx.now_ms();
    let mut claim = Claim::default();
    let suspect = store::next_suspect(tx, kinds)?;
    if let Some(since) = suspect.filter(|due| *due <= now) {
        if running == 0 {
            claim.jobs.extend(store::claim_suspect(tx, kinds)?);
            claim.alone = true;
            return Ok(claim);
        }
        // Where there is always something to run, its turn would never come.
        if now.saturating_sub(since) > SUSPECT_WAIT_MS {
            return Ok(claim);
        }
    }
    claim.jobs = store::claim(tx, kinds, free)?;
    // One that is due waits for the end of what runs, and not for a time.
    let suspect = suspect.filter(|due| *due > now);
    claim.due = store::next_due(tx, kinds)?.into_iter().chain(suspect).min();
    Ok(claim)
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
        let mended = || stop.run_until_cancelled(self.queue.database.mended());
        while mended().await.is_some() {
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
        let running = hands.tasks.len();
        let free = self.settings.workers.saturating_sub(running);
        let alone = hands.alone && running > 0;
        let ended = Arc::clone(&hands.ended);
        let kinds = Arc::clone(&self.kinds);
        let claim = move |tx: &Transaction<'_>| {
            finish(tx, &ended)?;
            if alone || free == 0 {
                return Ok(Claim::default());
            }
            claim(tx, &kinds, running, free)
        };
        let claim = self.queue.database.write(claim).await?;
        hands.ended = Arc::default();
        hands.alone = claim.alone || alone;
        for job in claim.jobs {
            self.start(hands, job);
        }
        Ok(self.until(claim.due))
    }

    async fn wait(&self, hands: &mut Hands, wait: Duration, stop: &CancellationToken) {
        // With no hand free, what a commit or the clock brings cannot be claimed anyway.
        let running = hands.tasks.len();
        let free = running < self.settings.workers && !(hands.alone && running > 0);
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
        let (start, backoff, timeout) = (kind.start, kind.backoff, kind.timeout);
        let (arguments, context) = (job.arguments.clone(), self.context.clone());
        let task = async move {
            let work = match start(&arguments, context) {
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
        let (id, ended) = match ended {
            Ok((id, end)) => (id, Ok(end)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(job) = hands.running.remove(&id) else {
            return;
        };
        let end = ended.unwrap_or_else(|error| self.panicked(&job, error));
        Arc::make_mut(&mut hands.ended).push((job, end));
    }

    fn panicked(&self, job: &Claimed, error: JoinError) -> End {
        let text = match error.try_into_panic() {
            Ok(panic) => format!("it panicked: {}", database::panic_text(panic.as_ref())),
            Err(error) => error.to_string(),
        };
        let kind = self.jobs.get(&job.kind);
        let backoff = kind.map_or(no_backoff as fn(u32) -> Duration, |kind: &Kind<C>| {
            kind.backoff
        });
        let span = tracing::info_span!("job", job.id, job.kind, job.attempt);
        span.in_scope(|| failed(job.attempt, job.attempts_max, backoff, text))
    }

    /// Gives what runs its grace and puts back what does not end in it.
    async fn end(&self, mut hands: Hands) {
        let grace = tokio::time::sleep(self.settings.stop());
        tokio::pin!(grace);
        while !hands.tasks.is_empty() {
            // At once: what is not recorded when the process is killed runs again.
            self.record(&mut hands).await;
            tokio::select! {
                () = &mut grace => break,
                Some(ended) = hands.tasks.join_next_with_id() => self.collect(&mut hands, ended),
            }
        }
        hands.tasks.abort_all();
        let put_back = hands.running.len();
        let wait = Duration::ZERO;
        let ends = hands
            .running
            .drain()
            .map(|(_, job)| (job, End::PutBack { wait, error: None }));
        Arc::make_mut(&mut hands.ended).extend(ends);
        for attempt in 1..=RECORD_TRIES {
            if self.record(&mut hands).await {
                tracing::info!(put_back, "the worker has stopped");
                break;
            }
            tokio::time::sleep(REFUSED_WAIT / RECORD_TRIES * attempt).await;
        }
        // Last: a job that blocks its thread does not notice that it is aborted.
        hands.tasks.shutdown().await;
    }

    /// Records what ended; says whether that is done.
    async fn record(&self, hands: &mut Hands) -> bool {
        if hands.ended.is_empty() {
            return true;
        }
        let ended = Arc::clone(&hands.ended);
        let recorded = self.queue.database.write(move |tx| finish(tx, &ended));
        match recorded.await {
            Ok(()) => hands.ended = Arc::default(),
            Err(error) => tracing::error!(%error, "what the jobs did could not be recorded"),
        }
        hands.ended.is_empty()
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
    // The site's code, which may panic; the worker must not.
    let wait = catch_unwind(|| backoff(attempt)).unwrap_or(PARKED_WAIT);
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
