//! Whether the file is damaged, and who is told.
//!
//! What a connection trips over, or a check finds, marks the database damaged: from then on it takes no writes,
//! so that the damage does not spread and a copy elsewhere is not overwritten with it. Reads go on.
//! The mark is a file beside the database, so it outlives the process, until a check of the whole passes.

use std::fs;
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;

use crate::database::Error;
use crate::database::error;

/// What showed that the file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Damage {
    /// When it was found.
    pub found_at: Timestamp,
    /// What tripped over it: a place in the code, or a check.
    pub found_by: String,
    /// What SQLite said.
    pub problem: String,
}

/// The state of one file.
#[derive(Debug)]
pub(super) struct Health {
    path: PathBuf,
    /// The file that says so; none for a database that may be made anew at any time.
    mark: Option<PathBuf>,
    is_damaged: AtomicBool,
    /// Whether the last write found no room.
    is_full: AtomicBool,
    damage: watch::Sender<Option<Damage>>,
    /// Held while the state and the mark change together.
    change: Mutex<Change>,
}

#[derive(Debug, Default)]
struct Change {
    /// Whether the mark is there as far as this process knows.
    is_marked: bool,
    /// How often damage was found.
    findings: u64,
}

/// The file beside a database that says that it is damaged.
pub(crate) fn mark(database: &Path) -> PathBuf {
    database.with_added_extension("damaged")
}

impl Health {
    /// Reads what an earlier process has found.
    pub(super) fn open(path: &Path, is_marked: bool) -> Self {
        let health = Self {
            path: path.to_owned(),
            mark: is_marked.then(|| mark(path)),
            is_damaged: AtomicBool::default(),
            is_full: AtomicBool::default(),
            damage: watch::Sender::default(),
            change: Mutex::default(),
        };
        health.look();
        health
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(super) fn damage(&self) -> Option<Damage> {
        self.damage.borrow().clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Damage>> {
        self.damage.subscribe()
    }

    /// How often damage was found so far; what is mended later must not be newer.
    pub(super) fn findings(&self) -> u64 {
        self.change().findings
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Notes whether the disk had room for what was written last.
    pub(super) fn had_room(&self, had_room: bool) {
        if had_room == self.is_full() {
            self.is_full.store(!had_room, Ordering::Relaxed);
        }
    }

    /// Looks whether what has just been done on this thread has met damage; says whether it has.
    pub(super) fn trap(
        &self,
        error: Option<&Error>,
        now: impl FnOnce() -> Timestamp,
        found_by: impl FnOnce() -> String,
    ) -> bool {
        let Some(problem) = error::take_corruption(error) else {
            return false;
        };
        self.found(Damage {
            found_at: now(),
            found_by: found_by(),
            problem,
        });
        true
    }

    /// Marks the file damaged. Only the first finding is told and kept.
    pub(super) fn found(&self, damage: Damage) {
        let mut change = self.change();
        change.findings += 1;
        if self.is_damaged() {
            return;
        }
        if let Some(mark) = &self.mark {
            tracing::error!(
                database = %self.path.display(),
                found_by = damage.found_by,
                problem = damage.problem,
                "the database is damaged: it takes no writes from now on, and can be read as far as it is sound; \
                 `check --full` says more, `restore` and `recover` mend it"
            );
            match write(mark, &damage) {
                Ok(()) => change.is_marked = true,
                Err(error) => {
                    tracing::error!(%error, "the damage could not be noted beside the database");
                }
            }
        }
        self.is_damaged.store(true, Ordering::SeqCst);
        self.damage.send_replace(Some(damage));
    }

    /// Takes the mark away, unless damage was found after the `findings` that were known: a check has passed.
    pub(super) fn mended(&self, findings: u64) {
        let mut change = self.change();
        if change.findings != findings || !self.is_damaged() {
            return;
        }
        if let Some(mark) = &self.mark
            && let Err(error) = fs::remove_file(mark)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(%error, "the note of the damage could not be removed");
            return;
        }
        self.forget(&mut change);
    }

    /// Looks what other processes have found, or mended.
    pub(super) fn look(&self) {
        let Some(mark) = &self.mark else { return };
        let mut change = self.change();
        match (mark.try_exists(), self.is_damaged()) {
            (Ok(false), true) if change.is_marked => self.forget(&mut change),
            (Ok(true) | Err(_), false) => {
                let Some(damage) = read(mark) else { return };
                tracing::error!(
                    database = %self.path.display(),
                    found_at = %damage.found_at,
                    found_by = damage.found_by,
                    problem = damage.problem,
                    "the database was found damaged earlier: it takes no writes until a full check passes"
                );
                change.is_marked = true;
                change.findings += 1;
                self.is_damaged.store(true, Ordering::SeqCst);
                self.damage.send_replace(Some(damage));
            }
            _ => {}
        }
    }

    fn forget(&self, change: &mut Change) {
        change.is_marked = false;
        tracing::info!("the database is whole: it takes writes again");
        self.is_damaged.store(false, Ordering::SeqCst);
        self.damage.send_replace(None);
    }

    fn change(&self) -> MutexGuard<'_, Change> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a mark says; one that cannot be read is a mark all the same.
fn read(mark: &Path) -> Option<Damage> {
    let problem = match fs::read(mark) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(damage) => return Some(damage),
            Err(_) => String::from_utf8_lossy(&text).into_owned(),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => format!("the note of it cannot be read: {error}"),
    };
    Some(Damage {
        found_at: Timestamp::UNIX_EPOCH,
        found_by: "an earlier process".to_owned(),
        problem,
    })
}

fn write(mark: &Path, damage: &Damage) -> std::io::Result<()> {
    let mut file = fs::File::create(mark)?;
    file.write_all(&serde_json::to_vec_pretty(damage)?)?;
    file.sync_all()
}
