//! The wait of a request for somebody who serves: a place, and an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::HandoverSettings;

/// The places for requests that wait.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    time: Duration,
}

/// Why a request does not wait, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every place is taken.
    Full,
    /// It has waited as long as it may.
    Late,
    /// This container ends.
    Stopping,
}

/// Why a wait is over, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The front was turned.
    Changed,
    /// It is time to try again.
    Again,
}

/// One request's wait, which may have several parts; all of them together are bounded.
#[derive(Debug, Default)]
pub(super) struct Wait {
    place: Option<OwnedSemaphorePermit>,
    end: Option<Instant>,
}

impl Wait {
    /// Gives the place back: the request is in other hands.
    pub(super) fn leave(&mut self) {
        self.place = None;
    }
}

impl Places {
    pub(super) fn new(settings: &HandoverSettings) -> Self {
        Self {
            free: Arc::new(Semaphore::new(settings.hold_max)),
            all: settings.hold_max,
            time: settings.hold(),
        }
    }

    /// How many requests wait.
    pub(super) fn held(&self) -> usize {
        self.all - self.free.available_permits()
    }

    /// How long a request may wait.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Waits for `changed`, and for no longer than `pause`. The place is kept, since the wait may go on.
    pub(super) async fn hold(
        &self,
        wait: &mut Wait,
        changed: &mut watch::Receiver<()>,
        pause: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<Over, Refusal> {
        if wait.place.is_none() {
            let place = Arc::clone(&self.free).try_acquire_owned();
            wait.place = Some(place.map_err(|_| Refusal::Full)?);
        }
        let end = *wait.end.get_or_insert_with(|| Instant::now() + self.time);
        let until = pause.map_or(end, |pause| end.min(Instant::now() + pause));
        tokio::select! {
            biased;
            // It cannot fail: the front that sends owns these places.
            _ = changed.changed() => Ok(Over::Changed),
            () = stop.cancelled() => Err(Refusal::Stopping),
            () = tokio::time::sleep_until(until) => {
                if until < end { Ok(Over::Again) } else { Err(Refusal::Late) }
            }
        }
    }
}
