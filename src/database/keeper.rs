//! What a database needs from time to time: checks, and statistics for SQLite's planner.
//!
//! What has been done when is kept in a file beside the database, so that restarts do not put a check off for ever.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::database::Depth;
use crate::database::Error;
use crate::database::Result;
use crate::database::Settings;
use crate::database::Transaction;

/// A site that has just started has other things to do.
const START: Duration = Duration::from_secs(5);

/// How often it is looked whether something is due, and whether another process has found damage or mended it.
const LOOK: Duration = Duration::from_secs(5);

/// How long to wait after a check that could not be made.
const AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Also for tables that this connection has not asked (0x10000), and with a bound on the work (0x10).
///
/// See <https://sqlite.org/pragma.html#pragma_optimize>.
const OPTIMIZE: &str = "PRAGMA optimize(0x10012)";

/// The same, which only lists what it would do (0x01).
const WOULD_OPTIMIZE: &str = "PRAGMA optimize(0x10013)";

/// Looks after a database while a site runs.
#[derive(Clone, Debug)]
pub struct Keeper {
    database: Database,
    quick_every: Option<SignedDuration>,
    full_every: Option<SignedDuration>,
    notes: Arc<Mutex<Notes>>,
}

/// What outlives the process.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    #[serde(skip)]
    file: PathBuf,
    /// Whether a process serves the database, or has ended without having closed it.
    is_open: bool,
    quick_at: Option<Timestamp>,
    full_at: Option<Timestamp>,
}

impl Keeper {
    /// A keeper for the database, by `check_quick_hours` and `check_full_hours`.
    #[must_use]
    pub fn new(database: Database, settings: &Settings) -> Self {
        let hours = |hours: u32| (hours > 0).then(|| SignedDuration::from_hours(i64::from(hours)));
        Self {
            notes: Arc::new(Mutex::new(Notes::read(database.path()))),
            quick_every: hours(settings.check_quick_hours),
            full_every: hours(settings.check_full_hours),
            database,
        }
    }

    /// Checks the file when it is time, and keeps the planner's statistics fresh, until `stop`.
    ///
    /// After an end without [`closed`](Self::closed), the first check is made at once.
    pub async fn run(&self, stop: CancellationToken) {
        let was_left_open = self.note(|notes| std::mem::replace(&mut notes.is_open, true));
        if was_left_open {
            tracing::warn!("the last process did not close the database");
            self.note(|notes| notes.quick_at = None);
        }
        let mut wait = START;
        let mut optimized_at = None;
        let mut has_looked = false;
        while stop
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_some()
        {
            let round = self.round(&mut has_looked);
            if stop.run_until_cancelled(round).await.is_none() {
                return;
            }
            wait = LOOK;
            self.optimize(&mut optimized_at).await;
        }
    }

    /// Notes that the database has been closed in order.
    pub fn closed(&self) {
        self.note(|notes| notes.is_open = false);
    }

    /// Does what is due.
    async fn round(&self, has_looked: &mut bool) {
        self.database.look_for_mark();
        if self.database.damage().is_none() {
            *has_looked = false;
            self.check_what_is_due().await;
        } else if !std::mem::replace(has_looked, true) {
            // It may have been mended since it was found, and nobody said so.
            self.check(Depth::Full).await;
        }
    }

    async fn check_what_is_due(&self) {
        let now = self.database.now();
        let is_due = |last: Option<Timestamp>, every: Option<SignedDuration>| {
            // A time in the future is of a clock that was wrong.
            let last = last.filter(|last| *last <= now);
            every.is_some_and(|every| last.is_none_or(|last| now.duration_since(last) >= every))
        };
        let (quick_at, full_at) = {
            let notes = self.notes();
            (notes.quick_at, notes.full_at)
        };
        if is_due(full_at, self.full_every) {
            self.check(Depth::Full).await;
        } else if is_due(quick_at, self.quick_every) {
            self.check(Depth::Quick).await;
        }
    }

    async fn check(&self, depth: Depth) {
        let started = std::time::Instant::now();
        let report = self.database.check(depth).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = self.database.now();
        let has_checked = match report {
            Ok(report) => {
                for violation in report.violations.iter().take(10) {
                    tracing::error!(
                        violation,
                        "the check found a row that the schema does not allow"
                    );
                }
                let is_whole = report.problems.is_empty();
                tracing::info!(
                    ?depth,
                    duration_ms,
                    is_whole,
                    "the database has been checked"
                );
                true
            }
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::error!(?depth, %error, "the database could not be checked");
                false
            }
        };
        // One that failed is not made again at once, and not as late as if it had been made.
        let at = |every: Option<SignedDuration>| match every {
            Some(every) if !has_checked => now.checked_sub(every - AGAIN.min(every)).ok(),
            _ => Some(now),
        };
        self.note(|notes| {
            notes.quick_at = at(self.quick_every);
            if depth == Depth::Full {
                notes.full_at = at(self.full_every);
            }
        });
    }

    /// Tells SQLite's planner anew what is in the tables, once a day.
    async fn optimize(&self, last: &mut Option<Timestamp>) {
        let now = self.database.now();
        let is_due =
            last.is_none_or(|last| now.duration_since(last) >= SignedDuration::from_hours(24));
        if !is_due || self.database.damage().is_some() {
            return;
        }
        *last = Some(now);
        let optimized = self.database.write(optimize);
        if let Err(error) = optimized.await {
            tracing::debug!(%error, "the planner's statistics could not be refreshed");
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the notes and writes them down.
    fn note<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        let mut notes = self.notes();
        let result = change(&mut notes);
        if let Err(error) = notes.write() {
            tracing::warn!(%error, file = %notes.file.display(), "what was checked when could not be noted");
        }
        result
    }
}

impl Notes {
    fn read(database: &Path) -> Self {
        let file = database.with_added_extension("notes");
        let text = fs::read_to_string(&file).unwrap_or_default();
        // Notes that are lost cost a check too many.
        let notes = serde_json::from_str(&text).unwrap_or_default();
        Self { file, ..notes }
    }

    fn write(&self) -> std::io::Result<()> {
        let new = self.file.with_added_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, &self.file)
    }
}

/// Refreshes the planner's statistics where that is due, for every connection; says whether it was.
fn optimize(tx: &Transaction<'_>) -> Result<bool> {
    let is_due = tx.prepare(WOULD_OPTIMIZE)?.query([])?.next()?.is_some();
    if is_due {
        tx.execute_batch(OPTIMIZE)?;
        // Connections that are open read the statistics again only with the schema.
        let version: i32 = tx.pragma_query_value(None, "schema_version", |row| row.get(0))?;
        tx.pragma_update(None, "schema_version", version.wrapping_add(1))?;
    }
    Ok(is_due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn statistics_are_refreshed_once_and_readers_use_them() {
        let database = Database::open_temporary(&[]).await.unwrap();
        let fill = database.write(|tx| {
            Ok(tx.execute_batch(
                "CREATE TABLE rows (same INTEGER, own INTEGER);
                 CREATE INDEX by_own ON rows (own);
                 CREATE INDEX by_same ON rows (same);
                 WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 5000)
                 INSERT INTO rows SELECT 1, i FROM n;",
            )?)
        });
        fill.await.unwrap();
        let plan = async || {
            let read = database.read(|conn| {
                // A plan that is only asked for is made by the schema as it was last read.
                conn.query_row("SELECT max(own) FROM rows", [], |_| Ok(()))?;
                let sql = "EXPLAIN QUERY PLAN SELECT 1 FROM rows WHERE same = 1 AND own = 7";
                Ok(conn.query_row(sql, [], |row| row.get::<_, String>(3))?)
            });
            read.await.unwrap()
        };
        // Every reader has read the schema before there are statistics.
        for _ in 0..64 {
            let plan = plan().await;
            assert!(plan.contains("by_same"), "{plan}");
        }
        assert!(database.write(optimize).await.unwrap());
        for _ in 0..64 {
            let plan = plan().await;
            assert!(plan.contains("by_own"), "{plan}");
        }
        assert!(!database.write(optimize).await.unwrap());
    }
}
