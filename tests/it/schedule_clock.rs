//! The schedule when somebody sets the clock, and when two processes look at it.

use std::collections::BTreeSet;
use std::time::Duration;

use houseboat::queue::Missed;
use jiff::Timestamp;

use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::jobs::open;
use crate::support::ticks::at;
use crate::support::ticks::entry;
use crate::support::ticks::look;
use crate::support::ticks::scheduler;
use crate::support::ticks::ticks;

const MINUTE: Duration = Duration::from_mins(1);

fn is_once_each(ticks: &[Timestamp]) -> bool {
    ticks.iter().collect::<BTreeSet<_>>().len() == ticks.len()
}

async fn count(site: &Site, entry: &str, up_to: &str) -> usize {
    let ticks = ticks(site, entry).await;
    ticks.iter().filter(|tick| **tick <= at(up_to)).count()
}

/// From 10:00 to 10:45, from `to` for an hour and a half, and the next day; with a restart, or without.
async fn set_at_10_45(to: &str, is_restarted: bool) -> Site {
    let site = Site::new(held()).await;
    let entries = [
        entry("daily", "30 10 * * *").overlapping(),
        entry("later", "0 11 * * *").overlapping(),
        entry("hourly", "20 * * * *").overlapping(),
        entry("minutely", "* * * * *").overlapping(),
        entry("office", "*/5 9-17 * * *").overlapping(),
        entry("period", "@every 10m").overlapping(),
        entry("each", "* * * * *").missed(Missed::All),
    ];
    let mut running = scheduler(&site.queue, &entries);
    look(
        &site,
        &running,
        (at("2026-11-21T10:00:00Z"), at("2026-11-21T10:45:00Z")),
        MINUTE,
    )
    .await;
    if is_restarted {
        running = scheduler(&site.queue, &entries);
    }
    let to = at(to);
    look(&site, &running, (to, to + Duration::from_mins(90)), MINUTE).await;
    let next_day = (at("2026-11-22T10:20:00Z"), at("2026-11-22T11:10:00Z"));
    look(&site, &running, next_day, MINUTE).await;
    site
}

#[tokio::test]
async fn a_clock_set_back_by_an_hour_doubles_no_tick_and_stalls_none() {
    for is_restarted in [false, true] {
        let site = set_at_10_45("2026-11-21T09:45:00Z", is_restarted).await;
        // Its time comes again, and it does not.
        let daily = ["2026-11-21T10:30:00Z", "2026-11-22T10:30:00Z"].map(at);
        assert_eq!(ticks(&site, "daily").await, daily);
        let later = ["2026-11-21T11:00:00Z", "2026-11-22T11:00:00Z"].map(at);
        assert_eq!(ticks(&site, "later").await, later);
        // What comes often goes on at once by the clock as it is now.
        let count = async |name| count(&site, name, "2026-11-21T11:15:00Z").await;
        assert_eq!(count("minutely").await, 45 + 90);
        assert_eq!(count("office").await, 9 + 18);
        assert_eq!(count("period").await, 4 + 9);
        assert_eq!(count("hourly").await, 1 + 1);
        // Where each tick is to have its job, it has one.
        let each = ticks(&site, "each").await;
        assert!(is_once_each(&each) && each.is_sorted());
        assert_eq!(count("each").await, 75);
    }
}

#[tokio::test]
async fn a_clock_set_forward_by_an_hour_doubles_no_tick_and_stalls_none() {
    for is_restarted in [false, true] {
        let site = set_at_10_45("2026-11-21T11:45:00Z", is_restarted).await;
        let names = [
            "daily", "later", "hourly", "minutely", "office", "period", "each",
        ];
        for name in names {
            let ticks = ticks(&site, name).await;
            assert!(
                is_once_each(&ticks) && ticks.is_sorted(),
                "{name}: {ticks:?}"
            );
        }
        let later = ["2026-11-21T11:00:00Z", "2026-11-22T11:00:00Z"].map(at);
        assert_eq!(ticks(&site, "later").await, later);
        let count = async |name| count(&site, name, "2026-11-21T13:15:00Z").await;
        // One for the look at 11:45, for what was leapt over, and one a minute from then on.
        assert_eq!(count("minutely").await, 45 + 1 + 90);
        assert_eq!(count("each").await, 45 + 60 + 90);
    }
}

#[tokio::test]
async fn a_clock_that_was_an_hour_ahead_for_a_while_repeats_no_tick_of_the_day() {
    let site = Site::new(held()).await;
    let entries = [entry("daily", "30 10 * * *").overlapping()];
    let scheduler = scheduler(&site.queue, &entries);
    scheduler.tick().await.unwrap();
    site.clock.set(at("2026-11-21T11:00:00Z"));
    scheduler.tick().await.unwrap();
    let rest = (at("2026-11-21T10:01:00Z"), at("2026-11-21T12:00:00Z"));
    look(&site, &scheduler, rest, MINUTE).await;
    assert_eq!(ticks(&site, "daily").await, [at("2026-11-21T10:30:00Z")]);
}

#[tokio::test]
async fn a_clock_that_is_put_right_by_a_second_repeats_no_tick() {
    let site = Site::new(held()).await;
    let entries = [entry("second", "* * * * * *").overlapping()];
    let scheduler = scheduler(&site.queue, &entries);
    for to in ["10:00:00", "10:00:05", "10:00:04", "10:00:05", "10:00:06"] {
        site.clock.set(at(&format!("2026-11-21T{to}Z")));
        scheduler.tick().await.unwrap();
    }
    let expected = ["2026-11-21T10:00:05Z", "2026-11-21T10:00:06Z"].map(at);
    assert_eq!(ticks(&site, "second").await, expected);
}

#[tokio::test]
async fn two_processes_on_one_file_enqueue_each_tick_once() {
    let site = Site::new(held()).await;
    let (_other, queue) = open(&site.folder, &site.clock).await;
    let entries = [
        entry("minutely", "* * * * *").overlapping(),
        entry("each", "*/2 * * * *").missed(Missed::All),
        entry("period", "@every 3m").overlapping(),
    ];
    let both = [
        scheduler(&site.queue, &entries),
        scheduler(&queue, &entries),
    ];
    for turn in 0..60 {
        let (one, other) = tokio::join!(both[0].tick(), both[1].tick());
        one.and(other).unwrap();
        // Now and then one of them begins anew.
        if turn % 7 == 0 {
            scheduler(&queue, &entries).tick().await.unwrap();
        }
        site.clock.advance(MINUTE);
    }
    for (name, count) in [("minutely", 59), ("each", 29), ("period", 19)] {
        let ticks = ticks(&site, name).await;
        assert!(is_once_each(&ticks), "{name}: {ticks:?}");
        assert_eq!(ticks.len(), count, "{name}");
    }
}
