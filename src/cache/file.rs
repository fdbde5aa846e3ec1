//! The cache file: how it is opened, and made anew when it is of no use.

use std::io::Read;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::ErrorCode;

use crate::cache::rows;
use crate::database;
use crate::database::connection;
use crate::database::connection::Disposable;
use crate::database::connection::Role;
use crate::database::connection::beside;

/// What a failed call says about the file.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another process holds it; it is worth another try.
    Busy,
    /// It was deleted under us, or another is in its place.
    Gone,
    /// It is to be thrown away.
    Damaged(String),
    /// Nothing can be done with it now.
    Unusable(String),
}

impl Failure {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Busy => "another process holds it".to_owned(),
            Self::Gone => "it is gone".to_owned(),
            Self::Damaged(reason) | Self::Unusable(reason) => reason,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Unusable(error.to_string())
            }
            // Whatever else: the file holds nothing that is worth finding out. On a full disk its room is wanted, too.
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// How the file is used: its size decides it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// What its pages may take, in bytes: what is left of the whole beside the WAL.
    pub(super) pages_bytes_max: u64,
    /// About as much is written in one transaction, in bytes.
    pub(super) transaction_bytes: usize,
    pub(super) wal_pages: u32,
    writer_pages: u32,
    reader_pages: u32,
}

/// What a page has, in bytes.
const PAGE_BYTES: u64 = 4_096;

impl Shape {
    pub(super) fn of(bytes_max: u64) -> Self {
        // A transaction that overwrites entries at random takes several times its size in the WAL.
        let wal_bytes = (bytes_max / 16).clamp(256 * 1024, 16 * 1024 * 1024);
        let part = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            pages_bytes_max: bytes_max.saturating_sub(wal_bytes),
            transaction_bytes: part(wal_bytes / 4) as usize,
            wal_pages: part(wal_bytes / PAGE_BYTES / 2),
            writer_pages: part(
                (bytes_max / PAGE_BYTES / WRITER_PART).clamp(PAGES_MIN, WRITER_PAGES_MAX),
            ),
            reader_pages: part(
                (bytes_max / PAGE_BYTES / READER_PART).clamp(PAGES_MIN, READER_PAGES_MAX),
            ),
        }
    }
}

/// Pages that the writer keeps: a sixteenth of the file, up to 16 MiB.
const WRITER_PART: u64 = 16;
const WRITER_PAGES_MAX: u64 = 4_096;

/// Pages that each reader keeps, most of them of the table of keys: a sixty-fourth, up to 4 MiB.
const READER_PART: u64 = 64;
const READER_PAGES_MAX: u64 = 1_024;

/// Even the smallest file is worth so many.
const PAGES_MIN: u64 = 100;

/// How long the writer waits for another process, in milliseconds.
const BUSY_MS: u32 = 1_000;

/// Opens the file to write; if it is a cache and cannot be used, throws it away and makes it anew.
///
/// # Errors
///
/// What is in the way: it is to be tried again later.
pub(super) fn open(path: &Path, shape: Shape, seed: u64) -> Result<Connection, String> {
    // Opening it would change it already: to a WAL.
    if what_is_at(path) == Kind::Other {
        return Err(NO_CACHE.to_owned());
    }
    let reason = match try_open(path, shape, seed) {
        Ok(connection) => return Ok(connection),
        Err(Failure::Damaged(reason)) => reason,
        Err(failure) => return Err(failure.into_reason()),
    };
    match what_is_at(path) {
        Kind::Other | Kind::Unclear => return Err(NO_CACHE.to_owned()),
        Kind::Cache => {
            tracing::warn!(path = %path.display(), reason, "the cache file is made anew");
            remove(path);
        }
        // It was cut off, and what is beside it fits no longer.
        Kind::Nothing | Kind::Unreadable if is_empty(path) => remove(path),
        Kind::Unreadable if beside(path, ASIDE).exists() => return Err(reason),
        Kind::Unreadable => {
            tracing::warn!(path = %path.display(), reason, "the cache file is set aside, and made anew");
            set_aside(path);
        }
        Kind::Nothing => return Err(reason),
    }
    try_open(path, shape, seed).map_err(Failure::into_reason)
}

/// Opens a file that is open to write already, to read from it.
pub(super) fn open_reader(path: &Path, shape: Shape) -> database::Result<Connection> {
    connection::open_disposable(&options(path, shape, 0, shape.reader_pages), Role::Reader)
}

fn options(path: &Path, shape: Shape, busy_timeout_ms: u32, cache_pages: u32) -> Disposable {
    Disposable {
        path: path.to_owned(),
        busy_timeout_ms,
        cache_pages,
        wal_pages: shape.wal_pages,
    }
}

fn try_open(path: &Path, shape: Shape, seed: u64) -> Result<Connection, Failure> {
    let options = options(path, shape, BUSY_MS, shape.writer_pages);
    // What it is that is in the way, its first bytes say.
    let connection = connection::open_disposable(&options, Role::Writer)
        .map_err(|error| Failure::Damaged(error.to_string()))?;
    prepare(&connection, seed)?;
    Ok(connection)
}

/// Makes the tables in an empty file, or looks whether they are there and can be read.
fn prepare(connection: &Connection, seed: u64) -> Result<(), Failure> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let layout = (number("application_id")?, number("user_version")?);
    if layout == (rows::APPLICATION, rows::VERSION) {
        // A file may begin well and be damaged further in.
        rows::state(connection)?;
        return Ok(());
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema)";
    let is_empty = !connection.query_row(sql, [], |row| row.get::<_, bool>(0))?;
    match layout {
        (0, 0) if is_empty => {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let made =
                rows::make(connection, seed).and_then(|()| connection.execute_batch("COMMIT"));
            if made.is_err() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            made?;
            // The header says whose file it is, also to who opens it when it is damaged.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(())
        }
        (rows::APPLICATION, version) => Err(Failure::Damaged(format!(
            "its layout is version {version}, this program's is {}",
            rows::VERSION
        ))),
        _ => Err(Failure::Unusable(
            "it is a database of another program".to_owned(),
        )),
    }
}

/// Refuses to look at a file of another kind.
pub(super) fn refuse_others(path: &Path) -> database::Result<()> {
    if what_is_at(path) == Kind::Other {
        return Err(database::Error::Open {
            path: path.to_owned(),
            reason: NO_CACHE.to_owned(),
        });
    }
    Ok(())
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

fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(100);
    let file = std::fs::File::open(path)?;
    file.take(100).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn what_is_at(path: &Path) -> Kind {
    let Ok(bytes) = beginning(path) else {
        return Kind::Nothing;
    };
    if bytes.is_empty() {
        return Kind::Nothing;
    }
    if !bytes.starts_with(b"SQLite format 3\0") {
        return Kind::Unreadable;
    }
    match bytes.get(APPLICATION_AT..APPLICATION_AT + 4) {
        Some(id) if id == rows::APPLICATION.to_be_bytes() => Kind::Cache,
        // A cache has a WAL from its first moment on.
        Some(_) if bytes.get(WRITE_VERSION_AT) == Some(&2) => Kind::Unclear,
        _ => Kind::Other,
    }
}

/// Whether there is a file with nothing in it: that it was cut off, and perhaps filled up with zeros from its WAL.
fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file())
        && beginning(path).is_ok_and(|bytes| bytes.iter().all(|&byte| byte == 0))
}

/// Removes the file, if it is a cache, or was; nobody of this process may have it open.
pub(super) fn remove_cache(path: &Path) {
    if what_is_at(path) == Kind::Cache || is_empty(path) {
        remove(path);
    }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        warn_unless_gone(path, std::fs::remove_file(beside(path, suffix)));
    }
}

/// Keeps the file, and what belongs to it, under another name.
fn set_aside(path: &Path) {
    let aside = beside(path, ASIDE);
    for suffix in ["", "-wal", "-shm"] {
        let moved = std::fs::rename(beside(path, suffix), beside(&aside, suffix));
        warn_unless_gone(path, moved);
    }
}

fn warn_unless_gone(path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a cache file could not be removed");
    }
}
