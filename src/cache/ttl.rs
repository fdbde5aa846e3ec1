//! How long an entry is good.

use std::time::Duration;

/// How long an entry is kept: fresh for a while, and if wanted stale for a while after that.
///
/// A [`Duration`] is a time to be fresh; `None` is until it is evicted. [`fetch`](crate::cache::Cache::fetch) gives a
/// stale value at once and has a new one computed behind it; for everything else a stale entry is not there.
///
/// A time of zero keeps nothing, and what was there is gone.
///
/// ```
/// use std::time::Duration;
/// use houseboat::cache::Ttl;
///
/// let news = Ttl::fresh(Duration::from_secs(60)).stale(Duration::from_secs(600));
/// assert_eq!(Ttl::from(Duration::from_secs(60)), Ttl::fresh(Duration::from_secs(60)));
/// # let _ = news;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// `None`: for ever.
    fresh: Option<Duration>,
    stale: Duration,
}

/// The moments at which an entry is no longer fresh, and no longer there, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) fresh_until: i64,
    pub(super) expires_at: i64,
}

/// The moment that never comes.
pub(super) const NEVER: i64 = i64::MAX;

/// By such a part of its time, at most, an entry is taken for stale earlier, by chance: what was computed together is not
/// to be computed anew together.
const JITTER: u32 = 10;

impl Ttl {
    /// Fresh for so long.
    #[must_use]
    pub const fn fresh(fresh: Duration) -> Self {
        Self {
            fresh: Some(fresh),
            stale: Duration::ZERO,
        }
    }

    /// Fresh until it is evicted.
    #[must_use]
    pub const fn forever() -> Self {
        Self {
            fresh: None,
            stale: Duration::ZERO,
        }
    }

    /// And after that for so long good enough until a new value has been computed.
    #[must_use]
    pub const fn stale(self, stale: Duration) -> Self {
        Self { stale, ..self }
    }

    /// Whether nothing is to be kept.
    pub(super) fn is_zero(self) -> bool {
        self.fresh.is_some_and(|fresh| fresh.as_millis() == 0) && self.stale.as_millis() == 0
    }

    /// A little less, by chance.
    pub(super) fn jittered(self) -> Self {
        let fresh = self
            .fresh
            .map(|fresh| fresh.saturating_sub((fresh / JITTER).mul_f64(fastrand::f64())));
        Self { fresh, ..self }
    }

    pub(super) fn times(self, now: i64) -> Times {
        let fresh_until = self
            .fresh
            .map_or(NEVER, |fresh| now.saturating_add(millis(fresh)));
        Times {
            fresh_until,
            expires_at: fresh_until.saturating_add(millis(self.stale)),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(fresh: Duration) -> Self {
        Self::fresh(fresh)
    }
}

impl From<Option<Duration>> for Ttl {
    fn from(fresh: Option<Duration>) -> Self {
        fresh.map_or(Self::forever(), Self::fresh)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(NEVER)
}
