//! A process that runs jobs, and brings jobs, until it is told to stop; its test kills it long before.
//!
//! Each run of a job is written to a file that outlives the process, with its times by a clock that nobody sets. The
//! wall clock is the system's and what the test puts into the file `control`.

mod act;
mod order;
mod run;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use houseboat::database::{self, BoxError, Clock, Database, Migrations};
use houseboat::queue::{self, Jobs, Queue, QueueSettings, Worker};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::act::{Act, Rare};
use crate::order::Order;
use crate::run::Book;

const MIGRATIONS: Migrations = Migrations::new(
    "chaos",
    &[(
        "V1__chaos",
        // What was asked for, and what jobs did: nothing here keeps a thing from being done twice.
        "CREATE TABLE requests (tag INTEGER NOT NULL, job INTEGER NOT NULL, became TEXT NOT NULL, parent INTEGER) STRICT;
         CREATE TABLE effects (job INTEGER NOT NULL, tag INTEGER NOT NULL, what TEXT NOT NULL, step INTEGER NOT NULL) STRICT;",
    )],
);

/// More than so many that are due are not brought, nor so many at all.
const DUE_MAX: i64 = 150;
const WAITING_MAX: i64 = 3_000;

/// What the jobs are given.
#[derive(Clone)]
struct Site {
    database: Database,
    queue: Queue,
    book: Arc<Book>,
}

/// Brings jobs, in transactions of which some are given up.
async fn feed(site: &Site) {
    loop {
        sleep(Duration::from_millis(fastrand::u64(5..60))).await;
        if !site.book.is_feeding.load(Ordering::Relaxed) || is_full(site).await.unwrap_or(true) {
            continue;
        }
        let count = fastrand::usize(1..5);
        let orders: Vec<Order> = (0..count).map(|_| Order::any()).collect();
        let tags: Vec<String> = orders
            .iter()
            .map(|order| order.act.tag.to_string())
            .collect();
        let (is_given_up, is_many) = (fastrand::u32(..20) == 0, fastrand::bool());
        let queue = site.queue.clone();
        let write = site.database.write(move |tx| {
            if is_many {
                let requests = orders.iter().map(Order::request);
                let enqueued = queue.enqueue_many(tx, requests)?;
                for (order, enqueued) in orders.iter().zip(enqueued) {
                    order.record(tx, enqueued, None)?;
                }
            } else {
                for order in &orders {
                    order.enqueue(tx, &queue, None)?;
                }
            }
            if is_given_up {
                return Err(database::Error::abort("on purpose"));
            }
            Ok(())
        });
        match write.await {
            Ok(()) => site.book.line(&format!("K {}", tags.join(" "))),
            Err(_) if is_given_up => site.book.line(&format!("A {}", tags.join(" "))),
            Err(error) => tracing::warn!(%error, "jobs were not brought"),
        }
    }
}

async fn is_full(site: &Site) -> database::Result<bool> {
    let now = site.database.now().as_millisecond();
    let read = site.database.read(move |conn| {
        let mut query = conn.prepare_cached(
            "SELECT count(*), coalesce(sum(run_at <= ?1), 0) FROM jobs WHERE state IN ('available', 'retryable')",
        )?;
        Ok(query.query_row([now], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?)
    });
    let (waiting, due) = read.await?;
    Ok(waiting > WAITING_MAX || due > DUE_MAX)
}

/// How far the clock is off, and whether jobs are to be brought.
fn control(path: &Path) -> Option<(i64, bool)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (offset, feeding) = text.trim().split_once(' ')?;
    Some((offset.parse().ok()?, feeding == "1"))
}

/// Moves the clock, as long as the process lives.
fn keep_time(clock: Clock, book: Arc<Book>, path: PathBuf) {
    std::thread::spawn(move || {
        for turn in 0_u64.. {
            if turn.is_multiple_of(8)
                && let Some((offset, is_feeding)) = control(&path)
            {
                book.offset.store(offset, Ordering::Relaxed);
                book.is_feeding.store(is_feeding, Ordering::Relaxed);
            }
            clock.set(shifted(book.offset.load(Ordering::Relaxed)));
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

fn shifted(offset: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_millis(offset)
}

fn settings() -> queue::Settings {
    let queues = [("mail", Some(2), None), ("bulk", None, Some(3))];
    let queues =
        queues.map(|(name, workers, weight)| (name.to_owned(), QueueSettings { workers, weight }));
    queue::Settings {
        workers: 6,
        poll_ms: 500,
        stop_ms: 500,
        lease_ms: 3_000,
        queues: queues.into(),
        ..queue::Settings::default()
    }
}

#[tokio::main(worker_threads = 3)]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let stop = houseboat::shutdown::on_signals()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = PathBuf::from(arguments.first().ok_or("which folder?")?);
    let file = folder.join(format!("runs/{}", std::process::id()));
    let (offset, is_feeding) = control(&folder.join("control")).ok_or("no file `control`")?;
    let book = Arc::new(Book {
        file: File::options().create(true).append(true).open(file)?,
        runs: AtomicU64::new(0),
        offset: AtomicI64::new(offset),
        is_feeding: AtomicBool::new(is_feeding),
    });
    let clock = Clock::held(shifted(offset));
    keep_time(clock.clone(), Arc::clone(&book), folder.join("control"));
    let database = database::Settings {
        path: folder.join("site.sqlite3"),
        ..database::Settings::default()
    };
    let database = Database::open(&database, clock)?;
    database.migrate(&[queue::MIGRATIONS, MIGRATIONS]).await?;
    let site = Site {
        queue: Queue::new(database.clone()),
        database,
        book,
    };
    let mut jobs = Jobs::default().register::<Act>();
    if !arguments.iter().any(|word| word == "--without-rare") {
        jobs = jobs.register::<Rare>();
    }
    let worker = Worker::new(site.queue.clone(), jobs, site.clone(), settings());
    tokio::select! {
        () = worker.run(stop.soon) => {}
        () = feed(&site) => {}
    }
    site.database.close().await;
    Ok(())
}
