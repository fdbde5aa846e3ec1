//! Whether this process may still write.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// The end of a right to write that has none.
const ALWAYS: u64 = u64::MAX;

/// Whether this process may still write: a right that runs out by itself unless it is extended.
///
/// The writer asks before each commit, and again before it answers: a process that was paused until another one took
/// over finds its fence closed when it wakes. Time is the machine's since its boot, which goes on while the machine
/// sleeps, and which nobody can set.
#[derive(Clone, Debug)]
pub struct Fence(Arc<AtomicU64>);

impl Fence {
    /// A fence that never closes: for a process that nobody else competes with.
    #[must_use]
    pub fn open() -> Self {
        Self(Arc::new(AtomicU64::new(ALWAYS)))
    }

    /// A fence that is closed until it is [extended](Self::extend).
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::default())
    }

    /// The time by which it is measured, since the machine's boot.
    #[must_use]
    pub fn now() -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// Lets this process write until `end`; an earlier end than before changes nothing.
    ///
    /// After [`shut`](Self::shut) it does nothing.
    pub fn extend(&self, end: Duration) {
        let end = nanoseconds(end);
        let longer = |until: u64| (until != SHUT && until < end).then_some(end);
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, longer);
    }

    /// As [`extend`](Self::extend), but does nothing once it has closed: for who cannot ask whether it may be opened.
    pub fn keep_open(&self, end: Duration) {
        let (end, now) = (nanoseconds(end), nanoseconds(Self::now()));
        let longer = |until: u64| (until > now && until < end).then_some(end);
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, longer);
    }

    /// Closes it for good.
    pub fn shut(&self) {
        self.0.store(SHUT, Ordering::Release);
    }

    /// Until when this process may write, by [`now`](Self::now), as far as is known; `None` if that has no end.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        let until = self.0.load(Ordering::Acquire);
        (until != ALWAYS).then(|| Duration::from_nanos(until))
    }

    /// Whether this process may write now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until == ALWAYS || nanoseconds(Self::now()) < until
    }
}

/// Never extended again; it has ended at the machine's first nanosecond.
const SHUT: u64 = 1;

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(ALWAYS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_by_itself_and_opens_again_when_extended() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        fence.extend(Fence::now() + Duration::from_mins(1));
        assert!(fence.is_open());
        // An answer that comes late takes nothing away.
        fence.extend(Duration::from_secs(1));
        assert!(fence.is_open());
    }

    #[test]
    fn one_that_has_closed_is_not_kept_open() {
        let fence = Fence::closed();
        fence.extend(Fence::now() + Duration::from_millis(1));
        while fence.is_open() {
            std::thread::yield_now();
        }
        fence.keep_open(Fence::now() + Duration::from_mins(1));
        assert!(!fence.is_open());
        fence.extend(Fence::now() + Duration::from_mins(1));
        fence.keep_open(Fence::now() + Duration::from_mins(2));
        assert!(fence.is_open());
    }

    #[test]
    fn one_that_is_shut_stays_so() {
        let fence = Fence::open();
        assert!(fence.is_open());
        fence.shut();
        fence.extend(Fence::now() + Duration::from_mins(1));
        assert!(!fence.is_open());
    }
}
