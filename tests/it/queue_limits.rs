//! What the limits promise: no more at a time, no more within a time, and nobody forgotten.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Attempt;
use houseboat::queue::Concurrency;
use houseboat::queue::Job;
use houseboat::queue::Jobs;
use houseboat::queue::Outcome;
use houseboat::queue::Rate;
use houseboat::queue::Unique;
use houseboat::queue::Worker;
use serde::Deserialize;
use serde::Serialize;

use crate::support::jobs::SOON;
use crate::support::jobs::held;
use crate::support::stage::Ended;
use crate::support::stage::Stage;
use crate::support::stage::Work;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::wait_for;

#[tokio::test]
async fn no_more_of_a_key_run_at_a_time_than_its_limit_in_all_processes() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Outcome::Complete)
    })
    .await;
    let other = stage.another().await;
    let works = [stage.work(never_polls()), other.work(never_polls())];
    for number in 0..60 {
        let process = if number % 2 == 0 { &stage } else { &other };
        process
            .enqueue(play(format!("{number}")).concurrency("key", 3))
            .await;
    }
    stage.is_done().await;
    assert_eq!(stage.begun().len(), 60);
    assert!(stage.peak() <= 3, "{} ran at the same time", stage.peak());
    for work in works {
        work.stop().await;
    }
}

#[tokio::test]
async fn a_limit_is_used_to_the_full() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    for number in 0..9 {
        stage
            .enqueue(play(format!("{number}")).concurrency("key", 3))
            .await;
    }
    for begun in 3..=9 {
        stage.has_begun(begun).await;
        wait_for("three that run", SOON, async || {
            (stage.running() == 3).then_some(())
        })
        .await;
        // One ends; its place is taken while the others still run.
        stage.let_go(1);
    }
    stage.let_go(2);
    stage.is_done().await;
    assert_eq!(stage.peak(), 3);
    work.stop().await;
}

#[tokio::test]
async fn jobs_of_a_limited_key_run_in_their_order() {
    let stage = Stage::quick(Clock::system()).await;
    let parts: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    for part in &parts {
        stage.enqueue(play(part).concurrency("key", 1)).await;
    }
    stage.drain().await;
    assert_eq!(stage.begun(), parts);
}

#[tokio::test]
async fn jobs_that_a_limit_keeps_back_are_in_nobody_s_way() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(workers(4));
    for _ in 0..200 {
        stage.enqueue(play("limited").concurrency("key", 1)).await;
    }
    stage.has_begun(1).await;
    for word in ["free", "other"] {
        stage.enqueue(play(word)).await;
    }
    stage
        .enqueue(play("other key").concurrency("key 2", 1))
        .await;
    stage.has_begun(4).await;
    let mut begun = stage.begun();
    begun.sort();
    assert_eq!(begun, ["free", "limited", "other", "other key"]);
    stage.let_go(1_000);
    work.stop().await;
}

#[tokio::test]
async fn each_way_to_end_makes_room_for_the_next() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part.clone());
        match part.as_str() {
            "fail" => Err("it failed".into()),
            "panic" => panic!("on purpose"),
            "hang" => std::future::pending().await,
            "snooze" => Ok(Outcome::Snooze(Duration::from_hours(1))),
            "cancel" => Ok(Outcome::Cancel("not needed".to_owned())),
            "finish" => {
                let here = attempt.clone();
                let finish = attempt.database.write(move |tx| Ok(here.finish(tx)?));
                finish.await?;
                Ok(Outcome::Complete)
            }
            _ => Ok(Outcome::Complete),
        }
    })
    .await;
    let work = stage.work(never_polls());
    let parts = [
        "fail", "panic", "hang", "snooze", "cancel", "finish", "complete", "last",
    ];
    for part in parts {
        let request = play(part).concurrency("key", 1).attempts_max(1);
        stage
            .enqueue(request.timeout(Duration::from_millis(50)))
            .await;
    }
    stage.has_begun(parts.len()).await;
    assert_eq!(stage.begun(), parts);
    assert_eq!(stage.peak(), 1);
    work.stop().await;
}

#[tokio::test]
async fn what_a_dead_process_ran_does_not_count_for_ever() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    for part in ["one", "two", "three"] {
        stage.enqueue(play(part).concurrency("key", 1)).await;
    }
    stage.has_begun(1).await;
    work.kill().await;
    stage.let_go(10);
    stage.drain().await;
    assert_eq!(stage.begun(), ["one", "one", "two", "three"]);
}

#[tokio::test]
async fn room_that_a_paused_queue_does_not_use_goes_to_the_next() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    stage.enqueue(play("first").concurrency("key", 1)).await;
    stage.has_begun(1).await;
    let paused = play("paused").queue("paused").concurrency("key", 1);
    stage.enqueue(paused).await;
    stage.enqueue(play("last").concurrency("key", 1)).await;
    wait_for("two that are blocked", SOON, async || {
        let sql = "SELECT count(*) FROM jobs WHERE blocked_by IS NOT NULL";
        (stage.get::<i64>(sql).await == 2).then_some(())
    })
    .await;
    stage
        .sql("INSERT INTO queues (name, paused_at) VALUES ('paused', 1)")
        .await;
    stage.let_go(10);
    stage.has_begun(2).await;
    assert_eq!(stage.begun(), ["first", "last"]);
    work.stop().await;
}

#[tokio::test]
async fn a_job_waits_by_its_own_limit_where_those_of_a_key_differ() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    stage
        .enqueue(play("one of two").concurrency("key", 2))
        .await;
    stage.has_begun(1).await;
    stage.enqueue(play("alone").concurrency("key", 1)).await;
    stage
        .enqueue(play("two of two").concurrency("key", 2))
        .await;
    stage.has_begun(2).await;
    assert_eq!(stage.begun(), ["one of two", "two of two"]);
    stage.let_go(10);
    stage.is_done().await;
    assert_eq!(stage.begun()[2], "alone");
    assert_eq!(stage.peak(), 2);
    work.stop().await;
}

/// A job that says itself what its limits are.
#[derive(Debug, Deserialize, Serialize)]
struct Modest {}

impl Job for Modest {
    const NAME: &'static str = "modest";
    const QUEUE: &'static str = "quiet";
    type Context = Stage;

    async fn run(self, attempt: Attempt<Stage>) -> Ended {
        attempt.act("modest".to_owned()).await;
        Ok(Outcome::Complete)
    }

    fn unique(&self) -> Option<Unique> {
        Some(Unique::new("one").until_started())
    }

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency::new("modest", 0))
    }

    fn rate(&self) -> Option<Rate> {
        Some(Rate::new("modest", 2, Duration::from_mins(1)))
    }
}

#[tokio::test]
async fn the_limits_of_a_type_hold_for_all_of_its_jobs() {
    let clock = held();
    let stage = Stage::gated(clock.clone()).await;
    let jobs = Jobs::default().register::<Modest>();
    let worker = Worker::new(stage.queue.clone(), jobs, stage.clone(), never_polls());
    let work = Work::of(worker);
    assert!(stage.enqueue(&Modest {}).await.is_new());
    stage.has_begun(1).await;
    assert!(stage.enqueue(&Modest {}).await.is_new());
    assert!(!stage.enqueue(&Modest {}).await.is_new(), "its key");
    // 0 at a time would be never; it is taken for 1.
    stage.let_go(1);
    stage.has_begun(2).await;
    let third = stage.enqueue(&Modest {}).await.id();
    stage.let_go(1);
    let blocked: Option<String> = wait_for("third that waits", SOON, async || {
        let sql = format!("SELECT blocked_by FROM jobs WHERE id = {third}");
        let blocked: Option<String> = stage.get(sql).await;
        blocked.is_some_and(|by| by == "r:modest").then_some(None)
    })
    .await;
    assert_eq!(blocked, None);
    assert_eq!(stage.peak(), 1);
    let queue: String = stage.get("SELECT DISTINCT queue FROM jobs").await;
    assert_eq!(queue, "quiet");
    work.stop().await;
}

#[tokio::test]
async fn no_more_of_a_key_are_started_within_a_time_in_all_processes() {
    const PER: i64 = 300;
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let works = [stage.work(never_polls()), other.work(never_polls())];
    for number in 0..10 {
        let request = play(format!("{number}"));
        stage
            .enqueue(request.rate("key", 3, Duration::from_millis(300)))
            .await;
    }
    stage.is_done().await;
    let read = stage.database.read(|conn| {
        let mut starts = conn.prepare("SELECT started_at FROM jobs ORDER BY started_at")?;
        let starts = starts.query_map([], |row| row.get(0))?;
        Ok(starts.collect::<Result<Vec<i64>, _>>()?)
    });
    let starts = read.await.unwrap();
    assert_eq!(starts.len(), 10);
    for four in starts.windows(4) {
        assert!(four[3] - four[0] >= PER, "four within {PER} ms: {starts:?}");
    }
    // And not by luck: they are started as soon as they may.
    assert!(starts[9] - starts[0] < 3 * PER + 2_000, "{starts:?}");
    for work in works {
        work.stop().await;
    }
}

#[tokio::test]
async fn a_job_over_its_rate_waits_for_the_time_and_is_in_nobody_s_way() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let minute = Duration::from_mins(1);
    let almost = Duration::from_millis(59_999);
    for part in ["one", "two", "three", "four"] {
        stage.enqueue(play(part).rate("key", 1, minute)).await;
    }
    stage.enqueue(play("free")).await;
    stage
        .enqueue(play("other key").rate("key 2", 1, minute))
        .await;
    let run = async || {
        let ran = stage.worker(workers(4)).drain().await.unwrap();
        ran.len()
    };
    assert_eq!(run().await, 3);
    assert_eq!(stage.begun(), ["one", "free", "other key"]);
    clock.advance(almost);
    assert_eq!(run().await, 0);
    for part in ["two", "three", "four"] {
        clock.advance(Duration::from_millis(1));
        assert_eq!(run().await, 1);
        assert_eq!(stage.begun().last().unwrap(), part);
        clock.advance(almost);
        assert_eq!(run().await, 0);
    }
}

#[tokio::test]
async fn a_worker_sleeps_until_a_rate_allows_the_next() {
    let stage = Stage::quick(Clock::system()).await;
    let work = stage.work(never_polls());
    for part in ["one", "two", "three"] {
        let rate = Duration::from_millis(200);
        stage.enqueue(play(part).rate("key", 1, rate)).await;
    }
    stage.is_done().await;
    let at = stage.begun_at();
    assert!(at[2] - at[0] >= Duration::from_millis(350), "{at:?}");
    work.stop().await;
}

#[tokio::test]
async fn a_job_over_its_rate_holds_no_place_of_its_concurrency_key() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let hour = Duration::from_hours(1);
    let both = |part: &str| play(part).concurrency("key", 1).rate("rate", 1, hour);
    stage.enqueue(both("one")).await;
    stage.enqueue(both("two")).await;
    stage.enqueue(play("three").concurrency("key", 1)).await;
    let work = stage.work(never_polls());
    stage.has_begun(2).await;
    assert_eq!(stage.begun(), ["one", "three"]);
    work.stop().await;
    clock.advance(hour);
    stage.drain().await;
    assert_eq!(stage.begun(), ["one", "three", "two"]);
}
