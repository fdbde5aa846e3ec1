//! The keeper of the WAL: brings it into the file, cuts it back, and names who holds that up.
//!
//! It works on the writer's thread, after the answers are out, so no caller waits for a checkpoint of its own write.
//! PASSIVE checkpoints disturb nobody. A WAL that has grown is cut back with TRUNCATE, but never under Litestream,
//! which reads the WAL and must be the only one to restart it.

use std::cell::Cell;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

use crate::database::Error;
use crate::database::connection::Options;
use crate::database::connection::beside;
use crate::database::connection::notes_of_litestream;
use crate::database::patience;
use crate::database::running::Running;

/// After so many pages a checkpoint is made even if writes wait; SQLite's own default.
const PAGES: i32 = 1_000;

/// So much of the WAL that cannot be brought home means that somebody holds it up: 16 MB of usual pages.
const PINNED_PAGES: i32 = 4_000;

/// With Litestream, which works at its own pace, only this much is worth a word: 160 MB.
const PINNED_PAGES_REPLICATED: i32 = 40_000;

/// With more than that, about 1 GB, it is brought home even where that is left to Litestream: it would have cut it back
/// by force at 121 359 pages, so it does not run, or hangs.
const OTHERS_PAGES: i32 = 250_000;

/// A WAL as long as this is cut back even if writes wait: 64 MB.
const LONG_PAGES: i32 = 16_000;

/// How long cutting it back may wait for readers to leave: with writes behind it, and when nobody writes.
const CUT_WAIT: Duration = Duration::from_millis(20);
const CUT_WAIT_IDLE: Duration = Duration::from_millis(5);

/// No read is blamed that has run for less.
const BLAME: Duration = Duration::from_millis(500);

/// How long nothing must have been written before the WAL is brought home, and how long after a vain attempt.
const IDLE: Duration = Duration::from_millis(200);
const IDLE_AGAIN: Duration = Duration::from_secs(10);

/// So many vain attempts in a row are enough until something is written again.
const IDLE_TRIES: u32 = 6;

/// No more than one attempt to cut it back, and one word about who holds it up, in such a time.
const CUT_PAUSE: Duration = Duration::from_secs(1);
const WORD_PAUSE: Duration = Duration::from_mins(1);

thread_local! {
    /// Pages in the WAL after the last commit on this thread.
    static WRITTEN: Cell<i32> = const { Cell::new(0) };
    /// Whether a commit on this thread has written anything since it was asked.
    static HAS_WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether a commit on this thread has written anything since the last call.
pub(super) fn has_written() -> bool {
    HAS_WRITTEN.replace(false)
}

/// What is known of the WAL of one file, on its writer's thread.
#[derive(Debug)]
pub(super) struct Wal {
    /// The database file.
    path: PathBuf,
    size_limit: u64,
    running: Running,
    /// Pages that were in the WAL when the last checkpoint was tried.
    tried: i32,
    /// Whether all that is committed is in the file.
    is_home: bool,
    /// Whether the file of the WAL is longer than it should be, though all of it is in the file.
    is_long: bool,
    idle_tries: u32,
    cut_at: Option<Instant>,
    word_at: Option<Instant>,
    checkpoints: Arc<AtomicU64>,
    /// Whether another process brings the WAL home.
    is_others: Arc<AtomicBool>,
}

/// The answer of a checkpoint: pages in the WAL, and how many of them are in the file.
struct Progress {
    /// Another process was at it.
    is_busy: bool,
    pages: i32,
    home: i32,
}

impl Wal {
    /// Takes the checkpoints of a connection over; on the thread that will write with it.
    pub(super) fn keep(
        connection: &Connection,
        options: &Options,
        running: Running,
        checkpoints: Arc<AtomicU64>,
        is_others: Arc<AtomicBool>,
    ) -> Self {
        // In place of SQLite's own, which would checkpoint before the commit has been answered.
        connection.wal_hook(Some(|_, pages| {
            WRITTEN.set(pages);
            HAS_WRITTEN.set(true);
            Ok(())
        }));
        Self {
            path: options.path.clone(),
            size_limit: options.journal_size_limit_bytes,
            running,
            tried: 0,
            // What an earlier process has left is brought home by the first checkpoint.
            is_home: false,
            is_long: false,
            idle_tries: 0,
            cut_at: None,
            word_at: None,
            checkpoints,
            is_others,
        }
    }

    /// When to call `idle` if nobody writes; never, if there is nothing to do.
    pub(super) fn idle_wait(&self) -> Option<Duration> {
        match self.idle_tries {
            _ if self.is_home && !self.is_long => None,
            0 => Some(IDLE),
            1..IDLE_TRIES => Some(IDLE_AGAIN),
            _ => None,
        }
    }

    /// Looks at the WAL after a group is committed and answered.
    pub(super) fn after_group(&mut self, connection: &Connection) {
        self.is_home = false;
        self.is_long = false;
        self.idle_tries = 0;
        let written = WRITTEN.get();
        if written < self.tried {
            // It was begun anew.
            self.tried = 0;
        }
        if written - self.tried >= PAGES {
            self.checkpoint(connection);
        }
        // Where reads overlap without end it never goes home by itself: each holds what the one before it saw.
        let is_too_soon = |at: Instant| at.elapsed() < CUT_PAUSE;
        if written >= LONG_PAGES
            && !self.cut_at.is_some_and(is_too_soon)
            && !self.is_replicated(connection)
        {
            self.cut_at = Some(Instant::now());
            self.cut_back(connection, CUT_WAIT);
        }
    }

    /// Nobody writes: a good time.
    pub(super) fn idle(&mut self, connection: &Connection) {
        self.checkpoint(connection);
        if self.is_home && self.is_too_long() && !self.is_replicated(connection) {
            self.cut_back(connection, CUT_WAIT_IDLE);
            // Readers may have been in the way.
            self.is_long = self.is_too_long();
        }
        self.idle_tries += 1;
    }

    /// The last one, when the database is closed. No reader of ours is left.
    pub(super) fn end(&mut self, connection: &Connection) {
        self.checkpoint(connection);
    }

    fn checkpoint(&mut self, connection: &Connection) {
        if self.is_others.load(Ordering::Relaxed) && WRITTEN.get() < OTHERS_PAGES {
            self.is_home = true;
            return;
        }
        match checkpoint(connection, "PASSIVE") {
            Ok(progress) => {
                self.is_home = !progress.is_busy && progress.home == progress.pages;
                self.tried = if self.is_home { 0 } else { progress.pages };
                if self.is_home {
                    self.checkpoints.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.tell_who(connection, &progress);
                }
            }
            Err(error) => self.failed(&error.into()),
        }
    }

    /// Makes the file of the WAL short, unless somebody reads from it for longer than `wait`.
    fn cut_back(&mut self, connection: &Connection, wait: Duration) {
        let cut = patience::with(wait, || checkpoint(connection, "TRUNCATE"));
        match cut {
            Ok(_) => self.tried = 0,
            Err(error) => self.failed(&error.into()),
        }
    }

    fn failed(&mut self, error: &Error) {
        let is_too_soon = |at: Instant| at.elapsed() < WORD_PAUSE;
        if matches!(error, Error::Busy) || self.word_at.is_some_and(is_too_soon) {
            return;
        }
        self.word_at = Some(Instant::now());
        tracing::warn!(%error, "what is written cannot be brought from the WAL into the file");
    }

    /// Names the read that keeps the WAL from going home.
    fn tell_who(&mut self, connection: &Connection, progress: &Progress) {
        let is_too_soon = |at: Instant| at.elapsed() < WORD_PAUSE;
        let behind = progress.pages - progress.home;
        if behind < PINNED_PAGES || self.word_at.is_some_and(is_too_soon) {
            return;
        }
        if self.is_replicated(connection) && behind < PINNED_PAGES_REPLICATED {
            return;
        }
        let oldest = self.running.oldest();
        if oldest.as_ref().is_some_and(|(_, time)| *time < BLAME) {
            return;
        }
        self.word_at = Some(Instant::now());
        let wal_bytes = bytes(&self.path);
        if let Some((who, time)) = oldest {
            let running_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                wal_bytes,
                pages = progress.pages,
                pages_home = progress.home,
                who,
                running_ms,
                "a long read keeps the WAL growing: what is written cannot be brought into the file until it ends"
            );
        } else {
            tracing::warn!(
                wal_bytes,
                pages = progress.pages,
                pages_home = progress.home,
                "another process keeps the WAL growing: what is written cannot be brought into the file until it lets go"
            );
        }
    }

    fn is_too_long(&self) -> bool {
        bytes(&self.path) > self.size_limit
    }

    fn is_replicated(&self, connection: &Connection) -> bool {
        notes_of_litestream(&self.path).exists()
            || connection
                .query_row(
                    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_litestream_seq')",
                    [],
                    |row| row.get(0),
                )
                .unwrap_or(true)
    }
}

/// The size of the WAL of a database, in bytes; 0 where there is none.
pub(super) fn bytes(database: &Path) -> u64 {
    std::fs::metadata(beside(database, "-wal")).map_or(0, |file| file.len())
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| {
        Ok(Progress {
            is_busy: row.get(0)?,
            pages: row.get(1)?,
            home: row.get(2)?,
        })
    })
}
