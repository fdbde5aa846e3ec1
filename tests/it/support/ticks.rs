//! A schedule whose jobs say which tick they are for.

use std::time::Duration;

use houseboat::database::BoxError;
use houseboat::queue::Entry;
use houseboat::queue::Job;
use houseboat::queue::Outcome;
use houseboat::queue::Queue;
use houseboat::queue::Schedule;
use houseboat::queue::Scheduler;
use houseboat::queue::Settings;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::support::jobs::Notes;
use crate::support::jobs::Site;

/// The job of a tick. It is not `Default`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Tick {
    entry: String,
    at: Timestamp,
}

impl Job for Tick {
    const NAME: &'static str = "tick";
    type Context = Notes;

    async fn run(self, notes: houseboat::queue::Attempt<Notes>) -> Result<Outcome, BoxError> {
        notes.add(format!("{} {}", self.entry, self.at));
        Ok(Outcome::Complete)
    }
}

/// An entry whose jobs are [`Tick`]s.
pub(crate) fn entry(name: &str, expression: &str) -> Entry {
    let entry = name.to_owned();
    let tick = move |at| Tick {
        entry: entry.clone(),
        at,
    };
    Entry::cron::<Tick>(expression).name(name).job_for(tick)
}

pub(crate) fn scheduler(queue: &Queue, entries: &[Entry]) -> Scheduler {
    let schedule = entries
        .iter()
        .cloned()
        .fold(Schedule::default(), Schedule::entry);
    Scheduler::new(queue.clone(), schedule, &Settings::default()).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The ticks that an entry has had jobs for, in their order.
pub(crate) async fn ticks(site: &Site, entry: &str) -> Vec<Timestamp> {
    let entry = entry.to_owned();
    let read = site.database.read(move |connection| {
        let sql =
            "SELECT arguments ->> 'at' FROM jobs WHERE arguments ->> 'entry' = ?1 ORDER BY id";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([entry], |row| row.get::<_, String>(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    let texts = read.await.unwrap();
    texts.iter().map(|text| at(text)).collect()
}

/// Looks at the clock at `from`, at `to` and at each step between them.
pub(crate) async fn look(
    site: &Site,
    scheduler: &Scheduler,
    (from, to): (Timestamp, Timestamp),
    step: Duration,
) {
    site.clock.set(from);
    while site.clock.now() <= to {
        scheduler.tick().await.unwrap();
        site.clock.advance(step);
    }
}
