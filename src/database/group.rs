//! The writer's thread: group commit.
//!
//! What waits is executed in one IMMEDIATE transaction, each write in its own savepoint, and answered after COMMIT.
//! A lone write does not wait for others; under load the groups grow by themselves while the disk is busy.
//! A file that is known to be damaged is not written to.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::AuthAction;
use rusqlite::hooks::AuthContext;
use rusqlite::hooks::Authorization;

use crate::database::Error;
use crate::database::Result;
use crate::database::Transaction;
use crate::database::clock::Clock;
use crate::database::connection::Options;
use crate::database::error::panic_text;
use crate::database::fence::Fence;
use crate::database::health::Health;
use crate::database::patience;
use crate::database::running::Around;
use crate::database::running::Running;
use crate::database::slow::SlowLog;
use crate::database::transaction::AfterCommit;
use crate::database::wal;
use crate::database::wal::Wal;
use crate::database::writer::Shared;
use crate::database::writer::Write;

/// No write joins a group that has run this long, so that the first in it is not kept waiting.
const GROUP_TIME_MAX: Duration = Duration::from_millis(10);

// Our own statements carry a mark, so that a closure cannot find them in the statement cache by accident.
const BEGIN: &str = "BEGIN IMMEDIATE /* houseboat */";
const COMMIT: &str = "COMMIT /* houseboat */";
const ROLLBACK: &str = "ROLLBACK /* houseboat */";
const SAVE: &str = "SAVEPOINT houseboat";
const RELEASE: &str = "RELEASE houseboat";
const ROLLBACK_TO: &str = "ROLLBACK TO houseboat";

/// How often another process is asked again, where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Refuses to closures what would end, or spoil, the transaction that they share with others.
///
/// That is BEGIN, COMMIT and ROLLBACK; and `defer_foreign_keys`, which would let one write's mistake fail the commit
/// of all. Where a statement has rolled everything back (`OR ROLLBACK`), what the closure does after it is not
/// committed by itself.
fn forbid_transactions(connection: &Connection, inside: &Arc<AtomicBool>) -> Result<()> {
    let in_closure = Arc::clone(inside);
    connection.commit_hook(Some(move || in_closure.load(Ordering::Relaxed)))?;
    let inside = Arc::clone(inside);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        let forbidden = match context.action {
            AuthAction::Transaction { .. } => true,
            AuthAction::Savepoint { savepoint_name, .. } => savepoint_name == "houseboat",
            AuthAction::Pragma { pragma_name, .. } => {
                pragma_name.eq_ignore_ascii_case("defer_foreign_keys")
            }
            _ => false,
        };
        if forbidden && inside.load(Ordering::Relaxed) {
            Authorization::Deny
        } else {
            Authorization::Allow
        }
    }))?;
    Ok(())
}

/// What the writer knows of the schema.
#[derive(Default)]
struct Schema {
    /// `PRAGMA schema_version`, which changes with the schema.
    version: i64,
    /// Whether a constraint may be checked as late as the commit.
    deferred: bool,
}

/// The writer's thread: groups, one after another.
pub(super) struct Group {
    schema: Schema,
    connection: Connection,
    clock: Clock,
    health: Arc<Health>,
    fence: Fence,
    slow: Arc<SlowLog>,
    shared: Arc<Shared>,
    busy_timeout: Duration,
    receiver: Receiver<Box<dyn Write>>,
    writes_max: usize,
    /// Whether a closure is running, so that the authorizer knows whose statement it sees.
    inside: Arc<AtomicBool>,
}

/// What a group has done so far.
#[derive(Default)]
struct Done {
    writes: Vec<Box<dyn Write>>,
    after_commit: Vec<AfterCommit>,
    /// Why nothing of this group will be stored, once that is so.
    lost: Option<Error>,
}

/// The error for each write of a group that is lost for this reason.
fn lost(reason: &Error) -> Error {
    match reason {
        Error::DiskFull => Error::DiskFull,
        Error::Damaged => Error::Damaged,
        Error::Fenced => Error::Fenced,
        reason => Error::RolledBack(reason.to_string()),
    }
}

impl Group {
    pub(super) fn new(
        connection: Connection,
        options: &Options,
        around: &Around,
        shared: &Arc<Shared>,
        (receiver, writes_max): (Receiver<Box<dyn Write>>, usize),
    ) -> Result<Self> {
        let inside = Arc::new(AtomicBool::new(false));
        forbid_transactions(&connection, &inside)?;
        Ok(Self {
            schema: Schema::default(),
            connection,
            clock: around.clock.clone(),
            health: Arc::clone(&around.health),
            fence: around.fence.clone(),
            slow: Arc::clone(&around.slow),
            shared: Arc::clone(shared),
            busy_timeout: Duration::from_millis(options.busy_timeout_ms.into()),
            receiver,
            writes_max,
            inside,
        })
    }

    /// Stores what comes, until it is told to stop.
    pub(super) fn run(&mut self, options: &Options, running: Running) {
        self.slow.watch(&self.connection);
        let checkpoints = Arc::clone(&self.shared.checkpoints);
        let mut wal = Wal::keep(&self.connection, options, running, checkpoints);
        if let Err(error) = patience::set(&self.connection, self.busy_timeout) {
            tracing::warn!(%error, "another process is waited for in SQLite's own way");
        }
        loop {
            let message = match wal.idle_wait() {
                Some(wait) => self.receiver.recv_timeout(wait),
                None => self.receiver.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(first) => {
                    self.group(first);
                    if !self.health.is_damaged() {
                        wal.after_group(&self.connection);
                    }
                }
                Err(RecvTimeoutError::Timeout) => wal.idle(&self.connection),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.trap(None, &"a checkpoint");
            self.slow.tell_own();
        }
        if self.health.is_damaged() {
            self.leave_the_file_alone();
        } else {
            // A connection that has never written does not know of the WAL, and would leave it behind.
            wal.end(&self.connection);
        }
    }

    /// Keeps the end of the connection from bringing the WAL into a damaged file.
    fn leave_the_file_alone(&self) {
        let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if let Err(error) = self.connection.set_db_config(no_checkpoint, true) {
            tracing::warn!(%error, "the WAL will be brought into the damaged file");
        }
    }

    /// Stores one group.
    fn group(&mut self, first: Box<dyn Write>) {
        if first.is_abandoned() {
            return;
        }
        if let Some(error) = self.refusal(first.as_ref()) {
            return first.answer(Some(error), &self.shared.counter);
        }
        if let Err(error) = self.begin() {
            let is_busy = matches!(error, Error::Busy);
            self.trap(Some(&error), &"the writer");
            first.answer(Some(error), &self.shared.counter);
            if is_busy {
                self.all_busy();
            }
            return;
        }
        // What has been waited for until here is nobody's closure's.
        self.slow.tell_own();
        let started = Instant::now();
        let writes_max = self.writes_max();
        let mut done = Done::default();
        let mut next = Some(first);
        while let Some(write) = next.take() {
            self.shared.running.fetch_add(1, Ordering::Relaxed);
            self.one(write, &mut done);
            if done.lost.is_none()
                && done.writes.len() < writes_max
                && started.elapsed() < GROUP_TIME_MAX
            {
                next = self.receiver.try_recv().ok();
            }
        }
        self.finish(done);
    }

    /// Why a write is not to be begun, if there is a reason.
    fn refusal(&self, write: &dyn Write) -> Option<Error> {
        if self.health.is_damaged() {
            return Some(Error::Damaged);
        }
        self.fenced().or_else(|| write.is_late())
    }

    /// Begins the group's transaction. Nothing of it has run yet, so it can be tried again.
    ///
    /// SQLite waits for another process by itself, but for a few of its locks (while the WAL is recovered, say).
    fn begin(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.execute(BEGIN).map_err(Error::from) {
                Err(Error::Busy) if started.elapsed() < self.busy_timeout => {
                    std::thread::park_timeout(BUSY_PAUSE);
                }
                begun => return begun,
            }
        }
    }

    /// Looks whether what was just done has met damage.
    fn trap(&self, error: Option<&Error>, found_by: &dyn std::fmt::Display) -> bool {
        let now = || self.clock.now();
        self.health.trap(error, now, || found_by.to_string())
    }

    /// Tells all that wait that another process holds the file: each would only find the same, one after another.
    fn all_busy(&self) {
        while let Ok(write) = self.receiver.try_recv() {
            write.answer(Some(Error::Busy), &self.shared.counter);
        }
    }

    /// How many writes may share a commit: one alone where a constraint is deferred to it.
    ///
    /// Such a constraint is checked for all of a transaction together, so one write's mistake would fail the others'.
    fn writes_max(&mut self) -> usize {
        let look = || -> rusqlite::Result<Option<Schema>> {
            let mut statement = self.connection.prepare_cached("PRAGMA schema_version")?;
            let version = statement.query_row([], |row| row.get(0))?;
            if version == self.schema.version {
                return Ok(None);
            }
            let sql =
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql LIKE '%INITIALLY%DEFERRED%')";
            let deferred = self.connection.query_row(sql, [], |row| row.get(0))?;
            Ok(Some(Schema { version, deferred }))
        };
        match look() {
            Ok(Some(schema)) => self.schema = schema,
            Ok(None) => {}
            // A file that cannot be read so far will fail the write as well, and that error is told.
            Err(error) => tracing::debug!(%error, "the schema could not be looked at"),
        }
        if self.schema.deferred {
            1
        } else {
            self.writes_max
        }
    }

    /// Runs one write in its savepoint.
    fn one(&mut self, mut write: Box<dyn Write>, done: &mut Done) {
        if let Some(refusal) = self.refusal(write.as_ref()) {
            return write.answer(Some(refusal), &self.shared.counter);
        }
        if !write.begin() {
            return;
        }
        if let Err(error) = self.execute(SAVE) {
            done.lost = Some(error.into());
            done.writes.push(write);
            return;
        }
        let transaction = Transaction::new(&self.connection, self.clock.now());
        self.inside.store(true, Ordering::Relaxed);
        let keep = write.run(&transaction);
        self.inside.store(false, Ordering::Relaxed);
        let after_commit = transaction.into_after_commit();
        let place = write.place();
        match self.close_savepoint(write.as_ref()) {
            Ok(()) if keep => done.after_commit.extend(after_commit),
            Ok(()) => {}
            Err(error) => done.lost = Some(error),
        }
        if self.trap(write.error(), &format_args!("a write at {place}")) {
            // What is half right is not worth having.
            done.lost = Some(Error::Damaged);
        }
        self.slow.tell(&self.connection, place);
        done.writes.push(write);
    }

    fn close_savepoint(&self, write: &dyn Write) -> Result<()> {
        // Some errors (disk full, out of memory) make SQLite roll the whole transaction back by itself.
        if self.connection.is_autocommit() {
            return Err(match write.error() {
                Some(Error::DiskFull) => Error::DiskFull,
                _ => Error::abort("SQLite gave it up after an error of a write in it"),
            });
        }
        if write.error().is_some() {
            self.execute(ROLLBACK_TO)?;
        }
        Ok(self.execute(RELEASE)?)
    }

    /// Commits, runs what follows the commit, and answers.
    fn finish(&self, done: Done) {
        self.shared.running.store(0, Ordering::Relaxed);
        let mut reason = done
            .lost
            .or_else(|| self.health.is_damaged().then_some(Error::Damaged))
            .or_else(|| self.fenced())
            .or_else(|| self.execute(COMMIT).err().map(Error::from));
        if let Some(reason) = &reason {
            self.trap(Some(reason), &"a commit");
            if matches!(reason, Error::DiskFull) {
                self.health.had_room(false);
            }
            if !self.connection.is_autocommit()
                && let Err(error) = self.execute(ROLLBACK)
            {
                tracing::error!(%error, "a transaction could not be rolled back");
            }
        } else {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            if wal::has_written() {
                self.health.had_room(true);
            }
            // One that was paused here for long has committed to a file that is not the site's any more.
            reason = self.fenced();
            if reason.is_none() {
                done.after_commit.into_iter().for_each(run_after_commit);
            }
        }
        let is_lone = done.writes.len() == 1;
        for write in done.writes {
            let lost = match &reason {
                // Nobody else is concerned: it gets the error itself, a broken constraint for instance.
                Some(Error::Sqlite(_)) if is_lone => reason.take(),
                reason => reason.as_ref().map(lost),
            };
            self.answer(write, lost);
        }
    }

    /// Why nothing may be stored now, if another process may write in the place of this one.
    fn fenced(&self) -> Option<Error> {
        (!self.fence.is_open()).then_some(Error::Fenced)
    }

    /// What a closure has returned may panic when it is dropped; the thread is not to end by that.
    fn answer(&self, write: Box<dyn Write>, lost: Option<Error>) {
        let place = write.place();
        let answered = catch_unwind(AssertUnwindSafe(|| {
            write.answer(lost, &self.shared.counter);
        }));
        if let Err(panic) = answered {
            tracing::error!(%place, panic = panic_text(panic.as_ref()), "a write panicked at its end");
        }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

fn run_after_commit(work: AfterCommit) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let text = panic_text(panic.as_ref());
        tracing::error!(panic = text, "what follows a commit panicked");
    }
}
