//! The cache file: every statement on it, and how it is made anew.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension;
use rusqlite::params;
use tokio::sync::RwLock;

use crate::cache::Settings;
use crate::cache::eviction;
use crate::database;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Depth;
use crate::database::Limits;
use crate::database::Synchronous;
use crate::database::connection::Options;

/// The layout below; a cache of another one is made anew.
const VERSION: i32 = 1;

/// `PRAGMA application_id` of a cache: the letters `hbch`. No other file is ever overwritten.
const APPLICATION: i32 = 0x6862_6368;

const LAYOUT: &str = "
    CREATE TABLE entries (
        id         INTEGER PRIMARY KEY,  -- grows: the smallest was put first
        key        TEXT    NOT NULL UNIQUE,
        value      BLOB    NOT NULL,
        expires_at INTEGER               -- milliseconds since 1970; NULL: never
    ) STRICT;
    -- Expired entries, first of all when room is needed.
    CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;
    PRAGMA application_id = 0x68626368;
    PRAGMA user_version = 1;";

/// What a read or a write of the file may take: deletions wait so long, everything else for less.
const TIME: Duration = Duration::from_secs(5);

/// When no file could be made, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// The cache file, or its absence. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    clock: Clock,
    file: RwLock<File>,
    /// Grows with every deletion, so that what was computed before one is not kept after it.
    generation: AtomicU64,
    /// Whether something was to be deleted while there was no file: one that comes back is not believed.
    is_stale: AtomicBool,
}

#[derive(Debug)]
enum File {
    Open(Database),
    /// Not there, and not to be tried before this moment.
    Missing {
        retry_at: Instant,
    },
    Closed,
}

/// How many deletions there were when a value was looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation(u64);

impl Store {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let retry_at = Instant::now();
        let inner = Inner {
            settings,
            clock,
            file: RwLock::new(File::Missing { retry_at }),
            generation: AtomicU64::new(0),
            is_stale: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn value_bytes_max(&self) -> usize {
        self.inner.settings.value_bytes_max
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.inner.generation.load(Ordering::SeqCst))
    }

    /// The open file; opens it, or makes it anew, when it is time to.
    pub(super) async fn database(&self) -> Option<Database> {
        match &*self.inner.file.read().await {
            File::Open(database) => return Some(database.clone()),
            File::Closed => return None,
            File::Missing { retry_at } if Instant::now() < *retry_at => return None,
            File::Missing { .. } => {}
        }
        let store = self.clone();
        // In a task of its own: a caller that leaves must not leave it half done.
        let opened = tokio::spawn(async move {
            let mut file = store.inner.file.write().await;
            if let File::Missing { .. } = &*file {
                *file = store.open().await;
            }
            match &*file {
                File::Open(database) => Some(database.clone()),
                _ => None,
            }
        });
        opened.await.ok().flatten()
    }

    pub(super) async fn get(&self, key: String) -> database::Result<Option<Vec<u8>>> {
        let now = self.inner.clock.now().as_millisecond();
        let Some(database) = self.database().await else {
            return Ok(None);
        };
        let found = database
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT value FROM entries
                     WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
                )?;
                Ok(statement
                    .query_row(params![key, now], |row| row.get(0))
                    .optional()?)
            })
            .await;
        self.healed(database, found).await
    }

    /// Keeps a value, unless something was deleted since `generation`.
    pub(super) async fn put(
        &self,
        key: String,
        value: Vec<u8>,
        ttl: Option<Duration>,
        generation: Option<Generation>,
    ) -> database::Result<()> {
        let inner = Arc::clone(&self.inner);
        self.change(move |tx| {
            let now = inner.generation.load(Ordering::SeqCst);
            if generation.is_some_and(|Generation(then)| then != now) {
                return Ok(());
            }
            let expires_at = ttl.map(|ttl| {
                let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                tx.now_ms().saturating_add(ttl_ms)
            });
            tx.prepare_cached(
                "INSERT OR REPLACE INTO entries (key, value, expires_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![key, value, expires_at])?;
            eviction::make_room(tx, inner.settings.bytes_max)
        })
        .await
    }

    pub(super) async fn delete(&self, key: String) -> database::Result<()> {
        self.deleting().await;
        self.change(move |tx| {
            tx.prepare_cached("DELETE FROM entries WHERE key = ?1")?
                .execute([key])?;
            Ok(())
        })
        .await
    }

    pub(super) async fn clear(&self) -> database::Result<()> {
        self.deleting().await;
        self.change(|tx| {
            tx.execute("DELETE FROM entries", [])?;
            Ok(())
        })
        .await
    }

    async fn deleting(&self) {
        self.inner.generation.fetch_add(1, Ordering::SeqCst);
        if self.database().await.is_none() {
            self.inner.is_stale.store(true, Ordering::SeqCst);
        }
    }

    pub(super) async fn close(&self) {
        let file = std::mem::replace(&mut *self.inner.file.write().await, File::Closed);
        if let File::Open(database) = file {
            database.close().await;
        }
    }

    async fn change<F>(&self, work: F) -> database::Result<()>
    where
        F: FnOnce(&database::Transaction<'_>) -> database::Result<()> + Send + 'static,
    {
        let Some(database) = self.database().await else {
            return Ok(());
        };
        let done = database.write(work).await;
        self.healed(database, done).await
    }

    /// Makes the file anew if this error says that it is damaged.
    async fn healed<T>(
        &self,
        database: Database,
        result: database::Result<T>,
    ) -> database::Result<T> {
        if result.as_ref().is_err_and(is_damage) {
            let store = self.clone();
            // In a task of its own, for the same reason as above.
            let repair = tokio::spawn(async move {
                let mut file = store.inner.file.write().await;
                if matches!(&*file, File::Open(open) if open.is(&database)) {
                    tracing::warn!(path = %database.path().display(), "the cache file is damaged");
                    database.close().await;
                    *file = store.open().await;
                }
            });
            if let Err(error) = repair.await {
                tracing::error!(%error, "the cache file could not be made anew");
            }
        }
        result
    }

    /// Opens the file; if it is a cache and cannot be used, throws it away and makes it anew.
    async fn open(&self) -> File {
        let path = &self.inner.settings.path;
        let missing = |error: &dyn std::fmt::Display| {
            tracing::warn!(path = %path.display(), %error, "there is no cache; trying again in {RETRY:?}");
            let retry_at = Instant::now() + RETRY;
            File::Missing { retry_at }
        };
        // Opening it would change it already: to a WAL.
        if what_is_at(path) == Kind::Other {
            return missing(&NO_CACHE);
        }
        let error = match self.try_open().await {
            Ok(database) => return File::Open(database),
            Err(error) => error,
        };
        match what_is_at(path) {
            Kind::Other | Kind::Unclear => return missing(&NO_CACHE),
            Kind::Cache if is_damage(&error) || is_outdated(&error) => {
                tracing::warn!(path = %path.display(), %error, "the cache file is made anew");
                remove(path);
            }
            Kind::Unreadable if with_suffix(path, ASIDE).exists() => return missing(&error),
            Kind::Unreadable => {
                tracing::warn!(path = %path.display(), %error, "the cache file is set aside, and made anew");
                set_aside(path);
            }
            Kind::Cache | Kind::Nothing => return missing(&error),
        }
        match self.try_open().await {
            Ok(database) => File::Open(database),
            Err(error) => missing(&error),
        }
    }

    async fn try_open(&self) -> database::Result<Database> {
        let limits = Limits {
            readers: 4,
            waiting_max: 1_024,
            group_max: 256,
            read_time: TIME,
            write_time: TIME,
            slow_time: Duration::MAX,
            marks_damage: false,
        };
        let clock = self.inner.clock.clone();
        let database = Database::open_with(options(&self.inner.settings), limits, clock)?;
        let prepared = database.write(|tx| prepare(tx)).await;
        let prepared = match prepared {
            // The header says whose file it is, also to who opens it when it is damaged.
            Ok(Layout::New) => database.checkpoint().await,
            Ok(Layout::Found) if self.inner.is_stale.load(Ordering::SeqCst) => {
                database
                    .write(|tx| Ok(tx.execute_batch("DELETE FROM entries")?))
                    .await
            }
            prepared => prepared.map(drop),
        };
        match prepared {
            Ok(()) => {
                self.inner.is_stale.store(false, Ordering::SeqCst);
                Ok(database)
            }
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }
}

/// Checks the file as it is.
pub(super) async fn check(settings: &Settings) -> database::Result<database::Report> {
    let limits = Limits {
        readers: 1,
        waiting_max: 1,
        group_max: 1,
        read_time: TIME,
        write_time: TIME,
        slow_time: Duration::MAX,
        marks_damage: false,
    };
    if what_is_at(&settings.path) == Kind::Other {
        return Err(database::Error::Open {
            path: settings.path.clone(),
            reason: NO_CACHE.to_owned(),
        });
    }
    let database = Database::open_with(options(settings), limits, Clock::system())?;
    let report = database.check(Depth::Full).await;
    database.close().await;
    report
}

fn options(settings: &Settings) -> Options {
    Options {
        path: settings.path.clone(),
        busy_timeout_ms: 50,
        // It may be lost, but must not come back from a power cut with one key's value under another.
        synchronous: Synchronous::Normal,
        cache_pages: 2_000,
        journal_size_limit_bytes: 16 * 1024 * 1024,
        mmap_bytes: 0,
        copy_before_migration: false,
        warnings: Vec::new(),
    }
}

/// A cache that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[error("its layout is version {0}, this program's is {VERSION}")]
struct Outdated(i32);

/// A database that is no cache.
#[derive(Debug, thiserror::Error)]
#[error("it is a database of another program")]
struct Foreign;

/// Whether the tables were there.
enum Layout {
    New,
    Found,
}

/// Makes the tables in an empty file, or says what else is there.
fn prepare(connection: &Connection) -> database::Result<Layout> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema)";
    let is_empty = !connection.query_row(sql, [], |row| row.get::<_, bool>(0))?;
    match (application, version) {
        (APPLICATION, VERSION) => {
            // A file may begin well and be damaged further in.
            let sql = "SELECT count(*) FROM (SELECT key FROM entries LIMIT 1)";
            Ok(connection.query_row(sql, [], |_| Ok(Layout::Found))?)
        }
        (APPLICATION, version) => Err(database::Error::abort(Outdated(version))),
        (0, 0) if is_empty => Ok(connection.execute_batch(LAYOUT).map(|()| Layout::New)?),
        _ => Err(database::Error::abort(Foreign)),
    }
}

fn is_outdated(error: &database::Error) -> bool {
    error.abort_reason::<Outdated>().is_some()
}

fn is_damage(error: &database::Error) -> bool {
    match error {
        database::Error::Sqlite(error) => {
            matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::SystemIoFailure
                )
            ) || error.to_string().starts_with("no such table")
        }
        // Damage that only the commit meets; if it is a full disk, the file opens again and nothing is lost.
        // Or it could not even be opened; what it is, its first bytes say.
        database::Error::RolledBack(_)
        | database::Error::Open { .. }
        | database::Error::Damaged => true,
        _ => false,
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Cache,
    /// A SQLite database of another program.
    Other,
    /// A SQLite database that does not say whose it is: another program's, or a cache that was killed while new.
    Unclear,
    /// No SQLite database: a cache whose first page is damaged, or a file of another kind.
    Unreadable,
}

/// Where the header of a SQLite file has its application id, and whether it has a WAL (2) or not (1):
/// <https://sqlite.org/fileformat.html#the_database_header>.
const APPLICATION_AT: usize = 68;
const WRITE_VERSION_AT: usize = 18;

const NO_CACHE: &str = "the file is no cache; it is left as it is";

/// What a file that cannot be read is called afterwards.
const ASIDE: &str = ".damaged";

fn what_is_at(path: &Path) -> Kind {
    let Ok(bytes) = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::with_capacity(100);
        file.take(100).read_to_end(&mut bytes)?;
        Ok(bytes)
    }) else {
        return Kind::Nothing;
    };
    if bytes.is_empty() {
        return Kind::Nothing;
    }
    if !bytes.starts_with(b"SQLite format 3\0") {
        return Kind::Unreadable;
    }
    match bytes.get(APPLICATION_AT..APPLICATION_AT + 4) {
        Some(id) if id == APPLICATION.to_be_bytes() => Kind::Cache,
        // A cache has a WAL from its first moment on.
        Some(_) if bytes.get(WRITE_VERSION_AT) == Some(&2) => Kind::Unclear,
        _ => Kind::Other,
    }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        warn_unless_gone(path, std::fs::remove_file(with_suffix(path, suffix)));
    }
}

/// Keeps the file, and what belongs to it, under another name.
fn set_aside(path: &Path) {
    let aside = with_suffix(path, ASIDE);
    for suffix in ["", "-wal", "-shm"] {
        let moved = std::fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix));
        warn_unless_gone(path, moved);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn warn_unless_gone(path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a cache file could not be removed");
    }
}
