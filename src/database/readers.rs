//! The reader threads, over a pool of read-only connections.
//!
//! There are two lanes, with a queue and threads each: what is known to take long waits in the long one, all else in
//! the short one. A thread of the short lane whose read turns out to be long goes over to the long lane with it, and
//! an idle one of the long lane takes its place.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::ErrorCode;
use tokio::sync::oneshot;
use tracing::Span;

use crate::database::Error;
use crate::database::Result;
use crate::database::clock::Clock;
use crate::database::connection;
use crate::database::error::panic_text;
use crate::database::health::Health;
use crate::database::lanes::LONG;
use crate::database::lanes::Lanes;
use crate::database::running::Around;
use crate::database::running::Limit;
use crate::database::running::Running;
use crate::database::running::Slot;
use crate::database::slow::SlowLog;
use crate::database::stats;
use crate::database::stats::Counter;
use crate::database::stats::Place;
use crate::database::stats::Work;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// How long the connections may take to open.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the threads have ended.
const PAUSE: Duration = Duration::from_millis(2);

/// So many steps of SQLite's machine lie between two looks at a read's limit: a fraction of a millisecond,
/// and more than a point read ever takes.
const STEPS: i32 = 10_000;

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
struct Shared {
    lanes: Lanes,
    running: Running,
    counters: Vec<Counter>,
    refused: AtomicU64,
    /// Cuts off what runs, once it is set.
    closing: AtomicBool,
    health: Arc<Health>,
    slow: Arc<SlowLog>,
    clock: Clock,
}

/// A read that waits, whatever it returns.
trait Read: Send {
    fn place(&self) -> Place;
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

    fn run(self: Box<Self>, reader: &Reader) {
        if !self.reply.is_closed() {
            let _in_span = self.span.enter();
            let result = reader.read(self.limit, self.time, self.work);
            // Nobody listens any more if the caller left meanwhile.
            let _ = self.reply.send(result);
        }
    }

    fn refuse(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// Says that the caller has left, by being dropped with it.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
        let (short, short_receiver) = crossbeam_channel::bounded(waiting_max);
        let (long, long_receiver) = crossbeam_channel::bounded(waiting_max);
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
        let caller = Caller(Arc::default());
        let waiting = Box::new(Waiting {
            span: Span::current(),
            limit: Limit::new(place, time, Arc::clone(&caller.0)),
            time,
            work,
            reply,
        });
        self.send(waiting).inspect_err(|_| {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        // Every reader may be held by reads that have more time, or by code that is not SQL.
        match tokio::time::timeout(time, answer).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Timeout { time }),
        }
    }

    fn send(&self, read: Box<dyn Read>) -> Result<()> {
        let queues = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.as_ref().ok_or(Error::Closed)?;
        let lane = if self.shared.lanes.is_long(read.place()) {
            &queues.long
        } else {
            &queues.short
        };
        lane.try_send(read)
            .map_err(|error| Error::refused(&error, self.waiting_max))
    }

    /// How reads have been doing.
    pub(super) fn stats(&self) -> Work {
        let mut work = stats::sum(self.shared.counters.iter());
        work.refused = self.shared.refused.load(Ordering::Relaxed);
        let queues = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        work.waiting = queues
            .as_ref()
            .map_or(0, |queues| queues.short.len() + queues.long.len());
        let slots = self.shared.running.slots().iter();
        work.running = slots.filter(|slot| lock(slot).is_some()).count();
        work
    }

    /// Ends the threads once what waits is done; what takes longer than `grace` is cut off.
    pub(super) fn stop(&self, grace: Duration, threads: Vec<JoinHandle<()>>) {
        let end = Instant::now() + grace;
        drop(self.lanes.write().map(|mut lanes| lanes.take()));
        while threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > end {
                self.shared.closing.store(true, Ordering::Relaxed);
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

/// Where threads get their work from.
#[derive(Clone)]
struct Lines {
    short: Receiver<Box<dyn Read>>,
    long: Receiver<Box<dyn Read>>,
    to_long: Sender<Box<dyn Read>>,
    /// One for each thread that the short lane lacks.
    relief: Receiver<()>,
    /// Closed when the threads are to end.
    stop: Receiver<()>,
    waiting_max: usize,
}

/// A thread's connection, and the read that it does now.
struct Reader {
    connection: r2d2::PooledConnection<SqliteConnectionManager>,
    number: usize,
    /// Whether it belongs to the long lane now.
    is_long: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Reader {
    fn new(
        connection: r2d2::PooledConnection<SqliteConnectionManager>,
        number: usize,
        is_long: bool,
        relief: Sender<()>,
        shared: &Arc<Shared>,
    ) -> Result<Self> {
        let is_long = Arc::new(AtomicBool::new(is_long));
        let (in_long_lane, around) = (Arc::clone(&is_long), Arc::clone(shared));
        let look = move || {
            let mut slot = lock(around.running.slot(number));
            let Some(limit) = slot.as_mut() else {
                return around.closing.load(Ordering::Relaxed);
            };
            let now = Instant::now();
            if !limit.is_long && now - limit.begun > LONG {
                limit.is_long = true;
                around.lanes.is_taking_long(limit.place);
                if !in_long_lane.swap(true, Ordering::Relaxed) {
                    // There is room: no more threads can go over than there are.
                    let _ = relief.try_send(());
                }
            }
            limit.left.load(Ordering::Relaxed)
                || now > limit.end
                || around.closing.load(Ordering::Relaxed)
        };
        connection.progress_handler(STEPS, Some(look))?;
        Ok(Self {
            connection,
            number,
            is_long,
            shared: Arc::clone(shared),
        })
    }

    fn run(&self, lines: &Lines) {
        self.shared.slow.watch(&self.connection);
        loop {
            let next = if self.is_long.load(Ordering::Relaxed) {
                self.next_long(lines)
            } else {
                self.next_short(lines)
            };
            match next {
                Next::Read(read) => self.one(read),
                Next::LookAgain => {}
                Next::Stop => return,
            }
        }
    }

    fn next_short(&self, lines: &Lines) -> Next {
        let Ok(read) = lines.short.recv() else {
            return Next::Stop;
        };
        if !self.shared.lanes.is_long(read.place()) {
            return Next::Read(read);
        }
        // It was not known to be long when it was sent.
        if let Err(error) = lines.to_long.try_send(read) {
            let refused = Error::refused(&error, lines.waiting_max);
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            error.into_inner().refuse(refused);
        }
        Next::LookAgain
    }

    /// The short lane comes first: its gaps are filled before anything long is begun.
    fn next_long(&self, lines: &Lines) -> Next {
        let go_short = || {
            self.is_long.store(false, Ordering::Relaxed);
            Next::LookAgain
        };
        if lines.relief.try_recv().is_ok() {
            return go_short();
        }
        if let Ok(read) = lines.long.try_recv() {
            return Next::Read(read);
        }
        crossbeam_channel::select! {
            recv(lines.relief) -> _ => go_short(),
            recv(lines.long) -> read => read.map_or(Next::Stop, Next::Read),
            recv(lines.stop) -> _ => Next::Stop,
        }
    }

    /// Runs one read, and cleans up behind it.
    fn one(&self, read: Box<dyn Read>) {
        let place = read.place();
        read.run(self);
        lock(self.slot()).take();
        end_transaction(&self.connection);
        self.shared.slow.tell(&self.connection, place);
    }

    /// Runs the caller's closure, unless its time has passed while it waited.
    fn read<T>(
        &self,
        mut limit: Limit,
        time: Duration,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let (asked, begun, end, place) = (limit.asked, Instant::now(), limit.end, limit.place);
        let counter = &self.shared.counters[self.number];
        if begun > end {
            let late = Error::Timeout { time };
            counter.ended(begun - asked, Some(&late));
            return Err(late);
        }
        limit.begun = begun;
        *lock(self.slot()) = Some(limit);
        let result = match guarded(&self.connection, work) {
            Err(Error::Sqlite(error)) if is_interruption(&error) => Err(self.why(end, time, error)),
            result => result,
        };
        let ended = Instant::now();
        self.shared.lanes.took(place, ended - begun);
        let error = result.as_ref().err();
        counter.ended(ended - asked, error);
        let now = || self.shared.clock.now();
        let found_by = || format!("a read at {place}");
        self.shared.health.trap(error, now, found_by);
        result
    }

    fn slot(&self) -> &Slot {
        self.shared.running.slot(self.number)
    }

    /// Says why a statement was cut off.
    fn why(&self, end: Instant, time: Duration, error: rusqlite::Error) -> Error {
        if self.shared.closing.load(Ordering::Relaxed) {
            Error::Closed
        } else if Instant::now() > end {
            Error::Timeout { time }
        } else {
            Error::Sqlite(error)
        }
    }
}

enum Next {
    Read(Box<dyn Read>),
    LookAgain,
    Stop,
}

fn lock(slot: &Slot) -> std::sync::MutexGuard<'_, Option<Limit>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_interruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
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

/// Runs the caller's closure; a panic in it is an error of this read alone.
fn guarded<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|panic| Err(Error::Panicked(panic_text(panic.as_ref()))))
}

/// Ends a transaction that the closure left open: it would pin the WAL and show the next reader old rows.
fn end_transaction(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a reader's transaction could not be ended");
    }
}
