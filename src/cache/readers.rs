//! Reads from the file, on the thread that asks.
//!
//! A point read takes about 3 µs, and to go to another thread for it 20: so there is a connection for each thread of
//! the runtime. A disk that turns slow must not hold up what else runs there: after reads that took long, others go
//! to threads that may wait, for a while, and are not waited for beyond a limit.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::TryLockError;
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
    lanes: Box<[Mutex<Option<Connection>>]>,
    made_at: Instant,
    /// Until when the disk is taken for slow, in milliseconds since `made_at`.
    slow_until_ms: AtomicU64,
    /// How many reads in a row were slow.
    slow_reads: AtomicU32,
}

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
            made_at: Instant::now(),
            slow_until_ms: AtomicU64::new(0),
            slow_reads: AtomicU32::new(0),
        }
    }

    /// Opens a connection in each lane.
    pub(super) fn open(&self, path: &Path, shape: Shape) -> database::Result<()> {
        for lane in &self.lanes {
            let connection = file::open_reader(path, shape)?;
            *lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        for lane in &self.lanes {
            *lane.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
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
        let found = self.with_lane(|connection| rows::read(connection, spot, epoch));
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

    fn with_lane(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<Option<Entry>>,
    ) -> rusqlite::Result<Option<Entry>> {
        let first = thread_number();
        let lane = |at: usize| &self.lanes[(first + at) % self.lanes.len()];
        for at in 0..self.lanes.len() {
            match lane(at).try_lock() {
                Ok(guard) => return guard.as_ref().map_or(Ok(None), work),
                Err(TryLockError::Poisoned(guard)) => {
                    return guard.into_inner().as_ref().map_or(Ok(None), work);
                }
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let guard = lane(0).lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().map_or(Ok(None), work)
    }

    fn now_ms(&self) -> u64 {
        millis(self.made_at.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
