//! What was done, counted where it is done, and added up when somebody asks.

use std::panic::Location;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use serde::Serialize;

use crate::database::Damage;
use crate::database::Error;

/// Where in the code a read or a write was asked for.
pub(super) type Place = &'static Location<'static>;

/// How a database has been doing since it was opened, and how large it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// The reads.
    pub reads: Work,
    /// The writes.
    pub writes: Work,
    /// Commits; each is for all writes that waited together.
    pub commits: u64,
    /// Statements that took longer than `slow_ms`.
    pub slow: u64,
    /// Checkpoints that brought the whole WAL into the file.
    pub checkpoints: u64,
    /// The size of the WAL file, in bytes.
    pub wal_bytes: u64,
    /// The pages of the database; `None` if it could not be asked within a second.
    pub pages: Option<Pages>,
    /// What was found, if the file is damaged.
    pub damage: Option<Damage>,
}

/// The pages of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pages {
    /// The size of each, in bytes.
    pub bytes_each: u64,
    /// How many there are, the unused ones included.
    pub count: u64,
    /// How many are not used: they are filled before the file grows.
    pub unused: u64,
}

/// How reads, or writes, have been doing. Times are as the caller sees them, the wait included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Work {
    /// Those that ended, whether well or not.
    pub done: u64,
    /// Those that ended with an error, of the caller's own too.
    pub failed: u64,
    /// Those that were refused at once, because `waiting_max` waited already.
    pub refused: u64,
    /// Those that were given up because their time was over.
    pub late: u64,
    /// Those that wait for their turn now.
    pub waiting: usize,
    /// Those that run now.
    pub running: usize,
    /// Half of them took no longer than this; at most a quarter too high.
    pub median: Duration,
    /// Of a hundred, 99 took no longer than this; at most a quarter too high.
    pub p99: Duration,
    /// The longest one.
    pub longest: Duration,
}

/// Four steps to each doubling, from a microsecond to beyond an hour.
const STEPS: usize = 136;

/// What one thread counts. Threads have one each, so that they do not wait for one another's.
#[derive(Debug)]
pub(super) struct Counter {
    failed: AtomicU64,
    late: AtomicU64,
    longest_us: AtomicU64,
    times: [AtomicU64; STEPS],
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            failed: AtomicU64::default(),
            late: AtomicU64::default(),
            longest_us: AtomicU64::default(),
            times: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl Counter {
    /// Counts one that has ended.
    pub(super) fn ended(&self, time: Duration, error: Option<&Error>) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(slot) = self.times.get(step(us)) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
        if us > self.longest_us.load(Ordering::Relaxed) {
            self.longest_us.fetch_max(us, Ordering::Relaxed);
        }
        match error {
            None => {}
            Some(Error::Timeout { .. }) => _ = self.late.fetch_add(1, Ordering::Relaxed),
            Some(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Asks a database how large it is.
pub(super) fn pages(connection: &Connection) -> rusqlite::Result<Pages> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok(Pages {
        bytes_each: number("page_size")?,
        count: number("page_count")?,
        unused: number("freelist_count")?,
    })
}

/// Adds up what threads have counted.
pub(super) fn sum<'a>(counters: impl Iterator<Item = &'a Counter>) -> Work {
    let mut work = Work::default();
    let mut times = [0_u64; STEPS];
    for counter in counters {
        work.failed += counter.failed.load(Ordering::Relaxed);
        work.late += counter.late.load(Ordering::Relaxed);
        let longest = Duration::from_micros(counter.longest_us.load(Ordering::Relaxed));
        work.longest = work.longest.max(longest);
        for (sum, slot) in times.iter_mut().zip(&counter.times) {
            *sum += slot.load(Ordering::Relaxed);
        }
    }
    work.done = times.iter().sum();
    work.median = quantile(&times, work.done, 50).min(work.longest);
    work.p99 = quantile(&times, work.done, 99).min(work.longest);
    work
}

/// Which slot a time belongs to: the position of its highest bit, and the two bits after it.
fn step(us: u64) -> usize {
    let us = us.max(4);
    let octave = us.ilog2();
    let quarter = (us >> (octave - 2)) & 3;
    let step = u64::from(octave - 2) * 4 + quarter;
    usize::try_from(step).map_or(STEPS - 1, |step| step.min(STEPS - 1))
}

/// The time below which so many percent lie: the end of their slot.
fn quantile(times: &[u64; STEPS], all: u64, percent: u64) -> Duration {
    let wanted = (all * percent).div_ceil(100);
    let mut seen = 0;
    for (step, count) in (0_u64..).zip(times) {
        seen += count;
        if seen >= wanted && seen > 0 {
            let (octave, quarter) = (step / 4 + 2, step % 4);
            let us = 1_u64.checked_shl(u32::try_from(octave).unwrap_or(63));
            let us = us.unwrap_or(u64::MAX);
            return Duration::from_micros((us / 4).saturating_mul(quarter + 5));
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_never_too_low_and_at_most_a_quarter_too_high() {
        let counter = Counter::default();
        for us in 1..=10_000 {
            counter.ended(Duration::from_micros(us), None);
        }
        let work = sum([&counter].into_iter());
        assert_eq!(work.done, 10_000);
        for (found, exact) in [(work.median, 5_000), (work.p99, 9_900)] {
            let us = u64::try_from(found.as_micros()).unwrap();
            assert!((exact..=exact * 5 / 4).contains(&us), "{us} for {exact}");
        }
        assert_eq!(work.longest, Duration::from_millis(10));
    }

    #[test]
    fn nothing_and_the_longest_of_times_have_their_place() {
        assert_eq!(sum([].into_iter()), Work::default());
        let counter = Counter::default();
        counter.ended(Duration::MAX, Some(&Error::Closed));
        let work = sum([&counter].into_iter());
        assert_eq!((work.done, work.failed, work.late), (1, 1, 0));
    }
}
