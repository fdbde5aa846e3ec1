//! What a connection is doing, for who looks at all of them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use futures_util::task::AtomicWaker;

use crate::http::connections::framing::Sending;

/// What one connection is doing. It is written where that changes, and read by the sweep and by who needs room.
#[derive(Debug)]
pub(super) struct Pulse {
    /// What the times below count from.
    zero: Instant,
    sending: AtomicU8,
    /// Requests that have no whole answer yet.
    in_hand: AtomicU32,
    /// When the connection was made, its head began, or its last request ended: the latest of these, in milliseconds.
    since: AtomicU64,
    /// Since when the client takes no byte of what is to be written, in milliseconds; 0 where it does.
    unread_since: AtomicU64,
    order: AtomicU8,
    is_upgraded: AtomicBool,
    waker: AtomicWaker,
}

/// What a connection is told to do, the last one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    GoOn,
    /// End after the requests in hand.
    Finish,
    /// End now.
    Close,
}

/// What a connection is, to who needs room; those that come first are the first to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It waits for the next request.
    Idle,
    /// It has not sent a whole request.
    Begun,
    /// Its client does not read the answer.
    Unread,
    Busy,
}

impl Pulse {
    /// Of a connection that is made now.
    pub(super) fn new(zero: Instant) -> Self {
        let pulse = Self {
            zero,
            sending: AtomicU8::new(Sending::Head as u8),
            in_hand: AtomicU32::new(0),
            since: AtomicU64::new(0),
            unread_since: AtomicU64::new(0),
            order: AtomicU8::new(Order::GoOn as u8),
            is_upgraded: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        };
        pulse.since.store(pulse.now(), Relaxed);
        pulse
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_millis()).map_or(u64::MAX, |now| now.saturating_add(1))
    }

    fn age(&self, since: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(since.load(Relaxed)))
    }

    /// The client sends something else than before.
    pub(super) fn sends(&self, sending: Sending) {
        let before = self.sending.swap(sending as u8, Relaxed);
        if before != sending as u8 && before == Sending::Nothing as u8 {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// The client takes what is written, or does not.
    pub(super) fn takes(&self, takes: bool) {
        let is_unread = self.unread_since.load(Relaxed) != 0;
        if takes == is_unread {
            let since = if takes { 0 } else { self.now() };
            self.unread_since.store(since, Relaxed);
        }
    }

    /// It is no longer a connection of requests and answers.
    pub(super) fn upgrade(&self) {
        self.is_upgraded.store(true, SeqCst);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.is_upgraded.load(SeqCst)
    }

    fn has(&self, sending: Sending) -> bool {
        self.sending.load(Relaxed) == sending as u8
    }

    /// What it is, and for how long.
    pub(super) fn standing(&self) -> (Standing, Duration) {
        let age = self.age(&self.since);
        if self.is_upgraded() {
            return (Standing::Busy, Duration::ZERO);
        }
        if self.unread_since.load(Relaxed) != 0 {
            return (Standing::Unread, self.age(&self.unread_since));
        }
        let standing = match self.in_hand.load(SeqCst) {
            0 if self.has(Sending::Nothing) || self.has(Sending::Else) => Standing::Idle,
            0 => Standing::Begun,
            _ if self.has(Sending::Body) => Standing::Begun,
            _ => Standing::Busy,
        };
        (standing, age)
    }

    pub(super) fn is_in_hand(&self) -> bool {
        self.in_hand.load(SeqCst) > 0
    }

    pub(super) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, SeqCst);
        self.waker.wake();
    }

    /// Whether it is told to end.
    pub(super) fn is_told(&self) -> bool {
        self.order.load(SeqCst) != Order::GoOn as u8
    }

    /// What it is told; `waker` hears of the next order.
    pub(super) fn order(&self, waker: &Waker) -> Order {
        self.waker.register(waker);
        match self.order.load(SeqCst) {
            0 => Order::GoOn,
            1 => Order::Finish,
            _ => Order::Close,
        }
    }
}

/// A request in hand, until this is dropped.
#[derive(Debug)]
pub(super) struct InHand(Arc<Pulse>);

impl InHand {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.in_hand.fetch_add(1, SeqCst);
        Self(Arc::clone(pulse))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.since.store(self.0.now(), Relaxed);
        self.0.in_hand.fetch_sub(1, SeqCst);
    }
}
