//! One round of effectum: `peer-queue-effectum FOLDER JOBS [AT_ONCE]` prints enqueued and drained jobs a second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use effectum::Error;
use effectum::Job;
use effectum::JobRunner;
use effectum::Queue;
use effectum::RunningJob;
use effectum::Worker;
use serde::Deserialize;
use serde::Serialize;

const TASKS: u64 = 64;

#[derive(Serialize, Deserialize)]
struct NoOp {
    number: u64,
}

async fn no_op(job: RunningJob, _: Arc<()>) -> Result<(), Error> {
    let NoOp { number } = job.json_payload()?;
    std::hint::black_box(number);
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let jobs = arguments[2].parse::<u64>().unwrap().next_multiple_of(TASKS);
    let at_once = arguments
        .get(3)
        .map_or(16, |number| number.parse().unwrap());
    let path = Path::new(&arguments[1]).join("queue.sqlite3");
    let queue = Arc::new(Queue::new(&path).await.unwrap());

    let start = Instant::now();
    let tasks = (0..TASKS).map(|task| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            for number in 0..jobs / TASKS {
                let number = task * (jobs / TASKS) + number;
                let job = Job::builder("no_op")
                    .json_payload(&NoOp { number })
                    .unwrap();
                queue.add_job(job.build()).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let enqueued = start.elapsed();

    let start = Instant::now();
    // It counts a job once its completion is written.
    let worker = Worker::builder(&queue, Arc::new(()))
        .max_concurrency(at_once)
        .min_concurrency(at_once / 2)
        .jobs([JobRunner::builder("no_op", no_op).build()])
        .build()
        .await
        .unwrap();
    while worker.counts().finished < jobs {
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "{} of {jobs} ran",
            worker.counts().finished
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let drained = start.elapsed();
    println!(
        "{} {}",
        jobs as f64 / enqueued.as_secs_f64(),
        jobs as f64 / drained.as_secs_f64()
    );
    worker.unregister(None).await.unwrap();
    queue.close(Duration::from_secs(10)).await.unwrap();
}
