//! The place of a database that is not there, and the file that comes into it.
//!
//! Every step before the last leaves the place empty; the last is one rename.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::database::Error;
use crate::database::Report;
use crate::database::Result;
use crate::database::Settings;
use crate::database::backup;
use crate::database::connection;
use crate::database::files;
use crate::database::health;
use crate::database::place;

/// What SQLite would apply to a file of this name, whatever file that is.
const STALE: [&str; 3] = ["-wal", "-journal", "-shm"];

/// What the names of files begin with, after that of the database, that are on their way into its place.
const ARRIVING: &str = ".restoring";

/// A place for a database, empty, and a name beside it under which the new file can be made.
///
/// The caller holds the lock that a server takes, so that nobody else fills it. The file is removed when this is
/// dropped before it has its place.
#[derive(Debug)]
pub(crate) struct Vacancy {
    path: PathBuf,
    file: PathBuf,
}

impl Vacancy {
    /// Makes sure that there is no database, and nothing that SQLite would take for a part of the new one.
    ///
    /// An empty file is removed. A `-wal` without its database is kept under another name, and the log says so. What
    /// a killed one left on the way is removed. A missing folder is made.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when there is a database, or something that cannot be moved out of the way.
    pub(crate) fn of(settings: &Settings, now: Timestamp) -> Result<Self> {
        let path = place::real(&settings.path);
        let path = std::path::absolute(&path).unwrap_or(path);
        if let Some(reason) = place::obstacle(&path) {
            return refuse(format!("{}: {reason}", path.display()));
        }
        let is_empty = match path.metadata() {
            Ok(there) if there.len() > 0 => {
                return refuse(format!(
                    "there is a database at {}: move it away first, with its -wal and -shm",
                    path.display()
                ));
            }
            Ok(_) => true,
            Err(_) => false,
        };
        let folder = files::folder(&path);
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        if is_empty {
            std::fs::remove_file(&path).map_err(failed(&path))?;
            tracing::warn!(path = %path.display(), "an empty file was in the place of the database; it is removed");
        }
        keep_stale(&path, now)?;
        remove_killed(&path)?;
        files::sync_folder(folder).map_err(failed(folder))?;
        let file = connection::beside(
            &path,
            &format!("{ARRIVING}-{:06x}", fastrand::u32(..1 << 24)),
        );
        Ok(Self { path, file })
    }

    /// The name of the file that is to be made; there is none yet.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the whole new file and says what is wrong with it; to be called on a thread that may wait.
    ///
    /// It fails when the file cannot be read for another reason than what is in it.
    pub(crate) fn check(&self) -> impl FnOnce() -> Result<Report> + Send + 'static {
        let file = self.file.clone();
        move || match backup::verify(&file) {
            Err(error) if error.is_corruption() => Ok(Report {
                problems: vec![error.to_string()],
                ..Report::default()
            }),
            checked => checked,
        }
    }

    /// Puts the new file, which is synced by now, into the place; gives its size in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when there is a database by now, or the file cannot be named.
    pub(crate) fn fill(self) -> Result<u64> {
        let bytes = self.file.metadata().map_err(failed(&self.file))?.len();
        File::open(&self.file)
            .and_then(|file| file.sync_all())
            .map_err(failed(&self.file))?;
        backup::name(&self.file, &self.path).map_err(not_restored)?;
        let folder = files::folder(&self.path);
        // It tells of a file that is gone.
        let _ = std::fs::remove_file(health::mark(&self.path));
        files::sync_folder(folder).map_err(failed(folder))?;
        Ok(bytes)
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        // In its place it is out of reach of this. What stays is removed by the next one.
        let _ = remove_killed(&self.path);
    }
}

/// Keeps what would be applied to the new file under a name that SQLite does not look for.
fn keep_stale(path: &Path, now: Timestamp) -> Result<()> {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    for ending in STALE {
        let stale = connection::beside(path, ending);
        if stale.symlink_metadata().is_err() {
            continue;
        }
        let kept = files::free(&connection::beside(&stale, &format!(".stale-{time}")));
        std::fs::rename(&stale, &kept).map_err(failed(&stale))?;
        tracing::warn!(
            file = %stale.display(),
            kept = %kept.display(),
            "a side file without its database; it is kept under another name, and not used"
        );
    }
    Ok(())
}

/// Removes what was on its way here, and what belongs to it.
fn remove_killed(path: &Path) -> Result<()> {
    let mut begin = path.file_name().unwrap_or_default().to_owned();
    begin.push(ARRIVING);
    let folder = files::folder(path);
    for entry in folder.read_dir().map_err(failed(folder))?.flatten() {
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(begin.as_encoded_bytes())
        {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(&entry.path())(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Restore(reason))
}

/// What fails with the name is no backup here.
fn not_restored(error: Error) -> Error {
    match error {
        Error::Backup(reason) => Error::Restore(reason),
        error => error,
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::DiskFull,
        _ => Error::Restore(format!("{}: {error}", path.display())),
    }
}
