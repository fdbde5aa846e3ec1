//! What a connection is doing, for who looks at all of them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
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
    /// Since when the client takes nothing of what is to be written, or so little, in milliseconds; 0 where it does.
    unread_since: AtomicU64,
    /// Requests whose body is waited for.
    waiting: AtomicU32,
    /// When the last of a body came, or a request that has one, in milliseconds.
    moved: AtomicU64,
    /// The answers of HTTP/2.
    offers: Mutex<Vec<Offered>>,
    order: AtomicU8,
    is_upgraded: AtomicBool,
    waker: AtomicWaker,
}

/// How an answer stands, or that there is none in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    None,
    /// The site makes the next piece.
    Made,
    /// A piece was given since then, in milliseconds, and nobody has asked for another.
    Given(u64),
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
    /// It has not sent the whole head of a request.
    Begun,
    /// The body of its request is waited for.
    Sends,
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
            waiting: AtomicU32::new(0),
            moved: AtomicU64::new(0),
            offers: Mutex::default(),
            order: AtomicU8::new(Order::GoOn as u8),
            is_upgraded: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        };
        pulse.since.store(pulse.now(), Relaxed);
        pulse
    }

    pub(super) fn now(&self) -> u64 {
        milliseconds(self.zero)
    }

    fn offers(&self) -> MutexGuard<'_, Vec<Offered>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client sends something else than before.
    pub(super) fn sends(&self, sending: Sending) {
        let before = self.sending.swap(sending as u8, Relaxed);
        if before != sending as u8 && before == Sending::Nothing as u8 {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// The client takes nothing of what is written, as it seems since then, in milliseconds; or it does.
    pub(super) fn is_unread(&self, since: Option<u64>) {
        self.unread_since.store(since.unwrap_or_default(), Relaxed);
    }

    /// It is no longer a connection of requests and answers.
    pub(super) fn upgrade(&self) {
        self.is_upgraded.store(true, SeqCst);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.is_upgraded.load(SeqCst)
    }

    /// The body of a request is waited for, or no longer.
    pub(super) fn waits(&self, waits: bool) {
        if waits {
            self.waiting.fetch_add(1, SeqCst);
        } else {
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// The body of a request begins, or more of it has come.
    pub(super) fn goes_on(&self) {
        self.moved.store(self.now(), Relaxed);
    }

    fn has(&self, sending: Sending) -> bool {
        self.sending.load(Relaxed) == sending as u8
    }

    /// What it is at `now`, and for how long.
    pub(super) fn standing(&self, now: u64) -> (Standing, Duration) {
        if self.is_upgraded() {
            return (Standing::Busy, Duration::ZERO);
        }
        let unread_since = self.unread_since.load(Relaxed);
        if unread_since != 0 {
            return (Standing::Unread, age(now, unread_since));
        }
        let since = self.since.load(Relaxed);
        let (standing, since) = match self.in_hand.load(SeqCst) {
            0 if self.has(Sending::Nothing) || self.has(Sending::Else) => (Standing::Idle, since),
            0 => (Standing::Begun, since),
            in_hand => self.whose_turn(in_hand, since),
        };
        (standing, age(now, since))
    }

    /// Whether all that is in hand waits for the client, and since when.
    fn whose_turn(&self, in_hand: u32, since: u64) -> (Standing, u64) {
        let waiting = self.waiting.load(SeqCst);
        let offers = self.offers();
        let given = offers.iter().filter_map(|offered| match offered {
            Offered::Given(since) => Some(*since),
            Offered::None | Offered::Made => None,
        });
        let (given, last) = given.fold((0, 0), |(count, last), since| (count + 1, since.max(last)));
        let moved = self.moved.load(Relaxed);
        match waiting {
            _ if waiting + given < in_hand => (Standing::Busy, since),
            0 => (Standing::Unread, last),
            _ if given == 0 => (Standing::Sends, moved),
            _ => (Standing::Unread, last.max(moved)),
        }
    }

    /// How long the answer that is read least was not read, where the connection's writes do not tell.
    pub(super) fn longest_given(&self, now: u64) -> Option<Duration> {
        let offers = self.offers();
        let ages = offers.iter().filter_map(|offered| match offered {
            Offered::Given(since) => Some(age(now, *since)),
            Offered::None | Offered::Made => None,
        });
        ages.max()
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

/// How long ago that was; never 0.
pub(super) fn milliseconds(zero: Instant) -> u64 {
    u64::try_from(zero.elapsed().as_millis()).map_or(u64::MAX, |now| now.saturating_add(1))
}

fn age(now: u64, since: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(since))
}

/// An answer of HTTP/2 on its way, until this is dropped.
///
/// Each stream has a window of its own, and a client that opens none for an answer reads all else: the connection's
/// writes are never held up. What shows is that nobody asks for the next piece.
#[derive(Debug)]
pub(super) struct Offer {
    pulse: Arc<Pulse>,
    place: usize,
}

impl Offer {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        let given = Offered::Given(pulse.now());
        let mut offers = pulse.offers();
        let free = offers.iter().position(|offered| *offered == Offered::None);
        let place = free.unwrap_or(offers.len());
        match free {
            Some(place) => offers[place] = given,
            None => offers.push(given),
        }
        drop(offers);
        Self {
            pulse: Arc::clone(pulse),
            place,
        }
    }

    /// The next piece was asked for, and is given or still made.
    pub(super) fn is_given(&self, is_given: bool) {
        let offered = if is_given {
            Offered::Given(self.pulse.now())
        } else {
            Offered::Made
        };
        self.pulse.offers()[self.place] = offered;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.pulse.offers()[self.place] = Offered::None;
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
