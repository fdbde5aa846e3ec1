//! What several processes on one file promise each other; each is a worker with a `Database` and a `Queue` of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::queue::Outcome;
use houseboat::queue::Settings;

use crate::support::jobs::SOON;
use crate::support::stage::LEASE;
use crate::support::stage::Stage;
use crate::support::stage::Work;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

#[tokio::test]
async fn a_job_is_claimed_by_one_worker_and_the_load_is_shared() {
    let stage = Stage::gated(Clock::system()).await;
    let others = [stage.another().await, stage.another().await];
    let mut works = vec![stage.work(workers(4))];
    works.extend(others.iter().map(|other| other.work(workers(4))));
    stage.are_entered(3).await;
    for number in 0..200 {
        stage.enqueue(play(format!("{number}"))).await;
    }
    // As many as all of them have hands.
    stage.has_begun(12).await;
    let by = "SELECT count(DISTINCT worker) FROM jobs WHERE state = 'executing'";
    assert_eq!(stage.get::<i64>(by).await, 3);
    stage.let_go(1_000);
    stage.is_done().await;
    for work in works {
        work.stop().await;
    }
    let parts: HashSet<_> = stage.begun().into_iter().collect();
    assert_eq!((parts.len(), stage.begun().len()), (200, 200));
    assert_eq!(stage.peak(), 12);
    stage.are_entered(0).await;
}

#[tokio::test]
async fn another_process_is_woken_by_a_commit_and_does_not_poll() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    let work = other.work(never_polls());
    stage.are_entered(1).await;
    let mut waits = Vec::new();
    for number in 1..=10 {
        // Long enough for the worker to have found nothing and to wait.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let start = Instant::now();
        stage.enqueue(play("go")).await;
        stage.has_begun(number).await;
        waits.push(stage.begun_at()[number - 1] - start);
        stage.let_go(1);
    }
    waits.sort();
    assert!(waits[4] < Duration::from_millis(100), "{waits:?}");
    work.stop().await;
}

#[tokio::test]
async fn what_a_full_process_frees_or_fails_is_found_by_an_idle_one() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part.clone()).await;
        if part == "fails" && attempt.number() == 1 {
            return Err("it failed".into());
        }
        Ok(Outcome::Complete)
    })
    .await;
    let full = stage.work(workers(2));
    stage.are_entered(1).await;
    stage.enqueue(play("fails").concurrency("key", 1)).await;
    stage.has_begun(1).await;
    stage.enqueue(play("stays")).await;
    stage.has_begun(2).await;
    let other = stage.another().await;
    let idle = Work::of(other.worker(workers(1)));
    stage.are_entered(2).await;
    stage.enqueue(play("blocked").concurrency("key", 1)).await;
    let sql = "SELECT count(*) FROM jobs WHERE blocked_by IS NOT NULL";
    wait_for("one that is blocked", SOON, async || {
        (stage.get::<i64>(sql).await == 1).then_some(())
    })
    .await;
    // Of what nobody is told, the full one takes this in place of what has ended; the idle one has to find the other.
    stage
        .sql(
            "INSERT INTO jobs (kind, arguments, priority, attempts_max, run_at, enqueued_at)
             VALUES ('play', '{\"part\":\"next\"}', 0, 1, 0, 0)",
        )
        .await;
    let start = Instant::now();
    stage.let_go(1);
    stage.has_begun(4).await;
    let waited = start.elapsed();
    let mut begun = stage.begun();
    begun.sort();
    assert_eq!(begun, ["blocked", "fails", "next", "stays"]);
    assert!(waited < LEASE / 4, "{waited:?}");
    stage.let_go(10);
    stage.is_done().await;
    full.stop().await;
    idle.stop().await;
}

#[tokio::test]
async fn a_process_that_comes_up_alone_runs_what_a_killed_one_left_at_once() {
    let stage = Stage::gated(Clock::system()).await;
    for part in ["one", "two"] {
        stage.enqueue(play(part)).await;
    }
    let killed = stage.work(never_polls());
    stage.has_begun(2).await;
    killed.kill().await;
    let other = stage.another().await;
    let start = Instant::now();
    let work = other.work(never_polls());
    stage.has_begun(4).await;
    assert!(start.elapsed() < LEASE / 2, "{:?}", start.elapsed());
    let deaths: i64 = stage.get("SELECT sum(deaths) FROM jobs").await;
    assert_eq!(deaths, 2);
    let attempts: i64 = stage.get("SELECT max(attempt) FROM jobs").await;
    assert_eq!(attempts, 1, "a death is no attempt");
    stage.let_go(10);
    stage.is_done().await;
    work.stop().await;
    stage.are_entered(0).await;
}

#[tokio::test]
async fn a_dead_process_s_jobs_run_again_after_the_lease_and_not_before() {
    let stage = Stage::gated(Clock::system()).await;
    let others = [stage.another().await, stage.another().await];
    let killed = stage.work(never_polls());
    stage.are_entered(1).await;
    stage.enqueue(play("left")).await;
    stage.has_begun(1).await;
    let works = [others[0].work(never_polls()), others[1].work(never_polls())];
    stage.are_entered(3).await;
    killed.kill().await;
    let death = Instant::now();
    stage.has_begun(2).await;
    let waited = stage.begun_at()[1] - death;
    // Its last beat may be a third of a lease before its death.
    assert!(waited > LEASE * 2 / 3, "{waited:?}");
    assert!(waited < LEASE * 3, "{waited:?}");
    let deaths: i64 = stage.get("SELECT deaths FROM jobs").await;
    assert_eq!(deaths, 1);
    stage.let_go(1);
    stage.is_done().await;
    assert_eq!(stage.begun().len(), 2, "one of the two has taken it");
    for work in works {
        work.stop().await;
    }
}

#[tokio::test]
async fn a_process_that_runs_no_jobs_puts_back_what_a_dead_one_left() {
    let stage = Stage::gated(Clock::system()).await;
    let serves = stage.work(workers(0));
    stage.are_entered(1).await;
    // Before there is another: nothing is to be watched over yet.
    wait_for("first round", SOON, async || {
        let beat: i64 = stage.get("SELECT beat FROM workers").await;
        (beat > 0).then_some(())
    })
    .await;
    stage.enqueue(play("left")).await;
    let other = stage.another().await;
    let killed = other.work(never_polls());
    stage.has_begun(1).await;
    killed.kill().await;
    stage.is(1, "available").await;
    stage.are_entered(1).await;
    // So that the next one has it at once.
    let next = stage.another().await;
    let start = Instant::now();
    let work = next.work(never_polls());
    stage.has_begun(2).await;
    assert!(start.elapsed() < LEASE / 2, "{:?}", start.elapsed());
    stage.let_go(10);
    stage.is_done().await;
    work.stop().await;
    serves.stop().await;
}

#[tokio::test]
async fn three_deaths_in_a_row_set_a_job_aside() {
    let stage = Stage::gated(Clock::system()).await;
    let id = stage.enqueue(play("poison")).await.id();
    for death in 1..=3 {
        let other = stage.another().await;
        let killed = other.work(never_polls());
        stage.has_begun(death).await;
        killed.kill().await;
    }
    let last = stage.enqueue(play("harmless")).await.id();
    let other = stage.another().await;
    let work = other.work(never_polls());
    stage.let_go(1);
    stage.is(last, "completed").await;
    let row = format!("SELECT printf('%s %d %s', state, deaths, error) FROM jobs WHERE id = {id}");
    let row: String = stage.get(row).await;
    assert_eq!(row, "discarded 3 the process died each time this job ran");
    let kept = format!("SELECT count(*) FROM job_errors WHERE job = {id} AND error LIKE '%died%'");
    assert_eq!(stage.get::<i64>(kept).await, 3);
    work.stop().await;
}

#[tokio::test]
async fn a_worker_taken_for_dead_can_neither_complete_nor_fail_nor_put_back_what_another_runs() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part.clone()).await;
        match part.as_str() {
            "fail" => Err("of the dead".into()),
            "snooze" => Ok(Outcome::Snooze(Duration::ZERO)),
            "cancel" => Ok(Outcome::Cancel("of the dead".to_owned())),
            _ => Ok(Outcome::Complete),
        }
    })
    .await;
    // It does not look often enough to learn that it was taken for dead.
    let slow = Settings {
        lease_ms: 600_000,
        ..never_polls()
    };
    let work = stage.work(slow);
    stage.are_entered(1).await;
    for part in ["fail", "snooze", "cancel", "complete"] {
        stage.enqueue(play(part)).await;
    }
    stage.has_begun(4).await;
    // What another does that takes it for dead, and then claims.
    stage
        .sql(
            "DELETE FROM workers;
             INSERT INTO workers (id, name, kinds, started_at) VALUES (99, 'another', '[\"play\"]', 0);
             UPDATE jobs SET worker = 99, claims = claims + 1",
        )
        .await;
    stage.let_go(4);
    wait_for("end of the tasks", SOON, async || {
        (stage.running() == 0).then_some(())
    })
    .await;
    // It goes on, by another name; what ended is recorded before that.
    let next = stage.enqueue(play("next")).await.id();
    stage.let_go(1);
    stage.is(next, "completed").await;
    work.stop().await;
    let sql = "SELECT count(*) FROM jobs WHERE state = 'executing' AND worker = 99 AND error IS NULL AND attempt = 1";
    assert_eq!(stage.get::<i64>(sql).await, 4);
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM job_errors").await, 0);
}

#[tokio::test]
async fn a_worker_that_was_taken_for_dead_breaks_its_jobs_off_and_goes_on_by_another_name() {
    let stage = Stage::gated(Clock::system()).await;
    let work = stage.work(never_polls());
    stage.are_entered(1).await;
    let before: i64 = stage.get("SELECT id FROM workers").await;
    stage.enqueue(play("long")).await;
    stage.has_begun(1).await;
    let peer = stage.another().await;
    peer.sql("DELETE FROM workers").await;
    stage.has_begun(2).await;
    assert_eq!(stage.peak(), 1, "not twice at the same time");
    let now: i64 = stage
        .get("SELECT worker FROM jobs WHERE state = 'executing'")
        .await;
    assert!(now > before);
    stage.let_go(10);
    stage.is_done().await;
    work.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_beat_breaks_its_jobs_off_before_others_may_take_them() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    let work = stage.work(never_polls());
    stage.are_entered(1).await;
    stage.enqueue(play("long")).await;
    stage.has_begun(1).await;
    let watcher = other.work(never_polls());
    stage.are_entered(2).await;
    // A beat, with the sight of the other.
    let beat = "SELECT max(beat) FROM workers";
    let seen: i64 = stage.get(beat).await;
    wait_for("three beats", SOON, async || {
        (stage.get::<i64>(beat).await > seen + 3).then_some(())
    })
    .await;
    // For longer than a lease nobody can write.
    let (begin, end) = (
        Arc::new(tokio::sync::Notify::new()),
        std::sync::mpsc::channel::<()>(),
    );
    let (told, held) = (Arc::clone(&begin), end.1);
    let third = stage.another().await;
    let locked = tokio::spawn(async move {
        let write = third.database.write(move |tx| {
            tx.execute_batch("CREATE TABLE held (id INTEGER)")?;
            told.notify_one();
            let _ = held.recv_timeout(SOON);
            Ok(())
        });
        write.await
    });
    begin.notified().await;
    wait_for("end of the task", SOON, async || {
        (stage.running() == 0).then_some(())
    })
    .await;
    assert_eq!(stage.begun().len(), 1, "no other has begun it before");
    end.0.send(()).unwrap();
    locked.await.unwrap().unwrap();
    // It is put back, or taken over; and runs again, once.
    stage.has_begun(2).await;
    stage.let_go(10);
    stage.is_done().await;
    assert_eq!((stage.begun().len(), stage.peak()), (2, 1));
    work.stop().await;
    watcher.stop().await;
}

#[test]
fn a_busy_runtime_keeps_its_claims() {
    if !slow("a busy runtime for two leases") {
        return;
    }
    let busy = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let watching = tokio::runtime::Runtime::new().unwrap();
    let stage = busy.block_on(Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part);
        #[expect(
            clippy::disallowed_methods,
            reason = "as a job does that computes and never awaits"
        )]
        std::thread::sleep(LEASE * 2);
        Ok(Outcome::Complete)
    }));
    let other = watching.block_on(stage.another());
    let work = {
        let _inside = busy.enter();
        stage.work(never_polls())
    };
    watching.block_on(async {
        stage.are_entered(1).await;
        // Four: all threads of the runtime are blocked, and the loop of the worker with them.
        for part in ["one", "two", "three", "four"] {
            other.enqueue(play(part)).await;
        }
        stage.has_begun(2).await;
        let watcher = Work::of(other.worker(workers(0)));
        other.are_entered(2).await;
        other.is_done().await;
        watcher.stop().await;
        let deaths: i64 = other.get("SELECT sum(deaths) FROM jobs").await;
        assert_eq!((deaths, stage.begun().len()), (0, 4));
    });
    watching.block_on(work.stop());
    busy.shutdown_background();
}
