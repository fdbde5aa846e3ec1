//! Reads from the file, on the thread that asks.
//!
//! A point read takes about 3 µs, and to go to another thread for it 20: so there is a connection for each thread of
//! the runtime. A disk that turns slow must not hold up what else runs there: after reads that took long, others go
//! to threads that may wait, for a while, and are not waited for beyond a limit.
//!
//! To begin a look at the file and to end it are two calls of the system that cost as much as the read itself. So a
//! connection goes on looking at the file as it was, until the writer has changed it, or for a short while.

use std::path::Path;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use crate::cache::counters::thread_number;
use crate::cache::entry::Entry;
use crate::cache::entry::Spot;
use crate::cache::file;
use crate::cache::file::Failure;
use crate::cache::file::Shape;
use crate::cache::rows;
use crate::database;

/// The connections to read with; none while there is no file.
#[derive(Debug)]
pub(super) struct Readers {
    lanes: Box<[Mutex<Option<Lane>>]>,
    /// Grows whenever this process has written.
    generation: AtomicU64,
    /// Whether nobody else writes the file: a look that is kept up would make its WAL grow.
    is_alone: AtomicBool,
    /// Whether some lane looks at the file as it was.
    is_held: AtomicBool,
    made_at: Instant,
    /// Until when the disk is taken for slow, in milliseconds since `made_at`.
    slow_until_ms: AtomicU64,
    /// How many reads in a row were slow.
    slow_reads: AtomicU32,
}

/// A connection, and how the file is to it.
#[derive(Debug)]
struct Lane {
    connection: Connection,
    /// In which generation it began to look at the file as it is then, and when; none, if it looks anew each time.
    held: Option<(u64, Instant)>,
}

/// So long a lane looks at the file as it was, at most, while it is in use; it is ended by the writer otherwise.
pub(super) const HOLD: Duration = Duration::from_millis(100);

/// The writer waits no longer than this for reads to end.
const RELEASE_MAX: Duration = Duration::from_millis(5);

/// A read that took longer than this was slow.
const SLOW: Duration = Duration::from_millis(50);

/// After so many of them in a row the disk is taken for slow: a thread that was not given a core for a moment looks
/// the same, once.
const SLOW_READS: u32 = 2;

/// For so long.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// Beyond the threads of the runtime there are some that may block.
const SPARE: usize = 2;

/// With more, the pages they keep add up.
const LANES_MAX: usize = 64;

impl Readers {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let lanes = (0..(cores + SPARE).min(LANES_MAX))
            .map(|_| Mutex::default())
            .collect();
        Self {
            lanes,
            generation: AtomicU64::new(0),
            is_alone: AtomicBool::new(true),
            is_held: AtomicBool::new(false),
            made_at: Instant::now(),
            slow_until_ms: AtomicU64::new(0),
            slow_reads: AtomicU32::new(0),
        }
    }

    /// Opens a connection in each lane.
    pub(super) fn open(&self, path: &Path, shape: Shape) -> database::Result<()> {
        for lane in &self.lanes {
            let connection = file::open_reader(path, shape)?;
            let opened = Lane {
                connection,
                held: None,
            };
            *lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        for lane in &self.lanes {
            *lane.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// From now on reads find what has been written until now.
    pub(super) fn renew(&self) {
        self.forget_view();
        self.release();
    }

    /// From now on reads look anew; none is waited for.
    pub(super) fn forget_view(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Has no lane look at the file as it was. One that is in use all the while does so itself at its next read.
    pub(super) fn release(&self) {
        if !self.is_held.swap(false, Ordering::SeqCst) {
            return;
        }
        let until = Instant::now() + RELEASE_MAX;
        for lane in &self.lanes {
            match lock_until(lane, until) {
                Some(mut lane) => release(&mut lane),
                None => self.is_held.store(true, Ordering::SeqCst),
            }
        }
    }

    /// Does something short while nobody reads; not at all, if that is not to be had within this time.
    pub(super) fn while_still<R>(&self, time: Duration, work: impl FnOnce() -> R) -> Option<R> {
        let until = Instant::now() + time;
        let mut lanes = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let mut lane = lock_until(lane, until)?;
            release(&mut lane);
            lanes.push(lane);
        }
        Some(work())
    }

    /// Whether there is something to release.
    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Whether another process writes the file as well.
    pub(super) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::SeqCst);
    }

    /// Whether reads should not be made on a thread that others need.
    pub(super) fn is_slow(&self) -> bool {
        let until = self.slow_until_ms.load(Ordering::Relaxed);
        until != 0 && self.now_ms() < until
    }

    /// The entry at a spot, of whatever age.
    ///
    /// # Errors
    ///
    /// When the file is of no use. One that another process holds at this moment is a miss.
    pub(super) fn read(&self, spot: Spot<'_>, epoch: u64) -> Result<Option<Entry>, Failure> {
        let begun = Instant::now();
        let found = self.with_lane(|lane| {
            self.hold(lane, begun)?;
            let found = rows::read(&lane.connection, spot, epoch);
            if found.is_err() {
                lane.release();
            }
            found
        });
        if begun.elapsed() <= SLOW {
            if self.slow_reads.load(Ordering::Relaxed) != 0 {
                self.slow_reads.store(0, Ordering::Relaxed);
            }
        } else if self.slow_reads.fetch_add(1, Ordering::Relaxed) + 1 >= SLOW_READS {
            let until = self.now_ms() + millis(SLOW_FOR);
            self.slow_until_ms.store(until, Ordering::Relaxed);
        }
        match found.map_err(Failure::from) {
            Err(Failure::Busy) => Ok(None),
            found => found,
        }
    }

    /// Has a lane look at the file as it is, or as it was not long ago and nobody of this process has changed it since.
    fn hold(&self, lane: &mut Lane, now: Instant) -> rusqlite::Result<()> {
        let generation = self.generation.load(Ordering::SeqCst);
        let is_alone = self.is_alone.load(Ordering::Relaxed);
        if let Some((then, since)) = lane.held {
            if then == generation && is_alone && now.duration_since(since) < HOLD {
                return Ok(());
            }
            lane.release();
        }
        if is_alone {
            lane.connection.prepare_cached("BEGIN")?.execute([])?;
            lane.held = Some((generation, now));
            self.is_held.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn with_lane(
        &self,
        work: impl FnOnce(&mut Lane) -> rusqlite::Result<Option<Entry>>,
    ) -> rusqlite::Result<Option<Entry>> {
        let first = thread_number();
        let lane = |at: usize| &self.lanes[(first + at) % self.lanes.len()];
        for at in 0..self.lanes.len() {
            match lane(at).try_lock() {
                Ok(mut guard) => return guard.as_mut().map_or(Ok(None), work),
                Err(TryLockError::Poisoned(guard)) => {
                    return guard.into_inner().as_mut().map_or(Ok(None), work);
                }
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let mut guard = lane(0).lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_mut().map_or(Ok(None), work)
    }

    fn now_ms(&self) -> u64 {
        millis(self.made_at.elapsed())
    }
}

/// A lane that nobody reads in; none, if somebody does for so long.
fn lock_until(lane: &Mutex<Option<Lane>>, until: Instant) -> Option<MutexGuard<'_, Option<Lane>>> {
    loop {
        match lane.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::yield_now(),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

fn release(lane: &mut Option<Lane>) {
    if let Some(lane) = lane {
        lane.release();
    }
}

impl Lane {
    fn release(&mut self) {
        if self.held.take().is_some() {
            let ended = self.connection.prepare_cached("COMMIT");
            if ended.and_then(|mut end| end.execute([])).is_err() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
