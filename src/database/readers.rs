//! The reader threads, over a pool of read-only connections.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::InterruptHandle;
use tokio::sync::oneshot;
use tracing::Span;

use crate::database::Error;
use crate::database::Result;
use crate::database::connection;
use crate::database::error::panic_text;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// What a reader thread does with its connection.
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// How long the connections may take to open.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the threads have ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends reads to the threads.
#[derive(Clone)]
pub(super) struct Readers {
    sender: Sender<Message>,
    interrupts: Arc<[InterruptHandle]>,
    waiting_max: usize,
}

enum Message {
    Read(Read),
    Stop,
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
        let mut interrupts = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let connection = pool.get().map_err(|error| failed(error.to_string()))?;
            interrupts.push(connection.get_interrupt_handle());
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sqlite-reader-{number}"))
                .spawn(move || run(&connection, &receiver));
            threads
                .push(thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?);
        }
        let readers = Self {
            sender,
            interrupts: interrupts.into(),
            waiting_max,
        };
        Ok((readers, threads))
    }

    /// Runs `work` on a reader thread and gives what it returns.
    ///
    /// A caller that is gone before the work began takes it out of the queue.
    pub(super) async fn read<F, T>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // Lines of the closure carry the ids of its caller's request or job.
        let span = Span::current();
        let read: Read = Box::new(move |connection| {
            if !reply.is_closed() {
                let _in_span = span.enter();
                // Nobody listens any more if the caller left meanwhile.
                let _ = reply.send(guarded(connection, work));
            }
        });
        self.sender
            .try_send(Message::Read(read))
            .map_err(|error| match error {
                TrySendError::Full(_) => Error::Overloaded {
                    waiting_max: self.waiting_max,
                },
                TrySendError::Disconnected(_) => Error::Closed,
            })?;
        answer.await.unwrap_or(Err(Error::Closed))
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
                self.interrupts.iter().for_each(InterruptHandle::interrupt);
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

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Readers");
        debug.field("count", &self.interrupts.len());
        debug
            .field("waiting", &self.sender.len())
            .finish_non_exhaustive()
    }
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

fn run(connection: &Connection, receiver: &Receiver<Message>) {
    while let Ok(Message::Read(read)) = receiver.recv() {
        read(connection);
        end_transaction(connection);
    }
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
