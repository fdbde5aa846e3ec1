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
mod filesystem;
mod guard;
mod migrate;
mod place;
mod readers;
mod settings;
mod temporary;
mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

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
pub use self::migrate::Target;
pub use self::settings::NetworkFilesystem;
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
    /// The folder that goes with it ([`Database::open_temporary`]).
    temporary: OnceLock<TempDir>,
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
    /// when `mmap_bytes` asks for what is not safe with this SQLite or the `litestream` on the PATH;
    /// when the folder is on a network file system and `network_filesystem` is not `Allow`.
    pub fn open(settings: &Settings, clock: Clock) -> Result<Self> {
        let limits = Limits {
            readers: settings.reader_count(),
            waiting_max: settings.waiting_max,
            group_max: settings.group_max,
            read_time: settings.read_timeout(),
            write_time: settings.write_timeout(),
        };
        let options = options(settings)?;
        for warning in &options.warnings {
            tracing::warn!("{warning}");
        }
        Self::open_with(options, limits, clock)
    }

    /// Refuses settings with which nothing can be opened, before anything is made, and before this process has the
    /// file open.
    pub(crate) fn refuse(settings: &Settings) -> Result<()> {
        connection::refuse_obstacles(&settings.path)?;
        if place::is_foreign(&settings.path) {
            return Err(Error::Open {
                path: settings.path.clone(),
                reason: connection::FOREIGN.to_owned(),
            });
        }
        options(settings).map(drop)
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

    /// What was found when it was opened that is no reason to refuse it, and nothing to leave so; a sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.inner.options.warnings
    }

    /// Applies what the file lacks of each set, in one transaction, and says what that was.
    ///
    /// Where another process migrates, or writes, it is waited for, up to a minute. Before something is applied to a
    /// file that has tables, a copy of it is put beside it (`copy_before_migration`).
    ///
    /// # Errors
    ///
    /// [`Error::Migrate`] when a statement fails, an applied file was changed, the file is newer than the program,
    /// the copy cannot be made, or a foreign key would point nowhere; [`Error::Busy`] when another process holds the
    /// file for longer than a minute. The file is then as it was.
    pub async fn migrate(&self, sets: &[Migrations]) -> Result<Vec<Step>> {
        self.apply(sets, None).await
    }

    /// As [`Database::migrate`], but goes no further than `target` in its set.
    ///
    /// # Errors
    ///
    /// As [`Database::migrate`]; also when there is no such version, or the file is beyond it: there is no way down.
    pub async fn migrate_to(&self, sets: &[Migrations], target: &Target) -> Result<Vec<Step>> {
        self.apply(sets, Some(target.clone())).await
    }

    /// Tries on a copy what [`Database::migrate`] would do, and says what that was; the file is only read.
    ///
    /// The copy is made beside the file, and removed. A server may run on the file meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Database::migrate_to`]; also when there is no room for the copy.
    pub async fn dry_run(
        settings: &Settings,
        sets: &[Migrations],
        target: Option<&Target>,
    ) -> Result<Vec<Step>> {
        let options = options(settings)?;
        let (sets, target) = (sets.to_vec(), target.cloned());
        blocking(move || migrate::dry_run(&options, &sets, target.as_ref())).await
    }

    async fn apply(&self, sets: &[Migrations], target: Option<Target>) -> Result<Vec<Step>> {
        let (inner, sets) = (Arc::clone(&self.inner), sets.to_vec());
        blocking(move || migrate::apply(&inner.options, &inner.clock, &sets, target.as_ref())).await
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
        blocking(move || work(&mut connection::open(&inner.options, role)?)).await
    }
}

/// Runs `work` off the runtime; a panic in it is an error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Panicked(error.to_string())))
}

fn options(settings: &Settings) -> Result<Options> {
    let refused = |reason| Error::Open {
        path: settings.path.clone(),
        reason,
    };
    let network =
        filesystem::guard(&settings.path, settings.network_filesystem).map_err(refused)?;
    let (mmap_bytes, old) =
        guard::mmap_bytes(settings.mmap_bytes.into_option()).map_err(refused)?;
    Ok(Options {
        path: settings.path.clone(),
        busy_timeout_ms: settings.busy_timeout_ms,
        synchronous: settings.synchronous,
        cache_pages: settings.cache_pages,
        journal_size_limit_bytes: settings.journal_size_limit_bytes,
        mmap_bytes,
        copy_before_migration: settings.copy_before_migration,
        warnings: network.into_iter().chain(old).collect(),
    })
}
