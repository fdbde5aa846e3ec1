//! One's place in a queue: waiting, begun, or left.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

const BEGUN: u8 = 1;
const LEFT: u8 = 2;
/// It waits in another queue than the one that counts it.
const MOVED: u8 = 4;

/// The queue holds more than may wait, since those who have left stay in it until their turn would have come.
pub(super) const SLOTS_EACH: usize = 4;

/// What the caller and the thread know of one read or write.
#[derive(Debug)]
pub(super) struct Turn {
    state: AtomicU8,
    /// How many wait in this queue and have not left.
    waiting: Arc<AtomicUsize>,
}

impl Turn {
    /// Takes a place, if fewer than `waiting_max` wait.
    pub(super) fn take(waiting: &Arc<AtomicUsize>, waiting_max: usize) -> Option<Arc<Self>> {
        let turn = Self {
            state: AtomicU8::default(),
            waiting: Arc::clone(waiting),
        };
        if waiting.fetch_add(1, Ordering::Relaxed) < waiting_max {
            return Some(Arc::new(turn));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Begins, unless the caller has left.
    pub(super) fn begin(&self) -> bool {
        self.set(BEGUN) & LEFT == 0
    }

    /// Notes that the caller has left; says whether it was before the beginning.
    pub(super) fn leave(&self) -> bool {
        self.set(LEFT) & BEGUN == 0
    }

    pub(super) fn has_left(&self) -> bool {
        self.state.load(Ordering::Relaxed) & LEFT != 0
    }

    /// Notes that it waits in another queue.
    pub(super) fn leave_queue(&self) {
        self.set(MOVED);
    }

    /// Whoever changes the state first gives the place free.
    fn set(&self, flag: u8) -> u8 {
        let before = self.state.fetch_or(flag, Ordering::SeqCst);
        if before == 0 {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_free_once_and_who_left_is_not_begun() {
        let waiting = Arc::default();
        let one = Turn::take(&waiting, 2).unwrap();
        let two = Turn::take(&waiting, 2).unwrap();
        assert!(Turn::take(&waiting, 2).is_none());
        assert!(one.leave(), "it had not begun");
        assert!(!one.begin(), "its caller has left");
        let three = Turn::take(&waiting, 2).unwrap();
        assert!(two.begin());
        assert!(!two.leave(), "it had begun");
        three.leave_queue();
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
        assert!(three.begin());
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
