//! The tier in memory: the entries that were of use, up to so many bytes.

use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;

use quick_cache::OptionsBuilder;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use quick_cache::sync::DefaultLifecycle;

use crate::cache::Settings;
use crate::cache::entry::Entry;

/// Entries by their hash.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<u64, Arc<Entry>, Bytes, BuildHasherDefault<AsItIs>>,
}

/// Entries are weighed in bytes.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<u64, Arc<Entry>> for Bytes {
    fn weight(&self, _: &u64, entry: &Arc<Entry>) -> u64 {
        entry.weight() as u64
    }
}

/// What an entry is thought to take at least, in bytes, when the tables are made.
const ENTRY_BYTES: u64 = 512;

/// Each part of the memory holds at least so many of the largest values.
const VALUES_A_PART: u64 = 4;

impl Memory {
    /// None, where it may not hold anything.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let bytes_max = settings.memory_bytes_max;
        if bytes_max == 0 {
            return None;
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let parts = bytes_max / (VALUES_A_PART * settings.value_bytes_max as u64);
        let parts = usize::try_from(parts)
            .unwrap_or(usize::MAX)
            .clamp(1, cores * 4);
        let entries = usize::try_from(bytes_max / ENTRY_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity(entries.clamp(16, 1 << 22))
            .shards(parts)
            .build()
            .ok()?;
        let entries = Cache::with_options(
            options,
            Bytes,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        Some(Self { entries })
    }

    pub(super) fn get(&self, hash: u64) -> Option<Arc<Entry>> {
        self.entries.get(&hash)
    }

    pub(super) fn insert(&self, hash: u64, entry: Arc<Entry>) {
        self.entries.insert(hash, entry);
    }

    pub(super) fn remove(&self, hash: u64) {
        self.entries.remove(&hash);
    }

    pub(super) fn clear(&self) {
        self.entries.clear();
    }

    /// How many entries there are, and what they take in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.entries.weight())
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
