//! The cache file: every statement on it, and how it is made anew.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
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
use crate::database::Limits;
use crate::database::connection::Options;
use crate::database::connection::Sync;

/// The layout below; a file of another one is made anew.
const VERSION: i32 = 1;

const LAYOUT: &str = "
    CREATE TABLE entries (
        id         INTEGER PRIMARY KEY,  -- grows: the smallest was put first
        key        TEXT    NOT NULL UNIQUE,
        value      BLOB    NOT NULL,
        expires_at INTEGER               -- milliseconds since 1970; NULL: never
    ) STRICT;
    -- Expired entries, first of all when room is needed.
    CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;
    PRAGMA user_version = 1;";

/// When no file could be made, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// The cache file, or its absence.
#[derive(Debug)]
pub(super) struct Store {
    settings: Settings,
    clock: Clock,
    file: RwLock<File>,
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

impl Store {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let retry_at = Instant::now();
        Self {
            settings,
            clock,
            file: RwLock::new(File::Missing { retry_at }),
        }
    }

    pub(super) fn value_bytes_max(&self) -> usize {
        self.settings.value_bytes_max
    }

    /// The open file; opens it, or makes it anew, when it is time to.
    pub(super) async fn database(&self) -> Option<Database> {
        match &*self.file.read().await {
            File::Open(database) => return Some(database.clone()),
            File::Closed => return None,
            File::Missing { retry_at } if Instant::now() < *retry_at => return None,
            File::Missing { .. } => {}
        }
        let mut file = self.file.write().await;
        if let File::Missing { .. } = &*file {
            *file = self.open().await;
        }
        match &*file {
            File::Open(database) => Some(database.clone()),
            _ => None,
        }
    }

    pub(super) async fn get(&self, key: String) -> database::Result<Option<Vec<u8>>> {
        let now = self.clock.now().as_millisecond();
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
        self.healed(&database, found).await
    }

    pub(super) async fn put(
        &self,
        key: String,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> database::Result<()> {
        let bytes_max = self.settings.bytes_max;
        self.change(move |tx| {
            let now = tx.now_ms();
            let expires_at = ttl
                .map(|ttl| now.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
            tx.prepare_cached(
                "INSERT OR REPLACE INTO entries (key, value, expires_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![key, value, expires_at])?;
            eviction::make_room(tx, bytes_max)
        })
        .await
    }

    pub(super) async fn delete(&self, key: String) -> database::Result<()> {
        self.change(move |tx| {
            tx.prepare_cached("DELETE FROM entries WHERE key = ?1")?
                .execute([key])?;
            Ok(())
        })
        .await
    }

    pub(super) async fn clear(&self) -> database::Result<()> {
        self.change(|tx| {
            tx.execute("DELETE FROM entries", [])?;
            Ok(())
        })
        .await
    }

    pub(super) async fn close(&self) {
        let file = std::mem::replace(&mut *self.file.write().await, File::Closed);
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
        self.healed(&database, done).await
    }

    /// Makes the file anew if this error says that it is damaged.
    async fn healed<T>(
        &self,
        database: &Database,
        result: database::Result<T>,
    ) -> database::Result<T> {
        if result.as_ref().is_err_and(is_damage) {
            let mut file = self.file.write().await;
            if matches!(&*file, File::Open(open) if open.is(database)) {
                tracing::warn!(path = %database.path().display(), "the cache file is damaged");
                database.close().await;
                *file = self.open().await;
            }
        }
        result
    }

    /// Opens the file; if that fails, throws it away and tries once more.
    async fn open(&self) -> File {
        let path = self.settings.path.clone();
        let error = match self.try_open().await {
            Ok(database) => return File::Open(database),
            Err(error) => error,
        };
        tracing::warn!(path = %path.display(), %error, "the cache file is made anew");
        remove(&path);
        match self.try_open().await {
            Ok(database) => File::Open(database),
            Err(error) => {
                tracing::warn!(%error, "there is no cache; trying again in {RETRY:?}");
                let retry_at = Instant::now() + RETRY;
                File::Missing { retry_at }
            }
        }
    }

    async fn try_open(&self) -> database::Result<Database> {
        let (options, clock) = (options(&self.settings), self.clock.clone());
        let limits = Limits {
            readers: 4,
            waiting_max: 1_024,
            group_max: 256,
        };
        let database = Database::open_with(options, limits, clock)?;
        let prepared = database.write(|tx| prepare(tx)).await;
        // A file may open well and be damaged further in.
        let readable = database.read(|connection| {
            let count = "SELECT count(*) FROM (SELECT key FROM entries LIMIT 1)";
            Ok(connection.query_row(count, [], |_| Ok(()))?)
        });
        match prepared.and(readable.await) {
            Ok(()) => Ok(database),
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
    };
    let database = Database::open_with(options(settings), limits, Clock::system())?;
    let report = database.check().await;
    database.close().await;
    report
}

fn options(settings: &Settings) -> Options {
    Options {
        path: settings.path.clone(),
        busy_timeout_ms: 50,
        // It may be lost; after a power cut it is checked and made anew like any damaged file.
        sync: Sync::Off,
        cache_pages: 2_000,
        journal_size_limit_bytes: 16 * 1024 * 1024,
        mmap_bytes: 0,
    }
}

fn prepare(connection: &Connection) -> database::Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == VERSION && tables > 0 {
        return Ok(());
    }
    if tables > 0 {
        return Err(database::Error::abort(format!(
            "its layout is version {version}, this program's is {VERSION}"
        )));
    }
    Ok(connection.execute_batch(LAYOUT)?)
}

fn is_damage(error: &database::Error) -> bool {
    let database::Error::Sqlite(error) = error else {
        return false;
    };
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure)
    ) || error.to_string().starts_with("no such table")
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = OsString::from(path);
        name.push(suffix);
        let file = PathBuf::from(name);
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %file.display(), %error, "a cache file could not be removed");
        }
    }
}
