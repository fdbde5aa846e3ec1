//! How the writer's thread is told that there is something to do.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::thread::Thread;
use std::time::Instant;

/// What there is to do: a set of reasons, each rung once until it is seen to.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicU8,
    thread: OnceLock<Thread>,
}

/// Why the writer is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// Something waits to be written, and may wait for more.
    Work = 1,
    /// Somebody waits for it.
    Urgent = 2,
    /// It is time to look what other processes have written.
    Look = 4,
    /// A reader met damage.
    Broken = 8,
    /// Everything is to go.
    Clear = 16,
    /// The cache is closed.
    Stop = 32,
    /// Readers look at the file as it was, and are to be ended after a while.
    Release = 64,
}

impl Bell {
    /// Whom it wakes.
    pub(super) fn hang_up(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    pub(super) fn ring(&self, reason: Reason) {
        let bit = reason as u8;
        // Most find it rung.
        if self.rung.load(Ordering::SeqCst) & bit != 0 {
            return;
        }
        let before = self.rung.fetch_or(bit, Ordering::SeqCst);
        if before & bit == 0
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    pub(super) fn is_rung(&self, reason: Reason) -> bool {
        self.rung.load(Ordering::SeqCst) & reason as u8 != 0
    }

    /// Whether it was rung for this, which is seen to now.
    pub(super) fn answer(&self, reason: Reason) -> bool {
        let bit = reason as u8;
        self.rung.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Nothing that it was rung for can be seen to now, but for the end.
    pub(super) fn answer_all(&self) {
        self.rung.fetch_and(Reason::Stop as u8, Ordering::SeqCst);
    }

    /// Waits until it is rung for another reason than those in `but`, or until `until`.
    pub(super) fn wait(&self, but: &[Option<Reason>], until: Option<Instant>) {
        let but = but
            .iter()
            .flatten()
            .fold(0, |bits, &reason| bits | reason as u8);
        while self.rung.load(Ordering::SeqCst) & !but == 0 {
            match until {
                None => std::thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    std::thread::park_timeout(left);
                }
            }
        }
    }
}
