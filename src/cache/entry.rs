//! One entry: whose it is, its value, and how long it is good.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::Error;
use crate::cache::ttl::Times;

/// Where an entry is: the namespace, the key, and the hash of both, by which both tiers find it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) hash: u64,
    pub(super) space: u64,
    pub(super) key: &'a [u8],
}

impl<'a> Spot<'a> {
    /// The seed is the file's own, so that nobody can choose keys that get in each other's way; and if two do, one is
    /// a miss.
    pub(super) fn new(seed: u64, space: u64, key: &'a [u8]) -> Self {
        let hash = xxh3_64_with_seed(key, seed ^ space.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { hash, space, key }
    }
}

/// What is kept under a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) space: u64,
    pub(super) key: Box<[u8]>,
    pub(super) value: Bytes,
    pub(super) put_at: i64,
    pub(super) times: Times,
    /// As of when other processes' writes have been seen to leave it alone.
    epoch: AtomicU64,
    parsed: Option<Parsed>,
}

/// What a reader has made of a value, so that the next one need not.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) what: Arc<dyn Any + Send + Sync>,
    /// What it takes in memory beside the value.
    pub(super) bytes: usize,
}

/// What an entry takes in memory beside its key and its value: itself, its counters, and its places in the tables.
const OVERHEAD: usize = 192;

impl Entry {
    pub(super) fn new(spot: Spot<'_>, value: Bytes, now: i64, times: Times, epoch: u64) -> Self {
        Self {
            space: spot.space,
            key: spot.key.into(),
            value,
            put_at: now,
            times,
            epoch: AtomicU64::new(epoch),
            parsed: None,
        }
    }

    /// The same with what was made of it: another entry, since its weight is another.
    pub(super) fn with(&self, parsed: Parsed) -> Self {
        Self {
            space: self.space,
            key: self.key.clone(),
            value: self.value.clone(),
            put_at: self.put_at,
            times: self.times,
            epoch: AtomicU64::new(self.epoch()),
            parsed: Some(parsed),
        }
    }

    /// What was made of it, if that is of this type.
    pub(super) fn parsed<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let parsed = self.parsed.as_ref()?;
        Arc::clone(&parsed.what).downcast().ok()
    }

    pub(super) fn is_at(&self, spot: Spot<'_>) -> bool {
        self.space == spot.space && *self.key == *spot.key
    }

    pub(super) fn is_fresh(&self, now: i64) -> bool {
        now < self.times.fresh_until
    }

    /// Fresh or stale.
    pub(super) fn is_there(&self, now: i64) -> bool {
        now < self.times.expires_at
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(super) fn confirm(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Whether another is this one, epochs aside.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.put_at == other.put_at && self.times == other.times && self.value == other.value
    }

    /// What it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let parsed = self.parsed.as_ref().map_or(0, |parsed| parsed.bytes);
        OVERHEAD + self.key.len() + self.value.len() + parsed
    }

    /// What is stored beside it, so that a value is served only as it was put, and under its own key.
    pub(super) fn checksum(&self, hash: u64) -> i64 {
        let times = self.times.fresh_until.rotate_left(17) ^ self.times.expires_at.rotate_left(41);
        let seed = hash ^ times.cast_unsigned();
        xxh3_64_with_seed(&self.value, seed).cast_signed()
    }

    pub(super) fn decode<T: DeserializeOwned>(&self) -> Option<T> {
        decode(&self.value)
    }
}

/// `MessagePack` with the names of the fields: values outlive the program that wrote them, and by the names a
/// changed type is told from the old one.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T, bytes_max: usize) -> Result<Bytes, Error> {
    let encoded = rmp_serde::to_vec_named(value)?;
    let bytes = encoded.len();
    if bytes > bytes_max {
        return Err(Error::TooLarge { bytes, bytes_max });
    }
    Ok(encoded.into())
}

/// A value of another type is a miss.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match rmp_serde::from_slice(bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::debug!(%error, "a cached value of another type is a miss");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::cache::Settings;
    use crate::cache::Ttl;
    use crate::database::Clock;

    const KEY: &[u8] = b"key";

    async fn cache(folder: &tempfile::TempDir) -> Cache {
        let path = folder.path().join("cache.sqlite3");
        let settings = Settings {
            path,
            ..Settings::default()
        };
        Cache::open(&settings, Clock::system()).await
    }

    /// How many entries memory has, and what they weigh.
    fn size(cache: &Cache) -> (u64, u64) {
        cache.tiers.memory.as_ref().unwrap().size()
    }

    #[tokio::test]
    async fn what_is_made_of_a_value_is_made_once_and_weighed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder).await;
        cache.put(KEY, "one", Ttl::forever()).await.unwrap();
        let (entries, weight) = size(&cache);
        let length = |value: &Bytes| Some((value.len(), 1_000));
        let first = cache.get_parsed(KEY, length).await.unwrap();
        assert_eq!(*first, 4);
        assert_eq!(size(&cache), (entries, weight + 1_000));
        let none = |_: &Bytes| -> Option<(usize, usize)> { panic!("it is there") };
        let again = cache.get_parsed(KEY, none).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        // As another type it is made anew, in the place of the first.
        let copy = |value: &Bytes| Some((value.to_vec(), 10));
        assert_eq!(*cache.get_parsed(KEY, copy).await.unwrap(), b"\xa3one");
        assert_eq!(size(&cache), (entries, weight + 10));
        // It goes with its value.
        cache.put(KEY, "seven", Ttl::forever()).await.unwrap();
        assert_eq!(size(&cache), (entries, weight + 2));
        assert_eq!(*cache.get_parsed(KEY, length).await.unwrap(), 6);
        // What cannot be made is not there.
        cache.put(KEY, "eight", Ttl::forever()).await.unwrap();
        let none = |_: &Bytes| -> Option<(usize, usize)> { None };
        assert!(cache.get_parsed(KEY, none).await.is_none());
        assert_eq!(size(&cache), (entries, weight + 2));
        cache.close().await;
    }

    #[tokio::test]
    async fn what_is_refused_goes_with_what_was_made_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder).await;
        cache.put(KEY, "one", Ttl::forever()).await.unwrap();
        let entry = cache.find(KEY).await.unwrap();
        let hash = cache.tiers.spot(entry.space, KEY).hash;
        let (entries, _) = size(&cache);
        cache.get_parsed(KEY, |_| Some(((), 1_000))).await.unwrap();
        cache.tiers.refuse(hash, &entry);
        assert_eq!(size(&cache).0, entries - 1);
        // Another value is left where it is.
        cache.put(KEY, "two", Ttl::forever()).await.unwrap();
        cache.tiers.refuse(hash, &entry);
        assert_eq!(size(&cache).0, entries);
        cache.close().await;
    }
}
