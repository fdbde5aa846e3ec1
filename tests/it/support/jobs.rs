//! A queue in a database of its own, and jobs that do what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::queue;
use houseboat::queue::Attempt;
use houseboat::queue::Enqueued;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Outcome;
use houseboat::queue::Queue;
use houseboat::queue::Request;
use houseboat::queue::Settings;
use houseboat::queue::State;
use houseboat::queue::Worker;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::waiting::wait_for;

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What the jobs of these tests are given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    lines: Arc<Mutex<Vec<String>>>,
    /// Lets one lingering job end.
    pub(crate) release: Arc<Notify>,
}

impl Notes {
    pub(crate) fn add(&self, text: impl Into<String>) {
        self.lines.lock().unwrap().push(text.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// A job that does what it is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Act {
    word: String,
}

impl Act {
    pub(crate) fn new(word: &str) -> Self {
        let word = word.to_owned();
        Self { word }
    }
}

impl Job for Act {
    const NAME: &'static str = "act";
    const ATTEMPTS_MAX: u32 = 3;
    const TIMEOUT: Duration = Duration::from_millis(300);
    type Context = Notes;

    async fn run(self, notes: Attempt<Notes>) -> Result<Outcome, BoxError> {
        notes.add(&self.word);
        let before = notes
            .all()
            .iter()
            .filter(|word| **word == self.word)
            .count();
        match self.word.as_str() {
            "fail" => Err("it failed".into()),
            "fail once" if before == 1 => Err("it failed".into()),
            "panic once" if before == 1 => panic!("on purpose"),
            "hang once" if before == 1 => std::future::pending().await,
            "snooze once" if before == 1 => Ok(Outcome::Snooze(Duration::from_millis(50))),
            "cancel" => Ok(Outcome::Cancel("not needed".to_owned())),
            _ => Ok(Outcome::Complete),
        }
    }

    fn backoff(_attempt: u32) -> Duration {
        Duration::from_millis(10)
    }
}

/// A job that ends when it is released.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Linger {}

impl Job for Linger {
    const NAME: &'static str = "linger";
    type Context = Notes;

    async fn run(self, notes: Attempt<Notes>) -> Result<Outcome, BoxError> {
        notes.add("linger");
        notes.release.notified().await;
        notes.add("linger ended");
        Ok(Outcome::Complete)
    }
}

/// A job that fails, and whose backoff panics.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rash {}

impl Job for Rash {
    const NAME: &'static str = "rash";
    type Context = Notes;

    async fn run(self, _: Attempt<Notes>) -> Result<Outcome, BoxError> {
        Err("it failed".into())
    }

    fn backoff(_attempt: u32) -> Duration {
        panic!("on purpose")
    }
}

pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) clock: Clock,
    pub(crate) database: Database,
    pub(crate) queue: Queue,
    pub(crate) notes: Notes,
}

impl Site {
    pub(crate) async fn new(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (database, queue) = open(&folder, &clock).await;
        Self {
            folder,
            clock,
            database,
            queue,
            notes: Notes::default(),
        }
    }

    pub(crate) async fn enqueue(&self, request: impl Into<Request>) -> Enqueued {
        let (queue, request) = (self.queue.clone(), request.into());
        let write = self
            .database
            .write(move |tx| Ok(queue.enqueue(tx, request)?));
        write.await.unwrap()
    }

    /// Runs a worker until the token is cancelled.
    pub(crate) fn work(&self, settings: Settings) -> (CancellationToken, JoinHandle<()>) {
        let jobs = Jobs::default().register::<Act>().register::<Linger>();
        let jobs = jobs.register::<Rash>();
        let worker = Worker::new(self.queue.clone(), jobs, self.notes.clone(), settings);
        let stop = CancellationToken::new();
        let token = stop.clone();
        (stop, tokio::spawn(async move { worker.run(token).await }))
    }

    /// Runs a worker until no job waits or runs any more.
    pub(crate) async fn drain(&self) {
        let (stop, worker) = self.work(Settings::default());
        wait_for("end of it", SOON, async || {
            (self.pending().await == 0).then_some(())
        })
        .await;
        stop.cancel();
        worker.await.unwrap();
    }

    pub(crate) async fn pending(&self) -> u64 {
        let counts = self.queue.counts().await.unwrap();
        counts[&State::Available] + counts[&State::Executing] + counts[&State::Retryable]
    }

    pub(crate) async fn counts(&self) -> BTreeMap<State, u64> {
        let mut counts = self.queue.counts().await.unwrap();
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// The job's state, attempt, deaths and error.
    pub(crate) async fn row(&self, id: i64) -> (String, u32, u32, Option<String>) {
        let read = self.database.read(move |conn| {
            let sql = "SELECT state, attempt, deaths, error FROM jobs WHERE id = ?1";
            Ok(conn.query_row(sql, [id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?)
        });
        read.await.unwrap()
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let read = self
            .database
            .read(move |conn| Ok(conn.query_row(sql, [], |row| row.get(0))?));
        read.await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &'static str) {
        let write = self.database.write(move |tx| Ok(tx.execute_batch(sql)?));
        write.await.unwrap();
    }
}

pub(crate) async fn open(folder: &TempDir, clock: &Clock) -> (Database, Queue) {
    let settings = houseboat::database::Settings {
        path: folder.path().join("site.sqlite3"),
        ..houseboat::database::Settings::default()
    };
    let database = Database::open(&settings, clock.clone()).unwrap();
    database.migrate(&[queue::MIGRATIONS]).await.unwrap();
    let queue = Queue::new(database.clone());
    (database, queue)
}

pub(crate) fn held() -> Clock {
    Clock::held("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap())
}
