//! What the schedule promises.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Schedule;
use houseboat::queue::Scheduler;
use houseboat::queue::Settings;
use houseboat::queue::State;
use tokio_util::sync::CancellationToken;

use crate::support::jobs::Linger;
use crate::support::jobs::SOON;
use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::waiting::wait_for;

fn scheduler(site: &Site, expression: &str) -> Scheduler {
    let schedule = Schedule::default().cron::<Linger>(expression);
    Scheduler::new(site.queue.clone(), schedule, &Settings::default()).unwrap()
}

#[tokio::test]
async fn a_tick_is_enqueued_once_by_two_schedulers() {
    let site = Site::new(held()).await;
    let both = [scheduler(&site, "* * * * *"), scheduler(&site, "* * * * *")];
    for ticks in 0..4 {
        for (turn, scheduler) in [&both[0], &both[1], &both[0]].into_iter().enumerate() {
            scheduler.tick().await.unwrap();
            // Ended at once: a job that waits would keep another from being enqueued.
            assert_eq!(site.pending().await, u64::from(ticks > 0 && turn == 0));
            finish(&site).await;
        }
        site.clock.advance(Duration::from_mins(1));
    }
    let counts = site.queue.counts().await.unwrap();
    assert_eq!(counts[&State::Completed], 3);
}

/// Ends what waits.
async fn finish(site: &Site) {
    site.sql("UPDATE jobs SET state = 'completed', finished_at = 0, binds = 0")
        .await;
}

#[tokio::test]
async fn ticks_do_not_pile_up_while_nobody_runs_them() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(&site, "* * * * *");
    scheduler.tick().await.unwrap();
    for _ in 0..5 {
        site.clock.advance(Duration::from_mins(1));
        scheduler.tick().await.unwrap();
    }
    assert_eq!(site.pending().await, 1);
}

#[tokio::test]
async fn a_failed_job_runs_at_the_next_tick_if_its_own_time_is_later() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(&site, "* * * * *");
    scheduler.tick().await.unwrap();
    site.clock.advance(Duration::from_mins(1));
    scheduler.tick().await.unwrap();
    site.sql("UPDATE jobs SET state = 'retryable', run_at = run_at + 86400000")
        .await;
    let due =
        "SELECT count(*) FROM jobs WHERE state = 'retryable' AND run_at <= enqueued_at + 60000";
    assert_eq!(site.number(due).await, 0);
    site.clock.advance(Duration::from_mins(1));
    scheduler.tick().await.unwrap();
    assert_eq!((site.number(due).await, site.pending().await), (1, 1));
}

#[tokio::test]
async fn a_job_that_was_put_off_keeps_its_time_at_a_tick() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(&site, "* * * * *");
    scheduler.tick().await.unwrap();
    site.clock.advance(Duration::from_mins(1));
    scheduler.tick().await.unwrap();
    // As it is when it is snoozed.
    site.sql("UPDATE jobs SET run_at = run_at + 86400000").await;
    site.clock.advance(Duration::from_mins(1));
    scheduler.tick().await.unwrap();
    let later =
        "SELECT count(*) FROM jobs WHERE state = 'available' AND run_at = enqueued_at + 86400000";
    assert_eq!((site.number(later).await, site.pending().await), (1, 1));
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_does_not_stop_the_schedule() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(&site, "* * * * *");
    scheduler.tick().await.unwrap();
    site.clock.advance(Duration::from_hours(24 * 365));
    scheduler.tick().await.unwrap();
    finish(&site).await;
    site.clock.set("2026-11-21T10:00:30Z".parse().unwrap());
    for (minutes, expected) in [(0, 0), (1, 1)] {
        site.clock.advance(Duration::from_mins(minutes));
        for scheduler in [&scheduler, &self::scheduler(&site, "* * * * *")] {
            scheduler.tick().await.unwrap();
        }
        assert_eq!(site.pending().await, expected);
    }
}

#[tokio::test]
async fn ticks_missed_while_the_site_was_down_are_made_up_for_by_one() {
    let site = Site::new(held()).await;
    scheduler(&site, "0 * * * *").tick().await.unwrap();
    assert_eq!(site.pending().await, 0, "an entry that is new begins now");
    site.clock.advance(Duration::from_hours(5));
    for _ in 0..2 {
        scheduler(&site, "0 * * * *").tick().await.unwrap();
        assert_eq!(site.pending().await, 1);
    }
}

#[tokio::test]
async fn a_running_scheduler_enqueues_a_tick_when_its_time_comes() {
    let site = Site::new(Clock::system()).await;
    let scheduler = scheduler(&site, "* * * * * *");
    let stop = CancellationToken::new();
    let token = stop.clone();
    let running = tokio::spawn(async move { scheduler.run(token).await });
    let ticked = async || {
        finish(&site).await;
        let counts = site.queue.counts().await.unwrap();
        (counts[&State::Completed] >= 2).then_some(())
    };
    wait_for("second tick", SOON, ticked).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_expression_that_cannot_be_read_is_named() {
    let site = Site::new(held()).await;
    let schedule = Schedule::default().cron::<Linger>("every morning");
    let error = Scheduler::new(site.queue, schedule, &Settings::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("linger") && error.contains("every morning"),
        "{error}"
    );
}
