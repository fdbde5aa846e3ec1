//! One SQLite file: many readers, one writer.
//!
//! [`Database::read`] runs a closure on one of a few reader threads, each with a read-only connection of its own;
//! [`Database::write`] runs one on the writer, in a transaction that commits when the closure returns `Ok`.
//! What waits for the writer is committed in groups. There is no other way to a connection, and so no request
//! ever meets `database is locked` because of another one.
//!
//! Left to others: what the tables are. The cache is a file of its own, of the same kind.

mod check;
mod clock;
pub(crate) mod connection;
mod error;
mod group;
mod guard;
mod health;
mod keeper;
mod lanes;
mod migrate;
mod readers;
mod running;
mod settings;
mod slow;
mod stats;
mod transaction;
mod wal;
mod writer;

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::sync::watch;

pub use self::check::Depth;
pub use self::check::Report;
pub use self::clock::Clock;
pub use self::error::BoxError;
pub use self::error::Error;
pub use self::error::Result;
pub(crate) use self::error::chain;
pub(crate) use self::error::panic_text;
pub use self::health::Damage;
pub use self::keeper::Keeper;
pub use self::migrate::Migrations;
pub use self::migrate::Step;
pub use self::settings::Settings;
pub use self::settings::Synchronous;
pub use self::stats::Pages;
pub use self::stats::Stats;
pub use self::stats::Work;
pub use self::transaction::Transaction;

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
    /// Ends checks, which nobody waits for then.
    is_closing: Arc<AtomicBool>,
    threads: Mutex<Threads>,
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
    /// when `mmap_bytes` asks for what is not safe with this SQLite or the `litestream` on the PATH.
    pub fn open(settings: &Settings, clock: Clock) -> Result<Self> {
        let limits = Limits {
            readers: settings.reader_count(),
            waiting_max: settings.waiting_max,
            group_max: settings.group_max,
            read_time: settings.read_timeout(),
            write_time: settings.write_timeout(),
            slow_time: settings.slow_time(),
            marks_damage: true,
        };
        Self::open_with(options(settings)?, limits, clock)
    }

    pub(crate) fn open_with(options: Options, limits: Limits, clock: Clock) -> Result<Self> {
        let connection = connection::open(&options, Role::Writer)?;
        let health = Arc::new(Health::open(&options.path, limits.marks_damage));
        let slow = Arc::new(SlowLog::new(limits.slow_time));
        let around = Around {
            // As many again for what takes long.
            running: Running::new(limits.readers * 2),
            health: Arc::clone(&health),
            slow: Arc::clone(&slow),
            clock: clock.clone(),
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
            is_closing: Arc::default(),
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
    /// `waiting_max` writes wait already; [`Error::Timeout`] if its turn has not come after `write_timeout_ms`;
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

    /// Reads the file and says what is wrong with it; takes a time that grows with the file.
    ///
    /// It runs on a thread of its own with the lowest priority. A problem that it finds marks the database damaged,
    /// and a full check that finds none takes that mark away.
    ///
    /// # Errors
    ///
    /// When the file is too damaged to be read at all; [`Error::Closed`] when it is closed meanwhile.
    pub async fn check(&self, depth: Depth) -> Result<Report> {
        let stop = Arc::clone(&self.inner.is_closing);
        let report = self
            .aside(move |connection| check::check(connection, depth, &stop))
            .await;
        let health = &self.inner.health;
        match &report {
            Ok(report) => match report.problems.first() {
                Some(problem) => health.found(Damage {
                    found_at: self.now(),
                    found_by: format!("a check ({depth:?})").to_lowercase(),
                    problem: problem.clone(),
                }),
                None if depth == Depth::Full => health.mended(),
                None => {}
            },
            Err(_) if self.inner.is_closing.load(Ordering::Relaxed) => return Err(Error::Closed),
            Err(error) => _ = health.trap(Some(error), || self.now(), || "a check".to_owned()),
        }
        report
    }

    /// What was found, if the file is damaged: it takes no writes then, and can be read as far as it is sound.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.inner.health.damage()
    }

    /// Tells of damage when it is found, and when it is mended.
    #[must_use]
    pub fn watch_damage(&self) -> watch::Receiver<Option<Damage>> {
        self.inner.health.subscribe()
    }

    /// Waits until the file is not, or no longer, known to be damaged.
    pub async fn mended(&self) {
        if self.inner.health.is_damaged() {
            // The sender lives as long as this handle.
            let _ = self.watch_damage().wait_for(Option::is_none).await;
        }
    }

    /// Takes writes again if another process has mended the file; says whether that is so.
    pub(crate) fn forget_damage_if_mended(&self) -> bool {
        let health = &self.inner.health;
        let is_mended = health.is_damaged() && health.is_mark_gone();
        if is_mended {
            health.mended();
        }
        is_mended
    }

    /// How the database has been doing since it was opened, and how large it is.
    pub async fn stats(&self) -> Stats {
        let inner = &self.inner;
        let pages = self.read(|connection| Ok(stats::pages(connection)?)).await;
        let (commits, checkpoints) = inner.writer.counts();
        Stats {
            reads: inner.readers.stats(),
            writes: inner.writer.stats(),
            commits,
            slow: inner.slow.count(),
            checkpoints,
            wal_bytes: wal::bytes(&inner.options.path),
            pages: pages.ok(),
            damage: self.damage(),
        }
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

    /// Runs `work` on a connection and a thread of its own, after everything else that this machine has to do.
    async fn aside<F, T>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let options = self.inner.options.clone();
        let (reply, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name("sqlite-aside".to_owned())
            .spawn(move || {
                check::go_last();
                let done = connection::open(&options, Role::Reader)
                    .and_then(|connection| work(&connection));
                // Nobody listens any more if the caller left meanwhile.
                let _ = reply.send(done);
            })
            .map_err(Error::abort)?;
        // It has panicked if it does not answer.
        let panicked = |_| Err(Error::Panicked("the check".to_owned()));
        answer.await.unwrap_or_else(panicked)
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
