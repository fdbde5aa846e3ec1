//! What a site says of one entry of its schedule.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::queue::Job;
use crate::queue::Request;

/// A job, and when it is enqueued.
///
/// ```
/// # use houseboat::queue::{Entry, Job, Missed, Schedule};
/// # use std::time::Duration;
/// # fn example<Backup: Job + Default, Poll: Job>(poll: fn() -> Poll) {
/// let schedule = Schedule::default()
///     .entry(Entry::cron::<Backup>("30 2 * * *").zone("Europe/Berlin"))
///     .entry(Entry::every::<Poll>(Duration::from_secs(90)).missed(Missed::Skip).job(poll));
/// # let _ = schedule;
/// # }
/// ```
///
/// `M` is how its job is made: [`ByDefault`] until [`job`](Entry::job) is called, [`Given`] from then on.
#[derive(Clone, Debug)]
pub struct Entry<M = Given> {
    pub(super) name: String,
    /// The job's name.
    pub(super) kind: &'static str,
    pub(super) timing: Timing,
    pub(super) zone: Option<String>,
    pub(super) missed: Missed,
    pub(super) is_overlapping: bool,
    pub(super) job: M,
}

/// The job is `J::default()`.
pub struct ByDefault<J>(PhantomData<fn() -> J>);

/// The job is what a closure gives.
#[derive(Clone)]
pub struct Given(Arc<dyn Fn(Timestamp) -> Request + Send + Sync>);

/// When an entry is due, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    Expression(String),
    Every(Duration),
}

/// What becomes of ticks that passed while no process was there to enqueue them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// The latest of them is made up for, once.
    #[default]
    Once,
    /// Each of them is made up for, oldest first: at most the latest 1 000, and none that is older than 31 days.
    ///
    /// Each tick has its job then, as if the entry was [overlapping](Entry::overlapping).
    All,
    /// None of them is made up for. A tick that is less than a minute late is not missed.
    Skip,
}

impl Entry {
    /// A `J` at each time that an expression names.
    ///
    /// Five fields (minute, hour, day of month, month, day of week), or six with seconds in front; names of days and
    /// months; `L`, `W` and `#`; `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`; or `@every` and a time, which
    /// is [`every`](Self::every). If both days are given, either is enough.
    ///
    /// At the change to summer time and back, a tick comes once: where the clocks go forward and leave its time out,
    /// at the moment they do; where they go back and show it twice, at the first. Not so the expressions that name
    /// every hour: they follow the clocks as they go, so that `*/10 * * * *` comes every ten minutes all night, and
    /// `0 * * * *` 23 or 25 times that day.
    ///
    /// What is wrong with an expression is an error at the start.
    #[must_use]
    pub fn cron<J: Job>(expression: &str) -> Entry<ByDefault<J>> {
        Entry::of(Timing::Expression(expression.to_owned()))
    }

    /// A `J` in each period of this length, which is from 1 s to 366 days, in whole seconds.
    ///
    /// Ticks are at its multiples since 1970, UTC, so that processes and restarts agree on them.
    #[must_use]
    pub fn every<J: Job>(period: Duration) -> Entry<ByDefault<J>> {
        Entry::of(Timing::Every(period))
    }

    /// What is enqueued for a tick.
    pub(super) fn request(&self, tick: Timestamp) -> Request {
        (self.job.0)(tick)
    }

    /// The key that holds it to one job at a time, if it is to be so.
    pub(super) fn key(&self) -> Option<String> {
        let is_overlapping = self.is_overlapping || self.missed == Missed::All;
        (!is_overlapping).then(|| format!("schedule:{}", self.name))
    }
}

impl<J: Job> Entry<ByDefault<J>> {
    fn of(timing: Timing) -> Self {
        Self {
            name: J::NAME.to_owned(),
            kind: J::NAME,
            timing,
            zone: None,
            missed: Missed::Once,
            is_overlapping: false,
            job: ByDefault(PhantomData),
        }
    }

    /// Says what the job is, where `J::default()` is not it.
    #[must_use]
    pub fn job(self, job: impl Fn() -> J + Send + Sync + 'static) -> Entry {
        self.job_for(move |_| job())
    }

    /// Says what the job for a tick is; one that is enqueued by hand is for the moment of that.
    #[must_use]
    pub fn job_for(self, job: impl Fn(Timestamp) -> J + Send + Sync + 'static) -> Entry {
        let job = Given(Arc::new(move |tick| Request::new(&job(tick))));
        Entry {
            name: self.name,
            kind: self.kind,
            timing: self.timing,
            zone: self.zone,
            missed: self.missed,
            is_overlapping: self.is_overlapping,
            job,
        }
    }
}

impl<M> Entry<M> {
    /// Names it, where the job's name will not do: names are unique in a schedule.
    ///
    /// 1 to 100 bytes without control characters. By the name it is known to the database, so that one that is
    /// renamed begins anew.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, ..self }
    }

    /// Reads its expression in this time zone, by its IANA name; `queue.zone` of the settings without it.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        let zone = Some(zone.into());
        Self { zone, ..self }
    }

    /// Says what becomes of ticks that passed while the site was down.
    #[must_use]
    pub fn missed(self, missed: Missed) -> Self {
        Self { missed, ..self }
    }

    /// Enqueues each tick's job, whether or not the one before is done.
    ///
    /// Without it, ticks add none while a job of the entry waits or runs; one that failed and waits for its next
    /// attempt runs at the tick.
    #[must_use]
    pub fn overlapping(self) -> Self {
        Self {
            is_overlapping: true,
            ..self
        }
    }
}

impl<J: Job + Default> From<Entry<ByDefault<J>>> for Entry {
    fn from(entry: Entry<ByDefault<J>>) -> Self {
        entry.job(J::default)
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expression(expression) => formatter.write_str(expression),
            Self::Every(period) => match SignedDuration::try_from(*period) {
                Ok(period) => write!(formatter, "@every {period:#}"),
                Err(_) => write!(formatter, "@every {}s", period.as_secs()),
            },
        }
    }
}

impl<J> fmt::Debug for ByDefault<J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ByDefault")
    }
}

impl<J> Clone for ByDefault<J> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Given")
    }
}
