//! What every connection gets: PRAGMAs, read back.
//!
//! The only place that opens a connection to a file.

use std::path::Path;
use std::path::PathBuf;

use r2d2::ManageConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::ffi;

use crate::database::Error;
use crate::database::Result;
use crate::database::Synchronous;
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
    /// What the guards found, and did not refuse.
    pub(crate) warnings: Vec<String>,
}

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

/// What the pool opens connections with.
pub(super) fn manager(options: &Options, role: Role) -> SqliteConnectionManager {
    let access = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let pragmas = pragmas(options, role);
    SqliteConnectionManager::file(&options.path)
        .with_flags(access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(move |connection| set_up(connection, &pragmas))
}

/// One PRAGMA: its name, the value to set, and what it must read back as.
struct Pragma {
    name: &'static str,
    set: Option<String>,
    read_back: String,
}

fn pragmas(options: &Options, role: Role) -> Vec<Pragma> {
    let number = |name, value: u64| Pragma {
        name,
        set: Some(value.to_string()),
        read_back: value.to_string(),
    };
    let synchronous = match options.synchronous {
        Synchronous::Normal => 1,
        Synchronous::Full => 2,
    };
    vec![
        // Before anything else: the switch to WAL itself may have to wait.
        number("busy_timeout", options.busy_timeout_ms.into()),
        Pragma {
            name: "journal_mode",
            set: (role == Role::Writer).then(|| "wal".to_owned()),
            read_back: "wal".to_owned(),
        },
        number("synchronous", synchronous),
        number("foreign_keys", 1),
        number("journal_size_limit", options.journal_size_limit_bytes),
        number("cache_size", options.cache_pages.into()),
        number("temp_store", 2),
        number("trusted_schema", 0),
        number("mmap_size", options.mmap_bytes),
        number("query_only", u64::from(role == Role::Reader)),
    ]
}

fn set_up(connection: &mut Connection, pragmas: &[Pragma]) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    for pragma in pragmas {
        if let Some(value) = &pragma.set {
            // Some PRAGMAs answer with a row, some do not.
            connection
                .pragma_update_and_check(None, pragma.name, value, |_| Ok(()))
                .or_else(no_row)?;
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

fn make_directory(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(directory).map_err(|error| Error::Open {
        path: path.to_owned(),
        reason: format!("cannot make the directory {}: {error}", directory.display()),
    })
}

pub(crate) fn open_error(path: &Path, error: &rusqlite::Error) -> Error {
    let hint = match error.sqlite_error_code() {
        Some(ffi::ErrorCode::NotADatabase) => ": this file is not a SQLite database",
        Some(ffi::ErrorCode::CannotOpen) => {
            ": does it exist, and may this user read and write it and its directory?"
        }
        Some(ffi::ErrorCode::ReadOnly) => ": the file or its directory cannot be written",
        _ => "",
    };
    Error::Open {
        path: path.to_owned(),
        reason: format!("{error}{hint}"),
    }
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
        let error = set_up(&mut connection, &[wanted]).unwrap_err().to_string();
        assert_eq!(
            error,
            "PRAGMA journal_mode did not take: it is memory, and should be wal"
        );
    }
}
