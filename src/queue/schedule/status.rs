//! How the entries stand, and what can be done with one of them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::database;
use crate::queue::Error;
use crate::queue::State;
use crate::queue::schedule::error::ScheduleError;
use crate::queue::schedule::scheduler::Scheduler;
use crate::queue::schedule::scheduler::Timed;
use crate::queue::schedule::store;
use crate::queue::schedule::store::Row;
use crate::queue::store::hasten;
use crate::queue::store::stands;

/// An entry of the schedule, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// The name of its job.
    pub kind: &'static str,
    /// When it is due: a cron expression, or `@every` and a period.
    pub expression: String,
    /// The time zone that the expression is read in; none if it has a period.
    pub zone: Option<String>,
    /// When a job of it was enqueued last, at a tick or by hand.
    pub last: Option<Timestamp>,
    /// When it is due next; none while it is paused.
    pub next: Option<Timestamp>,
    /// Whether its ticks pass without a job.
    pub is_paused: bool,
    /// The job that was enqueued last, which may be pruned by now.
    pub last_job: Option<i64>,
}

/// What became of an entry that was to be run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunNow {
    /// The job of the entry that is there now.
    pub job: i64,
    /// Whether it was enqueued for this, and none was there before.
    pub is_new: bool,
    /// Whether it was there before and waited for a later time: after a failure, or put off. It is due now.
    pub is_hastened: bool,
    /// Where it stands. One that was there before and waits runs as soon as it can; one that runs or is parked is as
    /// it was.
    pub state: State,
}

impl Scheduler {
    /// The entries, in the order in which the site names them.
    ///
    /// # Errors
    ///
    /// Those of [`Database::read`](crate::database::Database::read).
    pub async fn schedule(&self) -> database::Result<Vec<Scheduled>> {
        let (now, entries) = (self.queue.database.now(), Arc::clone(&self.timed));
        let read = self.queue.database.read(move |connection| {
            let row = |timed: &Arc<Timed>| store::row(connection, &timed.entry.name);
            Ok(entries.iter().map(row).collect::<Result<Vec<_>, _>>()?)
        });
        let rows = read.await?;
        let with_rows = self.timed.iter().zip(rows);
        Ok(with_rows
            .map(|(timed, row)| timed.status(row.unwrap_or_default(), now))
            .collect())
    }

    /// Pauses an entry: from the next tick on, in every process, its ticks pass without a job.
    ///
    /// They are not made up for when it is [resumed](Self::resume_entry). Says whether it was not paused.
    ///
    /// # Errors
    ///
    /// [`ScheduleError::Unknown`] when there is no such entry; those of
    /// [`Database::write`](crate::database::Database::write).
    pub async fn pause_entry(&self, name: &str) -> Result<bool, Error> {
        let entry = self.entry(name)?;
        let write = self.queue.database.write(move |tx| {
            // One that has never been run by any process has no row yet.
            store::begin(tx, &entry.entry.name)?;
            Ok(store::pause(tx, &entry.entry.name)?)
        });
        Ok(write.await?)
    }

    /// Ends a pause: the entry is due at its next tick. Says whether it was paused.
    ///
    /// # Errors
    ///
    /// Those of [`pause_entry`](Self::pause_entry).
    pub async fn resume_entry(&self, name: &str) -> Result<bool, Error> {
        let entry = self.entry(name)?;
        let write = self
            .queue
            .database
            .write(move |tx| Ok(store::resume(tx, &entry.entry.name)?));
        Ok(write.await?)
    }

    /// Enqueues an entry's job now, whatever the clock says and paused or not.
    ///
    /// If a job of the entry waits or runs already and it is not [overlapping](super::Entry::overlapping), none is
    /// added: then one that waits runs now, whether for its next attempt or since it was put off. The ticks stay as they
    /// are.
    ///
    /// # Errors
    ///
    /// Those of [`pause_entry`](Self::pause_entry), and of [`Queue::enqueue`](crate::queue::Queue::enqueue).
    pub async fn run_now(&self, name: &str) -> Result<RunNow, Error> {
        let (queue, entry) = (self.queue.clone(), self.entry(name)?);
        let write = self.queue.database.write(move |tx| {
            store::begin(tx, &entry.entry.name)?;
            let enqueued = entry.enqueue(&queue, tx, tx.now_ms())?;
            let job = enqueued.id();
            let is_new = enqueued.is_new();
            let is_hastened = !is_new && hasten(tx, job, true)?;
            let (state, _) = stands(tx, job)?;
            Ok(RunNow {
                job,
                is_new,
                is_hastened,
                state,
            })
        });
        Ok(write.await?)
    }

    fn entry(&self, name: &str) -> Result<Arc<Timed>, ScheduleError> {
        let found = self.timed.iter().find(|timed| timed.entry.name == name);
        found.cloned().ok_or_else(|| ScheduleError::Unknown {
            name: name.to_owned(),
            known: self.known_names(),
        })
    }

    fn known_names(&self) -> String {
        let names = self
            .timed
            .iter()
            .map(|timed| format!("{:?}", timed.entry.name));
        match names.reduce(|all, name| all + ", " + &name) {
            Some(names) => format!("those that there are: {names}"),
            None => "it is empty".to_owned(),
        }
    }
}

impl Timed {
    fn status(&self, row: Row, now: Timestamp) -> Scheduled {
        let time = |at| Timestamp::from_millisecond(at).ok();
        // After a clock was set back, ticks that were do not come again.
        let after = now.as_millisecond().max(row.last_tick_at);
        let is_paused = row.paused_at.is_some();
        let next = (!is_paused).then(|| self.rule.next(after)).flatten();
        Scheduled {
            name: self.entry.name.clone(),
            kind: self.entry.kind,
            expression: self.entry.timing.to_string(),
            zone: self.rule.zone().map(str::to_owned),
            last: row.enqueued_at.and_then(time),
            next: next.and_then(time),
            is_paused,
            last_job: row.job_id,
        }
    }
}
