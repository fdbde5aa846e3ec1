//! How the platform's grace is divided at the end.

use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::http;
use crate::http::HandoverSettings;

/// What is kept back, so that the end is before the kill.
const SPARE: Duration = Duration::from_millis(500);

/// For giving the lease back, and telling the next container, when the last copy is made or given up.
const LEAVE: Duration = Duration::from_secs(2);

/// With less, requests and jobs could not end in any order.
const STOP_MIN: Duration = Duration::from_millis(500);

/// The times of an end, which fit into the platform's grace together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// From the stop signal to the platform's kill.
    pub(super) grace: Duration,
    /// For requests, jobs, and closing the files.
    pub(super) stop: Duration,
    /// For the last copy to the bucket, and giving the lease back.
    pub(super) sync: Duration,
    /// From the stop signal until nothing is passed on any more.
    pub(super) linger: Duration,
}

impl Budget {
    /// Divides the grace: the copy gets its time whole, and requests and jobs what is left, up to `server.stop_ms`.
    pub(super) fn of(
        server: &http::Settings,
        handover: &HandoverSettings,
        is_replicated: bool,
    ) -> Result<Self> {
        let grace = handover.grace();
        let (sync, leave) = if is_replicated {
            (Duration::from_millis(handover.sync_ms), LEAVE)
        } else {
            (Duration::ZERO, Duration::ZERO)
        };
        let stop = grace.saturating_sub(sync + leave + SPARE);
        if stop < STOP_MIN {
            return Err(Error::Times(format!(
                "handover.sync_ms = {} leaves requests and jobs no time within handover.grace_ms = {}: \
                 lower the first, or let the platform wait longer and raise the second",
                sync.as_millis(),
                grace.as_millis()
            )));
        }
        Ok(Self {
            grace,
            stop: stop.min(server.stop()),
            sync,
            linger: Duration::from_millis(handover.linger_ms).min(grace.saturating_sub(SPARE)),
        })
    }

    /// What the last copy may take, so long after the signal: all that the end does not need.
    pub(super) fn copy(&self, since_signal: Duration) -> Duration {
        let left = self.grace.saturating_sub(since_signal + LEAVE + SPARE);
        left.max(self.sync / 4)
    }

    /// What is left at the very end, so long after the signal.
    pub(super) fn until_kill(&self, since_signal: Duration) -> Duration {
        self.grace.saturating_sub(since_signal + SPARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Auto;

    fn budget(grace_ms: u64, sync_ms: u64, stop_ms: u64) -> Result<Budget> {
        let server = http::Settings {
            stop_ms,
            ..http::Settings::default()
        };
        let handover = HandoverSettings {
            grace_ms: Auto::Given(grace_ms),
            sync_ms,
            ..HandoverSettings::default()
        };
        Budget::of(&server, &handover, true)
    }

    #[test]
    fn the_parts_fit_into_the_grace() {
        let parts = budget(10_000, 3_000, 10_000).unwrap();
        assert_eq!(parts.stop, Duration::from_millis(4_500));
        assert!(parts.stop + parts.sync < parts.grace);
        assert!(parts.linger < parts.grace);
        let parts = budget(30_000, 3_000, 10_000).unwrap();
        assert_eq!(parts.stop, Duration::from_secs(10));
    }

    #[test]
    fn times_that_leave_nothing_are_refused_by_name() {
        let error = budget(5_500, 3_000, 10_000).unwrap_err().to_string();
        assert!(error.contains("handover.sync_ms = 3000"), "{error}");
        assert!(error.contains("handover.grace_ms = 5500"), "{error}");
    }
}
