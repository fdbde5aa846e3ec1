//! The queue to the one writer, and what waits in it.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
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
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::Span;

use crate::database::Error;
use crate::database::Result;
use crate::database::Transaction;
use crate::database::connection::Options;
use crate::database::error::panic_text;
use crate::database::group::Group;
use crate::database::running::Around;
use crate::database::running::Limit;
use crate::database::stats;
use crate::database::stats::Counter;
use crate::database::stats::Place;
use crate::database::stats::Work;
use crate::database::turn::SLOTS_EACH;
use crate::database::turn::Turn;

/// Sends writes to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// None once it is being stopped: nothing more can be sent then. What waits is stored before the thread ends.
    queue: RwLock<Option<Sender<Box<dyn Write>>>>,
    shared: Arc<Shared>,
    waiting_max: usize,
}

/// What the thread and its callers have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counter: Counter,
    refused: AtomicU64,
    /// Those whose time was over before their turn came.
    late: AtomicU64,
    waiting: Arc<AtomicUsize>,
    /// Writes of the group that is not committed yet.
    pub(super) running: AtomicUsize,
    pub(super) commits: AtomicU64,
    pub(super) checkpoints: Arc<AtomicU64>,
    /// Whether another process brings the WAL into the file.
    pub(super) is_others_wal: Arc<AtomicBool>,
}

/// A write that waits, whatever it returns.
pub(super) trait Write: Send {
    fn place(&self) -> Place;
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Begins, unless nobody waits for the answer any more.
    fn begin(&self) -> bool;
    /// The error for a write whose turn has come too late, if it has.
    fn is_late(&self) -> Option<Error>;
    /// Runs the closure, once; says whether its savepoint is to be kept.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// What the closure ended with, if that is an error.
    fn error(&self) -> Option<&Error>;
    /// Gives the closure's result to the caller, or the error that took the transaction with it.
    fn answer(self: Box<Self>, lost: Option<Error>, counter: &Counter);
}

struct Waiting<F, T> {
    /// Of the caller: lines of the closure carry the ids of its request or job.
    span: Span,
    /// It is not begun after its end.
    limit: Limit,
    time: Duration,
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl std::fmt::Debug for dyn Write {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a write at {}", self.place())
    }
}

impl<F, T> Write for Waiting<F, T>
where
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send,
    T: Send,
{
    fn place(&self) -> Place {
        self.limit.place
    }

    fn is_abandoned(&self) -> bool {
        self.limit.turn.has_left()
    }

    fn begin(&self) -> bool {
        self.limit.turn.begin()
    }

    fn is_late(&self) -> Option<Error> {
        let time = self.time;
        (Instant::now() > self.limit.end).then_some(Error::Timeout { time })
    }

    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let _in_span = self.span.enter();
        let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
            .unwrap_or_else(|panic| Err(Error::Panicked(panic_text(panic.as_ref()))));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn error(&self) -> Option<&Error> {
        self.result
            .as_ref()
            .and_then(|result| result.as_ref().err())
    }

    fn answer(self: Box<Self>, lost: Option<Error>, counter: &Counter) {
        let result = match (lost, self.result) {
            // The closure's own error says more than that others were lost with it.
            (_, Some(Err(error))) | (Some(error), _) => Err(error),
            (None, Some(result)) => result,
            (None, None) => Err(Error::Closed),
        };
        self.limit.turn.begin();
        counter.ended(self.limit.asked.elapsed(), result.as_ref().err());
        // Nobody listens any more if the caller left meanwhile; the write is stored all the same.
        let _ = self.reply.send(result);
    }
}

/// Takes the write out of the queue when the caller is dropped, if it has not begun.
struct Caller(Arc<Turn>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(super) fn start(
        connection: Connection,
        options: &Options,
        around: &Around,
        waiting_max: usize,
        group_max: usize,
    ) -> Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::bounded(waiting_max * SLOTS_EACH);
        let shared = Arc::new(Shared::default());
        let mut group = Group::new(connection, options, around, &shared, (receiver, group_max))?;
        let (options, running) = (options.clone(), around.running.clone());
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || group.run(&options, running))
            .map_err(Error::abort)?;
        let writer = Self {
            queue: RwLock::new(Some(sender)),
            shared,
            waiting_max,
        };
        Ok((writer, thread))
    }

    /// Runs `work` in a transaction and answers once it is committed; does not begin it after `time`.
    pub(super) async fn write<F, T>(&self, time: Duration, place: Place, work: F) -> Result<T>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, mut answer) = oneshot::channel();
        let refused = Error::Overloaded {
            waiting_max: self.waiting_max,
        };
        let turn = Turn::take(&self.shared.waiting, self.waiting_max);
        let turn = turn.ok_or(refused).inspect_err(|_| self.refused())?;
        let caller = Caller(Arc::clone(&turn));
        let waiting = Waiting {
            span: Span::current(),
            limit: Limit::new(place, time, turn),
            time,
            work: Some(work),
            result: None,
            reply,
        };
        self.send(Box::new(waiting))?;
        match tokio::time::timeout(time, &mut answer).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) if caller.0.leave() => {
                self.shared.late.fetch_add(1, Ordering::Relaxed);
                Err(Error::Timeout { time })
            }
            // It has begun, and will be stored: the caller is to know.
            Err(_) => answer.await.unwrap_or(Err(Error::Closed)),
        }
    }

    fn refused(&self) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn send(&self, write: Box<dyn Write>) -> Result<()> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(Error::Closed)?;
        queue
            .try_send(write)
            .map_err(|error| Error::refused(&error, self.waiting_max))
            .inspect_err(|_| self.refused())
    }

    /// How writes have been doing.
    pub(super) fn stats(&self) -> Work {
        let mut work = stats::sum(std::iter::once(&self.shared.counter));
        work.refused = self.shared.refused.load(Ordering::Relaxed);
        work.late += self.shared.late.load(Ordering::Relaxed);
        work.waiting = self.shared.waiting.load(Ordering::Relaxed);
        work.running = self.shared.running.load(Ordering::Relaxed);
        work
    }

    /// How many commits there were, and how many checkpoints that brought all of the WAL into the file.
    pub(super) fn counts(&self) -> (u64, u64) {
        let (commits, checkpoints) = (&self.shared.commits, &self.shared.checkpoints);
        (
            commits.load(Ordering::Relaxed),
            checkpoints.load(Ordering::Relaxed),
        )
    }

    /// Leaves it to another process to bring the WAL into the file, or takes it back.
    pub(super) fn leave_the_wal(&self, is_others: bool) {
        self.shared
            .is_others_wal
            .store(is_others, Ordering::Relaxed);
    }

    /// Ends the thread once what waits is stored.
    pub(super) fn stop(&self) {
        drop(self.queue.write().map(|mut queue| queue.take()));
    }
}
