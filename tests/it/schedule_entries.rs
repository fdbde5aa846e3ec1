//! What can be said of an entry of the schedule, and done with it.

use std::time::Duration;

use houseboat::Config;
use houseboat::queue;
use houseboat::queue::Entry;
use houseboat::queue::Schedule;
use houseboat::queue::ScheduleError;
use houseboat::queue::Scheduled;
use houseboat::queue::Scheduler;
use houseboat::queue::Settings;
use houseboat::queue::State;

use crate::support::jobs::Act;
use crate::support::jobs::Linger;
use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::jobs::open;
use crate::support::ticks::at;
use crate::support::ticks::entry;
use crate::support::ticks::look;
use crate::support::ticks::scheduler;
use crate::support::ticks::ticks;

const MINUTE: Duration = Duration::from_mins(1);

async fn error(schedule: Schedule) -> ScheduleError {
    let site = Site::new(held()).await;
    match Scheduler::new(site.queue, schedule, &Settings::default()) {
        Err(queue::Error::Schedule(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_entry_that_is_wrong_is_named_with_what_would_be_right() {
    let period = |seconds| Entry::from(Entry::every::<Linger>(Duration::from_secs(seconds)));
    let right = "five fields";
    for (entry, parts) in [
        (
            entry("a", "every morning"),
            ["\"a\"", "\"every morning\"", right],
        ),
        (entry("a", ""), ["\"a\"", "empty", right]),
        (entry("a", "61 * * * *"), ["\"a\"", "61", right]),
        (entry("a", "30, 2 * * *"), ["\"a\"", "empty place", right]),
        (entry("a", "* * * *"), ["\"a\"", "\"* * * *\"", right]),
        (entry("a", "0 0 1 1 * 2030"), ["\"a\"", "2030", right]),
        (entry("a", "0 0 0 1 1 * 2030"), ["\"a\"", "years", right]),
        (
            entry("a", "@fortnightly"),
            ["\"a\"", "@fortnightly", "@weekly"],
        ),
        (
            entry("a", "0 0 30 2 *"),
            ["\"a\"", "\"0 0 30 2 *\"", "never comes"],
        ),
        (
            entry("a", "0 * 31 4,6 *"),
            ["\"a\"", "\"0 * 31 4,6 *\"", "never comes"],
        ),
        (
            entry("a", "@every"),
            ["\"a\"", "\"@every\"", "1 s to 366 days"],
        ),
        (
            entry("a", "@every soon"),
            ["\"a\"", "soon", "\"@every 90s\""],
        ),
        (
            entry("a", "@every -5s"),
            ["\"a\"", "-5s", "1 s to 366 days"],
        ),
        (
            entry("a", "@every 1500ms"),
            ["\"a\"", "1500ms", "whole seconds"],
        ),
        (entry("a", "@every 8785h"), ["\"a\"", "8785h", "366 days"]),
        (period(0), ["\"linger\"", "@every 0s", "1 s to 366 days"]),
        (
            period(366 * 86_400 + 1),
            ["\"linger\"", "8784h 1s", "366 days"],
        ),
        (
            entry("a", "0 7 * * *").zone("Mars/Base"),
            ["\"a\"", "\"Mars/Base\"", "Europe/Berlin"],
        ),
        (
            entry("a", "@every 90s").zone("UTC"),
            ["\"a\"", "\"UTC\"", "leave the zone"],
        ),
        (
            entry("", "0 7 * * *"),
            ["\"\"", "no name", "1 to 100 bytes"],
        ),
        (entry("a\nb", "0 7 * * *"), ["a\\nb", "no name", "control"]),
        (
            entry(&"n".repeat(101), "0 7 * * *"),
            ["nnn", "no name", "1 to 100 bytes"],
        ),
    ] {
        let text = error(Schedule::default().entry(entry)).await.to_string();
        for part in parts {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}

#[tokio::test]
async fn two_entries_of_one_name_are_an_error_that_names_them() {
    let twice = Schedule::default()
        .cron::<Linger>("0 1 * * *")
        .cron::<Linger>("0 2 * * *");
    let text = error(twice).await.to_string();
    assert!(
        text.contains("\"linger\"") && text.contains("another name"),
        "{text}"
    );
    let site = Site::new(held()).await;
    let apart = Schedule::default()
        .cron::<Linger>("0 1 * * *")
        .entry(Entry::cron::<Linger>("0 2 * * *").name("second"));
    Scheduler::new(site.queue, apart, &Settings::default()).unwrap();
}

#[tokio::test]
async fn a_zone_of_the_settings_that_is_not_known_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let load = |zone: &str| {
        let zone = ("HOUSEBOAT_QUEUE__ZONE".to_owned(), zone.to_owned());
        Config::<houseboat::settings::NoSettings>::load_from(folder.path(), [zone])
    };
    let text = load("Europe/Atlantis").unwrap_err().to_string();
    for part in [
        "queue.zone",
        "Europe/Atlantis",
        "HOUSEBOAT_QUEUE__ZONE",
        "a name of the IANA database such as \"Europe/Berlin\"",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("zoneinfo"), "zones are bundled: {text}");
    assert_eq!(load("Europe/Berlin").unwrap().queue.zone, "Europe/Berlin");
}

#[tokio::test]
async fn a_job_that_cannot_be_stored_is_an_error_at_the_start() {
    let site = Site::new(held()).await;
    let large = Entry::cron::<Act>("0 1 * * *").job(|| Act::new(&"x".repeat(70_000)));
    let error = Scheduler::new(
        site.queue,
        Schedule::default().entry(large),
        &Settings::default(),
    );
    assert!(
        matches!(error, Err(queue::Error::TooLarge { kind: "act", .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_period_is_counted_from_1970_so_that_restarts_agree() {
    for (expression, expected) in [
        ("@every 7m", &["10:06:00", "10:13:00"][..]),
        ("@EVERY 12m 30s", &["10:05:00", "10:17:30"]),
        ("@hourly", &["10:00:00"]),
    ] {
        let site = Site::new(held()).await;
        let entries = [entry("period", expression).overlapping()];
        for second in (0..20 * 60).step_by(10) {
            site.clock
                .set(at("2026-11-21T09:59:50Z") + Duration::from_secs(second));
            scheduler(&site.queue, &entries).tick().await.unwrap();
        }
        let expected: Vec<_> = expected
            .iter()
            .map(|time| at(&format!("2026-11-21T{time}Z")))
            .collect();
        assert_eq!(ticks(&site, "period").await, expected, "{expression}");
    }
}

#[tokio::test]
async fn a_tick_adds_no_job_beside_one_that_waits_unless_the_entry_says_so() {
    let site = Site::new(held()).await;
    let entries = [
        entry("one", "* * * * *"),
        entry("all", "* * * * *").overlapping(),
    ];
    let scheduler = scheduler(&site.queue, &entries);
    let time = (at("2026-11-21T10:00:00Z"), at("2026-11-21T10:05:00Z"));
    look(&site, &scheduler, time, MINUTE).await;
    assert_eq!(ticks(&site, "one").await, [at("2026-11-21T10:01:00Z")]);
    assert_eq!(ticks(&site, "all").await.len(), 5);
}

#[tokio::test]
async fn a_pause_by_another_process_holds_from_the_next_tick_and_nothing_of_it_is_made_up_for() {
    let site = Site::new(held()).await;
    let (_other, queue) = open(&site.folder, &site.clock).await;
    let entries = [
        entry("paused", "* * * * *").overlapping(),
        entry("other", "* * * * *").overlapping(),
    ];
    let (running, operator) = (
        scheduler(&site.queue, &entries),
        scheduler(&queue, &entries),
    );
    let minutes = async |from: i64, to: i64| {
        let minute = |minute| at(&format!("2026-11-21T10:{minute:02}:00Z"));
        look(&site, &running, (minute(from), minute(to)), MINUTE).await;
    };
    minutes(0, 3).await;
    assert!(operator.pause_entry("paused").await.unwrap());
    assert!(
        !operator.pause_entry("paused").await.unwrap(),
        "it is paused already"
    );
    minutes(4, 6).await;
    assert_eq!(ticks(&site, "paused").await.len(), 3);
    // The site is down for the end of the pause.
    site.clock.set(at("2026-11-21T10:20:30Z"));
    assert!(operator.resume_entry("paused").await.unwrap());
    assert!(
        !operator.resume_entry("paused").await.unwrap(),
        "it goes on already"
    );
    scheduler(&site.queue, &entries).tick().await.unwrap();
    assert_eq!(ticks(&site, "paused").await.len(), 3);
    minutes(21, 22).await;
    let after = ["2026-11-21T10:21:00Z", "2026-11-21T10:22:00Z"].map(at);
    assert_eq!(ticks(&site, "paused").await[3..], after);
    // Beside it, what was missed is made up for as ever.
    assert_eq!(ticks(&site, "other").await.len(), 6 + 1 + 2);
}

#[tokio::test]
async fn an_entry_can_be_paused_before_any_process_has_run_it() {
    let site = Site::new(held()).await;
    let entries = [entry("new", "* * * * *").overlapping()];
    let scheduler = scheduler(&site.queue, &entries);
    assert!(scheduler.pause_entry("new").await.unwrap());
    let time = (at("2026-11-21T10:00:00Z"), at("2026-11-21T10:05:00Z"));
    look(&site, &scheduler, time, MINUTE).await;
    assert!(ticks(&site, "new").await.is_empty());
    assert!(scheduler.resume_entry("new").await.unwrap());
    let time = (at("2026-11-21T10:06:00Z"), at("2026-11-21T10:08:00Z"));
    look(&site, &scheduler, time, MINUTE).await;
    assert_eq!(ticks(&site, "new").await.len(), 2);
}

#[tokio::test]
async fn run_now_enqueues_at_once_paused_or_not_and_leaves_the_ticks_alone() {
    let site = Site::new(held()).await;
    let entries = [
        entry("one", "0 * * * *"),
        entry("many", "0 * * * *").overlapping(),
    ];
    let scheduler = scheduler(&site.queue, &entries);
    scheduler.tick().await.unwrap();
    scheduler.pause_entry("one").await.unwrap();
    site.clock.advance(MINUTE);
    let now = site.clock.now();
    let first = scheduler.run_now("one").await.unwrap();
    assert!(first.is_new);
    let id = first.job;
    let again = scheduler.run_now("one").await.unwrap();
    let waits = (id, false, State::Available);
    assert_eq!((again.job, again.is_new, again.state), waits);
    assert_eq!(ticks(&site, "one").await, [now]);
    for _ in 0..2 {
        assert!(scheduler.run_now("many").await.unwrap().is_new);
    }
    let all = scheduler.schedule().await.unwrap();
    assert_eq!((all[0].last, all[0].last_job), (Some(now), Some(id)));
    scheduler.resume_entry("one").await.unwrap();
    site.sql("UPDATE jobs SET state = 'completed', finished_at = 0, binds = 0")
        .await;
    site.clock.advance(Duration::from_mins(59));
    scheduler.tick().await.unwrap();
    assert_eq!(ticks(&site, "one").await, [now, at("2026-11-21T11:00:00Z")]);
}

#[tokio::test]
async fn run_now_hastens_a_job_that_failed_and_waits() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(&site.queue, &[entry("one", "0 * * * *")]);
    assert!(scheduler.run_now("one").await.unwrap().is_new);
    site.sql("UPDATE jobs SET state = 'retryable', run_at = run_at + 86400000")
        .await;
    let due = "SELECT count(*) FROM jobs WHERE state = 'retryable' AND run_at = enqueued_at";
    assert_eq!(site.number(due).await, 0);
    let again = scheduler.run_now("one").await.unwrap();
    assert_eq!((again.is_new, again.state), (false, State::Retryable));
    assert_eq!(site.number(due).await, 1);
}

#[tokio::test]
async fn a_job_that_is_run_now_runs() {
    let site = Site::new(held()).await;
    let schedule =
        Schedule::default().entry(Entry::cron::<Act>("0 1 1 1 *").job(|| Act::new("by hand")));
    let scheduler = Scheduler::new(site.queue.clone(), schedule, &Settings::default()).unwrap();
    scheduler.run_now("act").await.unwrap();
    site.drain().await;
    assert_eq!(site.notes.all(), ["by hand"]);
    assert_eq!(site.counts().await[&State::Completed], 1);
}

#[tokio::test]
async fn a_name_that_the_schedule_does_not_have_is_answered_with_those_that_it_has() {
    let site = Site::new(held()).await;
    let scheduler = scheduler(
        &site.queue,
        &[entry("one", "0 * * * *"), entry("two", "0 * * * *")],
    );
    for error in [
        scheduler.pause_entry("three").await.unwrap_err(),
        scheduler.resume_entry("three").await.unwrap_err(),
        scheduler.run_now("three").await.unwrap_err(),
    ] {
        let text = error.to_string();
        for part in ["\"three\"", "\"one\", \"two\""] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
    assert_eq!(site.number("SELECT count(*) FROM schedule").await, 0);
}

#[tokio::test]
async fn the_list_says_how_each_entry_stands() {
    let site = Site::new(held()).await;
    let schedule = Schedule::default()
        .entry(
            Entry::cron::<Linger>("0 7 * * mon-fri")
                .zone("Europe/Berlin")
                .name("digest"),
        )
        .entry(Entry::every::<Act>(Duration::from_mins(90)).job(|| Act::new("go")));
    let scheduler = Scheduler::new(site.queue.clone(), schedule, &Settings::default()).unwrap();
    let summary = |entry: &Scheduled| {
        let next = entry.next.map(|next| next.to_string());
        (
            entry.name.clone(),
            entry.kind,
            entry.expression.clone(),
            entry.zone.clone(),
            next,
        )
    };
    let digest = |next: &str| {
        let [expression, zone] = ["0 7 * * mon-fri", "Europe/Berlin"].map(str::to_owned);
        (
            "digest".to_owned(),
            "linger",
            expression,
            Some(zone),
            Some(next.to_owned()),
        )
    };
    let act = |next: &str| {
        (
            "act".to_owned(),
            "act",
            "@every 1h 30m".to_owned(),
            None,
            Some(next.to_owned()),
        )
    };
    // A Saturday.
    let all = scheduler.schedule().await.unwrap();
    assert_eq!(summary(&all[0]), digest("2026-11-23T06:00:00Z"));
    assert_eq!(summary(&all[1]), act("2026-11-21T10:30:00Z"));
    assert!(
        all.iter()
            .all(|entry| entry.last.is_none() && entry.last_job.is_none() && !entry.is_paused)
    );
    scheduler.tick().await.unwrap();
    site.clock.set(at("2026-11-23T06:00:01Z"));
    scheduler.tick().await.unwrap();
    scheduler.pause_entry("act").await.unwrap();
    let all = scheduler.schedule().await.unwrap();
    assert_eq!(summary(&all[0]), digest("2026-11-24T06:00:00Z"));
    assert_eq!(
        (all[0].last, all[0].last_job),
        (Some(site.clock.now()), Some(1))
    );
    assert_eq!(
        (all[1].is_paused, all[1].next, all[1].last_job),
        (true, None, Some(2))
    );
    let json = serde_json::to_value(&all[1]).unwrap();
    assert_eq!(json["last"], "2026-11-23T06:00:01Z");
}

#[tokio::test]
async fn an_entry_that_the_program_has_no_more_stays_and_does_nothing() {
    let site = Site::new(held()).await;
    let entries = [
        entry("old", "* * * * *").overlapping(),
        entry("new", "* * * * *").overlapping(),
    ];
    scheduler(&site.queue, &entries).tick().await.unwrap();
    site.clock.advance(MINUTE);
    let without = scheduler(&site.queue, &entries[1..]);
    without.tick().await.unwrap();
    assert_eq!(without.schedule().await.unwrap().len(), 1);
    assert_eq!(
        site.number("SELECT count(*) FROM schedule WHERE name = 'old'")
            .await,
        1
    );
    assert_eq!(
        (
            ticks(&site, "old").await.len(),
            ticks(&site, "new").await.len()
        ),
        (0, 1)
    );
}
