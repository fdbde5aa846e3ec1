//! Where the time comes from.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;

/// A source of the wall-clock time: the system's, or one that a test holds.
///
/// Cloning is cheap, and clones of a held clock move together.
/// Times are cut to milliseconds, which is what the tables keep.
#[derive(Clone, Debug)]
pub struct Clock {
    held: Option<Arc<Mutex<Timestamp>>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { held: None }
    }

    /// A clock that stands still at `now` until it is advanced.
    #[must_use]
    pub fn held(now: Timestamp) -> Self {
        Self {
            held: Some(Arc::new(Mutex::new(now))),
        }
    }

    /// The time now, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = match &self.held {
            Some(held) => *held.lock().unwrap_or_else(PoisonError::into_inner),
            None => Timestamp::now(),
        };
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// [`now`](Self::now) as numbers are kept: milliseconds since 1970.
    #[must_use]
    pub(crate) fn now_ms(&self) -> i64 {
        if self.held.is_some() {
            return self.now().as_millisecond();
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Before 1970 nobody has this program.
        now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
    }

    /// Sets a held clock, forward or back; does nothing to the system's.
    pub fn set(&self, to: Timestamp) {
        if let Some(held) = &self.held {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }

    /// Moves a held clock forward; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Some(held) = &self.held {
            let mut now = held.lock().unwrap_or_else(PoisonError::into_inner);
            *now = now.saturating_add(by).unwrap_or(Timestamp::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_held_clock_move_together() {
        let clock = Clock::held(Timestamp::from_second(1_000).unwrap());
        let other = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(other.now().as_millisecond(), 1_001_500);
    }
}
