//! The wall clock may jump, an hour back or forward: nothing stalls for that hour, and nothing is doubled.

use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::queue::Enqueued;
use houseboat::queue::Unique;
use jiff::SignedDuration;

use crate::support::jobs::SOON;
use crate::support::jobs::held;
use crate::support::stage::LEASE;
use crate::support::stage::Stage;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn jump(clock: &Clock, by: SignedDuration) {
    clock.set(clock.now().checked_add(by).unwrap());
}

#[tokio::test]
async fn a_jump_takes_no_claim_from_a_living_process_and_leaves_none_to_a_dead_one() {
    if !slow("jumps of the clock for two leases each") {
        return;
    }
    for by in [-HOUR, HOUR] {
        let clock = held();
        let stage = Stage::gated(clock.clone()).await;
        let other = stage.another().await;
        let living = stage.work(never_polls());
        stage.are_entered(1).await;
        stage.enqueue(play("long")).await;
        stage.has_begun(1).await;
        let watcher = other.work(never_polls());
        stage.are_entered(2).await;
        jump(&clock, by);
        tokio::time::sleep(LEASE).await;
        let deaths: i64 = stage.get("SELECT deaths FROM jobs").await;
        assert_eq!((stage.begun().len(), deaths), (1, 0), "{by}: it lives");
        let death = Instant::now();
        living.kill().await;
        jump(&clock, by);
        stage.has_begun(2).await;
        let waited = death.elapsed();
        assert!(waited < LEASE * 3, "{by}: {waited:?}");
        stage.let_go(10);
        stage.is_done().await;
        watcher.stop().await;
    }
}

#[tokio::test]
async fn what_was_due_before_the_clock_was_set_back_is_run_at_once() {
    let clock = held();
    let stage = Stage::gated(clock.clone()).await;
    let work = stage.work(workers(1));
    stage.enqueue(play("first")).await;
    stage.has_begun(1).await;
    for part in ["second", "third"] {
        stage.enqueue(play(part)).await;
    }
    let tomorrow = Duration::from_hours(24);
    stage.enqueue(play("tomorrow").run_in(tomorrow)).await;
    jump(&clock, -HOUR);
    stage.let_go(1);
    stage.has_begun(2).await;
    stage.enqueue(play("fourth")).await;
    stage.let_go(10);
    stage.has_begun(4).await;
    let mut begun = stage.begun();
    begun.sort();
    assert_eq!(begun, ["first", "fourth", "second", "third"]);
    work.stop().await;
}

#[tokio::test]
async fn what_was_due_before_the_clock_was_set_back_is_run_by_the_next_start() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    stage.enqueue(play("due")).await;
    let tomorrow = Duration::from_hours(24);
    stage.enqueue(play("tomorrow").run_in(tomorrow)).await;
    jump(&clock, -HOUR);
    let work = stage.work(workers(1));
    stage.has_begun(1).await;
    work.stop().await;
    assert_eq!(stage.begun(), ["due"]);
}

#[tokio::test]
async fn a_rate_goes_on_within_its_period_after_the_clock_was_set_back() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let minute = Duration::from_mins(1);
    for part in ["one", "two", "three"] {
        stage.enqueue(play(part).rate("key", 1, minute)).await;
    }
    let run = async || {
        stage.worker(never_polls()).drain().await.unwrap();
        stage.begun().len()
    };
    assert_eq!(run().await, 1);
    jump(&clock, -HOUR);
    assert_eq!(run().await, 1, "by real time nothing has passed");
    clock.advance(minute);
    assert_eq!(run().await, 2);
    clock.advance(minute);
    assert_eq!(run().await, 3);
}

#[tokio::test]
async fn a_jump_forward_doubles_nothing_that_runs() {
    let clock = held();
    let stage = Stage::gated(clock.clone()).await;
    let work = stage.work(never_polls());
    let id = stage
        .enqueue(play("long").timeout(Duration::from_mins(5)))
        .await
        .id();
    stage.enqueue(play("limited").concurrency("key", 1)).await;
    stage.enqueue(play("blocked").concurrency("key", 1)).await;
    stage.has_begun(2).await;
    jump(&clock, HOUR);
    stage.enqueue(play("after")).await;
    stage.has_begun(3).await;
    assert_eq!(
        stage.state(id).await,
        "executing",
        "its timeout is real time"
    );
    let mut begun = stage.begun();
    begun.sort();
    assert_eq!(begun, ["after", "limited", "long"]);
    let beat = "SELECT max(beat) FROM workers";
    let seen: i64 = stage.get(beat).await;
    wait_for("two beats", SOON, async || {
        (stage.get::<i64>(beat).await > seen + 1).then_some(())
    })
    .await;
    let deaths: i64 = stage.get("SELECT sum(deaths) FROM jobs").await;
    assert_eq!((stage.begun().len(), deaths), (3, 0));
    stage.let_go(10);
    stage.is_done().await;
    assert_eq!(stage.begun().len(), 4);
    work.stop().await;
}

#[tokio::test]
async fn a_unique_period_is_not_longer_for_a_clock_that_was_set_back() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let minute = Duration::from_mins(1);
    let request = || play("one").unique(Unique::new("key").within(minute));
    let first = stage.enqueue(request()).await.id();
    stage.drain().await;
    jump(&clock, -HOUR);
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(minute / 2);
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(minute / 2);
    assert!(stage.enqueue(request()).await.is_new());
}
