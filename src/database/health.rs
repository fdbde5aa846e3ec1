//! Whether the file is damaged, and who is told.
//!
//! What a connection trips over, or a check finds, marks the database damaged: from then on it takes no writes,
//! so that the damage does not spread and a copy elsewhere is not overwritten with it. Reads go on.
//! The mark is a file beside the database, so it outlives the process, until a check of the whole passes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
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
    /// The file that says so; none for a file that may be made anew at any time.
    mark: Option<PathBuf>,
    is_damaged: AtomicBool,
    damage: watch::Sender<Option<Damage>>,
}

/// The file beside a database that says that it is damaged.
pub(crate) fn mark(database: &Path) -> PathBuf {
    database.with_added_extension("damaged")
}

impl Health {
    /// Reads what an earlier process has found.
    pub(super) fn open(path: &Path, is_marked: bool) -> Self {
        let mark = is_marked.then(|| mark(path));
        let damage = mark.as_deref().and_then(read);
        if let Some(damage) = &damage {
            tracing::error!(
                database = %path.display(),
                found_at = %damage.found_at,
                found_by = damage.found_by,
                problem = damage.problem,
                "the database was found damaged earlier: it takes no writes until a full check passes"
            );
        }
        Self {
            path: path.to_owned(),
            mark,
            is_damaged: AtomicBool::new(damage.is_some()),
            damage: watch::Sender::new(damage),
        }
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
        if self.is_damaged.swap(true, Ordering::SeqCst) {
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
            if let Err(error) = write(mark, &damage) {
                tracing::error!(%error, "the damage could not be noted beside the database");
            }
        }
        self.damage.send_replace(Some(damage));
    }

    /// Takes the mark away: a check of the whole has passed.
    pub(super) fn mended(&self) {
        if let Some(mark) = &self.mark
            && let Err(error) = fs::remove_file(mark)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(%error, "the note of the damage could not be removed");
            return;
        }
        if self.is_damaged.swap(false, Ordering::SeqCst) {
            tracing::info!("the database is whole: it takes writes again");
            self.damage.send_replace(None);
        }
    }

    /// Whether the mark is gone: a check by another process has passed, or another file was put in place.
    pub(super) fn is_mark_gone(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| !mark.exists())
    }
}

fn read(mark: &Path) -> Option<Damage> {
    let text = fs::read_to_string(mark).ok()?;
    let unreadable = || Damage {
        found_at: Timestamp::UNIX_EPOCH,
        found_by: "an earlier process".to_owned(),
        problem: text.clone(),
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|_| unreadable()))
}

fn write(mark: &Path, damage: &Damage) -> std::io::Result<()> {
    let mut file = fs::File::create(mark)?;
    file.write_all(&serde_json::to_vec_pretty(damage)?)?;
    file.sync_all()
}
