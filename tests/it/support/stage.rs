//! A queue whose jobs do what the test says, run by workers of one or several processes.
//!
//! What makes a process here is a `Database` and a `Queue` of its own on the same file.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::queue::Attempt;
use houseboat::queue::Enqueued;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Outcome;
use houseboat::queue::Queue;
use houseboat::queue::Request;
use houseboat::queue::Settings;
use houseboat::queue::Worker;
use rusqlite::types::FromSql;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::jobs::SOON;
use crate::support::jobs::open;
use crate::support::waiting::wait_for;

/// How a job of these tests ends.
pub(crate) type Ended = Result<Outcome, BoxError>;

type Script =
    dyn Fn(Attempt<Stage>, String) -> Pin<Box<dyn Future<Output = Ended> + Send>> + Send + Sync;

/// The lease of these tests; a beat each third of it is not missed on a busy machine.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);

/// A job that does what the script says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Play {
    pub(crate) part: String,
}

impl Job for Play {
    const NAME: &'static str = "play";
    const ATTEMPTS_MAX: u32 = 3;
    type Context = Stage;

    async fn run(self, attempt: Attempt<Stage>) -> Ended {
        let script = Arc::clone(&attempt.script);
        script(attempt, self.part).await
    }

    fn backoff(_attempt: u32) -> Duration {
        Duration::from_millis(10)
    }
}

/// The same of another kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Encore {
    pub(crate) part: String,
}

impl Job for Encore {
    const NAME: &'static str = "encore";
    type Context = Stage;

    async fn run(self, attempt: Attempt<Stage>) -> Ended {
        let script = Arc::clone(&attempt.script);
        script(attempt, self.part).await
    }
}

/// What became of [`Play`] in another version of the program: neither can read the other's.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Rewritten {
    pub(crate) role: String,
}

impl Job for Rewritten {
    const NAME: &'static str = Play::NAME;
    type Context = Stage;

    async fn run(self, attempt: Attempt<Stage>) -> Ended {
        let script = Arc::clone(&attempt.script);
        script(attempt, self.role).await
    }
}

pub(crate) fn rewrite(role: impl Into<String>) -> Request {
    Request::new(&Rewritten { role: role.into() })
}

pub(crate) fn play(part: impl Into<String>) -> Request {
    Request::new(&Play { part: part.into() })
}

pub(crate) fn encore(part: impl Into<String>) -> Request {
    Request::new(&Encore { part: part.into() })
}

/// One process, and what its jobs are given.
#[derive(Clone)]
pub(crate) struct Stage {
    folder: Arc<TempDir>,
    pub(crate) clock: Clock,
    pub(crate) database: Database,
    pub(crate) queue: Queue,
    script: Arc<Script>,
    begun: Arc<Mutex<Vec<(String, Instant)>>>,
    /// How many run, and how many have at the most.
    running: Arc<Mutex<(usize, usize)>>,
    gate: Arc<Semaphore>,
}

impl Stage {
    /// A new file; its jobs do what `script` does with the attempt and the job's part.
    pub(crate) async fn new<F: Future<Output = Ended> + Send + 'static>(
        clock: Clock,
        script: impl Fn(Attempt<Self>, String) -> F + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, queue) = open(&folder, &clock).await;
        Self {
            folder: Arc::new(folder),
            clock,
            database,
            queue,
            script: Arc::new(move |attempt, part| Box::pin(script(attempt, part))),
            begun: Arc::default(),
            running: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// A stage whose jobs say that they have begun, and end when they are let.
    pub(crate) async fn gated(clock: Clock) -> Self {
        Self::new(clock, |attempt, part| async move {
            attempt.act(part).await;
            Ok(Outcome::Complete)
        })
        .await
    }

    /// A stage whose jobs say that they have begun, and end.
    pub(crate) async fn quick(clock: Clock) -> Self {
        let stage = Self::gated(clock).await;
        stage.let_go(10_000);
        stage
    }

    /// Another process on the same file.
    pub(crate) async fn another(&self) -> Self {
        self.another_with_clock(&self.clock).await
    }

    pub(crate) async fn another_with_clock(&self, clock: &Clock) -> Self {
        let (database, queue) = open(&self.folder, clock).await;
        Self {
            database,
            queue,
            clock: clock.clone(),
            ..self.clone()
        }
    }

    /// Says that a job has begun, and waits until it may end.
    pub(crate) async fn act(&self, part: String) {
        let _running = self.begin(part);
        self.gate.acquire().await.unwrap().forget();
    }

    /// Says that a job has begun; it runs until what is given is dropped.
    pub(crate) fn begin(&self, part: impl Into<String>) -> Running {
        self.begun
            .lock()
            .unwrap()
            .push((part.into(), Instant::now()));
        let mut running = self.running.lock().unwrap();
        running.0 += 1;
        running.1 = running.1.max(running.0);
        Running(Arc::clone(&self.running))
    }

    /// Lets so many jobs end.
    pub(crate) fn let_go(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// What has begun, in its order.
    pub(crate) fn begun(&self) -> Vec<String> {
        let begun = self.begun.lock().unwrap();
        begun.iter().map(|(part, _)| part.clone()).collect()
    }

    pub(crate) fn begun_at(&self) -> Vec<Instant> {
        let begun = self.begun.lock().unwrap();
        begun.iter().map(|(_, at)| *at).collect()
    }

    /// How many run at this moment.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().unwrap().0
    }

    /// How many have run at the same time, at the most.
    pub(crate) fn peak(&self) -> usize {
        self.running.lock().unwrap().1
    }

    pub(crate) async fn has_begun(&self, count: usize) {
        wait_for(&format!("start of {count}"), SOON, async || {
            (self.begun().len() >= count).then_some(())
        })
        .await;
    }

    pub(crate) async fn enqueue(&self, request: impl Into<Request>) -> Enqueued {
        let (queue, request) = (self.queue.clone(), request.into());
        let write = self
            .database
            .write(move |tx| Ok(queue.enqueue(tx, request)?));
        write.await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let write = self.database.write(move |tx| Ok(tx.execute_batch(&sql)?));
        write.await.unwrap();
    }

    /// The first column of the one row that a query gives.
    pub(crate) async fn get<T: FromSql + Send + 'static>(&self, sql: impl Into<String>) -> T {
        let sql = sql.into();
        let read = self
            .database
            .read(move |conn| Ok(conn.query_row(&sql, [], |row| row.get(0))?));
        read.await.unwrap()
    }

    pub(crate) async fn state(&self, id: i64) -> String {
        self.get(format!("SELECT state FROM jobs WHERE id = {id}"))
            .await
    }

    pub(crate) async fn is(&self, id: i64, state: &str) {
        wait_for(&format!("{state} job {id}"), SOON, async || {
            (self.state(id).await == state).then_some(())
        })
        .await;
    }

    /// Waits until nothing waits or runs any more.
    pub(crate) async fn is_done(&self) {
        let sql =
            "SELECT count(*) FROM jobs WHERE state IN ('available', 'executing', 'retryable')";
        wait_for("end of all jobs", SOON * 3, async || {
            (self.get::<i64>(sql).await == 0).then_some(())
        })
        .await;
    }

    /// A worker that knows [`Play`] alone.
    pub(crate) fn worker(&self, settings: Settings) -> Worker<Self> {
        let jobs = Jobs::default().register::<Play>();
        Worker::new(self.queue.clone(), jobs, self.clone(), settings)
    }

    /// A worker of another version of the program, which knows [`Encore`] too.
    pub(crate) fn newer_worker(&self, settings: Settings) -> Worker<Self> {
        let jobs = Jobs::default().register::<Play>().register::<Encore>();
        Worker::new(self.queue.clone(), jobs, self.clone(), settings)
    }

    /// A worker of another version of the program, which knows [`Rewritten`] and not [`Play`].
    pub(crate) fn rewritten_worker(&self, settings: Settings) -> Worker<Self> {
        let jobs = Jobs::default().register::<Rewritten>();
        Worker::new(self.queue.clone(), jobs, self.clone(), settings)
    }

    pub(crate) fn work(&self, settings: Settings) -> Work {
        Work::of(self.worker(settings))
    }

    /// Runs all there is to its end.
    pub(crate) async fn drain(&self) {
        let work = self.work(never_polls());
        self.is_done().await;
        work.stop().await;
    }

    /// Whether so many workers are entered.
    pub(crate) async fn are_entered(&self, count: i64) {
        wait_for(&format!("{count} workers"), SOON, async || {
            let entered: i64 = self.get("SELECT count(*) FROM workers").await;
            (entered == count).then_some(())
        })
        .await;
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stage").finish_non_exhaustive()
    }
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running(Arc<Mutex<(usize, usize)>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

/// A worker on its way.
#[derive(Debug)]
pub(crate) struct Work {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Work {
    pub(crate) fn of(worker: Worker<Stage>) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { worker.run(token).await });
        Self { stop, task }
    }

    /// As by a signal.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// As if its process were killed: nothing more is said to the database, and the kernel takes the lock back.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// What is found here, is found without asking.
pub(crate) fn never_polls() -> Settings {
    Settings {
        poll_ms: 3_600_000,
        lease_ms: u64::try_from(LEASE.as_millis()).unwrap(),
        ..Settings::default()
    }
}

/// The same with so many workers.
pub(crate) fn workers(workers: usize) -> Settings {
    Settings {
        workers,
        ..never_polls()
    }
}
