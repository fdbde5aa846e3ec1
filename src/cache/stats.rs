//! What the cache says of itself.

use std::sync::PoisonError;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::counters::Count;
use crate::cache::counters::Op;
use crate::cache::counters::Timing;
use crate::cache::memory::Memory;

/// How the cache is used, and what it takes. The counts of calls are this process's, since it opened the cache; what
/// the file says is as of its last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Gets that memory answered, or what waits to be written.
    pub memory_hits: u64,
    /// Gets that the file answered.
    pub file_hits: u64,
    /// Gets that found nothing.
    pub misses: u64,
    /// Values kept.
    pub puts: u64,
    /// Keys deleted, and times that all were.
    pub deletes: u64,
    /// Values that were not kept, because the disk did not keep up.
    pub dropped: u64,
    /// Entries in memory.
    pub memory_entries: u64,
    /// What they take, in bytes.
    pub memory_bytes: u64,
    /// What waits to be written, in bytes.
    pub waiting_bytes: u64,
    /// Whether there is a file.
    pub has_file: bool,
    /// Entries in the file.
    pub file_entries: u64,
    /// What the file uses, in bytes, without its WAL.
    pub file_bytes: u64,
    /// What the file has free, in bytes.
    pub file_bytes_free: u64,
    /// Entries that were evicted since the file was made.
    pub evicted: u64,
    /// Entries that were removed after their time since the file was made.
    pub expired: u64,
    /// How long ago the entry was put that is the next to be looked at for eviction.
    pub oldest: Option<Duration>,
    /// How long a get took that memory answered.
    pub memory_get: Timing,
    /// How long a get took that asked the file.
    pub file_get: Timing,
    /// How long it took until a value was in memory.
    pub put: Timing,
    /// How long a group of writes took.
    pub flush: Timing,
}

impl Stats {
    /// How many of all gets found something, from 0 to 1; `None` before the first.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio needs no more than 52 bits"
    )]
    pub fn hit_ratio(&self) -> Option<f64> {
        let hits = self.memory_hits + self.file_hits;
        let all = hits + self.misses;
        (all != 0).then(|| hits as f64 / all as f64)
    }
}

impl Cache {
    /// What it counts and takes at this moment; of the whole cache, also on a namespace.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let tiers = &self.tiers;
        let counters = &tiers.counters;
        let (memory_entries, memory_bytes) = tiers.memory.as_ref().map_or((0, 0), Memory::size);
        let (state, file_bytes, file_bytes_free) =
            *tiers.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        Stats {
            memory_hits: counters.sum(Count::MemoryHit),
            file_hits: counters.sum(Count::FileHit),
            misses: counters.sum(Count::Miss),
            puts: counters.sum(Count::Put),
            deletes: counters.sum(Count::Delete),
            dropped: counters.sum(Count::Dropped),
            memory_entries,
            memory_bytes,
            waiting_bytes: tiers.waiting.bytes() as u64,
            has_file: tiers.has_file(),
            file_entries: number(state.counts.entries),
            file_bytes,
            file_bytes_free,
            evicted: number(state.counts.evicted),
            expired: number(state.counts.expired),
            oldest: state
                .oldest_put_at
                .map(|at| Duration::from_millis(number(tiers.now() - at))),
            memory_get: counters.timing(Op::MemoryGet),
            file_get: counters.timing(Op::FileGet),
            put: counters.timing(Op::Put),
            flush: counters.timing(Op::Flush),
        }
    }
}
