//! What enqueues jobs by the clock.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::database;
use crate::queue::Error;
use crate::queue::Job;
use crate::queue::Queue;
use crate::queue::Request;
use crate::queue::store;

/// The scheduler looks at the clock at least this often, in case somebody has set it.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// How long to wait before the ticks are tried again after the database refused.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// A clock that goes back by less is not worth a word.
const CLOCK_STEP_MS: i64 = 2_000;

/// Which jobs are enqueued when.
///
/// ```
/// # use houseboat::queue::{Job, Schedule};
/// # fn example<SendDigest: Job + Default>() {
/// let schedule = Schedule::default().cron::<SendDigest>("0 7 * * mon-fri");
/// # let _ = schedule;
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    expression: String,
    request: fn() -> Request,
}

impl Schedule {
    /// Enqueues a `J` at each time that the cron expression names, in UTC.
    ///
    /// Five fields (minute, hour, day of month, month, day of week), or six with seconds in front.
    /// A tick is enqueued once, however many processes share the database; ticks missed while the site was down
    /// are made up for by a single one. While a tick's job waits or runs, further ticks add none; one that failed and
    /// waits for its next attempt runs at the tick. An expression that cannot be read is an error at the start.
    #[must_use]
    pub fn cron<J: Job + Default>(mut self, expression: &str) -> Self {
        self.entries.push(Entry {
            name: J::NAME,
            expression: expression.to_owned(),
            request: || Request::new(&J::default()),
        });
        self
    }

    /// Adds the entries of `other`.
    #[must_use]
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// The names of the jobs in it.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }
}

/// Enqueues the jobs of a [`Schedule`] when their time has come.
#[derive(Debug)]
pub struct Scheduler {
    queue: Queue,
    crons: Vec<(Entry, Cron)>,
    /// The last tick of each entry that is known here, so that the database is asked only when one is due.
    last: Mutex<HashMap<&'static str, i64>>,
}

impl Scheduler {
    /// A scheduler for a queue.
    ///
    /// # Errors
    ///
    /// [`Error::Cron`] when an expression cannot be read.
    pub fn new(queue: Queue, schedule: Schedule) -> Result<Self, Error> {
        let parse = |entry: Entry| match Cron::from_str(&entry.expression) {
            Ok(cron) => Ok((entry, cron)),
            Err(error) => Err(Error::Cron {
                kind: entry.name,
                expression: entry.expression,
                reason: error.to_string(),
            }),
        };
        let crons = schedule
            .entries
            .into_iter()
            .map(parse)
            .collect::<Result<_, _>>()?;
        let last = Mutex::default();
        Ok(Self { queue, crons, last })
    }

    /// Enqueues what is due, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        // A damaged file takes no tick; the latest one is made up for once it is mended.
        let mended = || stop.run_until_cancelled(self.queue.database.mended());
        while mended().await.is_some() {
            let now = self.queue.database.now();
            let wait = match self.tick_at(now).await {
                Ok(()) => self.until_next(now),
                Err(error) => {
                    tracing::warn!(%error, "a tick of the schedule could not be enqueued");
                    REFUSED_WAIT
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Enqueues the latest tick of each entry that has one which is not enqueued yet, and returns.
    ///
    /// [`run`](Self::run) does this whenever one is due; a test may, with a clock that it holds.
    ///
    /// # Errors
    ///
    /// The first of those of [`Database::write`](crate::database::Database::write); what is left is due at the next
    /// call.
    pub async fn tick(&self) -> database::Result<()> {
        self.tick_at(self.queue.database.now()).await
    }

    async fn tick_at(&self, now: Timestamp) -> database::Result<()> {
        let mut result = Ok(());
        for (entry, cron) in &self.crons {
            let ticked = self.tick_entry(entry, cron, now).await;
            // One entry that fails must not keep the others from theirs.
            result = result.and(ticked);
        }
        result
    }

    async fn tick_entry(&self, entry: &Entry, cron: &Cron, now: Timestamp) -> database::Result<()> {
        let known = self.last().get(entry.name).copied();
        let before = match known {
            Some(before) => before,
            None => self.first(entry.name, now).await?,
        };
        let now_ms = now.as_millisecond();
        if before > now_ms {
            self.correct(entry.name, before, now_ms).await?;
            return Ok(());
        }
        let tick = previous(cron, now).map_or(before, Timestamp::as_millisecond);
        if tick > before {
            self.enqueue(entry, tick).await?;
        }
        self.last().insert(entry.name, tick.max(before));
        Ok(())
    }

    fn last(&self) -> MutexGuard<'_, HashMap<&'static str, i64>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last tick that the database knows; an entry that is new begins now.
    async fn first(&self, name: &'static str, now: Timestamp) -> database::Result<i64> {
        let now = now.as_millisecond();
        self.queue
            .database
            .write(move |tx| match store::last_tick(tx, name)? {
                Some(last) => Ok(last),
                None => Ok(store::record_tick(tx, name, now).map(|_| now)?),
            })
            .await
    }

    /// A tick in the future: the clock was ahead then, or is behind now. From now on it counts again.
    async fn correct(&self, name: &'static str, before: i64, now: i64) -> database::Result<()> {
        // A step of a second is what every clock does now and then.
        if before - now > CLOCK_STEP_MS {
            let ahead_s = (before - now) / 1_000;
            tracing::warn!(
                name,
                ahead_s,
                "the last tick is in the future: the clock was set back"
            );
        }
        self.queue
            .database
            .write(move |tx| Ok(store::correct_tick(tx, name, now)?))
            .await?;
        self.last().insert(name, now);
        Ok(())
    }

    async fn enqueue(&self, entry: &Entry, tick: i64) -> database::Result<()> {
        let (name, request) = (entry.name, entry.request);
        let queue = self.queue.clone();
        self.queue
            .database
            .write(move |tx| {
                if store::record_tick(tx, name, tick)? {
                    // One at a time: while nothing runs it, or it takes long, ticks do not pile up.
                    let key = format!("schedule:{name}");
                    let enqueued = queue.enqueue(tx, request().unique(key))?;
                    if !enqueued.is_new() && store::hasten(tx, enqueued.id())? {
                        queue.wake_after(tx);
                    }
                }
                Ok(())
            })
            .await
    }

    /// How long after `now`, when the ticks were looked at, the next one is.
    fn until_next(&self, looked: Timestamp) -> Duration {
        let now = self.queue.database.now();
        let next = self
            .crons
            .iter()
            .filter_map(|(_, cron)| next(cron, looked))
            .min();
        next.map_or(SLEEP_MAX, |next| {
            let wait = next.as_millisecond().saturating_sub(now.as_millisecond());
            Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(SLEEP_MAX)
        })
    }
}

/// The latest time up to `now` that the expression names.
fn previous(cron: &Cron, now: Timestamp) -> Option<Timestamp> {
    let found = cron.find_previous_occurrence(&utc(now), true).ok()?;
    Some(found.timestamp())
}

/// The first time after `now` that the expression names.
fn next(cron: &Cron, now: Timestamp) -> Option<Timestamp> {
    let found = cron.find_next_occurrence(&utc(now), false).ok()?;
    Some(found.timestamp())
}

/// The whole second: cron knows nothing finer.
fn utc(at: Timestamp) -> Zoned {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_zoned(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_previous_and_the_next_tick_lie_around_now() {
        let now = at("2026-11-21T10:00:07.500Z");
        for (expression, before, after) in [
            (
                "*/5 * * * * *",
                "2026-11-21T10:00:05Z",
                "2026-11-21T10:00:10Z",
            ),
            ("* * * * *", "2026-11-21T10:00:00Z", "2026-11-21T10:01:00Z"),
            ("30 2 * * *", "2026-11-21T02:30:00Z", "2026-11-22T02:30:00Z"),
        ] {
            let cron = Cron::from_str(expression).unwrap();
            assert_eq!(previous(&cron, now), Some(at(before)), "{expression}");
            assert_eq!(next(&cron, now), Some(at(after)), "{expression}");
        }
    }

    #[test]
    fn a_tick_at_this_second_is_due_and_is_not_the_next() {
        let cron = Cron::from_str("*/5 * * * * *").unwrap();
        let now = at("2026-11-21T10:00:05.001Z");
        assert_eq!(previous(&cron, now), Some(at("2026-11-21T10:00:05Z")));
        assert_eq!(next(&cron, now), Some(at("2026-11-21T10:00:10Z")));
    }
}
