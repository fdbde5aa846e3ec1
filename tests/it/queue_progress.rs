//! What a job says of how far it is: seldom written, and the last word always.

use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::queue::Outcome;
use houseboat::queue::Settings;

use crate::support::jobs::SOON;
use crate::support::stage::Stage;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::waiting::wait_for;

const SAID: &str = "SELECT printf('%.2f %s', progress, progress_text) FROM jobs";

/// Counts the writes of it.
const COUNTED: &str = "CREATE TABLE writes (text TEXT) STRICT;
    CREATE TRIGGER counted AFTER UPDATE OF progress ON jobs BEGIN INSERT INTO writes VALUES (new.progress_text); END";
const WRITES: &str = "SELECT count(*) FROM writes";

/// No heartbeat comes while the test lasts, but one when the first job is begun.
fn never_beats() -> Settings {
    Settings {
        lease_ms: 600_000,
        ..never_polls()
    }
}

#[tokio::test]
async fn progress_is_seen_at_once_and_written_at_most_every_500_ms() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        let start = Instant::now();
        attempt.progress(0.25, "page 1").await?;
        for _ in 0..100 {
            attempt.progress(0.5, "page 2").await?;
        }
        // The first, one with the heartbeat at the start, and none else unless the machine is very slow.
        let most = 2 + start.elapsed().as_millis() / 500;
        attempt.act(format!("{part} {most}")).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        attempt.progress(7.0, "page 3").await?;
        attempt.act("again".to_owned()).await;
        Ok(Outcome::Complete)
    })
    .await;
    stage.sql(COUNTED).await;
    stage.enqueue(play("import")).await;
    let work = stage.work(never_beats());
    stage.has_begun(1).await;
    let begun = stage.begun();
    let most: i64 = begun[0].strip_prefix("import ").unwrap().parse().unwrap();
    let writes = stage.get::<i64>(WRITES).await;
    assert!((1..=most).contains(&writes), "{writes} and not {most}");
    let said = stage.get::<String>(SAID).await;
    assert!(["0.25 page 1", "0.50 page 2"].contains(&said.as_str()));
    stage.let_go(1);
    stage.has_begun(2).await;
    assert_eq!(stage.get::<String>(SAID).await, "1.00 page 3");
    assert!(stage.get::<i64>(WRITES).await <= most + 1);
    stage.let_go(1);
    stage.is(1, "completed").await;
    // What was kept in between is not written later.
    assert_eq!(stage.get::<String>(SAID).await, "1.00 page 3");
    work.stop().await;
}

#[tokio::test]
async fn the_last_word_of_a_job_is_written_with_its_end_whatever_that_is() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.progress(0.0, "begun").await?;
        attempt.progress(0.5, "half").await?;
        attempt.progress(1.0, format!("all of {part}")).await?;
        match part.as_str() {
            "fails" => Err("it failed".into()),
            "panics" => panic!("on purpose"),
            "snoozes" => Ok(Outcome::Snooze(Duration::from_hours(1))),
            "cancels" => Ok(Outcome::Cancel("not needed".to_owned())),
            "finishes" => {
                let here = attempt.clone();
                let write = attempt.database.write(move |tx| Ok(here.finish(tx)?));
                write.await?;
                Ok(Outcome::Complete)
            }
            _ => Ok(Outcome::Complete),
        }
    })
    .await;
    for (part, state) in [
        ("completes", "completed"),
        ("finishes", "completed"),
        ("fails", "discarded"),
        ("panics", "discarded"),
        ("snoozes", "available"),
        ("cancels", "cancelled"),
    ] {
        let id = stage.enqueue(play(part).attempts_max(1)).await.id();
        let work = stage.work(never_beats());
        let sql = format!("SELECT claims FROM jobs WHERE id = {id}");
        wait_for("start", SOON, async || {
            (stage.get::<i64>(&sql).await == 1).then_some(())
        })
        .await;
        stage.is(id, state).await;
        work.stop().await;
        let said = format!("{SAID} WHERE id = {id}");
        let wanted = format!("1.00 all of {part}");
        assert_eq!(stage.get::<String>(said).await, wanted);
    }
}

#[tokio::test]
async fn the_last_word_of_a_job_that_goes_on_is_written_with_the_next_heartbeat() {
    let stage = Stage::new(Clock::system(), |attempt, part| async move {
        attempt.progress(0.25, "page 1").await?;
        attempt.progress(0.5, "page 2").await?;
        attempt.act(part).await;
        Ok(Outcome::Complete)
    })
    .await;
    stage.sql(COUNTED).await;
    stage.enqueue(play("import")).await;
    let work = stage.work(never_polls());
    stage.has_begun(1).await;
    wait_for("last word", SOON, async || {
        (stage.get::<String>(SAID).await == "0.50 page 2").then_some(())
    })
    .await;
    let beat = "SELECT max(beat) FROM workers";
    let seen: i64 = stage.get(beat).await;
    wait_for("two beats", SOON, async || {
        (stage.get::<i64>(beat).await > seen + 2).then_some(())
    })
    .await;
    assert_eq!(stage.get::<i64>(WRITES).await, 2, "once, and not with each");
    stage.let_go(1);
    stage.is_done().await;
    assert_eq!(stage.get::<i64>(WRITES).await, 2, "nor with the end again");
    work.stop().await;
}
