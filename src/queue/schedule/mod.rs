//! What enqueues jobs by the clock.
//!
//! A [`Schedule`] is what a site says, a [`Scheduler`] is what does it. A tick and its job are recorded in one
//! transaction, so that each tick happens once, however many processes there are.

mod calendar;
mod entry;
mod error;
mod rule;
mod scheduler;
mod status;
mod store;

pub use self::entry::ByDefault;
pub use self::entry::Entry;
pub use self::entry::Given;
pub use self::entry::Missed;
pub use self::error::ScheduleError;
pub(super) use self::rule::zone_of;
pub use self::scheduler::Scheduler;
pub use self::status::RunNow;
pub use self::status::Scheduled;

use crate::queue::Job;

/// Which jobs are enqueued when.
///
/// ```
/// # use houseboat::queue::{Entry, Job, Schedule};
/// # fn example<SendDigest: Job + Default, Backup: Job + Default>() {
/// let schedule = Schedule::default()
///     .cron::<SendDigest>("0 7 * * mon-fri")
///     .entry(Entry::cron::<Backup>("30 2 * * *").zone("Europe/Berlin"));
/// # let _ = schedule;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    entries: Vec<Entry>,
}

impl Schedule {
    /// Enqueues a `J` at each time that the expression names, as [`Entry::cron`] has it.
    ///
    /// A tick is enqueued once, however many processes share the database; ticks missed while the site was down
    /// are made up for by a single one. While a tick's job waits or runs, further ticks add none; one that failed and
    /// waits for its next attempt runs at the tick.
    #[must_use]
    pub fn cron<J: Job + Default>(self, expression: &str) -> Self {
        self.entry(Entry::cron::<J>(expression))
    }

    /// Adds an entry. One whose job is not [given](Entry::job) needs a job that is `Default`.
    #[must_use]
    pub fn entry(mut self, entry: impl Into<Entry>) -> Self {
        self.entries.push(entry.into());
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
        self.entries.iter().map(|entry| entry.kind)
    }
}
