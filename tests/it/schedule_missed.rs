//! What becomes of ticks that passed while the site was down.

use std::collections::BTreeMap;
use std::time::Duration;

use houseboat::queue::Missed;
use jiff::SignedDuration;
use jiff::Timestamp;

use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::ticks::at;
use crate::support::ticks::entry;
use crate::support::ticks::scheduler;
use crate::support::ticks::ticks;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The minutes of a week in which the site is up; it is down for a while about twenty times.
fn minutes_up(random: &mut fastrand::Rng) -> Vec<Timestamp> {
    let start = at("2026-11-16T00:00:00Z");
    let mut up = Vec::new();
    let mut minute = 0;
    while minute < 7 * 24 * 60 {
        let down = minute + random.i32(1..700);
        up.extend((minute..down).map(|minute| start + MINUTE * minute));
        minute = down + random.i32(1..300);
    }
    up
}

async fn a_week(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let up = minutes_up(&mut random);
    let site = Site::new(held()).await;
    let entries = [
        entry("once", "*/20 * * * *").overlapping(),
        entry("all", "*/20 * * * *").missed(Missed::All),
        entry("skip", "*/20 * * * *")
            .missed(Missed::Skip)
            .overlapping(),
    ];
    let mut running = scheduler(&site.queue, &entries);
    for (minute, last) in up.iter().zip(std::iter::once(&up[0]).chain(&up)) {
        if minute.duration_since(*last) > MINUTE {
            running = scheduler(&site.queue, &entries);
        }
        site.clock.set(*minute);
        running.tick().await.unwrap();
    }
    // The ticks by the minute in which they could be seen.
    let mut by_look: BTreeMap<Timestamp, Vec<Timestamp>> = BTreeMap::new();
    let (first, last) = (up[0], up[up.len() - 1]);
    for tick in (1..)
        .map(|turn| first + MINUTE * 20 * turn)
        .take_while(|tick| *tick <= last)
    {
        let look = up[up.partition_point(|minute| *minute < tick)];
        by_look.entry(look).or_default().push(tick);
    }
    let all: Vec<_> = by_look.values().flatten().copied().collect();
    let once: Vec<_> = by_look
        .values()
        .map(|ticks| ticks[ticks.len() - 1])
        .collect();
    let in_time = |look: &Timestamp, tick: &Timestamp| look.duration_since(*tick) <= MINUTE;
    let latest = by_look
        .iter()
        .map(|(look, ticks)| (look, ticks[ticks.len() - 1]));
    let skip: Vec<_> = latest
        .filter(|(look, tick)| in_time(look, tick))
        .map(|(_, tick)| tick)
        .collect();
    assert!(
        all.len() > once.len() && once.len() > skip.len(),
        "seed {seed}: nothing was missed"
    );
    assert_eq!(ticks(&site, "all").await, all, "seed {seed}");
    assert_eq!(ticks(&site, "once").await, once, "seed {seed}");
    assert_eq!(ticks(&site, "skip").await, skip, "seed {seed}");
}

#[tokio::test]
async fn each_entry_makes_up_for_what_it_says_over_a_week_of_downtimes() {
    for seed in 1..=3 {
        a_week(seed).await;
    }
}

#[tokio::test]
async fn no_more_than_a_thousand_ticks_and_a_month_of_them_are_made_up_for() {
    let site = Site::new(held()).await;
    let entries = [
        entry("often", "*/20 * * * *").missed(Missed::All),
        entry("daily", "0 7 * * *").missed(Missed::All),
        entry("once", "*/20 * * * *"),
    ];
    scheduler(&site.queue, &entries).tick().await.unwrap();
    site.clock.advance(Duration::from_hours(40 * 24));
    scheduler(&site.queue, &entries).tick().await.unwrap();
    let now = site.clock.now();
    let often = ticks(&site, "often").await;
    assert_eq!(
        (often.len(), often[999]),
        (1_000, now),
        "the latest of them"
    );
    assert!(often.is_sorted(), "oldest first");
    let daily = ticks(&site, "daily").await;
    assert_eq!(daily.len(), 31);
    assert_eq!(daily[0], at("2026-12-01T07:00:00Z"));
    assert_eq!(ticks(&site, "once").await, [now]);
    // And then it is done with them.
    scheduler(&site.queue, &entries).tick().await.unwrap();
    assert_eq!(ticks(&site, "often").await.len(), 1_000);
}

#[tokio::test]
async fn ticks_that_are_all_made_up_for_need_no_job_to_be_done_before() {
    let site = Site::new(held()).await;
    let entries = [entry("all", "0 * * * *").missed(Missed::All)];
    let scheduler = scheduler(&site.queue, &entries);
    for _ in 0..4 {
        scheduler.tick().await.unwrap();
        site.clock.advance(Duration::from_hours(1));
    }
    assert_eq!(
        (ticks(&site, "all").await.len(), site.pending().await),
        (3, 3)
    );
}
