//! What the queue does in a second, and what it costs the site that it runs in.
//!
//! `cargo bench --bench queue` measures everything, about four minutes; names of [`PARTS`] as arguments
//! (`-- drain enqueue`) measure these alone. Each part runs its rows in turn, round after round, and prints medians of
//! the rounds, and each row's ratio to another of the same round. `-- peer FOLDER JOBS` is one round for
//! `queue_peers.py`.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::database;
use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::database::Transaction;
use houseboat::queue;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Outcome;
use houseboat::queue::Queue;
use houseboat::queue::State;
use houseboat::queue::Worker;
use rusqlite::Connection;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const PARTS: [&str; 7] = [
    "drain",
    "enqueue",
    "transaction",
    "start",
    "full",
    "web",
    "idle",
];

/// So many tasks write at the same time, where it is not one.
const TASKS: u64 = 64;
/// How many jobs run at the same time, by default.
const WORKERS: usize = 16;
/// A pause in which an idle site comes to rest.
const PAUSE: Duration = Duration::from_millis(5);
/// How long web writes are measured in a round.
const WEB_TIME: Duration = Duration::from_secs(3);
const IDLE_TIME: Duration = Duration::from_secs(10);
/// So many rows of each state are in the full table.
const MANY: u64 = 1_000_000;

const MIGRATIONS: Migrations = Migrations::new(
    "bench",
    &[(
        "V1__events",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, note TEXT NOT NULL) STRICT;",
    )],
);

/// Does nothing but say that it runs.
#[derive(Serialize, Deserialize)]
struct NoOp {
    number: u64,
}

impl Job for NoOp {
    const NAME: &'static str = "no_op";
    type Context = Arc<Seen>;

    async fn run(self, seen: Self::Context) -> Result<Outcome, BoxError> {
        seen.one_more();
        Ok(Outcome::Complete)
    }
}

/// What the jobs tell.
#[derive(Default)]
struct Seen {
    runs: AtomicU64,
    /// The worker is stopped when so many have run.
    enough: u64,
    stop: CancellationToken,
    /// The start of the last job, as a task of its own waits for it.
    last: Mutex<Option<Instant>>,
    started: tokio::sync::Notify,
}

impl Seen {
    fn one_more(&self) {
        if self.enough == 0 {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            self.started.notify_one();
        }
        if self.runs.fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.stop.cancel();
        }
    }
}

/// A site with nothing but a database and a queue.
struct Site {
    database: Database,
    queue: Queue,
    _folder: TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder =
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
        let database = open(folder.path()).await;
        Self {
            queue: Queue::new(database.clone()),
            database,
            _folder: folder,
        }
    }

    /// Starts a worker that stops after `enough` jobs, where that is not 0; it ends when all is recorded.
    fn worker(&self, workers: usize, enough: u64) -> (Arc<Seen>, JoinHandle<()>) {
        let seen = Arc::new(Seen {
            enough,
            ..Seen::default()
        });
        let settings = queue::Settings {
            workers,
            ..queue::Settings::default()
        };
        let jobs = Jobs::default().register::<NoOp>();
        let worker = Worker::new(self.queue.clone(), jobs, Arc::clone(&seen), settings);
        let stop = seen.stop.clone();
        let task = tokio::spawn(async move { worker.run(stop).await });
        (seen, task)
    }

    /// Enqueues so many jobs, a hundred in a transaction.
    async fn fill(&self, jobs: u64) {
        for hundred in 0..jobs.div_ceil(100) {
            let queue = self.queue.clone();
            let write = self.database.write(move |tx| {
                for number in hundred * 100..jobs.min((hundred + 1) * 100) {
                    enqueue(&queue, tx, number)?;
                }
                Ok(())
            });
            write.await.expect("the tables are there");
        }
    }

    /// Runs `jobs` jobs of those that are there, and gives how many that was in a second, all of it recorded.
    async fn drain(&self, workers: usize, jobs: u64) -> f64 {
        let before = self.completed().await;
        let start = Instant::now();
        let (_, worker) = self.worker(workers, jobs);
        worker.await.expect("the worker does not panic");
        let rate = float(jobs) / start.elapsed().as_secs_f64();
        let completed = self.completed().await - before;
        // A few more were running when the last one was counted.
        assert!(completed >= jobs, "{completed} of {jobs} are recorded");
        rate
    }

    async fn completed(&self) -> u64 {
        let counts = self.queue.counts().await.expect("the tables are there");
        counts[&State::Completed]
    }

    /// Writes from so many tasks, `times` each, and gives the latencies in µs and how long it took.
    async fn write(&self, tasks: u64, times: u64, work: Work) -> (Vec<f64>, Duration) {
        let start = Instant::now();
        let mut set = JoinSet::new();
        for task in 0..tasks {
            let (database, queue) = (self.database.clone(), self.queue.clone());
            set.spawn(async move {
                let mut latencies = Vec::new();
                for number in 0..times {
                    let (queue, begin) = (queue.clone(), Instant::now());
                    let item = task * times + number;
                    let write = database.write(move |tx| work(&queue, tx, item));
                    write.await.expect("a write waits for its turn");
                    latencies.push(micros(begin.elapsed()));
                }
                latencies
            });
        }
        let latencies = set.join_all().await.concat();
        (latencies, start.elapsed())
    }

    async fn close(self) {
        self.database.close().await;
    }
}

async fn open(folder: &Path) -> Database {
    let settings = database::Settings {
        path: folder.join("bench.sqlite3"),
        ..database::Settings::default()
    };
    let database = Database::open(&settings, Clock::system()).expect("the folder is writable");
    let migrated = database.migrate(&[queue::MIGRATIONS, MIGRATIONS]).await;
    migrated.expect("the schema is sound");
    database
}

/// What a transaction does.
type Work = fn(&Queue, &Transaction<'_>, u64) -> database::Result<()>;

fn enqueue(queue: &Queue, tx: &Transaction<'_>, number: u64) -> database::Result<()> {
    queue.enqueue(tx, &NoOp { number })?;
    Ok(())
}

fn insert(_: &Queue, tx: &Transaction<'_>, item: u64) -> database::Result<()> {
    tx.prepare_cached("INSERT INTO events (item, note) VALUES (?1, 'a note of some length')")?
        .execute([item])?;
    Ok(())
}

fn insert_and_enqueue(queue: &Queue, tx: &Transaction<'_>, item: u64) -> database::Result<()> {
    insert(queue, tx, item)?;
    enqueue(queue, tx, item)
}

/// The least that SQLite does for a drain: each transaction completes what the last one claimed, and claims as many
/// again, on a connection of its own and a table with nothing that is not needed.
fn raw_drain(jobs: u64, at_once: u64) -> f64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
    #[expect(
        clippy::disallowed_methods,
        reason = "it is what the queue is compared with"
    )]
    let conn = Connection::open(folder.path().join("raw.sqlite3")).expect("the folder is writable");
    let ready = conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL, arguments TEXT NOT NULL, at INTEGER NOT NULL);
         CREATE INDEX jobs_claim ON jobs (at, id) WHERE state = 'available';
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})
         INSERT INTO jobs SELECT i, 'available', '{{\"number\":' || i || '}}', 0 FROM n;"
    ));
    ready.expect("the SQL is sound");
    let sql = [
        "UPDATE jobs SET state = 'completed', at = ?2 WHERE id = ?1",
        "UPDATE jobs SET state = 'executing'
         WHERE id IN (SELECT id FROM jobs WHERE state = 'available' AND at <= ?1 ORDER BY at, id LIMIT ?2)
         RETURNING id, arguments",
    ];
    let [mut complete, mut claim] = sql.map(|sql| conn.prepare(sql).expect("the SQL is sound"));
    let (mut running, mut done, start) = (Vec::<i64>::new(), 0, Instant::now());
    while done < jobs {
        conn.execute_batch("BEGIN IMMEDIATE")
            .expect("nobody holds the file");
        for id in running.drain(..) {
            complete.execute((id, 1)).expect("nobody holds the file");
            done += 1;
        }
        let rows = claim.query_map((1, at_once), |row| {
            std::hint::black_box(row.get::<_, String>(1)?);
            row.get::<_, i64>(0)
        });
        running.extend(
            rows.expect("nobody holds the file")
                .map(|id| id.expect("ids are numbers")),
        );
        conn.execute_batch("COMMIT").expect("nobody holds the file");
    }
    float(jobs) / start.elapsed().as_secs_f64()
}

/// The values of one row in each round.
struct Row {
    name: String,
    /// The row it is held against.
    of: String,
    values: Vec<f64>,
}

/// A table of rows that are measured in turn.
struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

impl Table {
    fn new(title: &'static str) -> Self {
        let rows = Vec::new();
        Self { title, rows }
    }

    /// Adds a round's value to a row; `of` is the row it is held against, or nothing.
    fn add(&mut self, name: &str, of: &str, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                name: name.to_owned(),
                of: of.to_owned(),
                values: vec![value],
            }),
        }
    }

    fn print(&self) {
        println!(
            "\n| {} | median | from | to | ratio | to what |",
            self.title
        );
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            let (least, most) = row
                .values
                .iter()
                .fold((f64::MAX, f64::MIN), |(low, high), value| {
                    (low.min(*value), high.max(*value))
                });
            let [middle, least, most] = [median(row.values.clone()), least, most].map(number);
            print!("| {} | {middle} | {least} | {most} |", row.name);
            let mut others = self.rows.iter().filter(|other| other.name != row.name);
            let other = others.find(|other| other.name == row.of);
            let ratio = other.map(|other| {
                let pairs = row.values.iter().zip(&other.values);
                median(pairs.map(|(own, other)| own / other).collect())
            });
            match ratio.filter(|ratio| ratio.is_finite()) {
                Some(ratio) => println!(" {ratio:.2} | {} |", row.of),
                None => println!(" | |"),
            }
        }
    }
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", &digits[..]), |digits| ("-", digits));
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    format!("{sign}{}", groups.join(","))
}

async fn drain() {
    let mut table = Table::new("drain, jobs/s");
    for round in 0..5 {
        let raw = "raw SQL, 16 in a transaction";
        table.add(raw, "", raw_drain(100_000, 16));
        table.add("raw SQL, 64 in a transaction", raw, raw_drain(100_000, 64));
        for (name, jobs, workers) in [
            ("10,000 jobs, 16 workers", 10_000, 16),
            ("10,000 jobs, 64 workers", 10_000, 64),
            ("100,000 jobs, 16 workers", 100_000, 16),
            ("100,000 jobs, 64 workers", 100_000, 64),
        ] {
            if jobs > 10_000 && round > 2 {
                continue;
            }
            let site = Site::new().await;
            site.fill(jobs).await;
            table.add(name, raw, site.drain(workers, jobs).await);
            site.close().await;
        }
    }
    table.print();
}

async fn enqueueing() {
    let mut table = Table::new("enqueue from 64 tasks, a write each, /s");
    let (times, base) = (1_000, "an INSERT of the site's");
    for _ in 0..5 {
        for (name, work) in [(base, insert as Work), ("enqueue", enqueue)] {
            let site = Site::new().await;
            let (_, took) = site.write(TASKS, times, work).await;
            table.add(name, base, float(TASKS * times) / took.as_secs_f64());
            site.close().await;
        }
        for (name, workers) in [
            ("enqueue and run at once, 16 workers", 16),
            ("enqueue and run at once, 64 workers", 64),
        ] {
            let site = Site::new().await;
            let start = Instant::now();
            let (_, worker) = site.worker(workers, TASKS * times);
            site.write(TASKS, times, enqueue).await;
            worker.await.expect("the worker does not panic");
            assert_eq!(
                site.completed().await,
                TASKS * times,
                "each job is recorded"
            );
            let rate = float(TASKS * times) / start.elapsed().as_secs_f64();
            table.add(name, base, rate);
            site.close().await;
        }
    }
    table.print();
}

/// What an enqueue adds to a transaction of the site's; with 64 tasks, the share of each in the time of all.
async fn transaction() {
    let mut table = Table::new("a transaction, µs");
    for _ in 0..5 {
        for (who, tasks, times) in [("one task", 1, 5_000), ("64 tasks", TASKS, 500)] {
            let base = format!("{who}: INSERT");
            let mut without = 0.0;
            for (what, work, works) in [
                ("", insert as Work, false),
                (", enqueue", insert_and_enqueue, false),
                (", enqueue, and a worker runs it", insert_and_enqueue, true),
            ] {
                let site = Site::new().await;
                let worker = works.then(|| site.worker(WORKERS, 0));
                let (latencies, took) = site.write(tasks, times, work).await;
                if let Some((seen, worker)) = worker {
                    seen.stop.cancel();
                    worker.await.expect("the worker does not panic");
                }
                site.close().await;
                let share = micros(took) / float(tasks * times);
                let value = if tasks == 1 { median(latencies) } else { share };
                table.add(&format!("{base}{what}"), &base, value);
                if what.is_empty() {
                    without = value;
                } else {
                    table.add(&format!("{base}{what}: more"), "", value - without);
                }
            }
        }
    }
    table.print();
}

/// From the commit to the start of the job, where nothing else goes on.
async fn start() {
    let mut table = Table::new("idle site, µs");
    for _ in 0..3 {
        let site = Site::new().await;
        let (mut writes, mut starts) = (Vec::new(), Vec::new());
        let (seen, worker) = site.worker(WORKERS, 0);
        for number in 0..1_000 {
            tokio::time::sleep(PAUSE).await;
            let (latencies, _) = site.write(1, 1, insert).await;
            writes.extend(latencies);
            tokio::time::sleep(PAUSE).await;
            let queue = site.queue.clone();
            let write = site.database.write(move |tx| {
                let committed = Arc::new(Mutex::new(None));
                let told = Arc::clone(&committed);
                // Before the queue's own, for they run in this order.
                tx.after_commit(move || {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                });
                enqueue(&queue, tx, number)?;
                Ok(committed)
            });
            let committed = write.await.expect("nobody else writes");
            seen.started.notified().await;
            let [committed, started] = [&committed, &seen.last].map(|time| {
                let time = time.lock().unwrap_or_else(PoisonError::into_inner);
                time.expect("it is set by then")
            });
            starts.push(micros(started.saturating_duration_since(committed)));
        }
        seen.stop.cancel();
        worker.await.expect("the worker does not panic");
        site.close().await;
        let base = "a write of the site's, median";
        table.add(base, "", percentile(&mut writes, 50));
        table.add(
            "a write of the site's, p99",
            "",
            percentile(&mut writes, 99),
        );
        let p50 = percentile(&mut starts, 50);
        table.add("commit to start, median", base, p50);
        let p99 = percentile(&mut starts, 99);
        table.add("commit to start, p99", "a write of the site's, p99", p99);
    }
    table.print();
}

/// Drains of 10,000 jobs from a table with nothing else in it, and from one with a million rows of each state.
async fn full() {
    let full = Site::new().await;
    let filled = full.database.write(|tx| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO jobs (kind, arguments, state, priority, attempts_max, run_at, enqueued_at, finished_at)
             SELECT 'no_op', '{\"number\":' || i || '}', ?2, 1, 20, ?3 + i, ?4, iif(?2 = 'completed', ?4, NULL) FROM n";
        let now = tx.now_ms();
        let week = i64::try_from(7 * MANY).expect("it is small");
        for (state, run_at) in [
            ("completed", now - week),
            ("available", now + week),
            ("available", now - week),
        ] {
            tx.execute(sql, (MANY, state, run_at, now))?;
        }
        Ok(())
    });
    filled.await.expect("the tables are there");
    let mut table = Table::new("drain of 10,000 jobs, jobs/s");
    for _ in 0..7 {
        let empty = Site::new().await;
        empty.fill(10_000).await;
        let base = "of no others";
        table.add(base, "", empty.drain(WORKERS, 10_000).await);
        empty.close().await;
        let rate = full.drain(WORKERS, 10_000).await;
        table.add("1 M available, 1 M scheduled, 1 M completed", base, rate);
    }
    full.close().await;
    table.print();
}

/// Writes of the site's at 200 in a second, from one task; their latencies in µs.
async fn paced(site: &Site) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, start) = (Vec::new(), Instant::now());
    while start.elapsed() < WEB_TIME {
        ticks.tick().await;
        latencies.extend(site.write(1, 1, insert).await.0);
    }
    latencies
}

/// Writes of the site's from 16 tasks, one after another; their latencies in µs.
async fn closed(site: &Site) -> Vec<f64> {
    let (mut latencies, start) = (Vec::new(), Instant::now());
    while start.elapsed() < WEB_TIME {
        latencies.extend(site.write(16, 500, insert).await.0);
    }
    latencies
}

/// Enqueues 125 jobs in a second until the stop; eight of it make the thousand, a millisecond apart.
async fn jobs(database: Database, queue: Queue, number: u64, stop: CancellationToken) {
    let first = tokio::time::Instant::now() + Duration::from_millis(number);
    let mut ticks = tokio::time::interval_at(first, Duration::from_millis(8));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let queue = queue.clone();
        let write = database.write(move |tx| enqueue(&queue, tx, 1));
        write.await.expect("a write waits for its turn");
    }
}

/// What the site's writes feel of 1,000 jobs a second.
async fn web() {
    let mut table = Table::new("web writes, µs");
    for _ in 0..5 {
        for (who, is_paced) in [("200/s", true), ("16 tasks", false)] {
            for (beside, feeders) in [("", 0), (", 1,000 jobs/s beside", 8)] {
                let site = Site::new().await;
                let (seen, worker) = site.worker(WORKERS, 0);
                let mut set = JoinSet::new();
                for number in 0..feeders {
                    let (database, queue) = (site.database.clone(), site.queue.clone());
                    set.spawn(jobs(database, queue, number, seen.stop.clone()));
                }
                let start = Instant::now();
                let mut latencies = if is_paced {
                    paced(&site).await
                } else {
                    closed(&site).await
                };
                let rate = float(seen.runs.load(Ordering::Relaxed)) / start.elapsed().as_secs_f64();
                seen.stop.cancel();
                set.join_all().await;
                worker.await.expect("the worker does not panic");
                site.close().await;
                for percent in [50, 99] {
                    let base = format!("{who}, p{percent}");
                    let value = percentile(&mut latencies, percent);
                    table.add(&format!("{base}{beside}"), &base, value);
                }
                if feeders > 0 {
                    table.add(&format!("{who}{beside}: jobs/s that ran"), "", rate);
                }
            }
        }
    }
    table.print();
}

/// What this process has used of the machine so far.
struct Used {
    reads: f64,
    writes: f64,
    /// By thread: CPU in µs, and how often it went to sleep.
    threads: HashMap<String, [f64; 2]>,
}

impl Used {
    fn now() -> Self {
        let text = |path: &Path| std::fs::read_to_string(path).expect("Linux has it");
        let number = |text: &str| text.trim().parse::<f64>().expect("it is a number");
        let after = |path: &Path, key: &str| {
            let text = text(path);
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            number(line.expect("Linux has it"))
        };
        let threads = std::fs::read_dir("/proc/self/task").expect("Linux has it");
        let threads = threads.map(|thread| {
            let thread = thread.expect("Linux has it");
            let stat = text(&thread.path().join("schedstat"));
            let cpu = number(stat.split(' ').next().unwrap_or_default()) / 1000.0;
            let sleeps = after(&thread.path().join("status"), "voluntary_ctxt_switches:");
            (
                thread.file_name().to_string_lossy().into_owned(),
                [cpu, sleeps],
            )
        });
        let threads = threads.collect();
        let [reads, writes] =
            ["syscr:", "syscw:"].map(|key| after(Path::new("/proc/self/io"), key));
        Self {
            reads,
            writes,
            threads,
        }
    }

    /// What was used since then, in the order of [`idle`]'s rows. A thread that has ended since does not count, and
    /// neither do the reads that it took to look.
    fn since(&self, then: &Self, own_reads: f64) -> [f64; 4] {
        let threads = |at: usize| {
            let each = self.threads.iter().map(|(id, now)| {
                let then = then.threads.get(id).map_or(0.0, |then| then[at]);
                now[at] - then
            });
            each.sum()
        };
        let reads = self.reads - then.reads - own_reads;
        [threads(0), threads(1), reads, self.writes - then.writes]
    }
}

/// What a worker that has nothing to do costs, over a database that has nothing to do.
async fn idle() {
    let mut table = Table::new("10 s of idleness");
    for _ in 0..3 {
        for (who, works) in [("", false), (", with a worker", true)] {
            let site = Site::new().await;
            let worker = works.then(|| site.worker(WORKERS, 0));
            // One job, so that all that is made at the first is made.
            site.fill(1).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let asked = |stats: database::Stats| float(stats.reads.done + stats.writes.done);
            let asked_before = asked(site.database.stats().await);
            let before = Used::now();
            tokio::time::sleep(IDLE_TIME).await;
            let (after, once_more) = (Used::now(), Used::now());
            let used = after.since(&before, once_more.reads - after.reads);
            // The first question was a read.
            let asked = asked(site.database.stats().await) - asked_before - 1.0;
            let names = [
                "CPU, µs",
                "threads woken",
                "reads of files",
                "writes to files",
            ];
            for (name, value) in names.into_iter().zip(used) {
                table.add(&format!("{name}{who}"), name, value);
            }
            table.add(&format!("reads and writes of the database{who}"), "", asked);
            if let Some((seen, worker)) = worker {
                assert_eq!(seen.runs.load(Ordering::Relaxed), 1, "the worker is there");
                seen.stop.cancel();
                worker.await.expect("the worker does not panic");
            }
            site.close().await;
        }
    }
    table.print();
}

/// One round as the peers have it: what an enqueue and a drain of so many jobs take, in seconds.
async fn peer(folder: &Path, jobs: u64) {
    let database = open(folder).await;
    let site = Site {
        queue: Queue::new(database.clone()),
        database,
        _folder: tempfile::tempdir_in(folder).expect("the folder is writable"),
    };
    let (_, took) = site.write(TASKS, jobs.div_ceil(TASKS), enqueue).await;
    let jobs = jobs.next_multiple_of(TASKS);
    let rate = site.drain(WORKERS, jobs).await;
    println!("{} {}", float(jobs) / took.as_secs_f64(), rate);
    site.close().await;
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    if let [word, folder, jobs] = &arguments[..]
        && word == "peer"
    {
        let jobs = jobs.parse().expect("a number of jobs");
        return peer(Path::new(folder), jobs).await;
    }
    for part in PARTS {
        if !arguments.is_empty() && !arguments.iter().any(|name| name == part) {
            continue;
        }
        match part {
            "drain" => drain().await,
            "enqueue" => enqueueing().await,
            "transaction" => transaction().await,
            "start" => start().await,
            "full" => full().await,
            "web" => web().await,
            _ => idle().await,
        }
    }
}
