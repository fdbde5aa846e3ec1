//! The reader threads, over a pool of read-only connections.
//!
//! There are two lanes, with a queue and threads each: what is known to take long waits in the long one, all else in
//! the short one. A thread of the short lane whose read turns out to be long goes over to the long lane with it, and
//! an idle one of the long lane takes its place.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Sender;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::Span;

use crate::database::Error;
use crate::database::Result;
use crate::database::clock::Clock;
use crate::database::connection;
use crate::database::health::Health;
use crate::database::lanes::Lanes;
use crate::database::reader::Lines;
use crate::database::reader::Reader;
use crate::database::running::Around;
use crate::database::running::Limit;
use crate::database::running::Running;
use crate::database::slow::SlowLog;
use crate::database::stats;
use crate::database::stats::Counter;
use crate::database::stats::Place;
use crate::database::stats::Work;
use crate::database::turn::SLOTS_EACH;
use crate::database::turn::Turn;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// How long the connections may take to open.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the threads have ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends reads to the threads.
#[derive(Debug)]
pub(super) struct Readers {
    /// None once they are being stopped: nothing more can be sent then.
    lanes: RwLock<Option<Queues>>,
    shared: Arc<Shared>,
    waiting_max: usize,
}

/// Where reads wait. The threads end when this is dropped, and what waits is done.
#[derive(Debug)]
struct Queues {
    short: Sender<Box<dyn Read>>,
    long: Sender<Box<dyn Read>>,
    /// Only its end is told.
    _stop: Sender<()>,
}

/// What the threads and their callers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) lanes: Lanes,
    pub(super) running: Running,
    pub(super) counters: Vec<Counter>,
    pub(super) refused: AtomicU64,
    /// Those whose time was over before their turn came.
    late: AtomicU64,
    /// How many wait in each lane.
    short_waiting: Arc<AtomicUsize>,
    long_waiting: Arc<AtomicUsize>,
    /// Cuts off what runs, once it is set.
    pub(super) closing: AtomicBool,
    pub(super) health: Arc<Health>,
    pub(super) slow: Arc<SlowLog>,
    pub(super) clock: Clock,
}

/// A read that waits, whatever it returns.
pub(super) trait Read: Send {
    fn place(&self) -> Place;
    fn turn(&self) -> &Turn;
    /// Runs the closure, unless its caller has left, and answers.
    fn run(self: Box<Self>, reader: &Reader);
    fn refuse(self: Box<Self>, error: Error);
}

struct Waiting<F, T> {
    /// Of the caller: lines of the closure carry the ids of its request or job.
    span: Span,
    limit: Limit,
    time: Duration,
    work: F,
    reply: oneshot::Sender<Result<T>>,
}

impl std::fmt::Debug for dyn Read {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a read at {}", self.place())
    }
}

impl<F, T> Read for Waiting<F, T>
where
    F: FnOnce(&Connection) -> Result<T> + Send,
    T: Send,
{
    fn place(&self) -> Place {
        self.limit.place
    }

    fn turn(&self) -> &Turn {
        &self.limit.turn
    }

    fn run(self: Box<Self>, reader: &Reader) {
        if self.limit.turn.begin() {
            let _in_span = self.span.enter();
            let result = reader.read(self.limit, self.time, self.work);
            // Nobody listens any more if the caller left meanwhile.
            let _ = self.reply.send(result);
        }
    }

    fn refuse(self: Box<Self>, error: Error) {
        self.limit.turn.begin();
        let _ = self.reply.send(Err(error));
    }
}

/// Says that the caller has left, by being dropped with it.
struct Caller<'a> {
    turn: Arc<Turn>,
    running: &'a Running,
    is_answered: bool,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if !self.is_answered && !self.turn.leave() {
            self.running.interrupt(&self.turn);
        }
    }
}

impl Readers {
    /// Opens two connections for each of `around`'s slots and starts the threads: half for each lane.
    pub(super) fn start(
        options: &connection::Options,
        around: Around,
        waiting_max: usize,
    ) -> Result<(Self, Vec<JoinHandle<()>>)> {
        let count = around.running.slots().len();
        let pool = open_pool(options, count)?;
        let failed = |reason: String| Error::Open {
            path: options.path.clone(),
            reason,
        };
        let slots = waiting_max * SLOTS_EACH;
        let (short, short_receiver) = crossbeam_channel::bounded(slots);
        let (long, long_receiver) = crossbeam_channel::bounded(slots);
        let (relief, relief_receiver) = crossbeam_channel::bounded(count);
        let (stop, stop_receiver) = crossbeam_channel::bounded(0);
        let lines = Lines {
            short: short_receiver,
            long: long_receiver,
            to_long: long.clone(),
            relief: relief_receiver,
            stop: stop_receiver,
            waiting_max,
        };
        let shared = Arc::new(Shared {
            lanes: Lanes::default(),
            counters: (0..count).map(|_| Counter::default()).collect(),
            running: around.running,
            refused: AtomicU64::default(),
            late: AtomicU64::default(),
            short_waiting: Arc::default(),
            long_waiting: Arc::default(),
            closing: AtomicBool::default(),
            health: around.health,
            slow: around.slow,
            clock: around.clock,
        });
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let connection = pool.get().map_err(|error| failed(error.to_string()))?;
            let is_long = number >= short_count(count);
            let reader = Reader::new(connection, number, is_long, relief.clone(), &shared)?;
            let lines = lines.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sqlite-reader-{number}"))
                .spawn(move || reader.run(&lines));
            threads
                .push(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        }
        let queues = Queues {
            short,
            long,
            _stop: stop,
        };
        let readers = Self {
            lanes: RwLock::new(Some(queues)),
            shared,
            waiting_max,
        };
        Ok((readers, threads))
    }

    /// Runs `work` on a reader thread and gives what it returns, within `time`, waiting included.
    ///
    /// A caller that leaves takes its work out of the queue, and cuts it off if it has begun.
    pub(super) async fn read<F, T>(&self, time: Duration, place: Place, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let is_long = self.shared.lanes.is_long(place);
        let turn = self.turn(is_long)?;
        let mut caller = Caller {
            turn: Arc::clone(&turn),
            running: &self.shared.running,
            is_answered: false,
        };
        let waiting = Waiting {
            span: Span::current(),
            limit: Limit::new(place, time, turn),
            time,
            work,
            reply,
        };
        self.send(is_long, Box::new(waiting))?;
        // Every reader may be held by reads that have more time, or by code that is not SQL.
        if let Ok(answer) = tokio::time::timeout(time, answer).await {
            caller.is_answered = true;
            return answer.unwrap_or(Err(Error::Closed));
        }
        if caller.turn.leave() {
            self.shared.late.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Timeout { time })
    }

    fn turn(&self, is_long: bool) -> Result<Arc<Turn>> {
        let waiting = if is_long {
            &self.shared.long_waiting
        } else {
            &self.shared.short_waiting
        };
        let refused = || {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            Error::Overloaded {
                waiting_max: self.waiting_max,
            }
        };
        Turn::take(waiting, self.waiting_max).ok_or_else(refused)
    }

    fn send(&self, is_long: bool, read: Box<dyn Read>) -> Result<()> {
        let queues = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.as_ref().ok_or(Error::Closed)?;
        let lane = if is_long { &queues.long } else { &queues.short };
        lane.try_send(read).map_err(|error| {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            Error::refused(&error, self.waiting_max)
        })
    }

    /// How reads have been doing.
    pub(super) fn stats(&self) -> Work {
        let mut work = stats::sum(self.shared.counters.iter());
        work.refused = self.shared.refused.load(Ordering::Relaxed);
        work.late += self.shared.late.load(Ordering::Relaxed);
        let lanes = [&self.shared.short_waiting, &self.shared.long_waiting];
        work.waiting = lanes.map(|lane| lane.load(Ordering::Relaxed)).iter().sum();
        let slots = self.shared.running.slots().iter();
        work.running = slots.filter(|slot| slot.lock().is_some()).count();
        work
    }

    /// Ends the threads once what waits is done; what takes longer than `grace` is cut off.
    pub(super) fn stop(&self, grace: Duration, threads: Vec<JoinHandle<()>>) {
        let end = Instant::now() + grace;
        drop(self.lanes.write().map(|mut lanes| lanes.take()));
        while threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > end {
                self.shared.closing.store(true, Ordering::Relaxed);
                self.shared.running.interrupt_all();
            }
            std::thread::park_timeout(PAUSE);
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a reader's thread panicked");
            }
        }
    }
}

/// How many of the threads begin in the short lane.
fn short_count(threads: usize) -> usize {
    threads.div_ceil(2)
}

fn open_pool(options: &connection::Options, count: usize) -> Result<Pool> {
    // The pool tells of a failure only that it timed out; a connection of our own says why.
    connection::open(options, connection::Role::Reader)?;
    let size = u32::try_from(count).unwrap_or(u32::MAX);
    r2d2::Pool::builder()
        .max_size(size)
        .test_on_check_out(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_timeout(CONNECTION_WAIT)
        .build(connection::manager(options, connection::Role::Reader))
        .map_err(|error| Error::Open {
            path: options.path.clone(),
            reason: error.to_string(),
        })
}
