//! What queues promise each other: a share, a bound, and a pause that is read at once.

use std::collections::BTreeMap;

use houseboat::database::Clock;
use houseboat::queue::QueueSettings;
use houseboat::queue::Settings;

use crate::support::jobs::SOON;
use crate::support::stage::Stage;
use crate::support::stage::Work;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::wait_for;

fn queues(workers: usize, queues: &[(&str, Option<usize>, Option<u32>)]) -> Settings {
    let queues = queues.iter().map(|(name, workers, weight)| {
        let queue = QueueSettings {
            workers: *workers,
            weight: *weight,
        };
        ((*name).to_owned(), queue)
    });
    Settings {
        workers,
        queues: queues.collect::<BTreeMap<_, _>>(),
        ..never_polls()
    }
}

async fn flood(stage: &Stage, queue: &'static str, jobs: usize) {
    let enqueue = stage.queue.clone();
    let write = stage.database.write(move |tx| {
        let flood = (0..jobs).map(|_| play(queue).queue(queue));
        enqueue.enqueue_many(tx, flood)?;
        Ok(())
    });
    write.await.unwrap();
}

fn count(begun: &[String], queue: &str) -> usize {
    begun.iter().filter(|part| *part == queue).count()
}

#[tokio::test]
async fn a_flood_in_one_queue_does_not_starve_another() {
    // Whatever their names, and however few the workers.
    for (many, few) in [("a", "b"), ("b", "a")] {
        for hands in [1, 2, 16] {
            let stage = Stage::quick(Clock::system()).await;
            flood(&stage, many, 300).await;
            flood(&stage, few, 10).await;
            let work = stage.work(workers(hands));
            stage.is_done().await;
            work.stop().await;
            let begun = stage.begun();
            let last = begun.iter().rposition(|part| part == few).unwrap();
            let before = count(&begun[..last], many);
            assert!(
                before <= 10 + 2 * hands,
                "{before} of {many} before the last of {few} with {hands} workers"
            );
        }
    }
}

#[tokio::test]
async fn no_queue_starves_where_there_are_more_of_them_than_workers() {
    let stage = Stage::quick(Clock::system()).await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        flood(&stage, name, 100).await;
    }
    let work = stage.work(workers(2));
    stage.is_done().await;
    work.stop().await;
    let begun = stage.begun();
    for name in names {
        let share = count(&begun[..250], name);
        assert!((40..=60).contains(&share), "{share} of 250 for {name}");
    }
}

#[tokio::test]
async fn queues_get_their_share_by_weight() {
    let stage = Stage::quick(Clock::system()).await;
    for name in ["heavy", "light", "tiny"] {
        flood(&stage, name, 400).await;
    }
    let weights = [
        ("heavy", None, Some(30)),
        ("light", None, Some(10)),
        ("tiny", None, Some(1)),
    ];
    let work = stage.work(queues(4, &weights));
    stage.is_done().await;
    work.stop().await;
    let begun = &stage.begun()[..410];
    let shares = ["heavy", "light", "tiny"].map(|name| count(begun, name));
    assert!((260..=340).contains(&shares[0]), "{shares:?}");
    assert!((70..=130).contains(&shares[1]), "{shares:?}");
    assert!((5..=20).contains(&shares[2]), "{shares:?}");
}

#[tokio::test]
async fn a_queue_without_work_leaves_its_share_to_the_others() {
    let stage = Stage::gated(Clock::system()).await;
    flood(&stage, "a", 8).await;
    let weights = [("a", None, Some(1)), ("b", None, Some(100))];
    let work = stage.work(queues(8, &weights));
    stage.has_begun(8).await;
    stage.let_go(8);
    work.stop().await;
}

#[tokio::test]
async fn no_more_of_a_queue_run_than_its_own_workers() {
    let stage = Stage::gated(Clock::system()).await;
    flood(&stage, "narrow", 10).await;
    let work = stage.work(queues(8, &[("narrow", Some(2), None)]));
    stage.has_begun(2).await;
    // The others have the rest.
    flood(&stage, "wide", 6).await;
    stage.has_begun(8).await;
    assert_eq!(count(&stage.begun(), "narrow"), 2);
    stage.let_go(8);
    stage.has_begun(10).await;
    assert_eq!(count(&stage.begun(), "narrow"), 4);
    stage.let_go(100);
    stage.is_done().await;
    work.stop().await;
}

#[tokio::test]
async fn a_pause_is_heeded_from_its_commit_on_and_others_go_on() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    flood(&stage, "paused", 3).await;
    let work = stage.work(workers(1));
    stage.has_begun(1).await;
    // In another process.
    other
        .sql("INSERT INTO queues (name, paused_at) VALUES ('paused', 1)")
        .await;
    flood(&stage, "open", 1).await;
    stage.let_go(1);
    stage.has_begun(2).await;
    stage.let_go(1);
    let sql = "SELECT count(*) FROM jobs WHERE state = 'executing'";
    wait_for("an idle worker", SOON, async || {
        (stage.get::<i64>(sql).await == 0).then_some(())
    })
    .await;
    assert_eq!(stage.begun(), ["paused", "open"]);
    stage.sql("UPDATE queues SET paused_at = NULL").await;
    flood(&stage, "open", 1).await;
    stage.let_go(10);
    stage.is_done().await;
    assert_eq!(count(&stage.begun(), "paused"), 3);
    work.stop().await;
}

#[tokio::test]
async fn a_paused_queue_keeps_its_jobs_over_a_restart() {
    let stage = Stage::quick(Clock::system()).await;
    stage
        .sql("INSERT INTO queues (name, paused_at) VALUES ('paused', 1)")
        .await;
    flood(&stage, "paused", 2).await;
    flood(&stage, "open", 1).await;
    for _ in 0..2 {
        let ran = stage.worker(never_polls()).drain().await.unwrap();
        assert!(ran.len() <= 1);
    }
    assert_eq!(stage.begun(), ["open"]);
    let sql = "SELECT count(*) FROM jobs WHERE state = 'available' AND attempt = 0";
    assert_eq!(stage.get::<i64>(sql).await, 2);
}

#[tokio::test]
async fn a_worker_of_some_queues_leaves_the_others_alone() {
    let stage = Stage::gated(Clock::system()).await;
    let mail = |stage: &Stage| stage.worker(never_polls()).only(vec!["mail".to_owned()]);
    let work = Work::of(mail(&stage));
    flood(&stage, "other", 1).await;
    flood(&stage, "mail", 1).await;
    stage.has_begun(1).await;
    stage.let_go(1);
    let sql = "SELECT count(*) FROM jobs WHERE state = 'completed'";
    wait_for("end of the mail", SOON, async || {
        (stage.get::<i64>(sql).await == 1).then_some(())
    })
    .await;
    assert_eq!(stage.begun(), ["mail"]);
    // One of the others, on the same handle, takes them.
    let others = Work::of(stage.worker(never_polls()).only(vec!["other".to_owned()]));
    stage.has_begun(2).await;
    for word in ["mail", "other", "mail", "other"] {
        flood(&stage, word, 1).await;
        stage.let_go(1);
    }
    stage.let_go(1);
    stage.has_begun(6).await;
    work.stop().await;
    others.stop().await;
}
