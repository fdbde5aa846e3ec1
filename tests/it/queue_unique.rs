//! What a unique key promises: one job, until the end that was asked for.

use std::collections::HashSet;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Error;
use houseboat::queue::Conflict;
use houseboat::queue::Enqueued;
use houseboat::queue::Maintenance;
use houseboat::queue::Outcome;
use houseboat::queue::Settings;
use houseboat::queue::Unique;

use crate::support::jobs::held;
use crate::support::stage::Stage;
use crate::support::stage::encore;
use crate::support::stage::never_polls;
use crate::support::stage::play;

#[tokio::test]
async fn a_unique_key_binds_while_the_job_waits_runs_and_waits_again() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part).await;
        if attempt.number() == 1 {
            return Ok(Outcome::Snooze(Duration::from_hours(1)));
        }
        Ok(Outcome::Complete)
    })
    .await;
    let request = || play("one").unique("key");
    let first = stage.enqueue(request()).await;
    assert!(first.is_new());
    let kept = Enqueued::Kept(first.id());
    assert_eq!(stage.enqueue(request()).await, kept, "it waits");
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    assert_eq!(stage.enqueue(request()).await, kept, "it runs");
    stage.let_go(1);
    stage.is(first.id(), "available").await;
    assert_eq!(stage.enqueue(request()).await, kept, "it is snoozed");
    stage
        .sql("UPDATE jobs SET state = 'retryable', attempt = 1")
        .await;
    assert_eq!(stage.enqueue(request()).await, kept, "it failed and waits");
    stage.sql("UPDATE jobs SET run_at = 0").await;
    stage.let_go(1);
    stage.enqueue(play("another")).await;
    stage.is(first.id(), "completed").await;
    assert!(stage.enqueue(request()).await.is_new(), "it has ended");
    stage.let_go(10);
    work.stop().await;
}

#[tokio::test]
async fn a_unique_key_is_that_of_a_kind() {
    let stage = Stage::quick(Clock::system()).await;
    assert!(stage.enqueue(play("one").unique("key")).await.is_new());
    assert!(stage.enqueue(encore("one").unique("key")).await.is_new());
    assert!(!stage.enqueue(encore("two").unique("key")).await.is_new());
}

#[tokio::test]
async fn a_unique_key_is_free_again_when_its_transaction_is_rolled_back() {
    let stage = Stage::quick(Clock::system()).await;
    let queue = stage.queue.clone();
    let write = stage.database.write(move |tx| -> Result<(), Error> {
        queue.enqueue(tx, play("ghost").unique("key"))?;
        Err(Error::abort("no"))
    });
    write.await.unwrap_err();
    assert!(stage.enqueue(play("one").unique("key")).await.is_new());
}

#[tokio::test]
async fn two_processes_that_enqueue_a_key_at_once_make_one_job() {
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let enqueue = async |stage: &Stage| {
        let mut new = 0;
        for key in 0..50 {
            let request = play(format!("{key}")).unique(format!("key {key}"));
            new += usize::from(stage.enqueue(request).await.is_new());
        }
        new
    };
    let (here, there) = tokio::join!(enqueue(&stage), enqueue(&other));
    assert_eq!(here + there, 50);
    stage.drain().await;
    let parts: HashSet<_> = stage.begun().into_iter().collect();
    assert_eq!((parts.len(), stage.begun().len()), (50, 50));
}

#[tokio::test]
async fn until_started_frees_the_key_at_the_start_and_not_before() {
    let stage = Stage::gated(Clock::system()).await;
    let request = || play("one").unique(Unique::new("key").until_started());
    let first = stage.enqueue(request()).await.id();
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    assert!(stage.enqueue(request()).await.is_new(), "the first runs");
    stage.let_go(10);
    stage.is_done().await;
    work.stop().await;
    assert_eq!(stage.begun().len(), 2);
}

#[tokio::test]
async fn until_started_binds_while_a_limit_keeps_the_job_from_starting() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    stage.enqueue(play("first").concurrency("limit", 1)).await;
    stage.has_begun(1).await;
    let request = || {
        let unique = Unique::new("key").until_started();
        play("second").unique(unique).concurrency("limit", 1)
    };
    let blocked = stage.enqueue(request()).await.id();
    // What is enqueued after it has been looked at when this one runs.
    stage.enqueue(play("third")).await;
    stage.has_begun(2).await;
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(blocked));
    stage.let_go(10);
    stage.is_done().await;
    work.stop().await;
    assert_eq!(stage.begun(), ["first", "third", "second"]);
}

#[tokio::test]
async fn until_started_lets_the_first_fail_and_go_on_while_another_has_its_key() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part.clone()).await;
        if part == "first" && attempt.number() == 1 {
            return Err("it failed".into());
        }
        Ok(Outcome::Complete)
    })
    .await;
    let unique = || Unique::new("key").until_started();
    let first = stage.enqueue(play("first").unique(unique())).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    let later = play("second")
        .unique(unique())
        .run_in(Duration::from_hours(1));
    let second = stage.enqueue(later).await;
    assert!(second.is_new());
    stage.let_go(2);
    stage.is(first, "completed").await;
    assert_eq!(stage.begun(), ["first", "first"]);
    let again = stage.enqueue(play("third").unique(unique())).await;
    assert_eq!(
        again,
        Enqueued::Kept(second.id()),
        "the key is the second's"
    );
    work.stop().await;
}

#[tokio::test]
async fn until_started_lets_a_dead_process_s_job_run_again_while_another_has_its_key() {
    let stage = Stage::gated(Clock::system()).await;
    let unique = || Unique::new("key").until_started();
    let first = stage.enqueue(play("first").unique(unique())).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    assert!(
        stage
            .enqueue(play("second").unique(unique()))
            .await
            .is_new()
    );
    work.kill().await;
    stage.let_go(10);
    stage.drain().await;
    assert_eq!(stage.state(first).await, "completed");
    let mut begun = stage.begun();
    begun.sort();
    assert_eq!(begun, ["first", "first", "second"]);
}

#[tokio::test]
async fn within_binds_for_its_period_whatever_becomes_of_the_job() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let request = || play("one").unique(Unique::new("key").within(Duration::from_hours(48)));
    let first = stage.enqueue(request()).await.id();
    stage.drain().await;
    assert_eq!(stage.state(first).await, "completed");
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    // Completed jobs are pruned after 24 hours; this one is what knows that the key binds.
    clock.advance(Duration::from_hours(47));
    let maintenance = Maintenance::new(stage.queue.clone(), Settings::default());
    assert_eq!(maintenance.prune().await.unwrap(), 0);
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(Duration::from_hours(1));
    assert!(stage.enqueue(request()).await.is_new());
    assert_eq!(maintenance.prune().await.unwrap(), 1);
}

#[tokio::test]
async fn keep_leaves_the_first_as_it_is() {
    let stage = Stage::quick(Clock::system()).await;
    let first = stage.enqueue(play("first").unique("key")).await.id();
    let second = play("second").unique("key").run_in(Duration::from_hours(1));
    assert_eq!(stage.enqueue(second).await, Enqueued::Kept(first));
    stage.drain().await;
    assert_eq!(stage.begun(), ["first"]);
}

#[tokio::test]
async fn replace_gives_the_first_the_new_arguments_and_leaves_its_time() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let minute = Duration::from_mins(1);
    let first = play("first").unique("key").run_in(minute);
    let first = stage.enqueue(first).await.id();
    let unique = || Unique::new("key").on_conflict(Conflict::Replace);
    let second = play("second").unique(unique()).run_in(minute * 60);
    assert_eq!(stage.enqueue(second).await, Enqueued::Replaced(first));
    clock.advance(minute);
    stage.drain().await;
    assert_eq!(stage.begun(), ["second"]);
}

#[tokio::test]
async fn postpone_pushes_the_first_back_with_the_new_arguments() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let request = |part: &str| {
        let unique = Unique::new("key").on_conflict(Conflict::Postpone);
        play(part).unique(unique).run_in(Duration::from_secs(10))
    };
    let first = stage.enqueue(request("first")).await.id();
    for part in ["second", "third"] {
        clock.advance(Duration::from_secs(9));
        assert_eq!(
            stage.enqueue(request(part)).await,
            Enqueued::Postponed(first)
        );
    }
    clock.advance(Duration::from_secs(9));
    let ran = stage.worker(never_polls()).drain().await.unwrap();
    assert!(ran.is_empty(), "its time is pushed back");
    clock.advance(Duration::from_secs(1));
    stage.worker(never_polls()).drain().await.unwrap();
    assert_eq!(stage.begun(), ["third"]);
}

#[tokio::test]
async fn replace_and_postpone_leave_a_job_alone_that_runs() {
    let stage = Stage::gated(Clock::system()).await;
    let first = stage.enqueue(play("first").unique("key")).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    for conflict in [Conflict::Replace, Conflict::Postpone] {
        let unique = Unique::new("key").on_conflict(conflict);
        let second = stage.enqueue(play("second").unique(unique)).await;
        assert_eq!(second, Enqueued::Kept(first));
    }
    let arguments: String = stage.get("SELECT arguments FROM jobs").await;
    assert_eq!(arguments, r#"{"part":"first"}"#);
    stage.let_go(1);
    stage.is(first, "completed").await;
    work.stop().await;
}

#[tokio::test]
async fn replace_lets_a_parked_job_go_on_with_arguments_that_can_be_read() {
    let stage = Stage::quick(Clock::system()).await;
    let first = stage.enqueue(play("first").unique("key")).await.id();
    stage.sql("UPDATE jobs SET arguments = '{}'").await;
    let work = stage.work(never_polls());
    stage.is(first, "parked").await;
    let unique = Unique::new("key").on_conflict(Conflict::Replace);
    let second = stage.enqueue(play("second").unique(unique)).await;
    assert_eq!(second, Enqueued::Replaced(first));
    stage.is(first, "completed").await;
    work.stop().await;
    assert_eq!(stage.begun(), ["second"]);
}

#[tokio::test]
async fn many_enqueued_at_once_are_each_as_if_alone_and_in_their_order() {
    let stage = Stage::quick(Clock::system()).await;
    let queue = stage.queue.clone();
    let write = stage.database.write(move |tx| {
        let plain = (0..150).map(|number| play(format!("{number}")));
        let unique = ["a", "b", "a"].map(|key| play(key).unique(key));
        Ok(queue.enqueue_many(tx, plain.chain(unique))?)
    });
    let enqueued = write.await.unwrap();
    let ids: Vec<i64> = enqueued.iter().map(|it| it.id()).collect();
    let expected: Vec<i64> = (1..=152).chain([151]).collect();
    assert_eq!(ids, expected);
    assert_eq!(enqueued[152], Enqueued::Kept(151));
    assert_eq!(enqueued.iter().filter(|it| it.is_new()).count(), 152);
    let last: String = stage.get("SELECT arguments FROM jobs WHERE id = 150").await;
    assert_eq!(last, r#"{"part":"149"}"#);
    stage.drain().await;
    assert_eq!(stage.begun().len(), 152);
}
