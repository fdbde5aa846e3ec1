//! One round of apalis on SQLite: `peer-queue-apalis FOLDER JOBS [AT_ONCE]` prints enqueued and drained jobs a second.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use apalis::prelude::*;
use apalis_sqlite::Config;
use apalis_sqlite::SqliteConnectOptions;
use apalis_sqlite::SqlitePoolOptions;
use apalis_sqlite::SqliteStorage;
use serde::Deserialize;
use serde::Serialize;

const TASKS: u64 = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NoOp {
    number: u64,
}

async fn no_op(job: NoOp, runs: Data<Arc<AtomicU64>>) -> Result<(), BoxDynError> {
    std::hint::black_box(job.number);
    runs.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let jobs = arguments[2].parse::<u64>().unwrap().next_multiple_of(TASKS);
    let at_once: usize = arguments
        .get(3)
        .map_or(16, |number| number.parse().unwrap());
    let url = format!("sqlite://{}/queue.sqlite3", arguments[1]);
    let options = SqliteConnectOptions::from_str(&url)
        .unwrap()
        .create_if_missing(true);
    // One connection: with more, its transactions fail with "database is locked".
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    let config = Config::default().queue("no_op").batch_size(at_once);
    let storage = SqliteStorage::<NoOp>::new(&pool).with_config(config);

    let start = Instant::now();
    let tasks = (0..TASKS).map(|task| {
        let mut storage = storage.clone();
        tokio::spawn(async move {
            for number in 0..jobs / TASKS {
                let number = task * (jobs / TASKS) + number;
                storage.push(NoOp { number }).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let enqueued = start.elapsed();

    let start = Instant::now();
    let runs = Arc::new(AtomicU64::new(0));
    let worker = WorkerBuilder::new("bench")
        .backend(storage.clone())
        .concurrency(at_once)
        .data(Arc::clone(&runs))
        .build(no_op);
    let worker = tokio::spawn(worker.run());
    while runs.load(Ordering::Relaxed) < jobs {
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "{} of {jobs} ran",
            runs.load(Ordering::Relaxed)
        );
        assert!(!worker.is_finished(), "the worker has ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let drained = start.elapsed();
    println!(
        "{} {}",
        jobs as f64 / enqueued.as_secs_f64(),
        jobs as f64 / drained.as_secs_f64()
    );
    worker.abort();
}
