//! Who computes what at this moment: one for each key, and the others wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::cache::entry::Spot;

/// After so long a computation is taken for failed by those who wait for it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A refresh that failed is not tried again before this time.
const REST: Duration = Duration::from_secs(1);

/// No more keys are remembered for that.
const RESTING_MAX: usize = 10_000;

/// When a computation has failed, so many of those who waited for it compute at the same time.
const AFTER_FAILURE: usize = 16;

/// The computations that are under way, by namespace and key.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<Place, Arc<Flight>>>,
    /// When a refresh failed that is not to be tried again at once.
    failed: Mutex<HashMap<Place, Instant>>,
}

/// A namespace and a key.
type Place = (u64, Box<[u8]>);

/// One computation, or after it failed those of the ones who waited.
#[derive(Debug)]
pub(super) struct Flight {
    turns: Arc<Semaphore>,
    /// The value, encoded.
    answer: OnceLock<Bytes>,
    has_failed: AtomicBool,
}

/// What somebody who wants a value is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// To compute it. The permit goes with the computation.
    Compute(Option<OwnedSemaphorePermit>),
    /// To take it.
    Take(Bytes),
}

impl Flights {
    /// The computation of a key, and whether it is a new one.
    pub(super) fn join(&self, spot: Spot<'_>) -> (Arc<Flight>, bool) {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&place(spot)) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight {
            turns: Arc::new(Semaphore::new(1)),
            answer: OnceLock::new(),
            has_failed: AtomicBool::new(false),
        });
        flights.insert(place(spot), Arc::clone(&flight));
        (flight, true)
    }

    /// Whether a value may be refreshed, because that has not failed just now.
    pub(super) fn may_refresh(&self, spot: Spot<'_>) -> bool {
        let failed = lock(&self.failed);
        let failed = (!failed.is_empty()).then(|| failed.get(&place(spot)).copied());
        failed.flatten().is_none_or(|at| at.elapsed() >= REST)
    }

    /// A refresh failed.
    pub(super) fn rest(&self, spot: Spot<'_>) {
        let mut failed = lock(&self.failed);
        if failed.len() >= RESTING_MAX {
            failed.retain(|_, at| at.elapsed() < REST);
        }
        if failed.len() < RESTING_MAX {
            failed.insert(place(spot), Instant::now());
        }
    }

    /// Who comes from now on does not get what is computed now.
    pub(super) fn forget(&self, spot: Spot<'_>) {
        let mut flights = lock(&self.flights);
        if !flights.is_empty() {
            flights.remove(&place(spot));
        }
    }

    /// The same for all keys.
    pub(super) fn clear(&self) {
        lock(&self.flights).clear();
    }

    /// A value was computed: those who wait get it.
    pub(super) fn answer(&self, spot: Spot<'_>, flight: &Arc<Flight>, value: Option<Bytes>) {
        self.leave(spot, flight);
        if let Some(value) = value {
            let _ = flight.answer.set(value);
            flight.turns.close();
        } else {
            flight.fail();
        }
    }

    /// A computation failed: some of those who wait may try.
    pub(super) fn fail(&self, spot: Spot<'_>, flight: &Arc<Flight>) {
        self.leave(spot, flight);
        flight.fail();
    }

    fn leave(&self, spot: Spot<'_>, flight: &Arc<Flight>) {
        let mut flights = lock(&self.flights);
        let key = place(spot);
        if flights
            .get(&key)
            .is_some_and(|found| Arc::ptr_eq(found, flight))
        {
            flights.remove(&key);
        }
    }
}

fn place(spot: Spot<'_>) -> Place {
    (spot.space, spot.key.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flight {
    /// Waits for the value, or for the turn to compute it.
    pub(super) async fn turn(&self) -> Turn {
        loop {
            let turn = Arc::clone(&self.turns).acquire_owned();
            let turn = tokio::time::timeout(WAIT_MAX, turn).await;
            if let Some(value) = self.answer.get() {
                return Turn::Take(value.clone());
            }
            match turn {
                Ok(permit) => return Turn::Compute(permit.ok()),
                // One that hangs is taken for failed.
                Err(_) => self.fail(),
            }
        }
    }

    /// The turn to compute, if nobody has it.
    pub(super) fn turn_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).try_acquire_owned().ok()
    }

    fn fail(&self) {
        if !self.has_failed.swap(true, Ordering::SeqCst) {
            self.turns.add_permits(AFTER_FAILURE - 1);
        }
    }
}
