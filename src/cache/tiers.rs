//! The two tiers: memory before the file, and what waits to be written between them.
//!
//! What a key has is what memory has of it; else what waits to be written; else what the file has. A write changes
//! memory and what waits under one lock. What was read from the file, or computed, is kept only if nothing of its kind
//! was written meanwhile.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cache::Settings;
use crate::cache::bell::Bell;
use crate::cache::bell::Reason;
use crate::cache::counters::Count;
use crate::cache::counters::Counters;
use crate::cache::counters::Op;
use crate::cache::entry::Entry;
use crate::cache::entry::Parsed;
use crate::cache::entry::Spot;
use crate::cache::file::Failure;
use crate::cache::file::Shape;
use crate::cache::marks::Marks;
use crate::cache::memory::Memory;
use crate::cache::presence::Presence;
use crate::cache::readers::Readers;
use crate::cache::rows::State;
use crate::cache::ttl::Times;
use crate::cache::waiting::Guard;
use crate::cache::waiting::Part;
use crate::cache::waiting::Waiting;
use crate::cache::waiting::Write;
use crate::database::Clock;

/// How long a caller waits for the cache file before it goes on without.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(50);

/// What memory has is believed for so many milliseconds without a look at what other processes have written.
const BELIEVED_MS: u64 = 1_000;

/// After so many milliseconds somebody should look.
const LOOK_AFTER_MS: u64 = 500;

/// After so many milliseconds without a write by another process there is none, as far as one can see.
const ALONE_AFTER_MS: u64 = 10_000;

/// While nothing has got to the file for so many milliseconds, nobody waits for room.
const STILL_MS: u64 = 2_000;

/// So much may wait to be written, in bytes, where the memory may hold less.
const WAITING_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Everything that the handle and the writer's thread share.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) settings: Settings,
    pub(super) shape: Shape,
    pub(super) clock: Clock,
    pub(super) memory: Option<Memory>,
    pub(super) waiting: Waiting,
    pub(super) readers: Readers,
    pub(super) marks: Marks,
    pub(super) counters: Counters,
    pub(super) bell: Bell,
    pub(super) presence: Mutex<Option<Arc<Presence>>>,
    /// What the hashes are made with.
    seed: AtomicU64,
    /// Grows when another process has written.
    epoch: AtomicU64,
    /// When that was looked for, in milliseconds since `made_at`.
    looked_at_ms: AtomicU64,
    /// When another process had written, as far as that was seen; 0: never.
    others_at_ms: AtomicU64,
    made_at: Instant,
    has_file: AtomicBool,
    /// When something of what waited got to the file, in milliseconds since `made_at`.
    moved_at_ms: AtomicU64,
    /// The last deletion in the file that this process knows of.
    deletion: AtomicI64,
    /// How many groups the writer has begun, and how many of them are in the file.
    begun: AtomicU64,
    pub(super) written: watch::Sender<u64>,
    /// What the file said of itself last, and its size in bytes: in use and free.
    pub(super) state: Mutex<(State, u64, u64)>,
}

/// When a computation began: what must not have been written since by this process, and what others had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    guard: Guard,
    epoch: u64,
    deletion: i64,
}

/// Where an entry was found.
#[derive(Debug)]
pub(super) enum Found {
    Here(Arc<Entry>),
    Nowhere,
    /// If at all, then in the file.
    AskFile(Guard),
}

/// What was at a spot, and what must not have changed since.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) guard: Guard,
    pub(super) entry: Option<Arc<Entry>>,
}

/// What becomes of an entry that is updated.
#[derive(Debug)]
pub(super) enum Change {
    Put(Bytes, Times),
    Leave,
}

impl Tiers {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        Self {
            shape: Shape::of(settings.bytes_max),
            memory: Memory::new(&settings),
            waiting: Waiting::new(),
            readers: Readers::new(),
            marks: Marks::new(settings.bytes_max),
            counters: Counters::default(),
            bell: Bell::default(),
            presence: Mutex::default(),
            seed: AtomicU64::new(fastrand::u64(..)),
            epoch: AtomicU64::new(0),
            looked_at_ms: AtomicU64::new(0),
            others_at_ms: AtomicU64::new(0),
            made_at: Instant::now(),
            has_file: AtomicBool::new(false),
            moved_at_ms: AtomicU64::new(0),
            deletion: AtomicI64::new(0),
            begun: AtomicU64::new(0),
            written: watch::Sender::new(0),
            state: Mutex::default(),
            settings,
            clock,
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn spot<'a>(&self, space: u64, key: &'a [u8]) -> Spot<'a> {
        Spot::new(self.seed(), space, key)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed.load(Ordering::SeqCst)
    }

    /// Nothing that was put with another seed is found any more.
    pub(super) fn set_seed(&self, seed: u64) {
        self.seed.store(seed, Ordering::SeqCst);
        self.waiting.clear();
        if let Some(memory) = &self.memory {
            memory.clear();
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Nobody else has written until now, or somebody has.
    pub(super) fn looked(&self, is_changed: bool) {
        let now = self.elapsed_ms();
        if is_changed {
            self.others_at_ms.store(now.max(1), Ordering::SeqCst);
        }
        let others_at = self.others_at_ms.load(Ordering::SeqCst);
        let is_alone = others_at == 0 || now.saturating_sub(others_at) > ALONE_AFTER_MS;
        self.readers.set_alone(is_alone);
        if is_changed {
            // Before anything is believed to be of now that a reader found in the file as it was.
            self.readers.forget_view();
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.looked_at_ms.store(now, Ordering::SeqCst);
    }

    /// A computation begins.
    pub(super) fn begin(&self, hash: u64) -> Begun {
        Begun {
            guard: self.waiting.guard(hash),
            epoch: self.epoch(),
            deletion: self.deletion.load(Ordering::SeqCst),
        }
    }

    /// So far deletions are known.
    pub(super) fn set_deletion(&self, deletion: i64) {
        self.deletion.store(deletion, Ordering::SeqCst);
    }

    /// An entry is not to be kept after all.
    pub(super) fn refuse(&self, hash: u64, entry: &Arc<Entry>) {
        let _part = self.waiting.lock(hash);
        if let Some(memory) = &self.memory
            && memory.get(hash).is_some_and(|kept| kept.is_as(entry))
        {
            memory.remove(hash);
        }
    }

    /// Keeps what was made of an entry beside it, while memory has it.
    pub(super) fn keep_parsed(&self, entry: &Arc<Entry>, parsed: Parsed) {
        let hash = self.spot(entry.space, &entry.key).hash;
        let _part = self.waiting.lock(hash);
        if let Some(memory) = &self.memory
            && memory
                .get(hash)
                .is_some_and(|kept| Arc::ptr_eq(&kept, entry))
        {
            memory.insert(hash, Arc::new(entry.with(parsed)));
        }
    }

    pub(super) fn has_file(&self) -> bool {
        self.has_file.load(Ordering::SeqCst)
    }

    /// From now on there is a file, with nothing in it that this process does not know of.
    pub(super) fn set_file(&self) {
        self.looked(false);
        self.has_file.store(true, Ordering::SeqCst);
    }

    /// From now on there is none: what waits will not be written.
    pub(super) fn lose_file(&self) {
        self.has_file.store(false, Ordering::SeqCst);
        self.readers.close();
        self.waiting.clear();
        self.written.send_replace(self.begun.load(Ordering::SeqCst));
    }

    /// Nothing is written any more.
    pub(super) fn close(&self) {
        self.written.send_replace(u64::MAX);
    }

    /// Returns when nothing is written any more.
    pub(super) async fn closed(&self) {
        let mut written = self.written.subscribe();
        let _ = written.wait_for(|&written| written == u64::MAX).await;
    }

    /// Looks for an entry without the file.
    pub(super) fn look(&self, spot: Spot<'_>) -> Found {
        let has_file = self.has_file();
        if let Some(entry) = self.in_memory(spot, has_file) {
            self.marks.set(spot.hash);
            return Found::Here(entry);
        }
        if !has_file {
            return Found::Nowhere;
        }
        // Before anything is looked for that is to be kept in memory.
        let guard = self.waiting.guard(spot.hash);
        match self.waiting.lock(spot.hash).get(spot.hash) {
            Some(Write::Put(entry, _)) if entry.is_at(spot) => Found::Here(Arc::clone(entry)),
            Some(_) => Found::Nowhere,
            None => Found::AskFile(guard),
        }
    }

    /// What memory has at a spot, if it is to be believed.
    fn in_memory(&self, spot: Spot<'_>, has_file: bool) -> Option<Arc<Entry>> {
        let entry = self.memory.as_ref()?.get(spot.hash)?;
        let is_it = entry.is_at(spot) && (!has_file || self.is_believed(&entry));
        is_it.then_some(entry)
    }

    /// Whether what memory has is what the file has, as far as anybody may know.
    fn is_believed(&self, entry: &Entry) -> bool {
        let age = self
            .elapsed_ms()
            .saturating_sub(self.looked_at_ms.load(Ordering::SeqCst));
        if age > LOOK_AFTER_MS {
            self.bell.ring(Reason::Look);
        }
        age <= BELIEVED_MS && entry.epoch() == self.epoch()
    }

    /// Reads an entry from the file, on this thread, and keeps it in memory.
    pub(super) fn read_file(&self, spot: Spot<'_>, guard: Guard) -> Option<Arc<Entry>> {
        let epoch = self.epoch();
        let found = self.read(spot, epoch).ok()?;
        if found.is_some() {
            self.marks.set(spot.hash);
        }
        if let Some(memory) = &self.memory {
            let _part = self.waiting.lock(spot.hash);
            if !self.waiting.is_unchanged(guard) {
                return found;
            }
            match (&found, memory.get(spot.hash)) {
                (Some(found), Some(kept)) if kept.is_at(spot) && kept.is_as(found) => {
                    kept.confirm(epoch);
                }
                (Some(found), _) => memory.insert(spot.hash, Arc::clone(found)),
                // It was deleted by another process.
                (None, Some(_)) => memory.remove(spot.hash),
                (None, None) => {}
            }
        }
        found
    }

    /// Reads from the file; the writer hears of it if that is of no use.
    fn read(&self, spot: Spot<'_>, epoch: u64) -> Result<Option<Arc<Entry>>, Failure> {
        let found = self.readers.read(spot, epoch);
        if let Err(error) = &found {
            tracing::debug!(?error, "the cache file could not be read");
            self.bell.ring(Reason::Broken);
        }
        if self.readers.is_held() {
            self.bell.ring(Reason::Release);
        }
        found.map(|found| found.map(Arc::new))
    }

    /// Keeps a value, unless it was computed and something was written since that began.
    pub(super) fn put(&self, spot: Spot<'_>, value: Bytes, times: Times, computed: Option<Begun>) {
        self.counters.add(Count::Put);
        let sample = Counters::sample();
        // If others have written since it began, memory asks the file before it believes it.
        let epoch = computed.map_or_else(|| self.epoch(), |begun| begun.epoch);
        let entry = Entry::new(spot, value, self.now(), times, epoch);
        let mut part = self.waiting.lock(spot.hash);
        let is_kept = computed.is_none_or(|begun| self.waiting.is_unchanged(begun.guard));
        if is_kept {
            let deletion = computed.map(|begun| begun.deletion);
            self.put_locked(&mut part, spot.hash, entry, deletion);
        }
        drop(part);
        self.counters.record(Op::Put, sample);
    }

    fn put_locked(&self, part: &mut Part, hash: u64, entry: Entry, computed: Option<i64>) {
        let entry = Arc::new(entry);
        self.waiting.change(hash);
        if let Some(memory) = &self.memory {
            memory.insert(hash, Arc::clone(&entry));
        }
        if self.has_file() {
            if self.waiting.bytes() == 0 {
                // Nothing could move before.
                self.moved_at_ms.store(self.elapsed_ms(), Ordering::Relaxed);
            }
            self.waiting.add(part, hash, Write::Put(entry, computed));
            self.bell.ring(Reason::Work);
            if self.waiting.bytes() > self.waiting_bytes_max() / 4 {
                self.bell.ring(Reason::Urgent);
            }
        }
    }

    /// Deletes the entry at a spot, from both tiers; the file follows.
    pub(super) fn delete(&self, spot: Spot<'_>) {
        self.counters.add(Count::Delete);
        let mut part = self.waiting.lock(spot.hash);
        self.waiting.change(spot.hash);
        if let Some(memory) = &self.memory {
            memory.remove(spot.hash);
        }
        if self.has_file() {
            self.waiting.add(&mut part, spot.hash, Write::Delete);
            self.bell.ring(Reason::Urgent);
        }
    }

    /// Changes the entry at a spot by what is there, and nobody in between.
    ///
    /// What was read before spares a slow disk, if nothing was written since.
    pub(super) fn update<R>(
        &self,
        spot: Spot<'_>,
        read: Option<Read>,
        work: impl FnOnce(Option<&Entry>) -> (Change, R),
    ) -> R {
        let mut part = self.waiting.lock(spot.hash);
        let entry = match read {
            Some(read) if self.waiting.is_unchanged(read.guard) => read.entry,
            _ => self.find_locked(&part, spot),
        };
        let now = self.now();
        let entry = entry.filter(|entry| entry.is_there(now));
        let (change, result) = work(entry.as_deref());
        if let Change::Put(value, times) = change {
            self.counters.add(Count::Put);
            let entry = Entry::new(spot, value, now, times, self.epoch());
            self.put_locked(&mut part, spot.hash, entry, None);
        }
        result
    }

    fn find_locked(&self, part: &Part, spot: Spot<'_>) -> Option<Arc<Entry>> {
        let has_file = self.has_file();
        if let Some(entry) = self.in_memory(spot, has_file) {
            return Some(entry);
        }
        match part.get(spot.hash) {
            Some(Write::Put(entry, _)) if entry.is_at(spot) => Some(Arc::clone(entry)),
            Some(_) => None,
            None if !has_file => None,
            None => self.read(spot, self.epoch()).ok().flatten(),
        }
    }

    /// Puts all that is there out of reach; the file follows.
    pub(super) fn clear(&self) {
        self.counters.add(Count::Delete);
        self.set_seed(fastrand::u64(..));
        if self.has_file() {
            self.bell.ring(Reason::Clear);
        }
    }

    /// How much may wait, in bytes: as much as memory may hold.
    fn waiting_bytes_max(&self) -> usize {
        let bytes = self.settings.memory_bytes_max.max(WAITING_BYTES_MIN);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Whether there is room for another write to wait; waits for it, but not for long, and not if nothing moves.
    pub(super) async fn has_room(&self) -> bool {
        let is_full = || self.waiting.bytes() > self.waiting_bytes_max();
        if !is_full() {
            return true;
        }
        let still_ms = self
            .elapsed_ms()
            .saturating_sub(self.moved_at_ms.load(Ordering::Relaxed));
        if still_ms > STILL_MS {
            return false;
        }
        self.bell.ring(Reason::Urgent);
        let mut written = self.written.subscribe();
        let room = async { while is_full() && written.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(WAIT_MAX, room).await;
        !is_full()
    }

    /// Something of what waited is in the file.
    pub(super) fn moved(&self) {
        let now = self.elapsed_ms();
        self.moved_at_ms.store(now, Ordering::Relaxed);
        // Who waits for room may look again.
        self.written.send_modify(|_| {});
    }

    /// Returns when all that was deleted until now is gone from the file, or no file is to be had, or after a while.
    pub(super) async fn settled(&self) {
        if !self.has_file() {
            return;
        }
        let mut written = self.written.subscribe();
        // A group that began after this was read has it.
        let number = self.begun.load(Ordering::SeqCst) + 1;
        self.bell.ring(Reason::Urgent);
        let settled = written.wait_for(|&written| written >= number);
        let _ = tokio::time::timeout(WAIT_MAX, settled).await;
    }

    /// Begins a group of writes.
    pub(super) fn begin_group(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn presence(&self) -> Option<Arc<Presence>> {
        let presence = self.presence.lock();
        presence.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
