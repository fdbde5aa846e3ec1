//! Who has the cache file open, and what was to be forgotten when they were killed.
//!
//! Each process keeps a small file beside the cache, `<cache>.<random>.open`, locked as long as it lives. It begins
//! with the id of the machine's start. One that nobody locks any more was left by a process that was killed:
//! - from another start of the machine, the cache file may have lost any of its last writes, deletions too, or be
//!   damaged, since nothing of it is synced: it is not believed;
//! - else all that was written is there. What was being forgotten, for a transaction that may have been committed,
//!   stands in the small file, and is deleted now.

use std::ffi::OsString;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::database::files;

/// The small file of this process.
#[derive(Debug)]
pub(super) struct Presence {
    path: PathBuf,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    file: File,
    /// How long it is, in bytes, of which the first are the machine's start.
    len: u64,
    /// Keys that were noted, and whose transaction has not ended.
    open: usize,
}

/// What those left who were killed.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Whether the machine was started anew since.
    pub(super) is_of_another_start: bool,
    /// Namespaces and keys.
    pub(super) keys: Vec<(u64, Vec<u8>)>,
    files: Vec<PathBuf>,
}

/// A note, which may be crossed out when its transaction has ended and what it says is among the waiting writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

const ENDING: &str = ".open";

/// The length of the line with the machine's start: that of a UUID, and a line feed.
const START_BYTES: usize = 37;

/// Nobody takes longer to make their file.
const MAKING: Duration = Duration::from_mins(1);

/// Beyond this, in bytes, the notes are crossed out when they may be.
const NOTES_BYTES_MAX: u64 = 64 * 1024;

impl Presence {
    /// Says that this process has the file open, and what others left who have it no longer.
    ///
    /// # Errors
    ///
    /// When there can be no file beside the cache.
    pub(super) fn begin(cache: &Path) -> io::Result<(Self, Left)> {
        let left = Left::of(cache)?;
        let mut name = OsString::from(cache);
        name.push(format!(".{:016x}{ENDING}", fastrand::u64(..)));
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        file.lock()?;
        file.write_all(start().as_bytes())?;
        // The one thing that must outlive a power cut: that the cache was open.
        file.sync_all()?;
        files::sync_folder(files::folder(&path))?;
        let notes = Notes {
            file,
            len: START_BYTES as u64,
            open: 0,
        };
        let notes = Mutex::new(notes);
        Ok((Self { path, notes }, left))
    }

    /// Notes that a key is to be deleted if the transaction is committed, whatever becomes of this process.
    pub(super) fn note(&self, space: u64, key: &[u8]) -> io::Result<()> {
        let mut notes = self.notes();
        let mut bytes = Vec::with_capacity(key.len() + 12);
        let len = u32::try_from(key.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&space.to_le_bytes());
        bytes.extend_from_slice(key);
        notes.file.write_all_at(&bytes, notes.len)?;
        notes.len += bytes.len() as u64;
        notes.open += 1;
        Ok(())
    }

    /// A noted transaction has ended, and if it was committed, the deletion is among the waiting writes.
    pub(super) fn settle(&self) {
        self.notes().open -= 1;
    }

    /// Before waiting writes are taken: what may be crossed out when they are in the file.
    pub(super) fn mark(&self) -> Option<Mark> {
        let notes = self.notes();
        (notes.open == 0 && notes.len > NOTES_BYTES_MAX).then_some(Mark(notes.len))
    }

    /// Crosses out what was marked, unless more was noted since.
    pub(super) fn cross_out(&self, Mark(len): Mark) {
        let mut notes = self.notes();
        if notes.len == len && notes.file.set_len(START_BYTES as u64).is_ok() {
            notes.len = START_BYTES as u64;
        }
    }

    /// Leaves, with all that waited in the file.
    pub(super) fn end(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a file of the cache could not be removed");
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    fn of(cache: &Path) -> io::Result<Self> {
        let mut left = Self::default();
        let start = start();
        let folder = files::folder(cache);
        let mut beginning = cache.file_name().unwrap_or_default().to_owned();
        beginning.push(".");
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if !name.starts_with(beginning.as_encoded_bytes()) || !name.ends_with(ENDING.as_bytes())
            {
                continue;
            }
            let Ok(file) = File::open(&path) else {
                continue;
            };
            // Whoever lives has it locked.
            if file.try_lock().is_err() {
                continue;
            }
            let mut bytes = Vec::new();
            if (&file).read_to_end(&mut bytes).is_err() {
                continue;
            }
            let Some((made_at, notes)) = bytes.split_at_checked(START_BYTES) else {
                // It is only being made, or whoever made it was killed before they opened the cache.
                if is_old(&file) {
                    left.files.push(path);
                }
                continue;
            };
            if made_at == start.as_bytes() {
                left.keys.extend(keys(notes));
            } else {
                left.is_of_another_start = true;
            }
            left.files.push(path);
        }
        Ok(left)
    }

    /// All of it has been seen to.
    pub(super) fn clear_away(self) {
        for path in self.files {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a file was made longer ago than it takes to write its beginning.
fn is_old(file: &File) -> bool {
    let made = file.metadata().and_then(|file| file.modified());
    made.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > MAKING))
}

/// The keys in the notes, without one that was broken off.
fn keys(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut keys = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>()
        && let Some((space, rest)) = rest.split_first_chunk::<8>()
        && let Ok(len) = usize::try_from(u32::from_le_bytes(*len))
        && let Some((key, rest)) = rest.split_at_checked(len)
    {
        keys.push((u64::from_le_bytes(*space), key.to_vec()));
        bytes = rest;
    }
    keys
}

/// The id of the machine's start; the same for ever where there is none to be had.
fn start() -> String {
    let mut start = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    start.truncate(START_BYTES - 1);
    format!("{start:-<width$}\n", width = START_BYTES - 1)
}
