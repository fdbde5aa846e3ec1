//! A unique key that binds in the states that were chosen, and in no other.

use std::collections::HashSet;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Conflict;
use houseboat::queue::Enqueued;
use houseboat::queue::Error;
use houseboat::queue::Maintenance;
use houseboat::queue::Outcome;
use houseboat::queue::Request;
use houseboat::queue::Settings;
use houseboat::queue::State;
use houseboat::queue::Unique;

use crate::support::jobs::held;
use crate::support::stage::Stage;
use crate::support::stage::encore;
use crate::support::stage::never_polls;
use crate::support::stage::play;

const WAITS: [State; 2] = [State::Available, State::Retryable];
const DAY: Duration = Duration::from_hours(24);

fn one(part: &str, states: &[State]) -> Request {
    play(part).unique(Unique::new("key").while_in(states))
}

/// Fails at its first attempt if its part says so, once it is let go.
async fn failing() -> Stage {
    Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part.clone()).await;
        if part == "fails" && attempt.number() == 1 {
            return Err("it failed".into());
        }
        Ok(Outcome::Complete)
    })
    .await
}

#[tokio::test]
async fn it_binds_in_the_states_chosen_and_in_that_in_which_a_job_waits() {
    for chosen in State::ALL {
        let stage = Stage::quick(Clock::system()).await;
        let request = || one("one", &[chosen]);
        let id = stage.enqueue(request()).await.id();
        for state in State::ALL {
            let binds = [State::Available, chosen].contains(&state);
            let sql = format!("UPDATE jobs SET state = '{}'", state.as_str());
            stage.sql(sql).await;
            let shown = stage.queue.get(id).await.unwrap().unwrap().unique_key;
            assert_eq!(shown.is_some(), binds, "{chosen:?} is chosen: {state:?}");
            if binds {
                let became = stage.enqueue(request()).await;
                let why = format!("{chosen:?} is chosen: {state:?}");
                assert_eq!(became, Enqueued::Kept(id), "{why}");
            }
        }
        for state in State::ALL.into_iter().filter(|state| *state != chosen) {
            if state == State::Available {
                continue;
            }
            // The one before gives its key to this one.
            let sql = format!("UPDATE jobs SET state = '{}'", state.as_str());
            stage.sql(sql).await;
            let became = stage.enqueue(request()).await;
            assert!(became.is_new(), "{chosen:?} is chosen: {state:?}");
        }
    }
}

#[tokio::test]
async fn while_it_waits_it_has_the_key_again_after_a_failure_if_nobody_took_it() {
    let stage = failing().await;
    let first = stage.enqueue(one("fails", &WAITS)).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    // From now on it waits long.
    stage
        .sql(
            "CREATE TRIGGER far AFTER UPDATE OF state ON jobs WHEN new.state = 'retryable'
             BEGIN UPDATE jobs SET run_at = run_at + 86400000 WHERE id = new.id; END",
        )
        .await;
    stage.let_go(1);
    stage.is(first, "retryable").await;
    let became = stage.enqueue(one("second", &WAITS)).await;
    assert_eq!(became, Enqueued::Kept(first));
    work.stop().await;
}

#[tokio::test]
async fn one_that_comes_to_wait_again_goes_on_beside_another_that_has_its_key() {
    let stage = failing().await;
    let first = stage.enqueue(one("fails", &WAITS)).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    let later = one("second", &WAITS).run_in(Duration::from_hours(1));
    let second = stage.enqueue(later).await;
    assert!(second.is_new(), "the first runs");
    stage.let_go(2);
    stage.is(first, "completed").await;
    assert_eq!(stage.begun(), ["fails", "fails"], "it is not kept back");
    let became = stage.enqueue(one("third", &WAITS)).await;
    assert_eq!(became, Enqueued::Kept(second.id()), "the key is its own");
    work.stop().await;
}

#[tokio::test]
async fn replace_and_postpone_change_what_waits_in_them_alone() {
    let stage = Stage::gated(Clock::system()).await;
    let states = [State::Available, State::Executing, State::Completed];
    let request = |part: &str, conflict| {
        let unique = Unique::new("key").while_in(&states);
        play(part).unique(unique.on_conflict(conflict))
    };
    let first = stage.enqueue(request("first", Conflict::Keep)).await.id();
    let became = stage.enqueue(request("second", Conflict::Replace)).await;
    assert_eq!(became, Enqueued::Replaced(first));
    let became = stage.enqueue(request("third", Conflict::Postpone)).await;
    assert_eq!(became, Enqueued::Postponed(first));
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    let became = stage.enqueue(request("fourth", Conflict::Replace)).await;
    assert_eq!(became, Enqueued::Kept(first), "it runs");
    stage.let_go(1);
    stage.is(first, "completed").await;
    let became = stage.enqueue(request("fifth", Conflict::Postpone)).await;
    assert_eq!(became, Enqueued::Kept(first), "it is done");
    work.stop().await;
    assert_eq!(stage.begun(), ["third"]);
}

#[tokio::test]
async fn a_state_in_which_it_stays_binds_until_it_is_pruned() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let request = || one("one", &[State::Completed]);
    let first = stage.enqueue(request()).await.id();
    stage.drain().await;
    assert_eq!(stage.state(first).await, "completed");
    let maintenance = Maintenance::new(stage.queue.clone(), Settings::default());
    clock.advance(DAY);
    assert_eq!(maintenance.prune().await.unwrap(), 0);
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(Duration::from_millis(1));
    assert_eq!(maintenance.prune().await.unwrap(), 1);
    assert!(stage.enqueue(request()).await.is_new());
}

#[tokio::test]
async fn with_a_period_it_binds_no_longer_than_that_and_is_kept_for_as_long_as_it_binds() {
    let clock = held();
    let stage = Stage::quick(clock.clone()).await;
    let maintenance = Maintenance::new(stage.queue.clone(), Settings::default());
    // In either order it is the same.
    let within = Unique::new("key").within(DAY * 2);
    let within = within.while_in(&[State::Completed]);
    let reverse = Unique::new("key").while_in(&[State::Completed]);
    assert_eq!(within, reverse.within(DAY * 2));
    let request = || play("one").unique(within.clone());
    let first = stage.enqueue(request()).await.id();
    // This one's key binds while it waits: nothing of it is to be kept.
    let waits = Unique::new("other").while_in(&WAITS).within(DAY * 2);
    stage.enqueue(play("two").unique(waits)).await;
    stage.drain().await;
    clock.advance(DAY + Duration::from_millis(1));
    assert_eq!(maintenance.prune().await.unwrap(), 1);
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(Duration::from_hours(23));
    assert_eq!(stage.enqueue(request()).await, Enqueued::Kept(first));
    clock.advance(Duration::from_hours(1));
    assert!(stage.enqueue(request()).await.is_new());
    assert_eq!(maintenance.prune().await.unwrap(), 1);
}

#[tokio::test]
async fn an_operator_s_retry_takes_the_key_or_says_who_has_it() {
    let stage = Stage::quick(Clock::system()).await;
    let first = stage.enqueue(one("one", &WAITS)).await.id();
    assert!(stage.queue.cancel(first, "not now").await.unwrap());
    // Nobody took it meanwhile.
    assert!(stage.queue.retry(first).await.unwrap());
    let became = stage.enqueue(one("two", &WAITS)).await;
    assert_eq!(became, Enqueued::Kept(first));
    assert!(stage.queue.cancel(first, "not now").await.unwrap());
    let second = stage.enqueue(one("two", &WAITS)).await;
    assert!(second.is_new());
    let refused = stage.queue.retry(first).await.unwrap_err();
    let reason = refused.abort_reason::<Error>();
    let holder = second.id();
    assert!(
        matches!(reason, Some(Error::Taken { holder: it, .. }) if *it == holder),
        "{refused}"
    );
    stage.drain().await;
    // That one has ended, and holds it no longer.
    assert!(stage.queue.retry(first).await.unwrap());
    let became = stage.enqueue(one("three", &WAITS)).await;
    assert_eq!(became, Enqueued::Kept(first));
}

#[tokio::test]
async fn two_processes_that_enqueue_a_key_at_once_make_one_job() {
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let enqueue = async |stage: &Stage| {
        let mut new = 0;
        for key in 0..50 {
            let unique = Unique::new(format!("key {key}")).while_in(&WAITS);
            let request = play(format!("{key}")).unique(unique);
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
async fn it_is_the_key_of_a_kind() {
    let stage = Stage::quick(Clock::system()).await;
    assert!(stage.enqueue(one("one", &WAITS)).await.is_new());
    let other = encore("one").unique(Unique::new("key").while_in(&WAITS));
    assert!(stage.enqueue(other).await.is_new());
}
