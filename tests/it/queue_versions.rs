//! What two versions of a program on one file promise each other, as they are there together during a deploy.

use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;

use crate::support::jobs::SOON;
use crate::support::stage::LEASE;
use crate::support::stage::Stage;
use crate::support::stage::Work;
use crate::support::stage::encore;
use crate::support::stage::never_polls;
use crate::support::stage::play;
use crate::support::stage::rewrite;
use crate::support::stage::workers;
use crate::support::waiting::wait_for;

/// More than a worker looks at in one round.
const MANY: i64 = 100_000;

#[tokio::test]
async fn a_kind_that_nobody_knows_is_parked_and_run_by_the_next_program_that_does() {
    let stage = Stage::quick(Clock::system()).await;
    let old = stage.work(never_polls());
    let id = stage.enqueue(encore("of tomorrow")).await.id();
    stage.is(id, "parked").await;
    let sql = "SELECT printf('%d %d %s', attempt, deaths, error) FROM jobs";
    let row: String = stage.get(sql).await;
    assert_eq!(row, "0 0 no program that runs jobs knows this kind");
    // The new version comes up beside the old one.
    let other = stage.another().await;
    let new = Work::of(other.newer_worker(never_polls()));
    stage.is(id, "completed").await;
    let attempts: i64 = stage.get("SELECT attempt FROM jobs").await;
    assert_eq!(attempts, 1);
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn a_kind_that_only_another_process_knows_is_left_to_that_one() {
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let new = Work::of(other.newer_worker(never_polls()));
    stage.are_entered(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        // The old one is woken first: it enqueues them.
        ids.push(stage.enqueue(encore(format!("{number}"))).await.id());
        ids.push(stage.enqueue(play(format!("{number}"))).await.id());
    }
    stage.is_done().await;
    for id in ids {
        assert_eq!(stage.state(id).await, "completed");
    }
    let spent: i64 = stage.get("SELECT max(attempt) FROM jobs").await;
    assert_eq!(spent, 1);
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn arguments_that_the_old_program_cannot_read_are_run_by_the_next_start() {
    let stage = Stage::quick(Clock::system()).await;
    let id = stage.enqueue(play("go")).await.id();
    stage
        .sql("UPDATE jobs SET arguments = '{\"role\": \"go\"}'")
        .await;
    let work = stage.work(never_polls());
    stage.is(id, "parked").await;
    work.stop().await;
    // This one cannot read them either.
    let work = stage.work(never_polls());
    let parked_by = "SELECT unread_by FROM jobs WHERE state = 'parked'";
    wait_for("second program", SOON, async || {
        let sql = format!("SELECT coalesce(({parked_by}), '')");
        (stage.get::<String>(sql).await == ",2,").then_some(())
    })
    .await;
    work.stop().await;
    // What the deploy changed.
    stage
        .sql("UPDATE jobs SET arguments = '{\"part\": \"go\"}'")
        .await;
    let work = stage.work(never_polls());
    stage.is(id, "completed").await;
    work.stop().await;
    let attempts: i64 = stage.get("SELECT attempt FROM jobs").await;
    assert_eq!(attempts, 1, "parking spends none");
}

#[tokio::test]
async fn arguments_that_one_cannot_read_are_left_to_the_other_and_tried_once() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    let new = Work::of(other.rewritten_worker(workers(1)));
    stage.are_entered(1).await;
    other.enqueue(rewrite("first")).await;
    stage.has_begun(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    let id = stage
        .enqueue(rewrite("second").concurrency("key", 1))
        .await
        .id();
    let unread = format!("SELECT coalesce(unread_by, '') FROM jobs WHERE id = {id}");
    wait_for("the old one's try", SOON, async || {
        (stage.get::<String>(&unread).await == ",2,").then_some(())
    })
    .await;
    // It is not parked, since one lives that may read it; and the old one does not take it again in some of its looks.
    stage.looks(4).await;
    let row =
        format!("SELECT printf('%s %d %d', state, claims, attempt) FROM jobs WHERE id = {id}");
    assert_eq!(stage.get::<String>(&row).await, "available 1 0");
    // Neither does it when it is started again; that it tries, once.
    old.stop().await;
    let old = stage.work(never_polls());
    wait_for("the next old one's try", SOON, async || {
        (stage.get::<String>(&unread).await == ",3,").then_some(())
    })
    .await;
    stage.looks(4).await;
    assert_eq!(stage.get::<String>(&row).await, "available 2 0");
    stage.let_go(2);
    stage.is(id, "completed").await;
    assert_eq!(stage.get::<String>(&row).await, "completed 3 1");
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn what_no_version_can_read_is_parked_and_no_worker_tries_it_twice() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    let (one, two) = (stage.work(workers(2)), other.work(workers(2)));
    stage.are_entered(2).await;
    // So that there are looks.
    stage.enqueue(play("long")).await;
    stage.has_begun(1).await;
    let id = stage.enqueue(rewrite("of tomorrow")).await.id();
    let row =
        format!("SELECT printf('%s %d %d', state, claims, attempt) FROM jobs WHERE id = {id}");
    wait_for("both tries", SOON, async || {
        (stage.get::<String>(&row).await == "parked 2 0").then_some(())
    })
    .await;
    stage.looks(4).await;
    assert_eq!(stage.get::<String>(&row).await, "parked 2 0");
    // By hand it may be tried again.
    assert!(stage.queue.retry(id).await.unwrap());
    wait_for("both tries", SOON, async || {
        (stage.get::<String>(&row).await == "parked 4 0").then_some(())
    })
    .await;
    stage.let_go(10);
    let new = Work::of(stage.another().await.rewritten_worker(never_polls()));
    stage.is(id, "completed").await;
    for work in [one, two, new] {
        work.stop().await;
    }
}

#[tokio::test]
async fn a_kind_that_no_version_knows_is_parked_while_both_live() {
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let new = Work::of(other.newer_worker(never_polls()));
    stage.are_entered(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    // The old one learns that there are kinds that are not its own.
    let known = stage.enqueue(encore("known")).await.id();
    stage.is(known, "completed").await;
    let sql =
        "INSERT INTO jobs (kind, arguments, priority, attempts_max, run_at, enqueued_at, deaths)
               VALUES ('of tomorrow', '{}', 1, 5, 0, 0, 0), ('a suspect', '{}', 1, 5, 0, 0, 2)";
    stage.sql(sql).await;
    let known = stage.enqueue(play("wakes")).await.id();
    stage.is(known, "completed").await;
    let parked = "SELECT count(*) FROM jobs
                  WHERE state = 'parked' AND error = 'no program that runs jobs knows this kind'";
    wait_for("parked jobs", SOON, async || {
        (stage.get::<i64>(parked).await == 2).then_some(())
    })
    .await;
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn a_suspect_of_a_kind_that_another_knows_is_left_to_that_one_and_holds_up_nobody() {
    let stage = Stage::gated(Clock::system()).await;
    let other = stage.another().await;
    let new = Work::of(other.newer_worker(workers(1)));
    stage.are_entered(1).await;
    other.enqueue(encore("long")).await;
    stage.has_begun(1).await;
    let old = stage.work(workers(1));
    stage.are_entered(2).await;
    let suspect = stage.enqueue(encore("suspect")).await.id();
    stage
        .sql(format!("UPDATE jobs SET deaths = 2 WHERE id = {suspect}"))
        .await;
    let plain = stage.enqueue(play("plain")).await.id();
    stage.has_begun(2).await;
    assert_eq!(stage.begun()[1], "plain");
    assert_eq!(stage.state(suspect).await, "available");
    stage.let_go(3);
    for id in [plain, suspect] {
        stage.is(id, "completed").await;
    }
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn a_kind_whose_only_program_was_killed_is_parked_after_a_lease() {
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let new = Work::of(other.newer_worker(never_polls()));
    stage.are_entered(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    let first = stage.enqueue(encore("first")).await.id();
    stage.is(first, "completed").await;
    // It runs nothing, and so nothing of it is to be put back.
    new.kill().await;
    let second = stage.enqueue(encore("second")).await.id();
    let start = Instant::now();
    stage.is(second, "parked").await;
    assert!(start.elapsed() > LEASE * 2 / 3, "{:?}", start.elapsed());
    stage.are_entered(1).await;
    let new = Work::of(stage.another().await.newer_worker(never_polls()));
    stage.is(second, "completed").await;
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn one_that_lives_and_has_nothing_to_do_is_not_taken_for_dead_by_one_that_leaves_jobs_to_it()
{
    let stage = Stage::quick(Clock::system()).await;
    let other = stage.another().await;
    let new = other
        .newer_worker(never_polls())
        .only(vec!["another".to_owned()]);
    let new = Work::of(new);
    stage.are_entered(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    let id = stage.enqueue(encore("waits")).await.id();
    let beat = "SELECT max(beat) FROM workers WHERE id = 1";
    let seen: i64 = stage.get(beat).await;
    wait_for("beats", SOON, async || {
        (stage.get::<i64>(beat).await > seen + 8).then_some(())
    })
    .await;
    assert_eq!(stage.get::<i64>("SELECT min(id) FROM workers").await, 1);
    assert_eq!(stage.state(id).await, "available");
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn any_number_of_jobs_that_are_others_cost_a_round_nothing() {
    let stage = Stage::quick(Clock::system()).await;
    // It knows the other kind, and does not run it.
    let other = stage.another().await;
    let new = other
        .newer_worker(never_polls())
        .only(vec!["another".to_owned()]);
    let new = Work::of(new);
    stage.are_entered(1).await;
    let old = stage.work(never_polls());
    stage.are_entered(2).await;
    let before = stage.times_of_a_thousand().await;
    let sql = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {MANY})
         INSERT INTO jobs (kind, arguments, priority, attempts_max, run_at, enqueued_at)
         SELECT 'encore', '{{\"part\":\"\"}}', 1, 5, 0, 0 FROM numbers"
    );
    stage.sql(sql).await;
    // Here the worker gets past them.
    stage.enqueue(play("after them")).await;
    stage.has_begun(1_001).await;
    let beside = stage.times_of_a_thousand().await;
    assert!(
        beside < before * 4,
        "{beside:?} beside {MANY} jobs of another version, {before:?} without"
    );
    // One that comes before them is found all the same.
    let sql = "INSERT INTO jobs (kind, arguments, priority, attempts_max, run_at, enqueued_at)
               VALUES ('play', '{\"part\":\"before them\"}', 1, 1, -1, 0)";
    stage.sql(sql).await;
    let id: i64 = stage.get("SELECT max(id) FROM jobs").await;
    stage.is(id, "completed").await;
    let left: i64 = stage
        .get("SELECT count(*) FROM jobs WHERE state = 'available'")
        .await;
    assert_eq!(left, MANY);
    old.stop().await;
    new.stop().await;
}

impl Stage {
    /// Waits for so many looks at all workers by one that runs something.
    async fn looks(&self, count: i64) {
        let beat = "SELECT max(beat) FROM workers";
        let seen: i64 = self.get(beat).await;
        wait_for("looks", SOON, async || {
            (self.get::<i64>(beat).await >= seen + count).then_some(())
        })
        .await;
    }

    /// How long a thousand jobs take that come at once.
    async fn times_of_a_thousand(&self) -> Duration {
        let begun = self.begun().len();
        let start = Instant::now();
        let queue = self.queue.clone();
        let jobs = (0..1_000).map(|number| play(format!("{number}")));
        let jobs: Vec<_> = jobs.collect();
        let write = self
            .database
            .write(move |tx| Ok(queue.enqueue_many(tx, jobs)?));
        write.await.unwrap();
        self.has_begun(begun + 1_000).await;
        start.elapsed()
    }
}
