//! The reader threads, over a pool of read-only connections.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
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
use crate::database::connection;
use crate::database::error::panic_text;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// What a reader thread does with its connection.
type Read = Box<dyn FnOnce(&Reader) + Send>;

/// How long the connections may take to open.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the threads have ended.
const PAUSE: Duration = Duration::from_millis(2);

/// So many steps of SQLite's machine lie between two looks at a read's limit: a fraction of a millisecond,
/// and more than a point read ever takes.
const STEPS: i32 = 10_000;

/// Sends reads to the threads.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    sender: Sender<Message>,
    /// Cuts off what runs, once it is set.
    closing: Arc<AtomicBool>,
    waiting_max: usize,
}

enum Message {
    Read(Read),
    Stop,
}

/// When a read is given up: after its time, or when its caller has left.
struct Limit {
    end: Instant,
    left: Arc<AtomicBool>,
}

/// A thread's connection, and the limit of the read that it does now.
struct Reader {
    connection: r2d2::PooledConnection<SqliteConnectionManager>,
    limit: Arc<Mutex<Option<Limit>>>,
    closing: Arc<AtomicBool>,
}

/// Says that the caller has left, by being dropped with it.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Readers {
    /// Opens `count` connections and starts a thread for each.
    pub(super) fn start(
        options: &connection::Options,
        count: usize,
        waiting_max: usize,
    ) -> Result<(Self, Vec<JoinHandle<()>>)> {
        let pool = open_pool(options, count)?;
        let failed = |reason: String| Error::Open {
            path: options.path.clone(),
            reason,
        };
        let (sender, receiver) = crossbeam_channel::bounded(waiting_max);
        let closing = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let connection = pool.get().map_err(|error| failed(error.to_string()))?;
            let reader = Reader::new(connection, Arc::clone(&closing))?;
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sqlite-reader-{number}"))
                .spawn(move || reader.run(&receiver));
            threads
                .push(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        }
        let readers = Self {
            sender,
            closing,
            waiting_max,
        };
        Ok((readers, threads))
    }

    /// Runs `work` on a reader thread and gives what it returns, within `time`, waiting included.
    ///
    /// A caller that leaves takes its work out of the queue, and cuts it off if it has begun.
    pub(super) async fn read<F, T>(&self, time: Duration, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let caller = Caller(Arc::default());
        let limit = Limit {
            end: Instant::now() + time,
            left: Arc::clone(&caller.0),
        };
        // Lines of the closure carry the ids of its caller's request or job.
        let span = Span::current();
        let read: Read = Box::new(move |reader| {
            if !reply.is_closed() {
                let _in_span = span.enter();
                // Nobody listens any more if the caller left meanwhile.
                let _ = reply.send(reader.read(limit, time, work));
            }
        });
        self.sender
            .try_send(Message::Read(read))
            .map_err(|error| Error::refused(&error, self.waiting_max))?;
        // Every reader may be held by reads that have more time, or by code that is not SQL.
        match tokio::time::timeout(time, answer).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Closed)),
            Err(_) => Err(Error::Timeout { time }),
        }
    }

    /// Ends the threads once what waits is done; what takes longer than `grace` is cut off.
    pub(super) fn stop(&self, grace: Duration, threads: Vec<JoinHandle<()>>) {
        let end = Instant::now() + grace;
        let mut stops = threads.len();
        while threads.iter().any(|thread| !thread.is_finished()) {
            // Behind what waits; no room for it now, or no reader left, is tried again, or seen above.
            while stops > 0 && self.sender.try_send(Message::Stop).is_ok() {
                stops -= 1;
            }
            if Instant::now() > end {
                self.closing.store(true, Ordering::Relaxed);
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

impl Reader {
    fn new(
        connection: r2d2::PooledConnection<SqliteConnectionManager>,
        closing: Arc<AtomicBool>,
    ) -> Result<Self> {
        let limit: Arc<Mutex<Option<Limit>>> = Arc::default();
        let (now, is_closing) = (Arc::clone(&limit), Arc::clone(&closing));
        let is_over = move || {
            let limit = now.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over = limit.as_ref().is_some_and(|limit| {
                limit.left.load(Ordering::Relaxed) || Instant::now() > limit.end
            });
            is_over || is_closing.load(Ordering::Relaxed)
        };
        connection.progress_handler(STEPS, Some(is_over))?;
        Ok(Self {
            connection,
            limit,
            closing,
        })
    }

    fn run(&self, receiver: &Receiver<Message>) {
        while let Ok(Message::Read(read)) = receiver.recv() {
            read(self);
            self.set(None);
            end_transaction(&self.connection);
        }
    }

    /// Runs the caller's closure, unless its time has passed while it waited.
    fn read<T>(
        &self,
        limit: Limit,
        time: Duration,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let end = limit.end;
        if Instant::now() > end {
            return Err(Error::Timeout { time });
        }
        self.set(Some(limit));
        let result = guarded(&self.connection, work);
        match result {
            Err(Error::Sqlite(error)) if is_interruption(&error) => Err(self.why(end, time, error)),
            result => result,
        }
    }

    /// Says why a statement was cut off.
    fn why(&self, end: Instant, time: Duration, error: rusqlite::Error) -> Error {
        if Instant::now() > end {
            Error::Timeout { time }
        } else if self.closing.load(Ordering::Relaxed) {
            Error::Closed
        } else {
            Error::Sqlite(error)
        }
    }

    fn set(&self, limit: Option<Limit>) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }
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
