//! What the schedule promises.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::queue::Schedule;
use houseboat::queue::Scheduler;
use tokio_util::sync::CancellationToken;

use crate::support::jobs::Linger;
use crate::support::jobs::SOON;
use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::waiting::wait_for;

fn scheduler(site: &Site, expression: &str) -> Scheduler {
    let schedule = Schedule::default().cron::<Linger>(expression);
    Scheduler::new(site.queue.clone(), schedule).unwrap()
}

#[tokio::test]
async fn a_tick_is_enqueued_once_by_two_schedulers() {
    let site = Site::new(held()).await;
    let both = [scheduler(&site, "* * * * *"), scheduler(&site, "* * * * *")];
    for ticks in 0..4 {
        for scheduler in [&both[0], &both[1], &both[0]] {
            scheduler.tick().await.unwrap();
            assert_eq!(site.pending().await, ticks);
        }
        site.clock.advance(Duration::from_mins(1));
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
    wait_for("second tick", SOON, async || {
        (site.pending().await >= 2).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_expression_that_cannot_be_read_is_named() {
    let site = Site::new(held()).await;
    let schedule = Schedule::default().cron::<Linger>("every morning");
    let error = Scheduler::new(site.queue, schedule)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("linger") && error.contains("every morning"),
        "{error}"
    );
}
