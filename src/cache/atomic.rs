//! What changes an entry by what it was: counters, locks among requests, limits of rate.
//!
//! Nobody of this process is in between. Another process on the same file may be: of what both write in the same
//! moment, the later stays.

use std::time::Duration;

use serde::Serialize;

use crate::cache::Cache;
use crate::cache::Error;
use crate::cache::Ttl;
use crate::cache::entry;
use crate::cache::entry::Entry;
use crate::cache::entry::Spot;
use crate::cache::tiers::Change;
use crate::cache::tiers::Read;

/// It is too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is too often; try again in {retry_after:?}")]
pub struct Refused {
    /// Then it would be allowed, if nobody else asks.
    pub retry_after: Duration,
}

impl Cache {
    /// Adds to the integer under a key, and returns the sum; without one it is `by`.
    ///
    /// The time counts for a new entry; one that is there keeps its own.
    ///
    /// # Errors
    ///
    /// [`Error::NotANumber`], [`Error::Overflow`]; the entry is as it was.
    pub async fn increment(
        &self,
        key: impl AsRef<[u8]>,
        by: i64,
        ttl: impl Into<Ttl>,
    ) -> Result<i64, Error> {
        let (key, ttl) = (key.as_ref(), ttl.into());
        let spot = self.spot_to_keep(key).await;
        let read = self.read_ahead(spot).await;
        let bytes_max = self.tiers.settings.value_bytes_max;
        let now = self.tiers.now();
        self.tiers.update(spot, read, |entry| {
            let entry = fresh(entry, now);
            let sum = match entry {
                None => Ok(by),
                Some(entry) => entry
                    .decode::<i64>()
                    .ok_or(Error::NotANumber)
                    .and_then(|value| {
                        let sum = value.checked_add(by);
                        sum.ok_or(Error::Overflow { value, by })
                    }),
            };
            let encoded = sum.and_then(|sum| Ok((sum, entry::encode(&sum, bytes_max)?)));
            match encoded {
                Ok((sum, _)) if entry.is_none() && ttl.is_zero() => (Change::Leave, Ok(sum)),
                Ok((sum, value)) => {
                    let times = entry.map_or_else(|| ttl.times(now), |entry| entry.times);
                    (Change::Put(value, times), Ok(sum))
                }
                Err(error) => (Change::Leave, Err(error)),
            }
        })
    }

    /// Keeps a value if there is none, and says whether it did: of several who try, one does.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn put_if_absent<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<bool, Error> {
        let (key, ttl) = (key.as_ref(), ttl.into());
        let value = entry::encode(value, self.tiers.settings.value_bytes_max)?;
        let spot = self.spot_to_keep(key).await;
        let read = self.read_ahead(spot).await;
        let now = self.tiers.now();
        Ok(self
            .tiers
            .update(spot, read, |entry| match fresh(entry, now) {
                Some(_) => (Change::Leave, false),
                None if ttl.is_zero() => (Change::Leave, true),
                None => (Change::Put(value, ttl.times(now)), true),
            }))
    }

    /// Gives an entry another time, from now on, and says whether there is one.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Into<Ttl>) -> bool {
        let (key, ttl) = (key.as_ref(), ttl.into());
        if ttl.is_zero() {
            let is_there = self.find_fresh(key).await.is_some();
            self.remove(key).await;
            return is_there;
        }
        let Some(spot) = self.spot(key).await else {
            return false;
        };
        let read = self.read_ahead(spot).await;
        let now = self.tiers.now();
        self.tiers
            .update(spot, read, |entry| match fresh(entry, now) {
                Some(entry) => (Change::Put(entry.value.clone(), ttl.times(now)), true),
                None => (Change::Leave, false),
            })
    }

    /// Allows something at most so often within a time, for whoever has this key.
    ///
    /// It is the generic cell rate algorithm (GCRA): so many may come at once, and then one at each `per / at_most`.
    /// What is refused does not count. 0 for `at_most` is taken for 1; times are counted to a millisecond.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the time after which it is allowed again.
    pub async fn allow(
        &self,
        key: impl AsRef<[u8]>,
        at_most: u32,
        per: Duration,
    ) -> Result<(), Refused> {
        let spot = self.spot_to_keep(key.as_ref()).await;
        let read = self.read_ahead(spot).await;
        let now = self.tiers.now();
        let micros =
            |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4);
        let now_us = now.saturating_mul(1_000);
        let per = micros(per).min(i64::MAX / 4);
        let step = (per / i64::from(at_most.max(1))).max(1);
        self.tiers.update(spot, read, |entry| {
            // When all that was allowed will have been paid off; no later than it can be, if the clock was set back.
            let paid_at = entry.and_then(Entry::decode::<i64>).unwrap_or(now_us);
            let paid_at = paid_at.clamp(now_us, now_us.saturating_add(per));
            let ahead = paid_at.saturating_add(step).saturating_sub(now_us);
            if ahead > per.max(step) {
                let micros = u64::try_from(ahead - per).unwrap_or(0);
                let retry_after = Duration::from_micros(micros);
                return (Change::Leave, Err(Refused { retry_after }));
            }
            let paid_at = now_us.saturating_add(ahead);
            match entry::encode(&paid_at, usize::MAX) {
                Ok(value) => {
                    let until = paid_at / 1_000 + 1;
                    let ttl = Duration::from_millis(u64::try_from(until - now).unwrap_or(0));
                    (Change::Put(value, Ttl::fresh(ttl).times(now)), Ok(()))
                }
                // An integer can always be encoded.
                Err(_) => (Change::Leave, Ok(())),
            }
        })
    }

    /// What is at a spot, where the disk is too slow to be asked with a lock in hand.
    async fn read_ahead(&self, spot: Spot<'_>) -> Option<Read> {
        if !self.tiers.readers.is_slow() {
            return None;
        }
        let guard = self.tiers.waiting.guard(spot.hash);
        let entry = self.find_at(spot).await;
        Some(Read { guard, entry })
    }
}

fn fresh(entry: Option<&Entry>, now: i64) -> Option<&Entry> {
    entry.filter(|entry| entry.is_fresh(now))
}
