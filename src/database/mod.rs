//! One SQLite file: many readers, one writer.
//!
//! [`Database::read`] runs a closure on one of a few reader threads, each with a read-only connection of its own;
//! [`Database::write`] runs one on the writer, in a transaction that commits when the closure returns `Ok`.
//! What waits for the writer is committed in groups. There is no other way to a connection, and so no request
//! ever meets `database is locked` because of another one.
//!
//! Left to others: what the tables are. The cache is a file of its own, of the same kind.

mod backup;
mod check;
mod clock;
pub(crate) mod connection;
mod error;
mod guard;
mod migrate;
mod readers;
mod restore;
mod settings;
mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

pub use self::backup::Backup;
pub use self::backup::Progress;
pub use self::check::Report;
pub use self::clock::Clock;
pub use self::error::BoxError;
pub use self::error::Error;
pub use self::error::Result;
pub(crate) use self::error::chain;
pub(crate) use self::error::panic_text;
pub use self::migrate::Migrations;
pub use self::migrate::Step;
pub(crate) use self::restore::restore;
pub use self::settings::Settings;
pub use self::settings::Synchronous;
pub use self::transaction::Transaction;

use self::connection::Options;
use self::connection::Role;
use self::readers::Readers;
use self::writer::Writer;

/// How long reads may go on once the database is being closed.
const READ_GRACE: Duration = Duration::from_millis(500);

/// A handle to one SQLite file.
///
/// Cloning is cheap: clones share the threads and connections. They end with [`Database::close`],
/// or by themselves once the last handle is gone and what waited is done.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Arc<Inner>,
    /// What a read, and what a write, may take by this handle.
    read_time: Duration,
    write_time: Duration,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    readers: Readers,
    writer: Writer,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    readers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

/// How many threads there are, how many may wait, how many commit together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) readers: usize,
    pub(crate) waiting_max: usize,
    pub(crate) group_max: usize,
    pub(crate) read_time: Duration,
    pub(crate) write_time: Duration,
}

impl Database {
    /// Opens the file, making it and its directory where they are missing.
    ///
    /// Every connection gets its PRAGMAs, which are read back. Nothing is migrated.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] when the file cannot be opened, is not a database, or a PRAGMA did not take;
    /// when `mmap_bytes` asks for what is not safe with this SQLite or the `litestream` on the PATH.
    pub fn open(settings: &Settings, clock: Clock) -> Result<Self> {
        let limits = Limits {
            readers: settings.reader_count(),
            waiting_max: settings.waiting_max,
            group_max: settings.group_max,
            read_time: settings.read_timeout(),
            write_time: settings.write_timeout(),
        };
        Self::open_with(options(settings)?, limits, clock)
    }

    pub(crate) fn open_with(options: Options, limits: Limits, clock: Clock) -> Result<Self> {
        let connection = connection::open(&options, Role::Writer)?;
        let (writer, writer_thread) = Writer::start(
            connection,
            clock.clone(),
            limits.waiting_max,
            limits.group_max,
        )?;
        let (readers, reader_threads) =
            Readers::start(&options, limits.readers, limits.waiting_max)?;
        let inner = Inner {
            options,
            clock,
            readers,
            writer,
            threads: Mutex::new(Threads {
                readers: reader_threads,
                writer: Some(writer_thread),
            }),
        };
        Ok(Self {
            inner: Arc::new(inner),
            read_time: limits.read_time,
            write_time: limits.write_time,
        })
    }

    /// A handle to the same file by which reads and writes may take this long, in place of what the settings say.
    ///
    /// ```
    /// # use houseboat::database::Database;
    /// # async fn example(database: Database) -> houseboat::database::Result<()> {
    /// use std::time::Duration;
    /// let report = database.within(Duration::from_secs(60));
    /// let count = report.read(|conn| Ok(conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?));
    /// # let _ = count.await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            read_time: time,
            write_time: time,
        }
    }

    /// Runs `work` with a read-only connection, on a reader thread.
    ///
    /// Several statements that must see the same state belong in a transaction of the closure's own
    /// ([`Connection::unchecked_transaction`]); it ends with the closure.
    /// If the caller is dropped, `work` is not begun, or its statement is cut off.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::Panicked`] if it panics; [`Error::Overloaded`] at once when
    /// `waiting_max` reads wait already; [`Error::Timeout`] after `read_timeout_ms`, the wait for its turn included:
    /// a statement that runs is cut off then, other code of `work` is not; [`Error::Closed`].
    pub async fn read<F, T>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.readers.read(self.read_time, work).await
    }

    /// Runs `work` in one transaction on the writer, and answers once it is committed.
    ///
    /// Writes run one after another, first come, first served. On `Err` and on panic what `work` did is rolled back,
    /// and nothing else. The result is there only after the commit: with `synchronous = "full"` it survives a power cut,
    /// with `"normal"` it survives the death of the process.
    /// If the caller is dropped before its turn has come, `work` is not run; once begun, it is finished.
    ///
    /// ```
    /// # use houseboat::database::Database;
    /// # async fn example(database: Database) -> houseboat::database::Result<()> {
    /// let id = database
    ///     .write(|tx| {
    ///         tx.execute("INSERT INTO notes (text) VALUES (?1)", ["hello"])?;
    ///         Ok(tx.last_insert_rowid())
    ///     })
    ///     .await?;
    /// # let _ = id;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::Panicked`] if it panics; [`Error::Overloaded`] at once when
    /// `waiting_max` writes wait already; [`Error::Timeout`] if its turn has not come after `write_timeout_ms`;
    /// [`Error::Busy`] when another process holds the file;
    /// [`Error::RolledBack`] when the commit failed; [`Error::Closed`].
    pub async fn write<F, T>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.writer.write(self.write_time, work).await
    }

    /// The time by this database's clock, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Whether this is a handle to the same open file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.options.path
    }

    /// Applies what the file lacks of each set, in one transaction, and says what that was.
    ///
    /// # Errors
    ///
    /// [`Error::Migrate`] when a statement fails, an applied file was changed, the file is newer than the program,
    /// or a foreign key would point nowhere; the file is then as it was.
    pub async fn migrate(&self, sets: &[Migrations]) -> Result<Vec<Step>> {
        let sets = sets.to_vec();
        self.apart(Role::Writer, move |connection| {
            migrate::apply(connection, &sets)
        })
        .await
    }

    /// Lists the migrations of each set and whether they are applied, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Migrate`] when an applied file was changed, or the file is newer than the program.
    pub async fn migrations(&self, sets: &[Migrations]) -> Result<Vec<Step>> {
        let sets = sets.to_vec();
        self.apart(Role::Reader, move |connection| {
            migrate::status(connection, &sets)
        })
        .await
    }

    /// Reads the whole file and says what is wrong with it; takes a time that grows with the file.
    ///
    /// # Errors
    ///
    /// When the file is too damaged to be read at all.
    pub async fn check(&self) -> Result<Report> {
        self.apart(Role::Reader, |connection| check::full(connection))
            .await
    }

    /// Copies the file as it is at this moment to `to`, a new file, while reads and writes go on.
    ///
    /// The copy is checked before it gets its name: whenever the process dies, there is either no file of that name or
    /// a whole one. It is written as `<to>.partial`, which is removed on failure, and taken over by the next backup
    /// after a kill. `progress` is told of every step. The copy has no `-wal` beside it and needs none.
    /// While it is made the WAL cannot begin anew, and grows with what is written.
    ///
    /// # Errors
    ///
    /// [`Error::Backup`] when `to` exists, its folder is missing or has no room, or the copy shows that
    /// this database is damaged.
    pub async fn backup(
        &self,
        to: &Path,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Backup> {
        let to = to.to_owned();
        self.apart(Role::Reader, move |connection| {
            backup::make(connection, &to, progress)
        })
        .await
    }

    /// Brings what is committed from the WAL into the file, as far as no reader needs it there.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.apart(Role::Writer, |connection| {
            Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
        })
        .await
    }

    /// Finishes what waits, closes every connection and ends the threads.
    ///
    /// Reads that take longer than half a second are cut off; a write runs to its end.
    /// Later calls of `read` and `write`, by whatever handle, answer [`Error::Closed`].
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let closing = tokio::task::spawn_blocking(move || {
            let threads =
                std::mem::take(&mut *inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
            // The writer last: only its connection can bring the WAL home and remove it.
            inner.readers.stop(READ_GRACE, threads.readers);
            inner.writer.stop();
            if threads.writer.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the writer's thread panicked");
            }
        });
        if closing.await.is_err() {
            tracing::error!("the database could not be closed in order");
        }
    }

    /// Runs `work` on a connection of its own, off the runtime and off the readers.
    async fn apart<F, T>(&self, role: Role, work: F) -> Result<T>
    where
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&mut connection::open(&inner.options, role)?))
            .await
            .unwrap_or_else(|error| Err(Error::Panicked(error.to_string())))
    }
}

fn options(settings: &Settings) -> Result<Options> {
    let mmap_bytes =
        guard::mmap_bytes(settings.mmap_bytes.into_option()).map_err(|reason| Error::Open {
            path: settings.path.clone(),
            reason,
        })?;
    Ok(Options {
        path: settings.path.clone(),
        busy_timeout_ms: settings.busy_timeout_ms,
        synchronous: settings.synchronous,
        cache_pages: settings.cache_pages,
        journal_size_limit_bytes: settings.journal_size_limit_bytes,
        mmap_bytes,
    })
}
