//! What an attempt promises: how it ends, what it leaves for the next, and that each is accounted for.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Error;
use houseboat::queue::Outcome;
use houseboat::queue::Settings;

use crate::support::jobs::SOON;
use crate::support::jobs::held;
use crate::support::stage::Stage;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::wait_for;

const EFFECTS: &str = "CREATE TABLE effects (text TEXT NOT NULL) STRICT";

#[tokio::test]
async fn a_cursor_survives_a_failure_and_the_next_attempt_goes_on_there() {
    let stage = Stage::new(Clock::system(), |attempt, _| async move {
        let from = attempt.cursor::<u32>()?.unwrap_or(0);
        for page in from..6 {
            let _running = attempt.begin(format!("page {page}"));
            if page == 3 && attempt.number() == 1 {
                return Err("page 3 is not there".into());
            }
            let here = attempt.clone();
            let save = attempt
                .database
                .write(move |tx| Ok(here.save(tx, &(page + 1))?));
            save.await?;
        }
        Ok(Outcome::Complete)
    })
    .await;
    stage.enqueue(play("import")).await;
    stage.drain().await;
    let pages = [0, 1, 2, 3, 3, 4, 5].map(|page| format!("page {page}"));
    assert_eq!(stage.begun(), pages);
}

#[tokio::test]
async fn a_cursor_survives_the_death_of_the_process() {
    let stage = Stage::new(Clock::system(), |attempt, _| async move {
        let from = attempt.cursor::<String>()?;
        let here = attempt.clone();
        let save = attempt
            .database
            .write(move |tx| Ok(here.save(tx, &"half")?));
        save.await?;
        attempt.act(from.unwrap_or_default()).await;
        Ok(Outcome::Complete)
    })
    .await;
    stage.enqueue(play("import")).await;
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    work.kill().await;
    stage.let_go(1);
    stage.drain().await;
    assert_eq!(stage.begun(), ["", "half"]);
}

#[tokio::test]
async fn a_cursor_is_saved_with_its_transaction_or_not_at_all() {
    let stage = Stage::new(Clock::system(), |attempt, _| async move {
        let cursor = attempt.cursor::<u32>()?;
        let _running = attempt.begin(format!("{cursor:?}"));
        if attempt.number() == 2 {
            return Ok(Outcome::Complete);
        }
        let here = attempt.clone();
        let write = attempt.database.write(move |tx| {
            here.save(tx, &7)?;
            tx.execute("INSERT INTO nowhere VALUES (1)", [])?;
            Ok(())
        });
        write.await?;
        Ok(Outcome::Complete)
    })
    .await;
    stage.enqueue(play("import")).await;
    stage.drain().await;
    assert_eq!(stage.begun(), ["None", "None"]);
}

#[tokio::test]
async fn a_cursor_of_another_type_or_without_measure_is_an_error_that_says_so() {
    let stage = Stage::new(Clock::system(), |attempt, _| async move {
        if attempt.number() == 2 {
            let error = attempt.cursor::<u32>().unwrap_err();
            assert!(matches!(error, Error::Cursor { .. }));
            return Err(error.into());
        }
        let here = attempt.clone();
        let save = attempt.database.write(move |tx| {
            let error = here.save(tx, &"x".repeat(70_000)).unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }));
            Ok(here.save(tx, &"text")?)
        });
        save.await?;
        Err("once more".into())
    })
    .await;
    let id = stage.enqueue(play("import").attempts_max(2)).await.id();
    stage.drain().await;
    assert_eq!(stage.state(id).await, "discarded");
    let error: String = stage.get("SELECT error FROM jobs").await;
    assert!(error.starts_with("the cursor of the job 1: "), "{error}");
}

#[tokio::test]
async fn finish_makes_the_effect_and_the_end_one_commit() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let here = attempt.clone();
        let effect = part.clone();
        let write = attempt.database.write(move |tx| {
            tx.execute("INSERT INTO effects VALUES (?1)", [&effect])?;
            Ok(here.finish(tx)?)
        });
        write.await?;
        attempt.act(part.clone()).await;
        // What comes after it changes nothing.
        match part.as_str() {
            "panic" => panic!("too late"),
            "snooze" => Ok(Outcome::Snooze(Duration::ZERO)),
            "cancel" => Ok(Outcome::Cancel("too late".to_owned())),
            _ => Err("too late".into()),
        }
    })
    .await;
    stage.sql(EFFECTS).await;
    let parts = ["panic", "snooze", "cancel", "fail", "killed"];
    for part in parts {
        stage.enqueue(play(part)).await;
    }
    let work = stage.work(never_polls());
    stage.has_begun(5).await;
    let completed =
        "SELECT count(*) FROM jobs WHERE state = 'completed' AND error IS NULL AND attempt = 1";
    assert_eq!(stage.get::<i64>(completed).await, 5, "while they still run");
    stage.let_go(4);
    wait_for("end of four", SOON, async || {
        (stage.running() == 1).then_some(())
    })
    .await;
    // The process dies between the commit and the end of the run.
    work.kill().await;
    stage.let_go(10);
    stage.enqueue(play("last")).await;
    stage.drain().await;
    assert_eq!(stage.get::<i64>(completed).await, 6);
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM effects").await, 6);
}

#[tokio::test]
async fn finish_in_a_transaction_that_is_rolled_back_finishes_nothing() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part);
        let (here, number) = (attempt.clone(), attempt.number());
        let write = attempt.database.write(move |tx| {
            here.finish(tx)?;
            let table = if number == 1 { "nowhere" } else { "effects" };
            tx.execute(&format!("INSERT INTO {table} VALUES ('done')"), [])?;
            Ok(())
        });
        write.await?;
        Ok(Outcome::Complete)
    })
    .await;
    stage.sql(EFFECTS).await;
    let id = stage.enqueue(play("import")).await.id();
    stage.drain().await;
    assert_eq!(stage.begun().len(), 2);
    assert_eq!(stage.state(id).await, "completed");
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM effects").await, 1);
}

#[tokio::test]
async fn what_follows_a_job_is_enqueued_with_its_end() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        if part == "first" {
            let here = attempt.clone();
            let write = attempt.database.write(move |tx| {
                here.queue.enqueue(tx, play("second"))?;
                Ok(here.finish(tx)?)
            });
            write.await?;
        }
        attempt.act(part).await;
        Ok(Outcome::Complete)
    })
    .await;
    stage.enqueue(play("first")).await;
    let work = stage.work(workers(1));
    stage.has_begun(1).await;
    // The process dies after the commit, and before the job has returned.
    work.kill().await;
    stage.let_go(10);
    stage.drain().await;
    assert_eq!(stage.begun(), ["first", "second"]);
}

#[tokio::test]
async fn an_attempt_whose_claim_is_lost_can_neither_save_nor_finish() {
    let lost: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&lost);
    let stage = Stage::new(Clock::system(), move |attempt, part| {
        let told = Arc::clone(&told);
        async move {
            attempt.act(part).await;
            for is_end in [false, true] {
                let here = attempt.clone();
                let write = attempt.database.write(move |tx| {
                    tx.execute("INSERT INTO effects VALUES ('doubled')", [])?;
                    if is_end {
                        here.finish(tx)?;
                    } else {
                        here.save(tx, &1)?;
                    }
                    Ok(())
                });
                let error = write.await.unwrap_err().to_string();
                told.lock().unwrap().push(error);
            }
            Ok(Outcome::Complete)
        }
    })
    .await;
    stage.sql(EFFECTS).await;
    let id = stage.enqueue(play("import")).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    // Another has claimed it.
    stage.sql("UPDATE jobs SET claims = claims + 1").await;
    stage.let_go(1);
    wait_for("two refusals", SOON, async || {
        (lost.lock().unwrap().len() == 2).then_some(())
    })
    .await;
    for error in lost.lock().unwrap().iter() {
        assert!(error.contains("not this attempt's any more"), "{error}");
    }
    assert_eq!(
        stage.state(id).await,
        "executing",
        "it is the other's to end"
    );
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM effects").await, 0);
    work.stop().await;
}

#[tokio::test]
async fn the_stop_token_tells_a_job_that_the_process_stops() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part);
        attempt.stop().cancelled().await;
        let here = attempt.clone();
        let save = attempt.database.write(move |tx| Ok(here.save(tx, &1)?));
        save.await?;
        Ok(Outcome::Snooze(Duration::ZERO))
    })
    .await;
    let id = stage.enqueue(play("long")).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    stage
        .enqueue(play("late").run_in(Duration::from_hours(1)))
        .await;
    work.stop().await;
    assert_eq!(stage.begun().len(), 1, "nothing is claimed at a stop");
    let left: String = stage
        .get(format!(
            "SELECT printf('%s %d %s', state, attempt, cursor) FROM jobs WHERE id = {id}"
        ))
        .await;
    assert_eq!(left, "available 0 1");
}

#[tokio::test]
async fn what_does_not_end_in_the_grace_goes_back_without_an_attempt_spent() {
    let stage = Stage::gated(Clock::system()).await;
    let id = stage.enqueue(play("long")).await.id();
    stage
        .sql("UPDATE jobs SET attempt = 1, state = 'retryable'")
        .await;
    let short = Settings {
        stop_ms: 50,
        ..never_polls()
    };
    let work = stage.work(short);
    stage.has_begun(1).await;
    work.stop().await;
    assert_eq!(stage.running(), 0, "it is broken off");
    let sql =
        format!("SELECT printf('%s %d %d', state, attempt, deaths) FROM jobs WHERE id = {id}");
    assert_eq!(stage.get::<String>(sql).await, "available 1 0");
}

#[tokio::test]
async fn a_job_that_is_to_be_cancelled_is_asked_to_end_and_ends_as_cancelled() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part.clone());
        if part == "heeds" {
            attempt.stop().cancelled().await;
            return Err("asked to end".into());
        }
        std::future::pending().await
    })
    .await;
    let work = stage.work(never_polls());
    let mut ids = Vec::new();
    for part in ["heeds", "does not"] {
        ids.push(stage.enqueue(play(part)).await.id());
    }
    stage.has_begun(2).await;
    stage
        .sql("UPDATE jobs SET cancel_reason = 'no longer wanted'")
        .await;
    for id in ids {
        stage.is(id, "cancelled").await;
        let error: String = stage
            .get(format!("SELECT error FROM jobs WHERE id = {id}"))
            .await;
        assert_eq!(error, "no longer wanted");
    }
    assert_eq!(stage.begun().len(), 2);
    assert_eq!(stage.running(), 0);
    work.stop().await;
}

#[tokio::test]
async fn a_job_that_completes_though_it_was_to_be_cancelled_is_complete() {
    let stage = Stage::gated(Clock::system()).await;
    let id = stage.enqueue(play("done")).await.id();
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    stage
        .sql("UPDATE jobs SET cancel_reason = 'no longer wanted'")
        .await;
    stage.let_go(1);
    stage.is(id, "completed").await;
    work.stop().await;
}

#[tokio::test]
async fn a_timeout_breaks_the_task_off_and_a_request_s_own_comes_first() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let _running = attempt.begin(part);
        std::future::pending().await
    })
    .await;
    let request = play("hang").timeout(Duration::from_millis(80));
    let id = stage.enqueue(request.attempts_max(2)).await.id();
    let work = stage.work(never_polls());
    stage.is(id, "discarded").await;
    assert_eq!(stage.begun().len(), 2, "it was tried again");
    assert_eq!(stage.running(), 0, "it is broken off");
    let error: String = stage.get("SELECT error FROM jobs").await;
    assert_eq!(error, "it took longer than 80ms");
    work.stop().await;
}

#[tokio::test]
async fn the_error_and_the_time_of_each_attempt_are_kept() {
    let clock = held();
    let stage = Stage::new(clock.clone(), |attempt, _| async move {
        match attempt.number() {
            2 => panic!("the second"),
            number => Err(format!("attempt {number}").into()),
        }
    })
    .await;
    let id = stage.enqueue(play("fail")).await.id();
    for _ in 0..3 {
        clock.advance(Duration::from_mins(1));
        let ran = stage.worker(never_polls()).drain().await.unwrap();
        assert_eq!(ran.len(), 1);
    }
    assert_eq!(stage.state(id).await, "discarded");
    let sql = "SELECT group_concat(printf('%d %d %s', attempt,
                   (at - (SELECT enqueued_at FROM jobs)) / 60000, error), '; ')
               FROM (SELECT * FROM job_errors ORDER BY claim)";
    assert_eq!(
        stage.get::<String>(sql).await,
        "1 1 attempt 1; 2 2 it panicked: the second; 3 3 attempt 3"
    );
}

#[tokio::test]
async fn errors_are_pruned_with_their_job() {
    let clock = held();
    let stage = Stage::new(clock.clone(), |_, _| async { Err("no".into()) }).await;
    stage.enqueue(play("fail").attempts_max(1)).await;
    stage.worker(never_polls()).drain().await.unwrap();
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM job_errors").await, 1);
    clock.advance(Duration::from_hours(24 * 31));
    let maintenance = houseboat::queue::Maintenance::new(stage.queue.clone(), Settings::default());
    assert_eq!(maintenance.prune().await.unwrap(), 1);
    assert_eq!(stage.get::<i64>("SELECT count(*) FROM job_errors").await, 0);
}

#[tokio::test]
async fn attempts_are_counted_from_1_and_a_snooze_is_none() {
    let stage = Stage::new(Clock::system(), |attempt, _| async move {
        let before = attempt.begun().len();
        let _running = attempt.begin(format!("{}", attempt.number()));
        match before {
            0 | 2 => Ok(Outcome::Snooze(Duration::ZERO)),
            _ => Err("no".into()),
        }
    })
    .await;
    let id = stage.enqueue(play("often").attempts_max(2)).await.id();
    stage.drain().await;
    assert_eq!(stage.begun(), ["1", "1", "2", "2"]);
    assert_eq!(stage.state(id).await, "discarded");
}

#[tokio::test]
async fn a_panic_is_an_error_of_that_job_alone() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.act(part.clone()).await;
        assert_ne!(part, "panic");
        Ok(Outcome::Complete)
    })
    .await;
    let beside = stage.enqueue(play("beside")).await.id();
    let work = stage.work(workers(2));
    stage.has_begun(1).await;
    let panicked = stage.enqueue(play("panic").attempts_max(1)).await.id();
    stage.has_begun(2).await;
    stage.let_go(2);
    stage.is(panicked, "discarded").await;
    stage.is(beside, "completed").await;
    let after = stage.enqueue(play("after")).await.id();
    stage.let_go(1);
    stage.is(after, "completed").await;
    assert_eq!(stage.begun(), ["beside", "panic", "after"]);
    work.stop().await;
}
