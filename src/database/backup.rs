//! A copy of a live database, as it was at one moment.

use std::fs::File;
use std::fs::Permissions;
use std::fs::TryLockError;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::backup::StepResult;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::database::Depth;
use crate::database::Error;
use crate::database::Report;
use crate::database::Result;
use crate::database::check;
use crate::database::connection;
use crate::database::error;
use crate::database::files;

/// Pages of one step: a mebibyte, of 4096 bytes each.
const STEP_PAGES: i32 = 256;

/// Steps between two syncs of the copy. To sync it all at its end would hold up everybody else who syncs.
const SYNC_STEPS: u32 = 16;

/// The rights of a copy until it has those of the database: it is not to be read by more people.
const OWNER_ONLY: u32 = 0o600;

/// What a copy leaves free on the disk of the database, in bytes: the site that goes on there needs room.
pub(super) const ROOM_LEFT: u64 = 32 * 1024 * 1024;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many pages are copied; when it is all of them, the copy is still to be checked.
    pub pages_done: u64,
    /// How many there are.
    pub pages: u64,
    /// How many bytes a page has.
    pub page_bytes: u64,
}

/// A copy that was made, and is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How large it is, in bytes.
    pub bytes: u64,
    /// How long it took, the check included.
    pub time: Duration,
    /// Rows that break a rule of the schema, as in the database itself, in words; at most 100.
    pub violations: Vec<String>,
}

/// Copies what `source` sees as one state into the new file `to`, and syncs it.
///
/// A state of its own is held where `source` is not in a transaction; one that has written is refused by SQLite.
/// On failure there is no such file. A full disk is [`Error::DiskFull`].
pub(super) fn copy(
    source: &Connection,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(to)
        .map_err(|error| failed(to, &error))?;
    fill(source, to, &file, progress).inspect_err(|_| remove(to))
}

/// How much room a copy of what `source` sees takes, in bytes.
pub(super) fn bytes(source: &Connection) -> Result<u64> {
    Ok(pages(source)? * page_bytes(source)?)
}

/// How much room there is in a folder for what this user writes, in bytes.
pub(super) fn room(folder: &Path) -> Result<u64> {
    files::room(folder).map_err(|error| failed(folder, &error))
}

/// How much has to stay free in `folder` besides a copy, in bytes: for the database, where it is on the same disk.
///
/// Its WAL may make it larger by as much as there is in it.
pub(super) fn room_left(database: &Path, folder: &Path) -> u64 {
    let device = |path: &Path| path.metadata().ok().map(|file| file.dev());
    if device(files::folder(database)) != device(folder) {
        return 0;
    }
    let wal = connection::beside(database, "-wal").metadata();
    ROOM_LEFT + wal.map_or(0, |wal| wal.len())
}

/// Reads the whole file and says what is wrong with it.
pub(super) fn verify(path: &Path) -> Result<Report> {
    let connection = connection::open_as_it_is(path)?;
    check::check(&connection, Depth::Full, &Arc::default())
}

/// Makes the copy `to` by way of `<to>.partial`.
pub(super) fn make(
    source: &Connection,
    to: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<Backup> {
    let start = Instant::now();
    let partial = Partial::begin(to)?;
    let state = snapshot(source).map_err(source_error)?;
    let bytes = bytes(source).map_err(source_error)?;
    let room = room(files::folder(to))?;
    let database = source.path().map(Path::new);
    let left = database.map_or(0, |database| room_left(database, files::folder(to)));
    if room < bytes.saturating_add(left) {
        return Err(no_room(to, bytes, left, room));
    }
    match fill(source, &partial.path, &partial.file, &mut progress) {
        Ok(()) => {}
        Err(Error::DiskFull) => return Err(no_room(to, bytes, left, 0)),
        Err(error) => return Err(source_error(error)),
    }
    drop(state);
    let report = verify(&partial.path)?;
    if let Some(first) = report.problems.first() {
        // The copy is as the database is.
        error::note_problem(first);
        return Err(damaged(first));
    }
    partial.finish(to)?;
    Ok(Backup {
        bytes,
        time: start.elapsed(),
        violations: report.violations,
    })
}

/// A file that is being written, removed when it is dropped unfinished.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) path: PathBuf,
    pub(super) file: File,
    is_finished: bool,
    /// Dropped last.
    _lock: Lock,
}

impl Partial {
    /// Takes over what a killed one left.
    pub(super) fn begin(to: &Path) -> Result<Self> {
        refuse_if_there(to)?;
        let path = connection::beside(to, ".partial");
        let lock = Lock::take(&path)?;
        // Another one may have been finished before the lock.
        refuse_if_there(to)?;
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(OWNER_ONLY)
            .open(&path)
            .map_err(|error| failed(&path, &error))?;
        // They would be applied to what is written now.
        for ending in ["-journal", "-wal", "-shm"] {
            remove(&connection::beside(&path, ending));
        }
        Ok(Self {
            path,
            file,
            is_finished: false,
            _lock: lock,
        })
    }

    /// Gives the file its name, which nothing may have got meanwhile; it is synced already.
    pub(super) fn finish(mut self, to: &Path) -> Result<()> {
        name(&self.path, to)?;
        self.is_finished = true;
        files::sync_folder(files::folder(to)).map_err(|error| failed(to, &error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            remove(&self.path);
        }
    }
}

/// A locked file beside the one that is written: two backups to one name would write into the same file.
///
/// It is a file of its own, since on some file systems, NFS for one, its lock is also one to SQLite.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(partial: &Path) -> Result<Self> {
        let path = connection::beside(partial, ".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY)
            .open(&path)
            .map_err(|error| failed(&path, &error))?;
        let busy = || {
            Error::Backup(format!(
                "another process is writing {} at this moment",
                partial.display()
            ))
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
        }
        // Between the opening and the lock another one may have ended and removed it.
        if !files::is_still(&file, &path) {
            return Err(busy());
        }
        Ok(Self { path, _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn refuse_if_there(to: &Path) -> Result<()> {
    match to.symlink_metadata() {
        Ok(_) => Err(exists(to)),
        Err(_) => Ok(()),
    }
}

fn exists(to: &Path) -> Error {
    Error::Backup(format!(
        "{} exists already: give a name that is free",
        to.display()
    ))
}

/// Renames, and refuses where the new name is taken.
pub(super) fn name(path: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, path, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => Err(exists(to)),
        // The file system, or the kernel, cannot do that in one.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            refuse_if_there(to)?;
            std::fs::rename(path, to).map_err(|error| failed(to, &error))
        }
        done => done.map_err(|error| failed(to, &error.into())),
    }
}

/// Copies into `to`, which is empty, and of which `file` is a handle.
fn fill(
    source: &Connection,
    to: &Path,
    file: &File,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let _state = snapshot(source)?;
    let page_bytes = page_bytes(source)?;
    let mut copy = connection::open_copy(to)?;
    let backup = rusqlite::backup::Backup::new(source, &mut copy)?;
    let mut steps = 0;
    loop {
        let step = backup.step(STEP_PAGES)?;
        let now = backup.progress();
        let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
        progress(Progress {
            pages_done: count(now.pagecount).saturating_sub(count(now.remaining)),
            pages: count(now.pagecount),
            page_bytes,
        });
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else has the copy, and what is read is held: so it is the source that writes.
            _ => return Err(Error::Busy),
        }
        steps += 1;
        if steps % SYNC_STEPS == 0 {
            file.sync_data().map_err(|error| failed(to, &error))?;
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)?;
    if let Some(source) = source
        .path()
        .and_then(|path| Path::new(path).metadata().ok())
    {
        let rights = Permissions::from_mode(source.mode() & 0o777 | OWNER_ONLY);
        file.set_permissions(rights)
            .map_err(|error| failed(to, &error))?;
    }
    file.sync_all().map_err(|error| failed(to, &error))
}

/// Holds the state that `source` sees, where it is not held already.
///
/// Without that each write of another connection would make the copy begin anew, and it would never end.
/// In WAL mode it holds no writer up.
fn snapshot(source: &Connection) -> Result<Option<rusqlite::Transaction<'_>>> {
    let transaction = source
        .is_autocommit()
        .then(|| source.unchecked_transaction())
        .transpose()?;
    // A transaction sees nothing before it reads.
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(transaction)
}

fn pages(source: &Connection) -> Result<u64> {
    Ok(source.pragma_query_value(None, "page_count", |row| row.get(0))?)
}

fn page_bytes(source: &Connection) -> Result<u64> {
    Ok(source.pragma_query_value(None, "page_size", |row| row.get(0))?)
}

fn remove(path: &Path) {
    // Nothing is lost by a file that stays: the next backup takes it over.
    let _ = std::fs::remove_file(path);
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::DiskFull,
        _ => Error::Backup(format!("{}: {error}", path.display())),
    }
}

fn source_error(error: Error) -> Error {
    if error.is_corruption() {
        damaged(&error.to_string())
    } else {
        error
    }
}

fn damaged(first: &str) -> Error {
    Error::Backup(format!(
        "the database itself is damaged ({first}): `recover` brings back what can be read, \
         `restore` puts an older copy in its place"
    ))
}

/// What is said of the room that is left to the database.
pub(super) fn besides(left: u64) -> String {
    match left {
        0 => String::new(),
        left => format!(", {left} more have to stay free for the database"),
    }
}

fn no_room(to: &Path, bytes: u64, left: u64, room: u64) -> Error {
    Error::Backup(format!(
        "there is no room for {}: it takes {bytes} bytes{}, and {room} are free on its disk",
        to.display(),
        besides(left)
    ))
}
