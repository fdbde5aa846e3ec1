//! What an operator does to jobs, beside a worker that runs them.

use std::time::Duration;

use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::queue::Attempt;
use houseboat::queue::Detail;
use houseboat::queue::Error;
use houseboat::queue::Filter;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Outcome;
use houseboat::queue::Settings;
use houseboat::queue::State;
use houseboat::queue::Worker;
use serde::Deserialize;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::jobs::Act;
use crate::support::jobs::Linger;
use crate::support::jobs::Notes;
use crate::support::jobs::SOON;
use crate::support::jobs::Site;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

/// A job that says how far it is, and ends when it is told to.
#[derive(Debug, Deserialize, Serialize)]
struct Heed {
    completes: bool,
}

impl Job for Heed {
    const NAME: &'static str = "heed";
    const QUEUE: &'static str = "long";
    type Context = Notes;

    async fn run(self, attempt: Attempt<Notes>) -> Result<Outcome, BoxError> {
        attempt.progress(0.4, "page 2 of 5").await?;
        attempt.stop().cancelled().await;
        if self.completes {
            return Ok(Outcome::Complete);
        }
        Err("it was told to stop".into())
    }
}

fn run_heeding(site: &Site) -> (CancellationToken, JoinHandle<()>) {
    let jobs = Jobs::default().register::<Heed>();
    let (queue, notes) = (site.queue.clone(), site.notes.clone());
    let worker = Worker::new(queue, jobs, notes, Settings::default());
    let stop = CancellationToken::new();
    let token = stop.clone();
    (stop, tokio::spawn(async move { worker.run(token).await }))
}

async fn job(site: &Site, id: i64) -> Detail {
    site.queue.get(id).await.unwrap().unwrap()
}

async fn is(site: &Site, id: i64, state: State) {
    let found = async || (job(site, id).await.listed.state == state).then_some(());
    wait_for(state.as_str(), SOON, found).await;
}

#[tokio::test]
async fn a_running_job_of_this_process_is_told_at_once_that_it_is_cancelled() {
    let site = Site::new(Clock::system()).await;
    let (stop, worker) = run_heeding(&site);
    let completes = false;
    let id = site.enqueue(&Heed { completes }).await.id();
    let seen = async || job(&site, id).await.listed.progress;
    let part = wait_for("progress", SOON, seen).await;
    let listed = site.queue.list(&Filter::default()).await.unwrap();
    assert_eq!(
        (part.to_string(), listed[0].progress_text.as_deref()),
        ("0.4".to_owned(), Some("page 2 of 5"))
    );
    let queues = site.queue.queues().await.unwrap();
    assert_eq!((queues[0].name.as_str(), queues[0].running), ("long", 1));
    assert!(site.queue.cancel(id, "too slow").await.unwrap());
    is(&site, id, State::Cancelled).await;
    assert_eq!(job(&site, id).await.listed.error.unwrap(), "too slow");
    // It may be wanted again; what was said against it is forgotten.
    assert!(site.queue.retry(id).await.unwrap());
    is(&site, id, State::Executing).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_job_that_completes_all_the_same_is_completed() {
    let site = Site::new(Clock::system()).await;
    let (stop, worker) = run_heeding(&site);
    let completes = true;
    let id = site.enqueue(&Heed { completes }).await.id();
    is(&site, id, State::Executing).await;
    assert!(site.queue.cancel(id, "too slow").await.unwrap());
    is(&site, id, State::Completed).await;
    assert!(!site.queue.cancel(id, "too late").await.unwrap());
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_job_that_does_not_heed_it_is_broken_off() {
    if !slow("a_job_that_does_not_heed_it_is_broken_off") {
        return;
    }
    let site = Site::new(Clock::system()).await;
    let lease = Settings {
        lease_ms: 3_000,
        ..Settings::default()
    };
    let (stop, worker) = site.work(lease);
    let id = site.enqueue(&Linger::default()).await.id();
    is(&site, id, State::Executing).await;
    assert!(site.queue.cancel(id, "too slow").await.unwrap());
    is(&site, id, State::Cancelled).await;
    assert_eq!(site.notes.all(), ["linger"]);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn every_attempt_is_kept_and_a_retry_is_one_more() {
    let site = Site::new(Clock::system()).await;
    let (stop, worker) = site.work(Settings::default());
    let id = site.enqueue(&Act::new("fail")).await.id();
    is(&site, id, State::Discarded).await;
    let attempts = async || {
        let errors = job(&site, id).await.errors;
        assert!(errors.iter().all(|error| error.error == "it failed"));
        errors.iter().map(|error| error.attempt).collect::<Vec<_>>()
    };
    assert_eq!(attempts().await, [1, 2, 3]);
    // The worker sleeps: it is woken.
    assert!(site.queue.retry(id).await.unwrap());
    let again = async || (attempts().await == [1, 2, 3, 4]).then_some(());
    wait_for("fourth attempt", SOON, again).await;
    is(&site, id, State::Discarded).await;
    assert!(!site.queue.retry(id + 1).await.unwrap());
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_resumed_is_worked_on_at_once() {
    let site = Site::new(Clock::system()).await;
    site.queue.pause("default").await.unwrap();
    let (stop, worker) = site.work(Settings::default());
    let id = site.enqueue(&Act::new("go")).await.id();
    let queues = site.queue.queues().await.unwrap();
    assert!(queues[0].is_paused && queues[0].waiting == 1, "{queues:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(job(&site, id).await.listed.state, State::Available);
    site.queue.resume("default").await.unwrap();
    is(&site, id, State::Completed).await;
    stop.cancel();
    worker.await.unwrap();
    let refused = site.queue.pause("").await.unwrap_err();
    let reason = refused.abort_reason::<Error>();
    assert!(matches!(reason, Some(Error::QueueName { .. })), "{refused}");
}
