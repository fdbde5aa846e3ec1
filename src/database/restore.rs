//! Another file in the place of the database.
//!
//! Every step before the last leaves the old database where it is; the last is one rename.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::ErrorCode;

use crate::database::Error;
use crate::database::Progress;
use crate::database::Result;
use crate::database::Settings;
use crate::database::backup;
use crate::database::connection;
use crate::database::health;

/// What was put in place of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    /// The database, by its real name.
    pub(crate) path: PathBuf,
    /// How large it is, in bytes.
    pub(crate) bytes: u64,
    /// Where the files are that were there, Litestream's notes included; empty when there were none.
    pub(crate) kept: Vec<PathBuf>,
    /// Rows that break a rule of the schema, in words; at most 100.
    pub(crate) violations: Vec<String>,
}

/// Puts a copy of the file `from` in the place of the database, and keeps what was there beside it.
///
/// The caller holds the lock that a server takes, so that there is none.
/// Killed at any step, there is the old database or the new one; a second try finishes or begins anew.
///
/// # Errors
///
/// [`Error::Restore`] when `from` is no sound database, another program has the old one open, or there is no room;
/// nothing is changed then.
pub(crate) fn restore(
    settings: &Settings,
    from: &Path,
    now: Timestamp,
    mut progress: impl FnMut(Progress),
) -> Result<Restored> {
    let place = Place::of(settings, now)?;
    if place.is_at(from) {
        return refuse(format!("{} is the database itself", from.display()));
    }
    place.forget_killed()?;
    let new = New::copy(&place, from, &mut progress)?;
    let violations = verified(&new.path, from)?;
    new.belongs_to_the_owner_of(&place.path)?;
    let bytes = new.file.metadata().map_err(failed(&new.path))?.len();
    let kept = place.swap(&new)?;
    Ok(Restored {
        path: place.path,
        bytes,
        kept,
        violations,
    })
}

/// Where the database is, and what its files are called once they are kept.
#[derive(Debug)]
struct Place {
    /// By its real name: a link to the file is the same file, and its `-wal` is beside the real one.
    path: PathBuf,
    kept: PathBuf,
    /// Litestream's notes are beside the name that Litestream was given, which may be a link.
    notes: Vec<PathBuf>,
    /// Where damage of the old file may be noted, for the same reason.
    marks: Vec<PathBuf>,
    busy_timeout_ms: u32,
}

impl Place {
    fn of(settings: &Settings, now: Timestamp) -> Result<Self> {
        let given = &settings.path;
        let path = std::fs::canonicalize(given).unwrap_or_else(|_| given.clone());
        if path.is_dir() {
            return refuse(format!("{} is a folder", path.display()));
        }
        let folder = backup::folder(&path);
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let mut notes = vec![notes_of(&path)];
        if notes_of(given) != notes[0] {
            notes.push(notes_of(given));
        }
        Ok(Self {
            kept: free_name(&path, now),
            notes,
            marks: vec![health::mark(&path), health::mark(given)],
            path,
            busy_timeout_ms: settings.busy_timeout_ms,
        })
    }

    fn folder(&self) -> &Path {
        backup::folder(&self.path)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        connection::beside(&self.path, ending)
    }

    fn is_at(&self, path: &Path) -> bool {
        matches!(
            (path.metadata(), self.path.metadata()),
            (Ok(one), Ok(other)) if is_one(&one, &other)
        )
    }

    /// Removes the second names of the database that a kill just before the rename has left.
    ///
    /// It is the live file: to open it by such a name would be to write with another `-wal`.
    fn forget_killed(&self) -> Result<()> {
        let Ok(live) = self.path.metadata() else {
            return Ok(());
        };
        let begin = kept_prefix(&self.path);
        let folder = self.folder();
        for entry in folder.read_dir().map_err(failed(folder))?.flatten() {
            let name = entry.file_name();
            let is_kept = name.as_encoded_bytes().starts_with(begin.as_bytes());
            if is_kept && entry.metadata().is_ok_and(|other| is_one(&live, &other)) {
                std::fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Keeps what is there and puts the new file in its place.
    ///
    /// In this order: Litestream's notes go, since they must never stand beside a file they do not tell of; without them
    /// it begins anew. Then the old database becomes one file, or, where it is too damaged for that, gets its second name
    /// together with its `-wal` before that goes from beside it. Now no `-wal` is there that SQLite would
    /// apply to the new file, and the rename is the switch. A note of damage in the old file goes last.
    fn swap(&self, new: &New) -> Result<Vec<PathBuf>> {
        let is_one_file = self.close()?;
        let mut kept = Vec::new();
        for notes in self.notes.iter().filter(|notes| notes.exists()) {
            let aside = notes_of(&self.kept);
            std::fs::rename(notes, &aside).map_err(failed(notes))?;
            kept.push(aside);
        }
        self.sync()?;
        let is_there = self.path.exists();
        if is_there && !is_one_file {
            second_name(&self.path, &self.kept)?;
        }
        for ending in ["-wal", "-journal"] {
            let aside = connection::beside(&self.kept, ending);
            if self.beside(ending).exists() {
                second_name(&self.beside(ending), &aside)?;
                kept.push(aside);
            }
        }
        self.sync()?;
        for ending in ["-wal", "-journal", "-shm"] {
            remove(&self.beside(ending))?;
        }
        self.sync()?;
        if is_there && is_one_file {
            second_name(&self.path, &self.kept)?;
        }
        std::fs::rename(&new.path, &self.path).map_err(failed(&self.path))?;
        self.sync()?;
        for mark in &self.marks {
            remove(mark)?;
        }
        self.sync()?;
        if is_there {
            kept.insert(0, self.kept.clone());
        }
        Ok(kept)
    }

    /// Brings the WAL into the old file and leaves WAL mode, for which nobody else may have it open.
    ///
    /// Says whether that went well; it does not where the file is too damaged.
    fn close(&self) -> Result<bool> {
        if !self.path.exists() {
            return Ok(true);
        }
        match connection::into_one_file(&self.path, self.busy_timeout_ms) {
            Ok(()) => Ok(!self.beside("-wal").exists()),
            Err(Error::Busy) => refuse(format!(
                "another program has {} open (Litestream, a sqlite3 shell?): stop it first",
                self.path.display()
            )),
            // A disk that cannot read the old file is a reason to restore, too.
            Err(error) if error.is_corruption() || is_unreadable(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> Result<()> {
        backup::sync_folder(self.folder()).map_err(failed(self.folder()))
    }
}

/// The new file, beside the old one; removed when it is dropped before it has its name.
#[derive(Debug)]
struct New {
    path: PathBuf,
    file: File,
}

impl New {
    /// Copies `from` with what its own `-wal` holds. The lock on the database keeps others from doing the same.
    fn copy(place: &Place, from: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        let size = from.metadata().map_err(failed(from))?;
        if !size.is_file() || size.len() == 0 {
            return refuse(format!("{} is not a database", from.display()));
        }
        let source = connection::open_as_it_is(from).map_err(unreadable(from))?;
        let bytes = backup::bytes(&source).map_err(unreadable(from))?;
        let path = place.beside(".restoring");
        remove(&path)?;
        let room = backup::room(place.folder()).map_err(not_restored)?;
        if room < bytes {
            return refuse(no_room(place.folder(), bytes, room));
        }
        match backup::copy(&source, &path, progress) {
            Ok(()) => {}
            Err(Error::DiskFull) => return refuse(no_room(place.folder(), bytes, 0)),
            Err(error) => return Err(unreadable(from)(error)),
        }
        let file = File::open(&path).map_err(failed(&path))?;
        Ok(Self { path, file })
    }

    /// Gives it the owner and the rights of the old file: who restores need not be who serves.
    fn belongs_to_the_owner_of(&self, old: &Path) -> Result<()> {
        let Ok(old) = old.metadata() else {
            return Ok(());
        };
        let own = self.file.metadata().map_err(failed(&self.path))?;
        let mode = std::fs::Permissions::from_mode(old.mode() & 0o7777);
        self.file
            .set_permissions(mode)
            .map_err(failed(&self.path))?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(&self.file, Some(old.uid()), Some(old.gid())).map_err(
                |error| {
                    Error::Restore(format!(
                        "the new file cannot be given to the owner of the old one ({error}): \
                         run this as the user that the site runs as"
                    ))
                },
            )?;
        }
        self.file.sync_all().map_err(failed(&self.path))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Under its new name it is out of reach of this one.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Refuses a file that is damaged; gives the rows that break a rule of the schema, which is no damage.
fn verified(copy: &Path, from: &Path) -> Result<Vec<String>> {
    let report = backup::verify(copy).map_err(not_restored)?;
    match report.problems.first() {
        None => Ok(report.violations),
        Some(first) => refuse(format!(
            "{} is damaged ({first}): `recover` brings back what can be read of a database",
            from.display()
        )),
    }
}

fn kept_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.before-restore-")
}

/// A name for the old file that nothing has yet.
fn free_name(path: &Path, now: Timestamp) -> PathBuf {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    let name = |ending: &str| connection::beside(path, &format!(".before-restore-{time}{ending}"));
    let is_free = |name: &PathBuf| {
        let files = ["", "-wal", "-journal"].map(|ending| connection::beside(name, ending));
        !files.iter().any(|file| file.symlink_metadata().is_ok()) && !notes_of(name).exists()
    };
    let mut number = 1;
    let mut kept = name("");
    while !is_free(&kept) {
        number += 1;
        kept = name(&format!("-{number}"));
    }
    kept
}

/// `.site.sqlite3-litestream` beside `site.sqlite3`.
fn notes_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push("-litestream");
    path.with_file_name(name)
}

/// Gives a file a second name, or, where the file system has none, copies it.
fn second_name(path: &Path, name: &Path) -> Result<()> {
    if std::fs::hard_link(path, name).is_ok() {
        return Ok(());
    }
    let copied = std::fs::copy(path, name).and_then(|_| File::open(name)?.sync_all());
    copied.map_err(|error| {
        // A part of it is of no use.
        let _ = std::fs::remove_file(name);
        failed(name)(error)
    })
}

fn is_one(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Restore(reason))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Restore(format!("{}: {error}", path.display()))
}

fn no_room(folder: &Path, bytes: u64, room: u64) -> String {
    format!(
        "there is no room in {}: it takes {bytes} bytes, and {room} are free on its disk",
        folder.display()
    )
}

fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
}

/// What fails with the copy is no backup here.
fn not_restored(error: Error) -> Error {
    match error {
        Error::Backup(reason) => Error::Restore(reason),
        error => error,
    }
}

/// Says of which file it is that it cannot be read.
fn unreadable(from: &Path) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Backup(reason) => Error::Restore(reason),
        Error::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            Error::Restore(format!(
                "{0} is amid a write that was broken off, of which {0}-journal tells: open it once with sqlite3",
                from.display()
            ))
        }
        error => {
            let reason = error.to_string();
            Error::Restore(format!("{} cannot be read: {reason}", from.display()))
        }
    }
}
