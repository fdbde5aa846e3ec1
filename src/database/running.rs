//! What runs now: since when, how long it may, and who asked for it.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rusqlite::InterruptHandle;

use crate::database::clock::Clock;
use crate::database::fence::Fence;
use crate::database::health::Health;
use crate::database::slow::SlowLog;
use crate::database::stats::Place;
use crate::database::turn::Turn;

/// Longer than this nothing is waited for, whatever is asked: a year.
const TIME_MAX: Duration = Duration::from_hours(8_760);

/// When a read or a write is given up.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) place: Place,
    /// When its caller asked for it.
    pub(super) asked: Instant,
    /// When its turn came.
    pub(super) begun: Instant,
    pub(super) end: Instant,
    /// Whether its caller has left.
    pub(super) turn: Arc<Turn>,
    /// Whether it has taken long already.
    pub(super) is_long: bool,
}

impl Limit {
    pub(super) fn new(place: Place, time: Duration, turn: Arc<Turn>) -> Self {
        let asked = Instant::now();
        Self {
            place,
            asked,
            begun: asked,
            end: asked + time.min(TIME_MAX),
            turn,
            is_long: false,
        }
    }
}

/// What one thread reads now, if anything, and how to cut it off.
#[derive(Default)]
pub(super) struct Slot {
    limit: Mutex<Option<Limit>>,
    interrupt: OnceLock<InterruptHandle>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.lock(), formatter)
    }
}

impl Slot {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Limit>> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how to cut off what runs here.
    pub(super) fn cut_off_by(&self, handle: InterruptHandle) {
        // There is one connection to a slot.
        let _ = self.interrupt.set(handle);
    }

    /// Under the lock: what runs must still be what is meant.
    fn interrupt(&self) {
        if let Some(handle) = self.interrupt.get() {
            handle.interrupt();
        }
    }
}

/// A slot for each reader thread, and a list of what runs beside them.
#[derive(Clone, Debug)]
pub(super) struct Running {
    slots: Arc<[Slot]>,
    aside: Arc<Mutex<Vec<(&'static str, Instant)>>>,
}

impl Running {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            slots: (0..threads).map(|_| Slot::default()).collect(),
            aside: Arc::default(),
        }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot(&self, number: usize) -> &Slot {
        &self.slots[number]
    }

    /// Cuts a read off whose caller has left: not every statement asks the progress handler.
    pub(super) fn interrupt(&self, turn: &Arc<Turn>) {
        for slot in &*self.slots {
            let limit = slot.lock();
            if limit
                .as_ref()
                .is_some_and(|limit| Arc::ptr_eq(&limit.turn, turn))
            {
                slot.interrupt();
            }
        }
    }

    /// Cuts off every read.
    pub(super) fn interrupt_all(&self) {
        for slot in &*self.slots {
            let limit = slot.lock();
            if limit.is_some() {
                slot.interrupt();
            }
        }
    }

    /// Notes work on a connection of its own, a check or a copy, until the answer is dropped.
    pub(super) fn aside(&self, what: &'static str) -> Aside {
        let begun = Instant::now();
        self.others().push((what, begun));
        Aside(self.clone(), begun)
    }

    fn others(&self) -> MutexGuard<'_, Vec<(&'static str, Instant)>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been running longest: what it is, and for how long.
    pub(super) fn oldest(&self) -> Option<(String, Duration)> {
        let reads = self.slots.iter().filter_map(|slot| {
            let limit = slot.lock();
            let limit = limit.as_ref()?;
            Some((format!("a read at {}", limit.place), limit.begun))
        });
        let others = self.others();
        let others = others
            .iter()
            .map(|(what, begun)| ((*what).to_owned(), *begun));
        let (what, begun) = reads.chain(others).min_by_key(|(_, begun)| *begun)?;
        Some((what, begun.elapsed()))
    }
}

/// Says that work beside the readers goes on, until it is dropped.
#[derive(Debug)]
pub(super) struct Aside(Running, Instant);

impl Drop for Aside {
    fn drop(&mut self) {
        let mut others = self.0.others();
        if let Some(index) = others.iter().position(|(_, begun)| *begun == self.1) {
            others.swap_remove(index);
        }
    }
}

/// What every thread needs of the outside.
pub(super) struct Around {
    pub(super) running: Running,
    pub(super) health: Arc<Health>,
    pub(super) slow: Arc<SlowLog>,
    pub(super) clock: Clock,
    pub(super) fence: Fence,
}
