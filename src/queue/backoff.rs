//! How long a job waits between its attempts.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// What is added by chance is less than this part of a wait, so that what failed together is not tried together.
const JITTER: f64 = 0.1;

/// The longest wait: who waits longer has given up.
const WAIT_MAX: Duration = Duration::from_hours(24 * 366);

/// How long a job waits after an attempt that failed, where the request says so and not the job's type.
///
/// To each wait up to a tenth more is added by chance, as [`Job::backoff`](crate::queue::Job::backoff) does by default.
///
/// ```
/// use std::time::Duration;
/// use houseboat::queue::Backoff;
/// // 1 s, 2 s, 4 s, and so on; a minute at the most.
/// let patient = Backoff::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(60));
/// assert!(patient.wait(3) >= Duration::from_secs(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    first_ms: u64,
    factor: f64,
    most_ms: u64,
}

impl Backoff {
    /// The same wait after each attempt; at most 366 days, in whole milliseconds.
    #[must_use]
    pub fn fixed(wait: Duration) -> Self {
        Self::exponential(wait, 1.0, wait)
    }

    /// `first` after the first attempt, and `factor` times as long after each further one, but no longer than `most`.
    ///
    /// A factor that is less than 1, or no number, is taken for 1; times are at most 366 days, in whole milliseconds.
    #[must_use]
    pub fn exponential(first: Duration, factor: f64, most: Duration) -> Self {
        let millis = |wait: Duration| u64::try_from(wait.min(WAIT_MAX).as_millis()).unwrap_or(0);
        Self {
            first_ms: millis(first),
            // JSON has no infinity; with the greatest number it is `most` from the second attempt on as well.
            factor: if factor >= 1.0 {
                factor.min(f64::MAX)
            } else {
                1.0
            },
            most_ms: millis(most),
        }
    }

    /// The wait after the given attempt, from 1, with what chance adds.
    #[must_use]
    pub fn wait(&self, attempt: u32) -> Duration {
        let most = Duration::from_millis(self.most_ms).min(WAIT_MAX);
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait = Duration::from_millis(self.first_ms).as_secs_f64() * self.factor.powi(exponent);
        // Not a number: nothing, infinitely often.
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(if wait.is_nan() {
            Duration::ZERO
        } else {
            most
        });
        jittered(wait.min(most))
    }
}

/// A wait, and up to a tenth more by chance.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait + wait.mul_f64(fastrand::f64() * JITTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits in whole seconds, of whose chance nothing is left.
    fn waits(backoff: Backoff, attempts: &[u32]) -> Vec<u64> {
        let wait = |attempt: &u32| {
            let waits = (0..50).map(|_| backoff.wait(*attempt));
            let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
            for wait in waits {
                (least, most) = (least.min(wait), most.max(wait));
            }
            let base = Duration::from_secs(least.as_secs());
            assert!(most <= base.mul_f64(1.1), "{most:?} after {attempt}");
            assert!(most > least || base.is_zero(), "nothing is left to chance");
            base.as_secs()
        };
        attempts.iter().map(wait).collect()
    }

    #[test]
    fn waits_are_the_same_or_grow_to_the_most_that_they_may_be() {
        let seconds = Duration::from_secs;
        assert_eq!(waits(Backoff::fixed(seconds(7)), &[1, 2, 20]), [7, 7, 7]);
        let grows = Backoff::exponential(seconds(2), 3.0, seconds(60));
        let attempts = [1, 2, 3, 4, 5, u32::MAX];
        assert_eq!(waits(grows, &attempts), [2, 6, 18, 54, 60, 60]);
    }

    #[test]
    fn what_cannot_be_is_taken_for_what_is_next_to_it() {
        let seconds = Duration::from_secs;
        for factor in [0.5, -1.0, f64::NAN] {
            let same = Backoff::exponential(seconds(5), factor, seconds(60));
            assert_eq!(waits(same, &[1, 9]), [5, 5], "{factor}");
        }
        let leaps = Backoff::exponential(seconds(5), f64::INFINITY, seconds(60));
        assert_eq!(waits(leaps, &[1, 2, 9]), [5, 60, 60]);
        let nothing = Backoff::exponential(Duration::ZERO, f64::INFINITY, seconds(60));
        assert_eq!(waits(nothing, &[1, 9]), [0, 0]);
        let longest = Backoff::fixed(Duration::MAX).wait(1);
        assert!((WAIT_MAX..=WAIT_MAX.mul_f64(1.1)).contains(&longest));
    }

    #[test]
    fn it_is_the_same_after_it_was_stored() {
        for factor in [1.5, f64::INFINITY] {
            let backoff = Backoff::exponential(Duration::from_millis(1_500), factor, WAIT_MAX);
            let json = serde_json::to_string(&backoff).unwrap();
            assert_eq!(serde_json::from_str::<Backoff>(&json).unwrap(), backoff);
        }
    }
}
