//! What looks at the clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::database;
use crate::database::Transaction;
use crate::queue::Enqueued;
use crate::queue::Error;
use crate::queue::Queue;
use crate::queue::Settings;
use crate::queue::schedule::Schedule;
use crate::queue::schedule::entry::Entry;
use crate::queue::schedule::entry::Missed;
use crate::queue::schedule::error::ScheduleError;
use crate::queue::schedule::rule::Rule;
use crate::queue::schedule::store;
use crate::queue::store::hasten;

/// The scheduler looks at the clock at least this often, in case somebody has set it.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// How long to wait before the ticks are tried again after the database refused.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// A clock that goes back by less is waited for.
const CLOCK_STEP_MS: i64 = 2_000;

/// A clock that goes back by more was wrong before: its ticks do not count.
const CLOCK_WRONG_MS: i64 = 3 * 3_600_000;

/// So many ticks are made up for in one transaction, so that a visitor's write does not wait for all of them.
const BATCH: usize = 100;

/// The longest name of an entry, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Enqueues the jobs of a [`Schedule`] when their time has come, and knows its entries. Cloning is cheap.
///
/// What is asked of it by name works from any process that has the database, whether or not it [runs](Self::run).
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(super) queue: Queue,
    pub(super) timed: Arc<[Arc<Timed>]>,
}

/// An entry that can be right.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) entry: Entry,
    pub(super) rule: Rule,
    /// The last tick that is known here, so that the database is asked only when one is due.
    known: Mutex<Option<i64>>,
}

impl Scheduler {
    /// A scheduler for a queue; `queue.zone` is the time zone of entries that name none.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] when an entry is wrong; those of [`Queue::enqueue`] when its job cannot be stored, which is
    /// tried by making each once.
    pub fn new(queue: Queue, schedule: Schedule, settings: &Settings) -> Result<Self, Error> {
        let now = queue.database.now();
        let mut names = HashSet::new();
        let mut timed = Vec::new();
        for entry in schedule.entries {
            check_name(&entry.name)?;
            if !names.insert(entry.name.clone()) {
                return Err(ScheduleError::Twice { name: entry.name }.into());
            }
            let rule = Rule::new(&entry, &settings.zone, now)?;
            entry.request(now).arguments?;
            let known = Mutex::default();
            timed.push(Arc::new(Timed { entry, rule, known }));
        }
        let timed = timed.into();
        Ok(Self { queue, timed })
    }

    /// Enqueues what is due, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        // A damaged file takes no tick; what is missed is made up for once it is mended.
        let mended = || stop.run_until_cancelled(self.queue.database.mended());
        while mended().await.is_some() {
            let now = self.queue.database.now();
            let wait = match self.tick_at(now).await {
                Ok(()) => self.until_next(now, self.queue.database.now()),
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

    /// Enqueues what is due and not enqueued yet, and returns.
    ///
    /// [`run`](Self::run) does this whenever something is due; a test may, with a clock that it holds.
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
        for timed in self.timed.iter() {
            let ticked = self.tick_entry(timed, now.as_millisecond()).await;
            // One entry that fails must not keep the others from theirs.
            result = result.and(ticked);
        }
        result
    }

    async fn tick_entry(&self, timed: &Arc<Timed>, now: i64) -> database::Result<()> {
        let last = match timed.known() {
            Some(last) => last,
            None => self.begin(timed).await?,
        };
        if last > now {
            return self.set_back(timed, last - now).await;
        }
        let Some(latest) = timed.rule.previous(now).filter(|latest| *latest > last) else {
            return Ok(());
        };
        let due = timed.rule.due(timed.entry.missed, last, latest, now);
        for batch in due.chunks(BATCH) {
            self.pass(timed, batch.to_vec(), batch[batch.len() - 1])
                .await?;
        }
        if due.is_empty() {
            self.pass(timed, due, latest).await?;
        }
        Ok(())
    }

    /// The last tick that the database knows; an entry that is new begins now.
    async fn begin(&self, timed: &Arc<Timed>) -> database::Result<i64> {
        let entry = Arc::clone(timed);
        let read = move |connection: &_| Ok(store::row(connection, &entry.entry.name)?);
        let last = if let Some(row) = self.queue.database.read(read).await? {
            row.last_tick_at
        } else {
            let entry = Arc::clone(timed);
            let begin = move |tx: &Transaction<'_>| Ok(store::begin(tx, &entry.entry.name)?);
            self.queue.database.write(begin).await?.last_tick_at
        };
        timed.knows(last);
        Ok(last)
    }

    /// Enqueues the jobs of ticks that no process has enqueued, and is done with all up to `passed`.
    async fn pass(&self, timed: &Arc<Timed>, ticks: Vec<i64>, passed: i64) -> database::Result<()> {
        let (queue, entry) = (self.queue.clone(), Arc::clone(timed));
        let write = self.queue.database.write(move |tx| {
            let name = &entry.entry.name;
            let row = store::begin(tx, name)?;
            store::advance(tx, name, passed)?;
            let is_new = |tick: &&i64| **tick > row.last_tick_at && row.paused_at.is_none();
            for tick in ticks.iter().filter(is_new) {
                let enqueued = entry.enqueue(&queue, tx, *tick)?;
                if !enqueued.is_new() {
                    // One that failed and waits runs now; one that was put off by itself keeps its time.
                    hasten(tx, enqueued.id(), false)?;
                }
            }
            Ok(row.last_tick_at.max(passed))
        });
        timed.knows(write.await?);
        Ok(())
    }

    /// The last tick is in the future by so much: the clock was ahead then, or is behind now.
    ///
    /// Ticks that come again are not enqueued again. But an entry must not be silent until then if it comes often,
    /// and none if the clock was wrong by hours: it goes on from now.
    async fn set_back(&self, timed: &Arc<Timed>, ahead: i64) -> database::Result<()> {
        let goes_on = timed.rule.is_often() && timed.entry.missed != Missed::All;
        if ahead <= CLOCK_STEP_MS || !goes_on && ahead <= CLOCK_WRONG_MS {
            return Ok(());
        }
        let entry = Arc::clone(timed);
        let write = self.queue.database.write(move |tx| {
            let name = &entry.entry.name;
            // Another process may have done it, and gone on since.
            let is_corrected = store::correct(tx, name, tx.now_ms() + CLOCK_STEP_MS)?;
            Ok((is_corrected, store::begin(tx, name)?.last_tick_at))
        });
        let (is_corrected, last) = write.await?;
        timed.knows(last);
        if is_corrected {
            tracing::warn!(
                name = timed.entry.name,
                ahead_s = ahead / 1_000,
                "the last tick is in the future: the clock was set back"
            );
        }
        Ok(())
    }

    /// How long it is from `now` to the first tick after `looked`, when they were looked at.
    fn until_next(&self, looked: Timestamp, now: Timestamp) -> Duration {
        let looked = looked.as_millisecond();
        let next = self
            .timed
            .iter()
            .filter_map(|timed| timed.rule.next(looked));
        next.min().map_or(SLEEP_MAX, |next| {
            let wait = next.saturating_sub(now.as_millisecond());
            Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(SLEEP_MAX)
        })
    }
}

impl Timed {
    fn known(&self) -> Option<i64> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, last: i64) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// Enqueues the job of a tick, unless one waits or runs that it may not stand beside.
    pub(super) fn enqueue(
        &self,
        queue: &Queue,
        tx: &Transaction<'_>,
        tick: i64,
    ) -> Result<Enqueued, Error> {
        let tick = Timestamp::from_millisecond(tick).unwrap_or(tx.now());
        let mut request = self.entry.request(tick);
        if let Some(key) = self.entry.key() {
            request = request.unique(key);
        }
        let enqueued = queue.enqueue(tx, request)?;
        if let Enqueued::New(id) = enqueued {
            store::enqueued(tx, &self.entry.name, id)?;
        }
        Ok(enqueued)
    }
}

fn check_name(name: &str) -> Result<(), ScheduleError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let name = name.to_owned();
        return Err(ScheduleError::Name { name });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::Serialize;

    use super::*;
    use crate::database::BoxError;
    use crate::database::Database;
    use crate::queue::Attempt;
    use crate::queue::Job;
    use crate::queue::MIGRATIONS;
    use crate::queue::Outcome;

    #[derive(Default, Deserialize, Serialize)]
    struct Nothing {}

    impl Job for Nothing {
        const NAME: &'static str = "nothing";
        type Context = ();

        async fn run(self, _: Attempt<()>) -> Result<Outcome, BoxError> {
            Ok(Outcome::Complete)
        }
    }

    async fn wait(expressions: &[&str], looked: &str, now: &str) -> Duration {
        let database = Database::open_temporary(&[MIGRATIONS]).await.unwrap();
        let entry = |text: &&str| Entry::cron::<Nothing>(text).name(*text);
        let entries = expressions.iter().map(entry);
        let schedule = entries.fold(Schedule::default(), Schedule::entry);
        let scheduler = Scheduler::new(Queue::new(database), schedule, &Settings::default());
        let at = |time: &str| format!("2026-11-21T{time}Z").parse().unwrap();
        scheduler.unwrap().until_next(at(looked), at(now))
    }

    #[tokio::test]
    async fn the_scheduler_sleeps_until_the_next_tick_and_a_minute_at_the_most() {
        let seconds = Duration::from_secs;
        let entries = ["0 * * * *", "@every 40s"];
        assert_eq!(wait(&entries, "10:00:00", "10:00:00").await, seconds(40));
        assert_eq!(
            wait(&entries, "10:59:59", "10:59:59.5").await,
            seconds(1) / 2
        );
        assert_eq!(wait(&entries[..1], "10:00:00", "10:00:00").await, SLEEP_MAX);
        assert_eq!(wait(&[], "10:00:00", "10:00:00").await, SLEEP_MAX);
        // A tick that came while the others were looked at.
        assert_eq!(wait(&entries, "10:00:39", "10:00:41").await, Duration::ZERO);
    }
}
