//! What the queue promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::queue;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Maintenance;
use houseboat::queue::Outcome;
use houseboat::queue::Priority;
use houseboat::queue::Queue;
use houseboat::queue::Request;
use houseboat::queue::Schedule;
use houseboat::queue::Scheduler;
use houseboat::queue::Settings;
use houseboat::queue::State;
use houseboat::queue::Worker;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(10);

/// What the jobs of these tests are given: a list to write to.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A job that does what it is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Act {
    word: String,
}

impl Act {
    fn new(word: &str) -> Self {
        let word = word.to_owned();
        Self { word }
    }
}

impl Job for Act {
    const NAME: &'static str = "act";
    const ATTEMPTS_MAX: u32 = 3;
    const TIMEOUT: Duration = Duration::from_millis(300);
    type Context = Notes;

    async fn run(self, notes: Notes) -> Result<Outcome, BoxError> {
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
            "slow" => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                notes.add("slow ended");
                Ok(Outcome::Complete)
            }
            _ => Ok(Outcome::Complete),
        }
    }

    fn backoff(_attempt: u32) -> Duration {
        Duration::from_millis(10)
    }
}

/// A job that never ends by itself.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Linger {}

impl Job for Linger {
    const NAME: &'static str = "linger";
    type Context = Notes;

    async fn run(self, notes: Notes) -> Result<Outcome, BoxError> {
        notes.add("linger");
        std::future::pending().await
    }
}

struct Site {
    folder: TempDir,
    clock: Clock,
    database: Database,
    queue: Queue,
    notes: Notes,
}

impl Site {
    async fn new(clock: Clock) -> Self {
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

    async fn enqueue(&self, request: impl Into<Request>) -> Option<i64> {
        let (queue, request) = (self.queue.clone(), request.into());
        let write = self
            .database
            .write(move |tx| Ok(queue.enqueue(tx, request)?));
        write.await.unwrap()
    }

    /// Runs a worker until the token is cancelled.
    fn work(&self, settings: Settings) -> (CancellationToken, JoinHandle<()>) {
        let jobs = Jobs::default().register::<Act>().register::<Linger>();
        let worker = Worker::new(self.queue.clone(), jobs, self.notes.clone(), settings);
        let stop = CancellationToken::new();
        let token = stop.clone();
        (stop, tokio::spawn(async move { worker.run(token).await }))
    }

    /// Runs a worker until no job waits or runs any more.
    async fn drain(&self) {
        let (stop, worker) = self.work(Settings::default());
        wait_for("end of it", SOON, async || {
            (self.pending().await == 0).then_some(())
        })
        .await;
        stop.cancel();
        worker.await.unwrap();
    }

    async fn pending(&self) -> u64 {
        let counts = self.queue.counts().await.unwrap();
        counts[&State::Available] + counts[&State::Executing] + counts[&State::Retryable]
    }

    async fn counts(&self) -> BTreeMap<State, u64> {
        let mut counts = self.queue.counts().await.unwrap();
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// The job's state, attempt, deaths and error.
    async fn row(&self, id: i64) -> (String, u32, u32, Option<String>) {
        let read = self.database.read(move |conn| {
            let sql = "SELECT state, attempt, deaths, error FROM jobs WHERE id = ?1";
            Ok(conn.query_row(sql, [id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?)
        });
        read.await.unwrap()
    }

    async fn sql(&self, sql: &'static str) {
        let write = self.database.write(move |tx| Ok(tx.execute_batch(sql)?));
        write.await.unwrap();
    }
}

async fn open(folder: &TempDir, clock: &Clock) -> (Database, Queue) {
    let settings = houseboat::database::Settings {
        path: folder.path().join("site.sqlite3"),
        ..houseboat::database::Settings::default()
    };
    let database = Database::open(&settings, clock.clone()).unwrap();
    database.migrate(&[queue::MIGRATIONS]).await.unwrap();
    let queue = Queue::new(database.clone());
    (database, queue)
}

fn held() -> Clock {
    Clock::held("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap())
}

#[tokio::test]
async fn a_job_runs_once_and_is_completed() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.unwrap();
    site.drain().await;
    assert_eq!(site.notes.all(), ["go"]);
    assert_eq!(site.row(id).await, ("completed".to_owned(), 1, 0, None));
}

#[tokio::test]
async fn a_job_is_not_enqueued_when_its_transaction_is_rolled_back() {
    let site = Site::new(Clock::system()).await;
    let queue = site.queue.clone();
    let write = site.database.write(move |tx| -> Result<(), Error> {
        queue.enqueue(tx, &Act::new("ghost"))?;
        Err(Error::abort("no"))
    });
    write.await.unwrap_err();
    assert!(site.counts().await.is_empty());
}

#[tokio::test]
async fn a_waiting_worker_is_woken_by_the_commit() {
    let site = Site::new(Clock::system()).await;
    let never_polls = Settings {
        poll_ms: 3_600_000,
        ..Settings::default()
    };
    let (stop, worker) = site.work(never_polls);
    // Long enough for the worker to have found nothing and to wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    site.enqueue(&Act::new("go")).await;
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["go"]).then_some(())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(5));
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn an_error_a_panic_and_a_timeout_are_each_tried_again() {
    let site = Site::new(Clock::system()).await;
    for (word, error) in [
        ("fail once", "it failed"),
        ("panic once", "it panicked"),
        ("hang once", "it took longer than 300ms"),
    ] {
        let id = site.enqueue(&Act::new(word)).await.unwrap();
        site.drain().await;
        let (state, attempt, _, text) = site.row(id).await;
        assert_eq!(
            (state.as_str(), attempt, text.as_deref()),
            ("completed", 2, Some(error)),
            "{word}"
        );
    }
}

#[tokio::test]
async fn a_job_that_keeps_failing_is_discarded_with_its_error() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("fail")).await.unwrap();
    site.drain().await;
    assert_eq!(site.notes.all(), ["fail", "fail", "fail"]);
    assert_eq!(
        site.row(id).await,
        ("discarded".to_owned(), 3, 0, Some("it failed".to_owned()))
    );
}

#[tokio::test]
async fn a_snoozed_job_runs_again_and_spends_no_attempt() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("snooze once")).await.unwrap();
    site.drain().await;
    assert_eq!(site.notes.all().len(), 2);
    assert_eq!(site.row(id).await, ("completed".to_owned(), 1, 0, None));
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_reason() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("cancel")).await.unwrap();
    site.drain().await;
    assert_eq!(
        site.row(id).await,
        ("cancelled".to_owned(), 1, 0, Some("not needed".to_owned()))
    );
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time() {
    let clock = held();
    let site = Site::new(clock.clone()).await;
    let quick = Settings {
        poll_ms: 100,
        ..Settings::default()
    };
    site.enqueue(Request::new(&Act::new("later")).run_in(Duration::from_secs(60)))
        .await;
    let (stop, worker) = site.work(quick);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(site.notes.all().is_empty());
    clock.advance(Duration::from_secs(60));
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["later"]).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn what_is_due_runs_by_priority_and_then_by_time() {
    let site = Site::new(Clock::system()).await;
    for (word, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high", Priority::High),
        ("normal 2", Priority::Normal),
    ] {
        site.enqueue(Request::new(&Act::new(word)).priority(priority))
            .await;
    }
    let one_at_a_time = Settings {
        workers: 1,
        ..Settings::default()
    };
    let (stop, worker) = site.work(one_at_a_time);
    wait_for("end of it", SOON, async || {
        (site.pending().await == 0).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.notes.all(), ["high", "normal 1", "normal 2", "low"]);
}

#[tokio::test]
async fn no_more_jobs_run_at_a_time_than_there_are_workers() {
    let site = Site::new(Clock::system()).await;
    for _ in 0..5 {
        site.enqueue(&Linger {}).await;
    }
    let three = Settings {
        workers: 3,
        stop_ms: 0,
        ..Settings::default()
    };
    let (stop, worker) = site.work(three);
    wait_for("end of it", SOON, async || {
        (site.notes.all().len() == 3).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(site.notes.all().len(), 3);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_unique_job_is_enqueued_once_until_it_has_ended() {
    let site = Site::new(Clock::system()).await;
    let request = || Request::new(&Act::new("only")).unique("the key");
    assert!(site.enqueue(request()).await.is_some());
    assert!(site.enqueue(request()).await.is_none());
    site.drain().await;
    assert!(site.enqueue(request()).await.is_some());
}

#[tokio::test]
async fn a_stopped_worker_lets_a_job_end() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("slow")).await.unwrap();
    let (stop, worker) = site.work(Settings::default());
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["slow"]).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.notes.all(), ["slow", "slow ended"]);
    assert_eq!(site.row(id).await.0, "completed");
}

#[tokio::test]
async fn a_stopped_worker_puts_back_what_does_not_end() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Linger {}).await.unwrap();
    let short = Settings {
        stop_ms: 50,
        ..Settings::default()
    };
    let (stop, worker) = site.work(short);
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["linger"]).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.row(id).await, ("available".to_owned(), 0, 0, None));
}

#[tokio::test]
async fn jobs_of_a_dead_process_run_again() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("again")).await.unwrap();
    site.sql("UPDATE jobs SET state = 'executing', attempt = 1")
        .await;
    let rescued = site.queue.rescue().await.unwrap();
    assert_eq!((rescued.available, rescued.discarded), (1, 0));
    site.drain().await;
    let (state, attempt, deaths, _) = site.row(id).await;
    assert_eq!((state.as_str(), attempt, deaths), ("completed", 2, 0));
}

#[tokio::test]
async fn a_job_that_keeps_killing_the_process_is_set_aside() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Linger {}).await.unwrap();
    for _ in 0..3 {
        site.sql("UPDATE jobs SET state = 'executing', attempt = attempt + 1")
            .await;
        site.queue.rescue().await.unwrap();
    }
    let (state, attempt, deaths, error) = site.row(id).await;
    assert_eq!((state.as_str(), attempt, deaths), ("discarded", 3, 3));
    assert_eq!(
        error.as_deref(),
        Some("the process died while this job ran")
    );
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_waits_and_spends_no_attempt() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.unwrap();
    site.sql("UPDATE jobs SET kind = 'of tomorrow'").await;
    let other = site.enqueue(&Act::new("known")).await.unwrap();
    let (stop, worker) = site.work(Settings::default());
    wait_for("end of it", SOON, async || {
        (site.row(other).await.0 == "completed").then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.row(id).await, ("available".to_owned(), 0, 0, None));
}

#[tokio::test]
async fn arguments_that_cannot_be_read_are_parked_with_the_reason() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.unwrap();
    site.sql("UPDATE jobs SET arguments = '{\"verb\": \"go\"}'")
        .await;
    let (stop, worker) = site.work(Settings::default());
    let error = wait_for("end of it", SOON, async || site.row(id).await.3).await;
    stop.cancel();
    worker.await.unwrap();
    assert!(error.contains("missing field `word`"), "{error}");
    let (state, attempt, ..) = site.row(id).await;
    assert_eq!((state.as_str(), attempt), ("available", 0));
}

#[tokio::test]
async fn arguments_over_the_bound_are_refused() {
    let site = Site::new(Clock::system()).await;
    let queue = site.queue.clone();
    let job = Act::new(&"x".repeat(queue::ARGUMENTS_BYTES_MAX));
    let write = site.database.write(move |tx| Ok(queue.enqueue(tx, &job)?));
    let error = write.await.unwrap_err().to_string();
    assert!(error.contains("more than the 65536"), "{error}");
}

#[tokio::test]
async fn jobs_that_ended_long_ago_are_pruned_and_others_kept() {
    let clock = held();
    let site = Site::new(clock.clone()).await;
    for state in [
        "completed",
        "discarded",
        "cancelled",
        "available",
        "executing",
        "retryable",
    ] {
        let write = site.database.write(move |tx| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
                       INSERT INTO jobs (kind, arguments, state, priority, attempts_max, run_at, enqueued_at,
                           finished_at)
                       SELECT 'act', '{}', ?1, 1, 3, ?2, ?2, ?2 FROM n";
            Ok(tx.execute(sql, rusqlite::params![state, tx.now_ms()])?)
        });
        write.await.unwrap();
    }
    let maintenance = Maintenance::new(site.queue.clone(), Settings::default());
    assert_eq!(maintenance.prune().await.unwrap(), 0);
    clock.advance(Duration::from_secs(25 * 3_600));
    assert_eq!(maintenance.prune().await.unwrap(), 700);
    clock.advance(Duration::from_secs(30 * 24 * 3_600));
    assert_eq!(maintenance.prune().await.unwrap(), 1_400);
    let left: Vec<_> = site.counts().await.into_keys().collect();
    assert_eq!(left, [State::Available, State::Executing, State::Retryable]);
}

fn scheduler(site: &Site, expression: &str) -> Scheduler {
    let schedule = Schedule::default().cron::<Linger>(expression);
    Scheduler::new(site.queue.clone(), schedule).unwrap()
}

#[tokio::test]
async fn a_tick_is_enqueued_once_by_two_schedulers() {
    let site = Site::new(held()).await;
    let both = [scheduler(&site, "* * * * *"), scheduler(&site, "* * * * *")];
    for ticks in 0..4 {
        for scheduler in [&both[0], &both[1], &both[0]] {
            scheduler.tick().await.unwrap();
            assert_eq!(site.pending().await, ticks);
        }
        site.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn ticks_missed_while_the_site_was_down_are_made_up_for_by_one() {
    let site = Site::new(held()).await;
    scheduler(&site, "0 * * * *").tick().await.unwrap();
    assert_eq!(site.pending().await, 0, "an entry that is new begins now");
    site.clock.advance(Duration::from_secs(5 * 3_600));
    for _ in 0..2 {
        scheduler(&site, "0 * * * *").tick().await.unwrap();
        assert_eq!(site.pending().await, 1);
    }
}

#[tokio::test]
async fn a_running_scheduler_enqueues_a_tick_when_its_time_comes() {
    let site = Site::new(Clock::system()).await;
    let scheduler = scheduler(&site, "* * * * * *");
    let stop = CancellationToken::new();
    let token = stop.clone();
    let running = tokio::spawn(async move { scheduler.run(token).await });
    wait_for("second tick", SOON, async || {
        (site.pending().await >= 2).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_expression_that_cannot_be_read_is_named() {
    let site = Site::new(held()).await;
    let schedule = Schedule::default().cron::<Linger>("every morning");
    let error = Scheduler::new(site.queue.clone(), schedule)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("linger") && error.contains("every morning"),
        "{error}"
    );
}

#[tokio::test]
async fn jobs_survive_a_restart() {
    let mut site = Site::new(Clock::system()).await;
    site.enqueue(&Act::new("kept")).await;
    site.database.close().await;
    (site.database, site.queue) = open(&site.folder, &site.clock).await;
    site.drain().await;
    assert_eq!(site.notes.all(), ["kept"]);
}
