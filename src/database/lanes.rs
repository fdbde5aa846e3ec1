//! Which places in the code ask for reads that take long.
//!
//! Such reads have threads of their own, so that short ones never wait behind them. Nobody has to announce
//! anything: a place is known by how long its reads have taken. The table holds places with long reads only,
//! so looking up any other is one load.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::database::stats::Place;

/// A read that takes longer is a long one: some thousand times a point read.
pub(super) const LONG: Duration = Duration::from_millis(10);

/// One very long read does not outweigh more than a few short ones after it.
const TIME_MAX: Duration = Duration::from_millis(40);

/// A power of two; where two places with long reads meet, one of them is learnt anew.
const PLACES: usize = 1_024;

/// Average times, in microseconds, in the lower half; in the upper half what tells places of one slot apart.
#[derive(Debug)]
pub(super) struct Lanes {
    places: Box<[AtomicU64]>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Lanes {
    /// Whether reads of this place take long, as far as is known.
    pub(super) fn is_long(&self, place: Place) -> bool {
        let (slot, tag) = self.find(place);
        let entry = slot.load(Ordering::Relaxed);
        entry >> 32 == tag && average(entry) >= micros(LONG)
    }

    /// Notes that a read of this place is taking long, before it has ended.
    pub(super) fn is_taking_long(&self, place: Place) {
        let (slot, tag) = self.find(place);
        let entry = slot.load(Ordering::Relaxed);
        if entry >> 32 != tag || average(entry) < micros(LONG) {
            slot.store(tag << 32 | micros(LONG), Ordering::Relaxed);
        }
    }

    /// Notes how long a read of this place took.
    pub(super) fn took(&self, place: Place, time: Duration) {
        let (slot, tag) = self.find(place);
        let entry = slot.load(Ordering::Relaxed);
        let is_known = entry >> 32 == tag;
        if !is_known && time < LONG {
            return;
        }
        let time = micros(time.min(TIME_MAX));
        let average = if is_known {
            (average(entry) * 3 + time) / 4
        } else {
            time
        };
        slot.store(tag << 32 | average, Ordering::Relaxed);
    }

    fn find(&self, place: Place) -> (&AtomicU64, u64) {
        let address = u64::try_from(std::ptr::from_ref(place).addr()).unwrap_or(0);
        // Fibonacci hashing: the upper bits of the product are well mixed.
        let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = usize::try_from(hash >> 54).unwrap_or(0) % PLACES;
        // Never 0, which is an empty slot.
        (&self.places[index], (hash >> 20 & 0xffff_ffff) | 1)
    }
}

fn average(entry: u64) -> u64 {
    entry & 0xffff_ffff
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;

    #[test]
    fn a_place_is_long_while_its_reads_are() {
        let lanes = Lanes::default();
        let (slow, fast) = (Location::caller(), here());
        lanes.took(fast, Duration::from_micros(20));
        lanes.took(slow, Duration::from_secs(3));
        assert!(lanes.is_long(slow) && !lanes.is_long(fast));
        for _ in 0..5 {
            lanes.took(slow, Duration::from_micros(20));
        }
        assert!(!lanes.is_long(slow));
        lanes.is_taking_long(fast);
        assert!(lanes.is_long(fast));
        lanes.took(fast, Duration::from_micros(20));
        assert!(!lanes.is_long(fast));
    }

    #[track_caller]
    fn here() -> Place {
        Location::caller()
    }
}
