//! One entry: whose it is, its value, and how long it is good.

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
        }
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
        OVERHEAD + self.key.len() + self.value.len()
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
