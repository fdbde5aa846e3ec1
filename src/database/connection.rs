//! What every connection gets: PRAGMAs, read back.
//!
//! The only place that opens a connection to a file.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use r2d2::ManageConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;
use rusqlite::ffi;

use crate::database::Error;
use crate::database::Result;
use crate::database::Synchronous;
use crate::database::backup;
use crate::database::error;
use crate::database::files;
use crate::database::place;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes the file if it is missing, and changes it.
    Writer,
    /// Cannot change anything.
    Reader,
}

/// Which file, and how its connections are set up; every value is decided, none is `auto` any more.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) busy_timeout_ms: u32,
    pub(crate) synchronous: Synchronous,
    pub(crate) cache_pages: u32,
    pub(crate) journal_size_limit_bytes: u64,
    pub(crate) mmap_bytes: u64,
    /// Whether a copy is put beside the file before it is migrated.
    pub(crate) copy_before_migration: bool,
    /// What the guards found, and did not refuse.
    pub(crate) warnings: Vec<String>,
}

/// Between two tries to switch a new file to WAL. For that SQLite needs the file alone, and does not wait for it
/// itself, whatever `busy_timeout` says; it takes milliseconds.
const PAUSE: Duration = Duration::from_millis(5);

/// With less free than this on its disk, in bytes, a file that cannot be opened may lack just that.
const ROOM_TO_OPEN: u64 = 128 * 1024;

/// What is said of a file that is something else.
pub(super) const FOREIGN: &str = "this file is not a SQLite database; \
    if it was one, its beginning is damaged: `restore` puts a copy in its place, `recover` brings back what can be read";

/// What a page has, in bytes, where nobody says otherwise: <https://sqlite.org/pgszchng2016.html>.
const PAGE_BYTES: u32 = 4_096;

/// Prepared statements kept by each connection: a site has some dozens, and each is a few kilobytes.
const STATEMENTS_MAX: usize = 128;

/// Opens one connection outside the pool: for the writer, for migrations, for checks.
pub(crate) fn open(options: &Options, role: Role) -> Result<Connection> {
    if role == Role::Writer {
        refuse_obstacles(&options.path)?;
        make_directory(&options.path)?;
    }
    manager(options, role)
        .connect()
        .map_err(|error| open_error(&options.path, &error))
}

/// A file that may be lost at any time, which is what makes it fast.
#[derive(Clone, Debug)]
pub(crate) struct Disposable {
    pub(crate) path: PathBuf,
    pub(crate) busy_timeout_ms: u32,
    pub(crate) cache_pages: u32,
    /// With so many pages in the WAL, a commit brings them into the file.
    pub(crate) wal_pages: u32,
}

/// Opens a file that may be lost: nothing is synced, and what is deleted can be given back to the disk.
pub(crate) fn open_disposable(options: &Disposable, role: Role) -> Result<Connection> {
    if role == Role::Writer {
        refuse_obstacles(&options.path)?;
        make_directory(&options.path)?;
    }
    let pragmas = disposable_pragmas(options, role);
    let wait = Duration::from_millis(options.busy_timeout_ms.into());
    SqliteConnectionManager::file(&options.path)
        .with_flags(access(role) | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(move |connection| {
            if role == Role::Writer {
                // Takes only while the file is empty.
                set(connection, "auto_vacuum", "incremental", wait)?;
            }
            set_up(connection, &pragmas, wait)
        })
        .connect()
        .map_err(|error| open_error(&options.path, &error))
}

/// Opens a file that a copy is to be written into.
///
/// It has no journal and is not synced, because half a copy is of no use to anybody: whoever writes it syncs it at its end.
pub(super) fn open_copy(path: &Path) -> Result<Connection> {
    let connection = open_bare(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    for (name, value) in [("journal_mode", "off"), ("synchronous", "off")] {
        connection
            .pragma_update_and_check(None, name, value, |_| Ok(()))
            .or_else(no_row)?;
    }
    Ok(connection)
}

/// Opens a file as it is, to be read only; it need not be one of ours, nor be sound.
pub(super) fn open_as_it_is(path: &Path) -> Result<Connection> {
    let connection = open_bare(&address(path), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Brings the WAL of a file into it and leaves WAL mode, so that it is one file, and closed.
///
/// # Errors
///
/// [`Error::Busy`] when anybody else has it open. A file that is no database is left as it is, and so is its `-wal`.
pub(super) fn into_one_file(path: &Path, busy_timeout_ms: u32) -> Result<()> {
    let look = "SELECT count(*) FROM sqlite_schema";
    // Whoever opens it to write brings the WAL into it at the end, even into garbage.
    let looked = open_as_it_is(path)?.query_row(look, [], |_| Ok(()));
    if let Err(error) = looked
        // A write that was broken off is rolled back by who may write.
        && error.sqlite_error_code() != Some(ffi::ErrorCode::ReadOnly)
    {
        return Err(error.into());
    }
    let connection = open_bare(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_millis(busy_timeout_ms.into()))?;
    connection.query_row(look, [], |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// The name by which a file is opened so that nothing is made beside it.
///
/// SQLite makes a `-wal` and a `-shm` for a reader of a file that is in WAL mode and has none, and leaves them there.
/// Where there is no `-wal`, nobody has the file open in that mode, and it may be read as one that does not change.
/// To look at the header opens and closes the file, which costs this process any locks it holds on it:
/// so this is for files that it has not open otherwise.
pub(super) fn address(path: &Path) -> PathBuf {
    let path = place::real(path);
    let path = std::path::absolute(&path).unwrap_or(path);
    if beside(&path, "-wal").exists() || !is_in_wal_mode(&path) {
        return path;
    }
    let mut address = OsString::from("file://");
    let mut start = 0;
    let bytes = path.as_os_str().as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        // These would end the path, or begin an escape.
        if matches!(byte, b'%' | b'?' | b'#') {
            address.push(OsStr::from_bytes(&bytes[start..at]));
            address.push(format!("%{byte:02x}"));
            start = at + 1;
        }
    }
    address.push(OsStr::from_bytes(&bytes[start..]));
    address.push("?immutable=1");
    address.into()
}

/// The folder beside a database in which Litestream keeps its notes: `.site.sqlite3-litestream`.
pub(crate) fn notes_of_litestream(database: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(database.file_name().unwrap_or_default());
    name.push("-litestream");
    database.with_file_name(name)
}

/// `site.sqlite3-wal` for `site.sqlite3`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What the header says: its bytes 18 and 19 are 2 for a file in WAL mode.
fn is_in_wal_mode(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[18] == 2 && header[19] == 2
}

fn open_bare(path: &Path, access: OpenFlags) -> Result<Connection> {
    let access = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    SqliteConnectionManager::file(path)
        .with_flags(access)
        .connect()
        .map_err(|error| open_error(path, &error))
}

/// What the pool opens connections with.
pub(super) fn manager(options: &Options, role: Role) -> SqliteConnectionManager {
    let pragmas = pragmas(options, role);
    let wait = Duration::from_millis(options.busy_timeout_ms.into());
    SqliteConnectionManager::file(&options.path)
        .with_flags(access(role) | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(move |connection| set_up(connection, &pragmas, wait))
}

fn access(role: Role) -> OpenFlags {
    match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
    }
}

/// One PRAGMA: its name, the value to set, and what it must read back as.
struct Pragma {
    name: &'static str,
    set: Option<String>,
    read_back: String,
}

impl Pragma {
    fn number(name: &'static str, value: impl Into<u64>) -> Self {
        let value = value.into().to_string();
        Self {
            name,
            set: Some(value.clone()),
            read_back: value,
        }
    }

    /// It is the writer who switches the file to WAL.
    fn wal(role: Role) -> Self {
        Self {
            name: "journal_mode",
            set: (role == Role::Writer).then(|| "wal".to_owned()),
            read_back: "wal".to_owned(),
        }
    }
}

fn disposable_pragmas(options: &Disposable, role: Role) -> Vec<Pragma> {
    vec![
        Pragma::number("busy_timeout", options.busy_timeout_ms),
        Pragma::wal(role),
        Pragma::number("synchronous", 0_u32),
        Pragma::number("wal_autocheckpoint", options.wal_pages),
        // What one large transaction made of the WAL goes with the next.
        Pragma::number("journal_size_limit", options.wal_pages * PAGE_BYTES),
        Pragma::number("cache_size", options.cache_pages),
        Pragma::number("temp_store", 2_u32),
        Pragma::number("trusted_schema", 0_u32),
        // A file that is cut off under a map kills the process.
        Pragma::number("mmap_size", 0_u32),
        Pragma::number("query_only", role == Role::Reader),
    ]
}

fn pragmas(options: &Options, role: Role) -> Vec<Pragma> {
    let synchronous = match options.synchronous {
        Synchronous::Normal => 1_u32,
        Synchronous::Full => 2,
    };
    vec![
        // Before anything else: the switch to WAL itself may have to wait.
        Pragma::number("busy_timeout", options.busy_timeout_ms),
        Pragma::wal(role),
        Pragma::number("synchronous", synchronous),
        Pragma::number("foreign_keys", 1_u32),
        Pragma::number("journal_size_limit", options.journal_size_limit_bytes),
        Pragma::number("cache_size", options.cache_pages),
        Pragma::number("temp_store", 2_u32),
        Pragma::number("trusted_schema", 0_u32),
        Pragma::number("mmap_size", options.mmap_bytes),
        Pragma::number("query_only", role == Role::Reader),
    ]
}

fn set_up(connection: &mut Connection, pragmas: &[Pragma], wait: Duration) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Without it a statement with `LIMIT ?` is compiled anew at each call, for the value that is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    for pragma in pragmas {
        if let Some(value) = &pragma.set {
            set(connection, pragma.name, value, wait)?;
        }
        let found = read(connection, pragma.name)?;
        if !found.eq_ignore_ascii_case(&pragma.read_back) {
            return Err(refusal(format!(
                "PRAGMA {} did not take: it is {found}, and should be {}",
                pragma.name, pragma.read_back
            )));
        }
    }
    Ok(())
}

/// Sets a PRAGMA; waits for another process that sets it on a new file at this moment.
fn set(connection: &Connection, name: &str, value: &str, wait: Duration) -> rusqlite::Result<()> {
    let end = Instant::now() + wait;
    loop {
        let set = connection.pragma_update_and_check(None, name, value, |_| Ok(()));
        match set.or_else(no_row) {
            Err(error)
                if error.sqlite_error_code() == Some(ffi::ErrorCode::DatabaseBusy)
                    && Instant::now() < end =>
            {
                std::thread::park_timeout(PAUSE);
            }
            set => return set,
        }
    }
}

/// Some PRAGMAs answer with a row, some do not.
fn no_row(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

fn read(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    connection.pragma_query_value(None, name, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            value => value.as_str().unwrap_or_default().to_owned(),
        })
    })
}

fn refusal(reason: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_MISUSE), Some(reason))
}

/// Refuses a path at which there can be no database, before anything is made.
pub(super) fn refuse_obstacles(path: &Path) -> Result<()> {
    match place::obstacle(path) {
        Some(reason) => Err(Error::Open {
            path: path.to_owned(),
            reason,
        }),
        None => Ok(()),
    }
}

/// Makes the folder that a file is in, where it is missing.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let directory = files::folder(path);
    std::fs::create_dir_all(directory).map_err(|error| Error::Open {
        path: path.to_owned(),
        reason: format!("cannot make the directory {}: {error}", directory.display()),
    })
}

pub(crate) fn open_error(path: &Path, error: &rusqlite::Error) -> Error {
    error::note(error);
    let hint = match error.sqlite_error_code() {
        Some(ffi::ErrorCode::NotADatabase) => {
            return Error::Open {
                path: path.to_owned(),
                reason: FOREIGN.to_owned(),
            };
        }
        Some(ffi::ErrorCode::CannotOpen) => {
            ": does it exist, and may this user read and write it and its directory?"
        }
        Some(ffi::ErrorCode::ReadOnly) => ": the file or its directory cannot be written",
        // SQLite makes the `-shm` first of all, and calls it an I/O error where there is no room for it.
        Some(ffi::ErrorCode::DiskFull | ffi::ErrorCode::SystemIoFailure) if has_no_room(path) => {
            ": there is no room on its disk, and to open it takes some; make room, and it works again"
        }
        _ => "",
    };
    Error::Open {
        path: path.to_owned(),
        reason: format!("{error}{hint}"),
    }
}

/// Whether there is less room than a new `-shm` takes, which has 32 KiB, and the first pages of a `-wal`.
fn has_no_room(file: &Path) -> bool {
    backup::room(files::folder(file)).is_ok_and(|room| room < ROOM_TO_OPEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pragma_that_did_not_take_is_named() {
        #[expect(clippy::disallowed_methods, reason = "no file is opened")]
        let mut connection = Connection::open_in_memory().unwrap();
        let wanted = Pragma {
            name: "journal_mode",
            set: Some("wal".to_owned()),
            read_back: "wal".to_owned(),
        };
        // A database in memory has no WAL.
        let error = set_up(&mut connection, &[wanted], Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "PRAGMA journal_mode did not take: it is memory, and should be wal"
        );
    }
}
