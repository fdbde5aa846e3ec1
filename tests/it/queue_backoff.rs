//! How long a job waits between its attempts: as its request says, else as its type does.

use std::ops::RangeInclusive;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Backoff;
use houseboat::queue::Job as _;
use houseboat::queue::Queue;
use houseboat::queue::Request;

use crate::support::jobs::held;
use crate::support::stage::Encore;
use crate::support::stage::Stage;
use crate::support::stage::encore;
use crate::support::stage::never_polls;
use crate::support::stage::play;

/// A stage whose jobs all fail, those whose part says so by a panic.
async fn failing(clock: &Clock) -> Stage {
    Stage::new(clock.clone(), |attempt, part| async move {
        let _running = attempt.begin(part.clone());
        assert!(part != "panics", "on purpose");
        Err("it failed".into())
    })
    .await
}

/// Runs what is due, and says how long the job waits now.
async fn waits(stage: &Stage, id: i64) -> Duration {
    stage.newer_worker(never_polls()).drain().await.unwrap();
    assert_eq!(stage.state(id).await, "retryable");
    let run_at: i64 = stage
        .get(format!("SELECT run_at FROM jobs WHERE id = {id}"))
        .await;
    let now = stage.clock.now().as_millisecond();
    Duration::from_millis(u64::try_from(run_at - now).unwrap())
}

/// So many seconds, and up to a tenth more.
fn about(seconds: u64) -> RangeInclusive<Duration> {
    let wait = Duration::from_secs(seconds);
    wait..=wait.mul_f64(1.1)
}

#[tokio::test]
async fn a_request_s_backoff_is_the_job_s_over_all_its_attempts_and_a_restart() {
    let clock = held();
    let stage = failing(&clock).await;
    let seconds = Duration::from_secs;
    let grows = Backoff::exponential(seconds(100), 3.0, seconds(1_000));
    let id = stage.enqueue(encore("fails").backoff(grows)).await.id();
    for wait in [100, 300, 900, 1_000, 1_000] {
        // Nothing of it is kept in memory.
        let stage = stage.another().await;
        let waited = waits(&stage, id).await;
        assert!(about(wait).contains(&waited), "{waited:?} for {wait} s");
        clock.advance(waited);
    }
}

#[tokio::test]
async fn a_panic_waits_as_the_request_says_too() {
    let stage = failing(&held()).await;
    let fixed = Backoff::fixed(Duration::from_secs(40));
    let id = stage.enqueue(encore("panics").backoff(fixed)).await.id();
    let waited = waits(&stage, id).await;
    assert!(about(40).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn without_one_the_type_says_and_so_it_is_if_what_is_stored_cannot_be_read() {
    let stage = failing(&held()).await;
    // Its type says 10 ms, and the other one nothing.
    let short = stage.enqueue(play("fails")).await.id();
    assert_eq!(waits(&stage, short).await, Duration::from_millis(10));
    let fixed = Backoff::fixed(Duration::from_secs(40));
    let id = stage.enqueue(play("fails").backoff(fixed)).await.id();
    stage
        .sql(r#"UPDATE jobs SET backoff = '{"of": "tomorrow"}' WHERE backoff IS NOT NULL"#)
        .await;
    assert_eq!(waits(&stage, id).await, Duration::from_millis(10));
    let default = stage.enqueue(encore("fails")).await.id();
    let waited = waits(&stage, default).await;
    assert!(about(17).contains(&waited), "{waited:?}");
    assert!(about(17).contains(&Encore::backoff(1)));
}

#[tokio::test]
async fn of_many_enqueued_at_once_each_has_its_own() {
    let stage = failing(&held()).await;
    let queue: Queue = stage.queue.clone();
    let write = stage.database.write(move |tx| {
        let request = |number: u64| -> Request {
            let request = encore(format!("{number}"));
            if number.is_multiple_of(2) {
                return request;
            }
            request.backoff(Backoff::fixed(Duration::from_secs(number)))
        };
        Ok(queue.enqueue_many(tx, (0..150).map(request))?)
    });
    let ids: Vec<i64> = write.await.unwrap().iter().map(|it| it.id()).collect();
    assert_eq!(ids, (1..=150).collect::<Vec<i64>>());
    let sql = "SELECT count(*) FROM jobs
               WHERE iif(id % 2 = 1, backoff IS NULL, backoff ->> 'first_ms' = (id - 1) * 1000)
                   AND arguments ->> 'part' = printf('%d', id - 1)";
    assert_eq!(stage.get::<i64>(sql).await, 150);
}
