//! `fetch`: a value from the cache, or computed once, however many ask for it.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::cache::Cache;
use crate::cache::Error;
use crate::cache::Ttl;
use crate::cache::entry;
use crate::cache::entry::Entry;
use crate::cache::flight::Flight;
use crate::cache::flight::Turn;
use crate::cache::tiers::Begun;

/// One computation: what it is for.
#[derive(Debug)]
struct Work {
    cache: Cache,
    space: u64,
    key: Box<[u8]>,
    flight: Arc<Flight>,
    /// Whether somebody has a stale value meanwhile.
    is_refresh: bool,
}

impl Cache {
    /// The value of a key, or what `compute` gives, which is then kept.
    ///
    /// At most one computation for a key runs at a time in this process; others who ask wait for its value, up to 10 s,
    /// and compute it themselves then. It is a task of its own: if the caller leaves, it goes on. If it fails or panics,
    /// its caller is told, and those who waited compute themselves, at most 16 at a time.
    ///
    /// With a [stale](Ttl::stale) time, a value whose fresh time is over is given at once, and one computation runs
    /// behind it. If that fails, it is tried again after a second.
    ///
    /// The fresh time is shortened by up to a tenth, by chance, so that what was computed together does not end
    /// together. If the key is deleted or forgotten while a value is computed, the value is given to those who asked
    /// before, and is not kept. One that is too large is given and not kept, with a warning.
    ///
    /// # Errors
    ///
    /// What `compute` returns; that is not kept.
    ///
    /// # Panics
    ///
    /// As `compute` does.
    pub async fn fetch<T, E, F>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<Ttl>,
        compute: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let ttl = ttl.into();
        let compute = async move || Ok((compute().await?, ttl));
        self.fetch_as(key.as_ref(), false, compute).await
    }

    /// As [`fetch`](Self::fetch), for a value that says itself how long it is good.
    ///
    /// With `again` a value that is there does not count; one that is computed just now does.
    pub(crate) async fn fetch_as<T, E, F>(
        &self,
        key: &[u8],
        again: bool,
        compute: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<(T, Ttl), E>> + Send + 'static,
    {
        if !again && let Some((entry, value)) = self.decode(self.find(key).await) {
            if !entry.is_fresh(self.tiers.now()) {
                self.refresh(key, compute).await;
            }
            return Ok(value);
        }
        let spot = self.spot_to_keep(key).await;
        let (flight, _) = self.flights.join(spot);
        let permit = match flight.turn().await {
            Turn::Take(value) => match entry::decode(&value) {
                Some(value) => return Ok(value),
                None => None,
            },
            Turn::Compute(permit) => permit,
        };
        // Another one may have ended between the look and this; whoever has the turn looks again.
        if !again && let Some((entry, value)) = self.decode(self.look_at(spot).await.0) {
            self.flights
                .answer(spot, &flight, Some(entry.value.clone()));
            return Ok(value);
        }
        let work = Work {
            cache: self.clone(),
            space: spot.space,
            key: key.into(),
            flight,
            is_refresh: false,
        };
        match work.start(permit, compute).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        }
    }

    /// An entry and its value, if it is there, fresh or stale, and of this type.
    fn decode<T: DeserializeOwned>(&self, found: Option<Arc<Entry>>) -> Option<(Arc<Entry>, T)> {
        let entry = found?;
        if !entry.is_there(self.tiers.now()) {
            return None;
        }
        let value = entry.decode()?;
        Some((entry, value))
    }

    /// Computes a stale value anew, unless somebody does.
    async fn refresh<T, E, F>(&self, key: &[u8], compute: impl FnOnce() -> F + Send + 'static)
    where
        T: Serialize + Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<(T, Ttl), E>> + Send + 'static,
    {
        let Some(spot) = self.spot(key).await else {
            return;
        };
        if !self.flights.may_refresh(spot) {
            return;
        }
        let (flight, is_new) = self.flights.join(spot);
        if !is_new {
            return;
        }
        let Some(permit) = flight.turn_now() else {
            return;
        };
        let work = Work {
            cache: self.clone(),
            space: spot.space,
            key: key.into(),
            flight,
            is_refresh: true,
        };
        drop(work.start(Some(permit), compute));
    }
}

impl Work {
    /// Computes in a task of its own.
    fn start<T, E, F>(
        self,
        permit: Option<OwnedSemaphorePermit>,
        compute: impl FnOnce() -> F + Send + 'static,
    ) -> JoinHandle<Result<Result<T, E>, Box<dyn Any + Send>>>
    where
        T: Serialize + Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<(T, Ttl), E>> + Send + 'static,
    {
        let task = async move {
            let tiers = Arc::clone(&self.cache.tiers);
            let spot = tiers.spot(self.space, &self.key);
            let begun = tiers.begin(spot.hash);
            let computed = AssertUnwindSafe(async { compute().await })
                .catch_unwind()
                .await;
            if let Ok(Ok((value, ttl))) = &computed {
                let value = self.encode(value);
                if let Some(value) = &value {
                    self.keep(value.clone(), *ttl, begun).await;
                }
                self.cache.flights.answer(spot, &self.flight, value);
            } else {
                if self.is_refresh {
                    self.cache.flights.rest(spot);
                }
                self.cache.flights.fail(spot, &self.flight);
            }
            drop(permit);
            computed.map(|computed| computed.map(|(value, _)| value))
        };
        tokio::spawn(task.in_current_span())
    }

    /// The value for those who wait, of whatever size.
    fn encode<T: Serialize>(&self, value: &T) -> Option<Bytes> {
        match entry::encode(value, usize::MAX) {
            Ok(value) => Some(value),
            Err(error) => {
                let key = self.key.escape_ascii();
                tracing::warn!(%key, %error, "a computed value is not cached");
                None
            }
        }
    }

    async fn keep(&self, value: Bytes, ttl: Ttl, begun: Begun) {
        let tiers = &self.cache.tiers;
        let (bytes, bytes_max) = (value.len(), tiers.settings.value_bytes_max);
        if bytes > bytes_max {
            let error = Error::TooLarge { bytes, bytes_max };
            let key = self.key.escape_ascii();
            tracing::warn!(%key, %error, "a computed value is not cached");
            return;
        }
        if ttl.is_zero() || !tiers.has_room().await {
            return;
        }
        let times = ttl.jittered().times(tiers.now());
        tiers.put(tiers.spot(self.space, &self.key), value, times, Some(begun));
    }
}
