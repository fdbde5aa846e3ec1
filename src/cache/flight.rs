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

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::cache::entry::Spot;

/// Nobody waits longer for another's computation; then they compute themselves.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// When a computation has failed, so many of those who waited for it compute at the same time.
const AFTER_FAILURE: usize = 16;

/// The computations that are under way, by namespace and key.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<(u64, Box<[u8]>), Arc<Flight>>>,
}

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
    /// To compute it. The permit goes with the computation; without one, the wait was too long.
    Compute(Option<OwnedSemaphorePermit>),
    /// To take it.
    Take(Bytes),
}

impl Flights {
    /// The computation of a key, and whether it is a new one.
    pub(super) fn join(&self, spot: Spot<'_>) -> (Arc<Flight>, bool) {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&(spot.space, spot.key.into()) as &(u64, Box<[u8]>)) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight {
            turns: Arc::new(Semaphore::new(1)),
            answer: OnceLock::new(),
            has_failed: AtomicBool::new(false),
        });
        flights.insert((spot.space, spot.key.into()), Arc::clone(&flight));
        (flight, true)
    }

    /// Who comes from now on does not get what is computed now.
    pub(super) fn forget(&self, spot: Spot<'_>) {
        let mut flights = self.lock();
        if !flights.is_empty() {
            flights.remove(&(spot.space, spot.key.into()));
        }
    }

    /// The same for all keys.
    pub(super) fn clear(&self) {
        self.lock().clear();
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
        let mut flights = self.lock();
        let key = (spot.space, spot.key.into());
        if flights
            .get(&key)
            .is_some_and(|found| Arc::ptr_eq(found, flight))
        {
            flights.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, Box<[u8]>), Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for the value, or for the turn to compute it.
    pub(super) async fn turn(&self) -> Turn {
        let permit = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        if let Some(value) = self.answer.get() {
            return Turn::Take(value.clone());
        }
        Turn::Compute(permit.ok().and_then(Result::ok))
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
