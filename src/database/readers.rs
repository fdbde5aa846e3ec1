//! The reader threads, over a pool of read-only connections.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::database::Error;
use crate::database::Result;
use crate::database::connection;
use crate::database::error::panic_text;

type Pool = r2d2::Pool<SqliteConnectionManager>;

/// What a reader thread does with a connection, or with the reason why there is none.
type Read = Box<dyn FnOnce(Result<&Connection>) + Send>;

/// How long a reader waits for a connection: there is one for each, so only to open a broken one anew.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// Sends reads to the threads.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    sender: Sender<Message>,
    count: usize,
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
        let (sender, receiver) = crossbeam_channel::bounded(waiting_max);
        let threads = (0..count)
            .map(|number| {
                let pool = pool.clone();
                let receiver = receiver.clone();
                std::thread::Builder::new()
                    .name(format!("sqlite-reader-{number}"))
                    .spawn(move || run(&pool, &receiver))
            })
            .collect::<std::io::Result<_>>()
            .map_err(|error| Error::Open {
                path: options.path.clone(),
                reason: format!("cannot start a reader thread: {error}"),
            })?;
        let readers = Self {
            sender,
            count,
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
        let read: Read = Box::new(move |connection| {
            if !reply.is_closed() {
                // Nobody listens any more if the caller left meanwhile.
                let _ = reply.send(connection.and_then(|connection| guarded(connection, work)));
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

    /// Ends the threads once what waits is done.
    pub(super) fn stop(&self) {
        for _ in 0..self.count {
            // Fails when the threads are gone already.
            let _ = self.sender.send(Message::Stop);
        }
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

fn run(pool: &Pool, receiver: &Receiver<Message>) {
    while let Ok(Message::Read(read)) = receiver.recv() {
        match pool.get() {
            Ok(connection) => {
                read(Ok(&connection));
                end_transaction(&connection);
            }
            Err(error) => read(Err(Error::Open {
                path: std::path::PathBuf::from("a reader's connection"),
                reason: error.to_string(),
            })),
        }
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
