//! Who may write on a shared disk: the file beside the database that says so.
//!
//! The right itself is a lock on `<database>.lock`, which the operating system takes back from a process that dies, and
//! from none that is merely paused. This file only says who has it.

use std::path::Path;
use std::path::PathBuf;

use crate::database::files;
use crate::replication::Error;
use crate::replication::Record;
use crate::replication::Result;

/// The key of the holder is in it.
const OWNER_ONLY: u32 = 0o600;

/// A file beside this one, named with an ending of its own.
fn holder_file(database: &Path) -> PathBuf {
    database.with_added_extension("holder")
}

/// Says that this process holds the lock. It does, so that nobody else writes this file.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write_holder(database: &Path, record: &Record) -> Result<()> {
    let path = holder_file(database);
    files::write_whole(&path, record.to_json().as_bytes(), OWNER_ONLY)
        .map_err(|error| Error::Io(format!("cannot write {}", path.display()), error))
}

/// Who holds the lock, or held it last; `None` where that is not known.
#[must_use]
pub(crate) fn read_holder(database: &Path) -> Option<Record> {
    let text = std::fs::read(holder_file(database)).ok()?;
    Record::parse(&text).ok()
}
