//! Which entries were asked for since the last time that eviction came by.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A bit for each hash's beginning; two that share one are spared together, which does no harm.
#[derive(Debug)]
pub(super) struct Marks {
    words: Box<[AtomicU64]>,
    shift: u32,
}

/// What an entry is thought to take at least, in bytes: there are so many bits that each entry has about its own.
const ENTRY_BYTES: u64 = 256;

const BITS_MIN: u64 = 1 << 16;
const BITS_MAX: u64 = 1 << 26;

impl Marks {
    pub(super) fn new(bytes_max: u64) -> Self {
        let bits = (bytes_max / ENTRY_BYTES)
            .clamp(BITS_MIN, BITS_MAX)
            .next_power_of_two();
        let words = (0..bits / 64).map(|_| AtomicU64::new(0)).collect();
        let shift = u64::BITS - bits.trailing_zeros();
        Self { words, shift }
    }

    pub(super) fn set(&self, hash: u64) {
        let (word, bit) = self.at(hash);
        // Most are set already, and reading costs the other cores nothing.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether it was set; it no longer is.
    pub(super) fn take(&self, hash: u64) -> bool {
        let (word, bit) = self.at(hash);
        word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    fn at(&self, hash: u64) -> (&AtomicU64, u64) {
        let at = hash >> self.shift;
        // Up to 2^26 bits: the place fits any `usize`.
        let word = usize::try_from(at / 64).unwrap_or(0);
        (&self.words[word], 1 << (at % 64))
    }
}
