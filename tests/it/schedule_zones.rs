//! The schedule in the nights when the clocks change.

use std::collections::BTreeSet;
use std::time::Duration;

use houseboat::queue::Entry;
use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::ticks::at;
use crate::support::ticks::entry;
use crate::support::ticks::look;
use crate::support::ticks::scheduler;
use crate::support::ticks::ticks;

/// A zone, and the moment when its clocks change.
const CHANGES: [(&str, &str); 6] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    // Half an hour.
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
];

/// Of an expression of minutes and hours: `None` is every hour.
type Times = (&'static str, &'static [i8], Option<&'static [i8]>);

const FIXED: [Times; 7] = [
    ("30 2 * * *", &[30], Some(&[2])),
    ("45 1 * * *", &[45], Some(&[1])),
    ("0 2 * * *", &[0], Some(&[2])),
    ("15 2 * * *", &[15], Some(&[2])),
    ("15,45 1,2,3 * * *", &[15, 45], Some(&[1, 2, 3])),
    ("*/20 2 * * *", &[0, 20, 40], Some(&[2])),
    (
        "0 */2 * * *",
        &[0],
        Some(&[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]),
    ),
];

const HOURLY: [Times; 4] = [
    ("* * * * *", &[], None),
    ("*/10 * * * *", &[0, 10, 20, 30, 40, 50], None),
    ("0 * * * *", &[0], None),
    ("15 0-23 * * *", &[15], None),
];

/// The ticks of five hours around a change, with the clock looked at each minute.
async fn night(zone: &str, change: &str, expressions: &[&str]) -> Vec<Vec<Timestamp>> {
    let site = Site::new(held()).await;
    let entries: Vec<Entry> = expressions
        .iter()
        .map(|expression| entry(expression, expression).zone(zone).overlapping())
        .collect();
    let scheduler = scheduler(&site.queue, &entries);
    look(
        &site,
        &scheduler,
        hours_around(change),
        Duration::from_mins(1),
    )
    .await;
    let mut all = Vec::new();
    for expression in expressions {
        all.push(ticks(&site, expression).await);
    }
    all
}

fn hours_around(change: &str) -> (Timestamp, Timestamp) {
    let around = SignedDuration::from_mins(150);
    (at(change) - around, at(change) + around)
}

/// The same by looking at a clock on the wall, minute by minute.
fn expected(zone: &str, change: &str, (_, minutes, hours): Times) -> Vec<Timestamp> {
    let zone = TimeZone::get(zone).unwrap();
    let (from, to) = hours_around(change);
    let minute = SignedDuration::from_mins(1);
    // More than the night, for what is shown before and after it.
    let moments: Vec<Timestamp> =
        std::iter::successors(Some(from - minute * 300), |at| Some(*at + minute))
            .take_while(|at| *at <= to + minute * 300)
            .collect();
    let shown = |moment: &Timestamp| zone.to_datetime(*moment);
    let is_minute = |time: DateTime| minutes.is_empty() || minutes.contains(&time.minute());
    let found: BTreeSet<Timestamp> = match hours {
        None => moments
            .iter()
            .copied()
            .filter(|moment| is_minute(shown(moment)))
            .collect(),
        Some(hours) => {
            // Every time that a calendar has, whether or not a clock shows it.
            let first = shown(&moments[0]);
            let count = i64::try_from(moments.len()).unwrap() - 120;
            let times = (0..count).map(|after| first + minute * i32::try_from(after).unwrap());
            let wanted = times.filter(|time| is_minute(*time) && hours.contains(&time.hour()));
            wanted
                .map(|time| {
                    let same = moments.iter().find(|moment| shown(moment) == time);
                    let later = || moments.iter().find(|moment| shown(moment) > time);
                    *same.or_else(later).unwrap()
                })
                .collect()
        }
    };
    // An entry begins at the first look.
    found
        .into_iter()
        .filter(|tick| *tick > from && *tick <= to)
        .collect()
}

async fn as_on_the_wall(times: &[Times]) {
    for (zone, change) in CHANGES {
        let expressions: Vec<&str> = times.iter().map(|(expression, ..)| *expression).collect();
        let nights = night(zone, change, &expressions).await;
        for (times, ticks) in times.iter().zip(nights) {
            assert_eq!(
                ticks,
                expected(zone, change, *times),
                "{zone} {change} {}",
                times.0
            );
        }
    }
}

#[tokio::test]
async fn an_entry_of_some_hours_has_each_tick_once_at_every_change() {
    as_on_the_wall(&FIXED).await;
}

#[tokio::test]
async fn an_entry_of_every_hour_follows_the_clocks_at_every_change() {
    as_on_the_wall(&HOURLY).await;
}

#[tokio::test]
async fn a_job_at_a_time_that_is_left_out_or_comes_twice_runs_once() {
    for ((zone, change), expression, tick) in [
        // At the first moment after the gap.
        (CHANGES[0], "30 2 * * *", "2026-03-29T03:00:00+02:00"),
        (CHANGES[2], "30 2 * * *", "2026-03-08T03:00:00-04:00"),
        (CHANGES[4], "15 2 * * *", "2026-10-04T02:30:00+11:00"),
        // At the first of the two.
        (CHANGES[1], "30 2 * * *", "2026-10-25T02:30:00+02:00"),
        (CHANGES[3], "30 1 * * *", "2026-11-01T01:30:00-04:00"),
        (CHANGES[5], "45 1 * * *", "2026-04-05T01:45:00+11:00"),
    ] {
        let ticks = night(zone, change, &[expression]).await;
        assert_eq!(ticks, [[at(tick)]], "{zone} {change}");
    }
}

#[tokio::test]
async fn an_entry_of_every_ten_minutes_comes_every_ten_minutes_all_night() {
    for (zone, change) in CHANGES {
        let ticks = night(zone, change, &["*/10 * * * *"]).await.remove(0);
        assert_eq!(ticks.len(), 30, "{zone} {change}");
        let is_even =
            |pair: &[Timestamp]| pair[1].duration_since(pair[0]) == SignedDuration::from_mins(10);
        assert!(ticks.windows(2).all(is_even), "{zone} {change}: {ticks:?}");
    }
}

#[tokio::test]
async fn what_is_said_to_be_next_is_what_comes() {
    for (zone, change) in CHANGES {
        let site = Site::new(held()).await;
        let expressions = ["15,45 1,2,3 * * *", "0 * * * *"];
        let entries = expressions.map(|text| entry(text, text).zone(zone).overlapping());
        let scheduler = scheduler(&site.queue, &entries);
        let (from, to) = hours_around(change);
        site.clock.set(from);
        scheduler.tick().await.unwrap();
        let mut said = [Vec::new(), Vec::new()];
        while site.clock.now() < to {
            for (said, status) in said.iter_mut().zip(scheduler.schedule().await.unwrap()) {
                said.push(status.next.unwrap());
            }
            site.clock.advance(Duration::from_mins(1));
            scheduler.tick().await.unwrap();
        }
        for (mut said, expression) in said.into_iter().zip(expressions) {
            said.dedup();
            said.retain(|tick| *tick <= to);
            assert_eq!(
                said,
                ticks(&site, expression).await,
                "{zone} {change} {expression}"
            );
        }
    }
}

#[tokio::test]
async fn an_entry_that_names_no_zone_is_read_in_that_of_the_settings() {
    let site = Site::new(held()).await;
    let settings = houseboat::queue::Settings {
        zone: "Asia/Tokyo".to_owned(),
        ..houseboat::queue::Settings::default()
    };
    let schedule = houseboat::queue::Schedule::default()
        .entry(entry("settings", "0 7 * * *"))
        .entry(entry("own", "0 7 * * *").zone("UTC"));
    let scheduler =
        houseboat::queue::Scheduler::new(site.queue.clone(), schedule, &settings).unwrap();
    let all = scheduler.schedule().await.unwrap();
    let next: Vec<_> = all.iter().map(|entry| entry.next.unwrap()).collect();
    assert_eq!(
        next,
        [at("2026-11-22T07:00:00+09:00"), at("2026-11-22T07:00:00Z")]
    );
    assert_eq!(all[0].zone.as_deref(), Some("Asia/Tokyo"));
}
