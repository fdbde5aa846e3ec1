//! How much of the disk files may take while they are on their way, all requests together.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::http::Error;
use crate::http::Result;

/// A request takes 30 s at most by default; in a third of that some have ended as a rule.
const RETRY_AFTER_S: u16 = 10;

/// The room for files of a site: what is taken of it, and all of it, in bytes.
#[derive(Clone, Debug)]
pub(in crate::http) struct Room {
    taken: Arc<AtomicU64>,
    bytes_max: u64,
}

impl Room {
    pub(in crate::http) fn new(bytes_max: u64) -> Self {
        Self {
            taken: Arc::default(),
            bytes_max,
        }
    }

    /// A part of it without a byte yet.
    pub(super) fn hold(self) -> Held {
        Held {
            room: self,
            bytes: 0,
        }
    }
}

/// What one file takes of the room, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    bytes: u64,
}

impl Held {
    /// Takes so many more.
    ///
    /// # Errors
    ///
    /// 503 if there is no room for them; then nothing more is taken.
    pub(super) fn take(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        let add = |taken: u64| {
            let taken = taken.checked_add(bytes)?;
            (taken <= self.room.bytes_max).then_some(taken)
        };
        let order = Ordering::Relaxed;
        if self.room.taken.fetch_update(order, order, add).is_err() {
            let text = "Too many files are being sent just now. Please try again in a moment.";
            return Err(Error::later(text, RETRY_AFTER_S));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all of it.
    pub(super) fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.room.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}
