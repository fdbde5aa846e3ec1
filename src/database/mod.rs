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
mod fence;
pub(crate) mod files;
mod filesystem;
mod group;
mod guard;
mod health;
mod keeper;
mod lanes;
mod migrate;
mod patience;
mod place;
mod reader;
mod readers;
mod recover;
mod restore;
mod running;
mod salvage;
mod settings;
mod shell;
mod slow;
mod stats;
mod temporary;
mod transaction;
mod turn;
mod upkeep;
mod vacancy;
mod wal;
mod writer;

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use tempfile::TempDir;

pub use self::backup::Backup;
pub use self::backup::Progress;
pub use self::check::Depth;
pub use self::check::Report;
pub use self::clock::Clock;
pub(crate) use self::connection::notes_of_litestream;
pub use self::error::BoxError;
pub use self::error::Error;
pub use self::error::Result;
pub(crate) use self::error::chain;
pub(crate) use self::error::panic_text;
pub use self::fence::Fence;
pub(crate) use self::guard::litestream_is_fit;
pub use self::health::Damage;
pub use self::keeper::Keeper;
pub use self::migrate::Migrations;
pub use self::migrate::Step;
pub use self::migrate::Target;
pub(crate) use self::place::real as real_path;
pub(crate) use self::recover::Rows;
pub(crate) use self::recover::recover;
pub(crate) use self::restore::Restore;
pub use self::settings::NetworkFilesystem;
pub use self::settings::Settings;
pub use self::settings::Synchronous;
pub use self::stats::Pages;
pub use self::stats::Stats;
pub use self::stats::Work;
pub use self::transaction::Transaction;
pub(crate) use self::vacancy::Vacancy;

use self::connection::Options;
use self::connection::Role;
use self::health::Health;
use self::readers::Readers;
use self::running::Around;
use self::running::Running;
use self::slow::SlowLog;
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
    health: Arc<Health>,
    slow: Arc<SlowLog>,
    running: Running,
    /// Ends checks, which nobody waits for then.
    is_closing: Arc<AtomicBool>,
    threads: Mutex<Threads>,
    /// The folder that goes with it ([`Database::open_temporary`]).
    temporary: OnceLock<TempDir>,
}

#[derive(Debug, Default)]
struct Threads {
    readers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

/// How many threads there are, how many may wait, how many commit together; what is slow, and who is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) readers: usize,
    pub(crate) waiting_max: usize,
    pub(crate) group_max: usize,
    pub(crate) read_time: Duration,
    pub(crate) write_time: Duration,
    pub(crate) slow_time: Duration,
    /// Whether damage is noted beside the file; not for one that is made anew then.
    pub(crate) marks_damage: bool,
}

impl Database {
    /// Opens the file, making it and its directory where they are missing.
    ///
    /// Every connection gets its PRAGMAs, which are read back. Nothing is migrated.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] when the file cannot be opened, is not a database, or a PRAGMA did not take;
    /// when `mmap_bytes` asks for what is not safe with this SQLite or the `litestream` on the PATH;
    /// when the folder is on a network file system and `network_filesystem` is not `Allow`.
    pub fn open(settings: &Settings, clock: Clock) -> Result<Self> {
        Self::open_behind(settings, clock, Fence::open())
    }

    /// As [`Database::open`], and stores nothing while the fence is closed: writes are [`Error::Fenced`] then.
    ///
    /// # Errors
    ///
    /// As [`Database::open`].
    pub fn open_behind(settings: &Settings, clock: Clock, fence: Fence) -> Result<Self> {
        let limits = Limits {
            readers: settings.reader_count(),
            waiting_max: settings.waiting_max,
            group_max: settings.group_max,
            read_time: settings.read_timeout(),
            write_time: settings.write_timeout(),
            slow_time: settings.slow_time(),
            marks_damage: true,
        };
        let options = options(settings)?;
        for warning in &options.warnings {
            tracing::warn!("{warning}");
        }
        Self::open_fenced(options, limits, clock, fence)
    }

    /// Refuses settings with which nothing can be opened, before anything is made, and before this process has the
    /// file open.
    pub(crate) fn refuse(settings: &Settings) -> Result<()> {
        let path = place::real(&settings.path);
        connection::refuse_obstacles(&path)?;
        if place::is_foreign(&path) {
            return Err(Error::Open {
                path,
                reason: connection::FOREIGN.to_owned(),
            });
        }
        options(settings).map(drop)
    }

    pub(crate) fn open_with(options: Options, limits: Limits, clock: Clock) -> Result<Self> {
        Self::open_fenced(options, limits, clock, Fence::open())
    }

    fn open_fenced(options: Options, limits: Limits, clock: Clock, fence: Fence) -> Result<Self> {
        let connection = connection::open(&options, Role::Writer)?;
        if let Some(slow) = guard::shared_lock(&connection)? {
            tracing::info!("{slow}");
        }
        let health = Arc::new(Health::open(&options.path, limits.marks_damage));
        let slow = Arc::new(SlowLog::new(limits.slow_time));
        // As many again for what takes long.
        let running = Running::new(limits.readers * 2);
        let around = Around {
            running: running.clone(),
            health: Arc::clone(&health),
            slow: Arc::clone(&slow),
            clock: clock.clone(),
            fence,
        };
        let (waiting_max, group_max) = (limits.waiting_max, limits.group_max);
        let (writer, writer_thread) =
            Writer::start(connection, &options, &around, waiting_max, group_max)?;
        let (readers, reader_threads) = Readers::start(&options, around, waiting_max)?;
        let inner = Inner {
            options,
            clock,
            readers,
            writer,
            health,
            slow,
            running,
            is_closing: Arc::default(),
            threads: Mutex::new(Threads {
                readers: reader_threads,
                writer: Some(writer_thread),
            }),
            temporary: OnceLock::new(),
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
    /// An error of a damaged file that the closure drops (`.ok()`) is not noticed.
    ///
    /// A place in the code whose reads take longer than 10 ms gets threads of its own for them, so that short reads
    /// never wait behind long ones.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::Panicked`] if it panics; [`Error::Overloaded`] at once when
    /// `waiting_max` reads wait already; [`Error::Timeout`] after `read_timeout_ms`, the wait for its turn included:
    /// a statement that runs is cut off then, other code of `work` is not; [`Error::Closed`].
    #[track_caller]
    pub fn read<F, T>(&self, work: F) -> impl Future<Output = Result<T>> + Send + use<'_, F, T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let place = Location::caller();
        self.inner.readers.read(self.read_time, place, work)
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
    /// `waiting_max` writes wait already; [`Error::Timeout`] if its turn has not come after `write_timeout_ms`: it is not run then;
    /// [`Error::Busy`] when another process holds the file;
    /// [`Error::DiskFull`]; [`Error::Damaged`] once the file is known to be damaged;
    /// [`Error::RolledBack`] when the commit failed; [`Error::Closed`].
    #[track_caller]
    pub fn write<F, T>(&self, work: F) -> impl Future<Output = Result<T>> + Send + use<'_, F, T>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let place = Location::caller();
        self.inner.writer.write(self.write_time, place, work)
    }

    /// The time by this database's clock, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The file, also where the settings name a link to it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.options.path
    }

    /// What was found when it was opened that is no reason to refuse it, and nothing to leave so; a sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.inner.options.warnings
    }

    /// Finishes what waits, closes every connection and ends the threads.
    ///
    /// Reads that take longer than half a second are cut off; a write runs to its end.
    /// Later calls of `read` and `write`, by whatever handle, answer [`Error::Closed`].
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        inner.is_closing.store(true, Ordering::Relaxed);
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
}

fn options(settings: &Settings) -> Result<Options> {
    let refused = |reason| Error::Open {
        path: settings.path.clone(),
        reason,
    };
    let path = place::real(&settings.path);
    let network = filesystem::guard(&path, settings.network_filesystem).map_err(refused)?;
    let (mmap_bytes, old) =
        guard::mmap_bytes(settings.mmap_bytes.into_option()).map_err(refused)?;
    Ok(Options {
        path,
        busy_timeout_ms: settings.busy_timeout_ms,
        synchronous: settings.synchronous,
        cache_pages: settings.cache_pages,
        journal_size_limit_bytes: settings.journal_size_limit_bytes,
        mmap_bytes,
        copy_before_migration: settings.copy_before_migration,
        warnings: network.into_iter().chain(old).collect(),
    })
}
