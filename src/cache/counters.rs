//! What the cache counts of itself, without a place where all threads meet.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    MemoryHit,
    FileHit,
    Miss,
    Put,
    Delete,
    /// A put for which there was no room among the waiting writes in time.
    Dropped,
}

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    MemoryGet,
    FileGet,
    Put,
    Flush,
}

const COUNTS: usize = 6;
const OPS: usize = 4;

/// A thread has one of so many sets of counters.
const STRIPES: usize = 16;

/// Times go into classes by their number of binary digits, in nanoseconds: up to half a minute.
const CLASSES: usize = 36;

/// One in so many is timed: to ask the time twice costs as much as a get.
const SAMPLE: u64 = 64;

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    stripes: [Stripe; STRIPES],
    times: [Times; OPS],
}

/// The counters of some threads, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    counts: [AtomicU64; COUNTS],
}

#[derive(Debug)]
struct Times {
    classes: [AtomicU64; CLASSES],
}

impl Default for Times {
    fn default() -> Self {
        let classes = [const { AtomicU64::new(0) }; CLASSES];
        Self { classes }
    }
}

/// How long something takes, for those who happen to be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer(Option<Instant>);

/// How long an operation took, of those that were timed: one in 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Half of them took no longer.
    pub median: Duration,
    /// One in a hundred took longer.
    pub p99: Duration,
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    static TURN: Cell<u64> = const { Cell::new(0) };
}

/// Threads are numbered as they come.
pub(super) fn thread_number() -> usize {
    THREAD.with(|number| *number)
}

impl Counters {
    pub(super) fn add(&self, count: Count) {
        let stripe = &self.stripes[thread_number() % STRIPES];
        stripe.counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self, count: Count) -> u64 {
        let stripes = self.stripes.iter();
        stripes
            .map(|stripe| stripe.counts[count as usize].load(Ordering::Relaxed))
            .sum()
    }

    /// Begins to time one in 64.
    pub(super) fn sample() -> Timer {
        let turn = TURN.with(|turn| {
            turn.set(turn.get().wrapping_add(1));
            turn.get()
        });
        Timer(turn.is_multiple_of(SAMPLE).then(Instant::now))
    }

    /// Begins to time.
    pub(super) fn timer() -> Timer {
        Timer(Some(Instant::now()))
    }

    pub(super) fn record(&self, op: Op, timer: Timer) {
        if let Timer(Some(begun)) = timer {
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let class = (u64::BITS - nanos.leading_zeros()) as usize;
            let classes = &self.times[op as usize].classes;
            classes[class.min(CLASSES - 1)].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn timing(&self, op: Op) -> Timing {
        let classes = &self.times[op as usize].classes;
        let classes: Vec<u64> = classes
            .iter()
            .map(|class| class.load(Ordering::Relaxed))
            .collect();
        let all: u64 = classes.iter().sum();
        let at = |part: u64| {
            let mut left = part;
            let found = classes.iter().position(|&class| {
                let is_in_it = left < class;
                left = left.saturating_sub(class);
                is_in_it
            });
            // The middle of the class, as the times in it grow.
            found.map_or(Duration::ZERO, |class| {
                Duration::from_nanos((1_u64 << class) * 3 / 4)
            })
        };
        Timing {
            median: at(all / 2),
            p99: at(all * 99 / 100),
        }
    }
}
