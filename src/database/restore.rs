//! Another file in the place of the database.
//!
//! Every step before the last leaves the old database where it is; the last is one rename.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::ErrorCode;

use crate::database::Error;
use crate::database::Progress;
use crate::database::Result;
use crate::database::Settings;
use crate::database::backup;
use crate::database::connection;
use crate::database::connection::notes_of_litestream;
use crate::database::files;
use crate::database::health;
use crate::database::place;

/// Between two looks whether another program has the file open.
const PAUSE: Duration = Duration::from_millis(5);

/// What SQLite needs beside a file that was not closed in order.
const JOURNALS: [&str; 2] = ["-wal", "-journal"];

/// What comes between the name of the database and the time in the name of what is kept.
const INFIX: &str = ".before-restore-";

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

/// A copy of a file that is sound, and ready to be put in the place of the database.
#[derive(Debug)]
pub(crate) struct Restore {
    place: Place,
    new: New,
    bytes: u64,
    violations: Vec<String>,
}

impl Restore {
    /// Copies the file `from` and looks whether it is sound; the database is not touched.
    ///
    /// The caller holds the lock that a server takes, so that there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when `from` is no sound database, another program has the old one open, or there is no room.
    pub(crate) fn prepare(
        settings: &Settings,
        from: &Path,
        now: Timestamp,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self> {
        let mut place = Place::of(settings, now)?;
        if place.is_at(from) {
            return refuse(format!("{} is the database itself", from.display()));
        }
        // Before what takes long; it may change until the swap, which asks again.
        place.refuse_if_in_use()?;
        place.take_up_killed()?;
        let new = New::copy(&place, from, &mut progress)?;
        let violations = verified(&new.path, from)?;
        new.belongs_to_the_owner_of(&place.path)?;
        let bytes = new.file.metadata().map_err(failed(&new.path))?.len();
        Ok(Self {
            place,
            new,
            bytes,
            violations,
        })
    }

    /// Puts it in the place of the database, and keeps what was there beside it.
    ///
    /// Killed at any step, there is the old database or the new one; a second try finishes or begins anew.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when another program has the old database open, or a file cannot be named anew.
    pub(crate) fn finish(self) -> Result<Restored> {
        let kept = self.place.swap(&self.new)?;
        Ok(Restored {
            path: self.place.path,
            bytes: self.bytes,
            kept,
            violations: self.violations,
        })
    }
}

/// Where the database is, and what its files are called once they are kept.
#[derive(Debug)]
struct Place {
    /// The file itself where the settings name a link to it: its `-wal` is beside that.
    path: PathBuf,
    /// As the settings name it: Litestream's notes are beside the name that Litestream was given.
    given: PathBuf,
    kept: PathBuf,
    busy_timeout_ms: u32,
}

impl Place {
    fn of(settings: &Settings, now: Timestamp) -> Result<Self> {
        let given = absolute(settings.path.clone());
        let path = absolute(place::real(&given));
        if path.is_dir() {
            return refuse(format!("{} is a folder", path.display()));
        }
        let folder = files::folder(&path);
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        Ok(Self {
            kept: free_name(&path, now),
            given,
            path,
            busy_timeout_ms: settings.busy_timeout_ms,
        })
    }

    fn folder(&self) -> &Path {
        files::folder(&self.path)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        connection::beside(&self.path, ending)
    }

    fn is_at(&self, path: &Path) -> bool {
        is_one(path, &self.path)
    }

    /// Waits as long as others are waited for, since a look at the file takes them no longer.
    fn refuse_if_in_use(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_millis(self.busy_timeout_ms.into());
        while place::is_in_use(&self.path) {
            if Instant::now() >= end {
                return self.refuse_in_use();
            }
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn refuse_in_use<T>(&self) -> Result<T> {
        refuse(format!(
            "another program has {} open (Litestream, a sqlite3 shell?): stop it first",
            self.path.display()
        ))
    }

    /// Goes on with the second name of the database that a kill before the rename has left, if there is one.
    ///
    /// Its `-wal` may be beside that name alone by now. Any other such name is removed:
    /// it is the live file, and to open it by such a name would be to write with another `-wal`.
    fn take_up_killed(&mut self) -> Result<()> {
        let mut is_taken_up = false;
        for name in self.second_names()? {
            if is_taken_up || !self.fits(&name) {
                remove(&name)?;
            } else {
                is_taken_up = true;
                self.kept = name;
            }
        }
        Ok(())
    }

    fn second_names(&self) -> Result<Vec<PathBuf>> {
        let begin = kept_prefix(&self.path);
        let folder = self.folder();
        let entries = folder.read_dir().map_err(failed(folder))?.flatten();
        let kept = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&begin));
        let mut names: Vec<_> = kept.map(|entry| entry.path()).collect();
        names.retain(|name| self.is_at(name) && !name.is_symlink());
        names.sort_by_key(|name| !has_journals(name));
        Ok(names)
    }

    /// Whether what is beside the database now is what is kept with this name, or can be.
    fn fits(&self, kept: &Path) -> bool {
        JOURNALS.iter().all(|ending| {
            let (now, aside) = (self.beside(ending), connection::beside(kept, ending));
            !now.exists() || !aside.exists() || is_one(&now, &aside)
        })
    }

    /// Keeps what is there and puts the new file in its place.
    ///
    /// In this order: Litestream's notes go, since they must never stand beside a file they do not tell of; without them
    /// it begins anew. Then the old database becomes one file, or, where it is too damaged for that, gets its second name
    /// together with its `-wal` before that goes from beside it. Now no `-wal` is there that SQLite would
    /// apply to the new file, and the rename is the switch. A note of damage in the old file goes last.
    fn swap(&self, new: &New) -> Result<Vec<PathBuf>> {
        let is_one_file = self.close()?;
        let mut kept = self.keep_notes()?;
        let is_there = self.path.exists();
        if is_there && !is_one_file {
            second_name(&self.path, &self.kept)?;
        }
        for ending in JOURNALS {
            let aside = connection::beside(&self.kept, ending);
            if self.beside(ending).exists() {
                second_name(&self.beside(ending), &aside)?;
            }
            if aside.exists() {
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
        remove(&health::mark(&self.path))?;
        self.sync()?;
        if is_there {
            kept.insert(0, self.kept.clone());
        }
        Ok(kept)
    }

    /// Litestream's notes are kept in the folder that they are in: it may be on another disk than the file.
    fn keep_notes(&self) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for name in [&self.path, &self.given] {
            let notes = notes_of_litestream(name);
            if !notes.exists() {
                continue;
            }
            let ending = kept_ending(&self.path, &self.kept);
            let aside = files::free(&notes_of_litestream(&connection::beside(name, &ending)));
            std::fs::rename(&notes, &aside).map_err(failed(&notes))?;
            kept.push(aside);
            let folder = files::folder(&notes);
            files::sync_folder(folder).map_err(failed(folder))?;
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
        // Who is too damaged for the lock that comes now may be open elsewhere, too.
        self.refuse_if_in_use()?;
        if has_journals(&self.kept) {
            // A first try found it damaged; without its `-wal` it might pass for whole, and is not to be changed.
            return Ok(false);
        }
        match connection::into_one_file(&self.path, self.busy_timeout_ms) {
            Ok(()) => Ok(!self.beside("-wal").exists()),
            Err(Error::Busy) => self.refuse_in_use(),
            // A disk that cannot read the old file is a reason to restore, too.
            Err(error) if error.is_corruption() || is_unreadable(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> Result<()> {
        files::sync_folder(self.folder()).map_err(failed(self.folder()))
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
        let left = backup::room_left(&place.path, place.folder());
        if room < bytes.saturating_add(left) {
            return refuse(no_room(place.folder(), bytes, left, room));
        }
        match backup::copy(&source, &path, progress) {
            Ok(()) => {}
            Err(Error::DiskFull) => return refuse(no_room(place.folder(), bytes, left, 0)),
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

fn kept_prefix(path: &Path) -> Vec<u8> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(INFIX);
    name.into_encoded_bytes()
}

/// What the name of the kept file has more than that of the database.
fn kept_ending(path: &Path, kept: &Path) -> String {
    let (path, kept) = (path.to_string_lossy(), kept.to_string_lossy());
    kept.strip_prefix(&*path).unwrap_or(INFIX).to_owned()
}

/// A name for the old file that nothing has yet, nor its journals.
fn free_name(path: &Path, now: Timestamp) -> PathBuf {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    let name = |ending: &str| connection::beside(path, &format!("{INFIX}{time}{ending}"));
    let is_free = |name: &PathBuf| name.symlink_metadata().is_err() && !has_journals(name);
    let mut number = 1;
    let mut kept = name("");
    while !is_free(&kept) {
        number += 1;
        kept = name(&format!("-{number}"));
    }
    kept
}

fn has_journals(path: &Path) -> bool {
    let mut journals = JOURNALS.iter();
    journals.any(|ending| connection::beside(path, ending).exists())
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Gives a file a second name, if it has not this one already, or, where the file system has none, copies it.
fn second_name(path: &Path, name: &Path) -> Result<()> {
    if is_one(path, name) || std::fs::hard_link(path, name).is_ok() {
        return Ok(());
    }
    let copied = std::fs::copy(path, name).and_then(|_| File::open(name)?.sync_all());
    copied.map_err(|error| {
        // A part of it is of no use.
        let _ = std::fs::remove_file(name);
        failed(name)(error)
    })
}

/// Whether these are two names of one file.
fn is_one(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
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

fn no_room(folder: &Path, bytes: u64, left: u64, room: u64) -> String {
    format!(
        "there is no room in {}: it takes {bytes} bytes{}, and {room} are free on its disk",
        folder.display(),
        backup::besides(left)
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
