//! The writes that are not in the file yet.
//!
//! Writes of one key are put in order by the lock of its part, which is held while both tiers are changed.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::cache::entry::Entry;
use crate::cache::memory::AsItIs;

/// What is to become of the entry with a hash.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// It is put; if it was computed, then from what was there at this epoch.
    Put(Arc<Entry>, Option<u64>),
    Delete,
}

impl Write {
    /// What it takes while it waits, in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Put(entry, _) => entry.weight(),
            Self::Delete => DELETE_BYTES,
        }
    }
}

const DELETE_BYTES: usize = 64;

type Writes = HashMap<u64, Write, BuildHasherDefault<AsItIs>>;

/// What waits, in parts with a lock each.
#[derive(Debug)]
pub(super) struct Waiting {
    parts: Box<[Mutex<Part>]>,
    /// How often something was written, by hash: what was read before a write is not to be kept after it.
    changes: Box<[AtomicU64]>,
    bytes: AtomicUsize,
}

/// One part, locked by whoever changes an entry of it.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Taken with the next group.
    next: Writes,
    /// In the group that is being written.
    under_way: Writes,
}

/// How often entries like one had been written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    at: usize,
    changes: u64,
}

const PARTS: usize = 64;

/// With so many, writes of other keys seldom look like a write of this one.
const CHANGES: usize = 1 << 14;

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            changes: (0..CHANGES).map(|_| AtomicU64::new(0)).collect(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The part of a hash, locked.
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, Part> {
        lock(&self.parts[index(hash >> 52, PARTS)])
    }

    /// To be taken before something is looked for that is to be kept then.
    pub(super) fn guard(&self, hash: u64) -> Guard {
        let at = index(hash >> 20, CHANGES);
        let changes = self.changes[at].load(Ordering::SeqCst);
        Guard { at, changes }
    }

    /// Whether nothing was written since; the part is to be locked.
    pub(super) fn is_unchanged(&self, guard: Guard) -> bool {
        self.changes[guard.at].load(Ordering::SeqCst) == guard.changes
    }

    /// Says that something is written; the part is to be locked.
    pub(super) fn change(&self, hash: u64) {
        self.changes[index(hash >> 20, CHANGES)].fetch_add(1, Ordering::SeqCst);
    }

    /// Adds a write to a locked part, in place of one of the same hash that waits.
    pub(super) fn add(&self, part: &mut Part, hash: u64, write: Write) {
        self.bytes.fetch_add(write.weight(), Ordering::Relaxed);
        if let Some(before) = part.next.insert(hash, write) {
            self.bytes.fetch_sub(before.weight(), Ordering::Relaxed);
        }
    }

    /// What waits takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes all that waits, to be written: it can be found here until [`written`](Self::written).
    pub(super) fn take(&self) -> Vec<(u64, Write)> {
        let mut taken = Vec::new();
        for part in &self.parts {
            let part = &mut *lock(part);
            std::mem::swap(&mut part.next, &mut part.under_way);
            taken.extend(
                part.under_way
                    .iter()
                    .map(|(hash, write)| (*hash, write.clone())),
            );
        }
        taken
    }

    /// What was taken is in the file.
    pub(super) fn written(&self) {
        for part in &self.parts {
            let mut part = lock(part);
            let bytes: usize = part.under_way.values().map(Write::weight).sum();
            part.under_way.clear();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// What was taken waits again, unless it was written over since.
    pub(super) fn put_back(&self) {
        for part in &self.parts {
            let part = &mut *lock(part);
            for (hash, write) in part.under_way.drain() {
                let bytes = write.weight();
                if part.next.contains_key(&hash) {
                    self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                } else {
                    part.next.insert(hash, write);
                }
            }
        }
    }

    /// Nothing waits any more, and nothing that was read before is to be kept.
    pub(super) fn clear(&self) {
        // First this: what is kept after it was computed before would stay, in a part that was cleared already.
        for changes in &self.changes {
            changes.fetch_add(1, Ordering::SeqCst);
        }
        for part in &self.parts {
            let mut part = lock(part);
            let writes = part.next.values().chain(part.under_way.values());
            let bytes: usize = writes.map(Write::weight).sum();
            part.next.clear();
            part.under_way.clear();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Part {
    /// What waits for a hash, the latest.
    pub(super) fn get(&self, hash: u64) -> Option<&Write> {
        self.next.get(&hash).or_else(|| self.under_way.get(&hash))
    }
}

fn index(bits: u64, len: usize) -> usize {
    // The remainder is below `len`, which is an `usize`.
    usize::try_from(bits % len as u64).unwrap_or(0)
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
