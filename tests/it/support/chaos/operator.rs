//! Somebody who cancels, retries, pauses and resumes at random moments, by the methods of [`Queue`].

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::database;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::queue;
use houseboat::queue::Queue;
use jiff::SignedDuration;
use jiff::Timestamp;
use rusqlite::OptionalExtension;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::chaos::QUEUES;
use crate::support::chaos::wall;
use crate::support::ledger::open;

/// The reason that is given for a cancel.
pub(crate) const REASON: &str = "by the operator";

/// The first pause comes so soon, however short the time is.
const FIRST_PAUSE: Duration = Duration::from_secs(8);

/// The last jobs, of which most have not ended.
const LAST: i64 = 150;

/// A resume is tried for so long.
const RESUMES_WITHIN: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Cancel,
    Retry,
}

/// What was asked for, and between which moments, in milliseconds by the system's wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act {
    pub(crate) deed: Deed,
    pub(crate) job: i64,
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// Whether it was done; not known where the answer was an error.
    pub(crate) is_done: Option<bool>,
}

/// What an operator has done.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) acts: Vec<Act>,
    /// Which queue, from when to when.
    pub(crate) pauses: Vec<(&'static str, i64, i64)>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Operator {
    /// How far the clock is off, in milliseconds.
    pub(crate) offset: Arc<AtomicI64>,
    stop: CancellationToken,
    task: Option<JoinHandle<Log>>,
}

impl Operator {
    /// Begins once the tables are there.
    pub(crate) fn new(path: &Path, seed: u64) -> Self {
        let (offset, stop) = (Arc::<AtomicI64>::default(), CancellationToken::new());
        let work = work(path.to_owned(), seed, Arc::clone(&offset), stop.clone());
        Self {
            offset,
            stop,
            task: Some(tokio::spawn(work)),
        }
    }

    /// Has it end, with no queue paused.
    pub(crate) async fn end(&mut self) -> Log {
        self.stop.cancel();
        match self.task.take() {
            Some(task) => task.await.unwrap(),
            None => Log::default(),
        }
    }
}

/// One who works.
struct Person {
    database: Database,
    queue: Queue,
    clock: Clock,
    offset: Arc<AtomicI64>,
    random: fastrand::Rng,
    /// Which queue is paused, since when, and until when that is to be so.
    paused: Option<(&'static str, i64, Instant)>,
    log: Log,
}

async fn work(path: PathBuf, seed: u64, offset: Arc<AtomicI64>, stop: CancellationToken) -> Log {
    while !is_ready(&path) {
        if stop.is_cancelled() {
            return Log::default();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let clock = Clock::held(Timestamp::now());
    let settings = database::Settings {
        path,
        ..database::Settings::default()
    };
    let database = Database::open(&settings, clock.clone()).unwrap();
    let mut person = Person {
        queue: Queue::new(database.clone()),
        database,
        clock,
        offset,
        random: fastrand::Rng::with_seed(seed),
        paused: None,
        log: Log::default(),
    };
    let first_pause = Instant::now() + FIRST_PAUSE;
    loop {
        let pause = Duration::from_millis(person.random.u64(50..500));
        let is_stopped = stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none();
        if is_stopped {
            break;
        }
        let is_to_pause = person.log.pauses.is_empty() && Instant::now() > first_pause;
        person.act(is_to_pause).await;
    }
    let give_up = Instant::now() + RESUMES_WITHIN;
    while person.paused.is_some() {
        if Instant::now() > give_up {
            let problem = format!("a queue cannot be resumed: {:?}", person.paused.take());
            person.log.problems.push(problem);
        }
        person.resume().await;
    }
    person.database.close().await;
    person.log
}

fn is_ready(path: &Path) -> bool {
    path.exists() && open(path).prepare("SELECT unread_by FROM jobs").is_ok()
}

impl Person {
    async fn act(&mut self, is_to_pause: bool) {
        let offset = SignedDuration::from_millis(self.offset.load(Ordering::Relaxed));
        self.clock.set(Timestamp::now() + offset);
        let choice = self.random.u32(..20);
        match self.paused {
            Some((_, _, until)) if Instant::now() > until => self.resume().await,
            None if is_to_pause || choice < 2 => self.pause().await,
            _ if choice < 11 => self.change(Deed::Cancel).await,
            _ => self.change(Deed::Retry).await,
        }
    }

    async fn change(&mut self, deed: Deed) {
        let back = self.random.i64(0..LAST);
        // One that runs for long is seldom among the last ones.
        let is_running = deed == Deed::Cancel && self.random.u32(..3) > 0;
        let job = self.database.read(move |conn| {
            let mut query = conn.prepare_cached(if is_running {
                "SELECT id FROM jobs WHERE state = 'executing' ORDER BY started_at + ?1 LIMIT 1"
            } else {
                "SELECT max(coalesce(max(id), 0) - ?1, 1) FROM jobs"
            })?;
            Ok(query.query_row([back], |row| row.get(0)).optional()?)
        });
        let Ok(Some(job)) = job.await else { return };
        let from = wall();
        let done = match deed {
            Deed::Cancel => self.queue.cancel(job, REASON).await,
            Deed::Retry => self.queue.retry(job).await,
        };
        let is_done = match done {
            Ok(is_done) => Some(is_done),
            // Its key is another's.
            Err(error) if error.abort_reason::<queue::Error>().is_some() => Some(false),
            Err(_) => None,
        };
        self.log.acts.push(Act {
            deed,
            job,
            from,
            until: wall(),
            is_done,
        });
    }

    async fn pause(&mut self) {
        let queue = self.random.choice(QUEUES).unwrap();
        let time = Duration::from_millis(self.random.u64(1_500..8_000));
        if self.queue.pause(queue).await.is_ok() {
            self.paused = Some((queue, wall(), Instant::now() + time));
        }
    }

    async fn resume(&mut self) {
        let Some((queue, from, _)) = self.paused else {
            return;
        };
        let until = wall();
        let resumed = self.queue.resume(queue).await;
        self.log.pauses.push((queue, from, until));
        // It may be resumed all the same: nothing is said of it from here on.
        self.paused = resumed.is_err().then(|| (queue, i64::MAX, Instant::now()));
    }
}
