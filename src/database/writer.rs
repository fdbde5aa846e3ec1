//! The one writer: a queue, and group commit.
//!
//! What waits is executed in one IMMEDIATE transaction, each write in its own savepoint, and answered after COMMIT.
//! A lone write does not wait for others; under load the groups grow by themselves while the disk is busy.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use rusqlite::Connection;
use rusqlite::hooks::AuthAction;
use rusqlite::hooks::AuthContext;
use rusqlite::hooks::Authorization;
use tokio::sync::oneshot;
use tracing::Span;

use crate::database::Error;
use crate::database::Result;
use crate::database::Transaction;
use crate::database::clock::Clock;
use crate::database::error::panic_text;
use crate::database::transaction::AfterCommit;

/// No write joins a group that has run this long, so that the first in it is not kept waiting.
const GROUP_TIME_MAX: Duration = Duration::from_millis(10);

// Our own statements carry a mark, so that a closure cannot find them in the statement cache by accident.
const BEGIN: &str = "BEGIN IMMEDIATE /* houseboat */";
const COMMIT: &str = "COMMIT /* houseboat */";
const ROLLBACK: &str = "ROLLBACK /* houseboat */";
const SAVE: &str = "SAVEPOINT houseboat";
const RELEASE: &str = "RELEASE houseboat";
const ROLLBACK_TO: &str = "ROLLBACK TO houseboat";

/// Sends writes to the thread.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    sender: Sender<Message>,
    waiting_max: usize,
}

enum Message {
    Write(Box<dyn Write>),
    Stop,
}

/// A write that waits, whatever it returns.
trait Write: Send {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// The error for a write whose turn has come too late, if it has.
    fn is_late(&self) -> Option<Error>;
    /// Runs the closure, once; says whether its savepoint is to be kept.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Gives the closure's result to the caller, or the error that took the transaction with it.
    fn answer(self: Box<Self>, lost: Option<Error>);
}

struct Waiting<F, T> {
    /// Of the caller: lines of the closure carry the ids of its request or job.
    span: Span,
    /// It is not begun after this.
    end: Instant,
    time: Duration,
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Write for Waiting<F, T>
where
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_late(&self) -> Option<Error> {
        let time = self.time;
        (Instant::now() > self.end).then_some(Error::Timeout { time })
    }

    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let _in_span = self.span.enter();
        let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
            .unwrap_or_else(|panic| Err(Error::Panicked(panic_text(panic.as_ref()))));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, lost: Option<Error>) {
        let result = match (lost, self.result) {
            // The closure's own error says more than that others were lost with it.
            (_, Some(Err(error))) | (Some(error), _) => Err(error),
            (None, Some(result)) => result,
            (None, None) => Err(Error::Closed),
        };
        // Nobody listens any more if the caller left meanwhile; the write is stored all the same.
        let _ = self.reply.send(result);
    }
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(super) fn start(
        connection: Connection,
        clock: Clock,
        waiting_max: usize,
        group_max: usize,
    ) -> Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::bounded(waiting_max);
        let inside = Arc::new(AtomicBool::new(false));
        forbid_transactions(&connection, &inside)?;
        let mut group = Group {
            schema: Schema::default(),
            connection,
            clock,
            receiver,
            writes_max: group_max,
            inside,
        };
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || group.run())
            .map_err(Error::abort)?;
        let writer = Self {
            sender,
            waiting_max,
        };
        Ok((writer, thread))
    }

    /// Runs `work` in a transaction and answers once it is committed; does not begin it after `time`.
    pub(super) async fn write<F, T>(&self, time: Duration, work: F) -> Result<T>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            span: Span::current(),
            end: Instant::now() + time,
            time,
            work: Some(work),
            result: None,
            reply,
        };
        self.sender
            .try_send(Message::Write(Box::new(waiting)))
            .map_err(|error| Error::refused(&error, self.waiting_max))?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Ends the thread once what waits is stored.
    pub(super) fn stop(&self) {
        // Fails when the thread is gone already.
        let _ = self.sender.send(Message::Stop);
    }
}

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
struct Group {
    schema: Schema,
    connection: Connection,
    clock: Clock,
    receiver: Receiver<Message>,
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
    lost: Option<String>,
}

impl Group {
    fn run(&mut self) {
        while let Ok(Message::Write(first)) = self.receiver.recv() {
            if first.is_abandoned() {
                continue;
            }
            if let Some(late) = first.is_late() {
                first.answer(Some(late));
            } else if !self.group(first) {
                break;
            }
        }
        // A connection that has never written does not know of the WAL, and would leave it behind.
        if let Err(error) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
    }

    /// Stores one group; says whether the thread is to go on.
    fn group(&mut self, first: Box<dyn Write>) -> bool {
        if let Err(error) = self.execute(BEGIN) {
            let error = Error::from(error);
            let is_busy = matches!(error, Error::Busy);
            first.answer(Some(error));
            return !is_busy || self.all_busy();
        }
        let started = Instant::now();
        let writes_max = self.writes_max();
        let mut done = Done::default();
        let mut next = Some(first);
        let mut go_on = true;
        while let Some(write) = next.take() {
            self.one(write, &mut done);
            if done.lost.is_none()
                && done.writes.len() < writes_max
                && started.elapsed() < GROUP_TIME_MAX
            {
                match self.receiver.try_recv() {
                    Ok(Message::Write(write)) => next = Some(write),
                    Ok(Message::Stop) => go_on = false,
                    Err(_) => {}
                }
            }
        }
        self.finish(done);
        go_on
    }

    /// Tells all that wait that another process holds the file: each would only find the same, one after another.
    fn all_busy(&self) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(Message::Write(write)) => write.answer(Some(Error::Busy)),
                Ok(Message::Stop) => return false,
                Err(_) => return true,
            }
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
        if write.is_abandoned() {
            return;
        }
        if let Some(late) = write.is_late() {
            return write.answer(Some(late));
        }
        if let Err(error) = self.execute(SAVE) {
            done.lost = Some(error.to_string());
            done.writes.push(write);
            return;
        }
        let transaction = Transaction::new(&self.connection, self.clock.now());
        self.inside.store(true, Ordering::Relaxed);
        let keep = write.run(&transaction);
        self.inside.store(false, Ordering::Relaxed);
        let after_commit = transaction.into_after_commit();
        match self.close_savepoint(keep) {
            Ok(()) if keep => done.after_commit.extend(after_commit),
            Ok(()) => {}
            Err(reason) => done.lost = Some(reason),
        }
        done.writes.push(write);
    }

    fn close_savepoint(&self, keep: bool) -> Result<(), String> {
        // Some errors (disk full, out of memory) make SQLite roll the whole transaction back by itself.
        if self.connection.is_autocommit() {
            return Err("SQLite gave it up after an error of a write in it".to_owned());
        }
        if !keep {
            self.execute(ROLLBACK_TO)
                .map_err(|error| error.to_string())?;
        }
        self.execute(RELEASE).map_err(|error| error.to_string())
    }

    /// Commits, runs what follows the commit, and answers.
    fn finish(&self, done: Done) {
        let lost = done
            .lost
            .or_else(|| self.execute(COMMIT).err().map(|error| error.to_string()));
        if lost.is_none() {
            done.after_commit.into_iter().for_each(run_after_commit);
        } else if !self.connection.is_autocommit()
            && let Err(error) = self.execute(ROLLBACK)
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        for write in done.writes {
            write.answer(lost.clone().map(Error::RolledBack));
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
