//! The reads that run now: since when, how long they may, and who asked for them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use crate::database::clock::Clock;
use crate::database::health::Health;
use crate::database::slow::SlowLog;
use crate::database::stats::Place;

/// What one thread reads now, if anything.
pub(super) type Slot = Mutex<Option<Limit>>;

/// Longer than this nothing is waited for, whatever is asked: a year.
const TIME_MAX: Duration = Duration::from_hours(8_760);

/// When a read is given up: after its time, or when its caller has left.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) place: Place,
    /// When its caller asked for it.
    pub(super) asked: Instant,
    /// When its turn came.
    pub(super) begun: Instant,
    pub(super) end: Instant,
    pub(super) left: Arc<AtomicBool>,
    /// Whether it has taken long already.
    pub(super) is_long: bool,
}

impl Limit {
    pub(super) fn new(place: Place, time: Duration, left: Arc<AtomicBool>) -> Self {
        let asked = Instant::now();
        Self {
            place,
            asked,
            begun: asked,
            end: asked + time.min(TIME_MAX),
            left,
            is_long: false,
        }
    }
}

/// A slot for each reader thread.
#[derive(Clone, Debug)]
pub(super) struct Running {
    slots: Arc<[Slot]>,
}

impl Running {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            slots: (0..threads).map(|_| Slot::default()).collect(),
        }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot(&self, number: usize) -> &Slot {
        &self.slots[number]
    }

    /// The read that has been running longest: where it comes from, and for how long.
    pub(super) fn oldest(&self) -> Option<(Place, Duration)> {
        let begun = self.slots.iter().filter_map(|slot| {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().map(|limit| (limit.place, limit.begun))
        });
        let (place, begun) = begun.min_by_key(|(_, begun)| *begun)?;
        Some((place, begun.elapsed()))
    }
}

/// What every thread needs of the outside.
pub(super) struct Around {
    pub(super) running: Running,
    pub(super) health: Arc<Health>,
    pub(super) slow: Arc<SlowLog>,
    pub(super) clock: Clock,
}
