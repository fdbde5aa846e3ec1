//! Who may write on a shared disk: the file beside the database that says so.
//!
//! The right itself is a lock on `<database>.lock`, which the operating system takes back from a process that dies, and
//! from none that is merely paused. This file only says who has it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use crate::replication::Error;
use crate::replication::Record;
use crate::replication::Result;

/// A file beside this one, named with an ending of its own.
fn holder_file(database: &Path) -> PathBuf {
    database.with_added_extension("holder")
}

/// Says that this process holds the lock.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write_holder(database: &Path, record: &Record) -> Result<()> {
    write_private(&holder_file(database), record.to_json().as_bytes())
}

/// Who holds the lock, or held it last; `None` where that is not known.
#[must_use]
pub(crate) fn read_holder(database: &Path) -> Option<Record> {
    let text = std::fs::read(holder_file(database)).ok()?;
    Record::parse(&text).ok()
}

/// Writes a file that only this user reads, so that it is there as a whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::Io(format!("cannot write {}", path.display()), error);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".houseboat-")
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}
