//! A reader thread: one connection, one read at a time.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use rusqlite::ErrorCode;

use crate::database::Error;
use crate::database::Result;
use crate::database::error::panic_text;
use crate::database::lanes::LONG;
use crate::database::readers::Read;
use crate::database::readers::Shared;
use crate::database::running::Limit;
use crate::database::running::Slot;

/// So many steps of SQLite's machine lie between two looks at a read's limit: a fraction of a millisecond,
/// and more than a point read ever takes.
const STEPS: i32 = 10_000;

/// Where threads get their work from.
#[derive(Clone)]
pub(super) struct Lines {
    pub(super) short: Receiver<Box<dyn Read>>,
    pub(super) long: Receiver<Box<dyn Read>>,
    pub(super) to_long: Sender<Box<dyn Read>>,
    /// One for each thread that the short lane lacks.
    pub(super) relief: Receiver<()>,
    /// Closed when the threads are to end.
    pub(super) stop: Receiver<()>,
    pub(super) waiting_max: usize,
}

/// A thread's connection, and the read that it does now.
pub(super) struct Reader {
    connection: r2d2::PooledConnection<SqliteConnectionManager>,
    number: usize,
    /// Whether it belongs to the long lane now.
    is_long: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(
        connection: r2d2::PooledConnection<SqliteConnectionManager>,
        number: usize,
        is_long: bool,
        relief: Sender<()>,
        shared: &Arc<Shared>,
    ) -> Result<Self> {
        let is_long = Arc::new(AtomicBool::new(is_long));
        let (in_long_lane, around) = (Arc::clone(&is_long), Arc::clone(shared));
        let look = move || {
            let mut slot = around.running.slot(number).lock();
            let Some(limit) = slot.as_mut() else {
                return around.closing.load(Ordering::Relaxed);
            };
            let now = Instant::now();
            if !limit.is_long && now - limit.begun > LONG {
                limit.is_long = true;
                around.lanes.is_taking_long(limit.place);
                if !in_long_lane.swap(true, Ordering::Relaxed) {
                    // There is room: no more threads can go over than there are.
                    let _ = relief.try_send(());
                }
            }
            limit.turn.has_left() || now > limit.end || around.closing.load(Ordering::Relaxed)
        };
        connection.progress_handler(STEPS, Some(look))?;
        let slot = shared.running.slot(number);
        slot.cut_off_by(connection.get_interrupt_handle());
        Ok(Self {
            connection,
            number,
            is_long,
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn run(&self, lines: &Lines) {
        self.shared.slow.watch(&self.connection);
        loop {
            let next = if self.is_long.load(Ordering::Relaxed) {
                self.next_long(lines)
            } else {
                self.next_short(lines)
            };
            match next {
                Next::Read(read) => self.one(read),
                Next::LookAgain => {}
                Next::Stop => return,
            }
        }
    }

    fn next_short(&self, lines: &Lines) -> Next {
        let Ok(read) = lines.short.recv() else {
            return Next::Stop;
        };
        if !self.shared.lanes.is_long(read.place()) {
            return Next::Read(read);
        }
        // It was not known to be long when it was sent.
        read.turn().leave_queue();
        if let Err(error) = lines.to_long.try_send(read) {
            let refused = Error::refused(&error, lines.waiting_max);
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            error.into_inner().refuse(refused);
        }
        Next::LookAgain
    }

    /// The short lane comes first: its gaps are filled before anything long is begun.
    fn next_long(&self, lines: &Lines) -> Next {
        let go_short = || {
            self.is_long.store(false, Ordering::Relaxed);
            Next::LookAgain
        };
        if lines.relief.try_recv().is_ok() {
            return go_short();
        }
        if let Ok(read) = lines.long.try_recv() {
            return Next::Read(read);
        }
        crossbeam_channel::select! {
            recv(lines.relief) -> _ => go_short(),
            recv(lines.long) -> read => read.map_or(Next::Stop, Next::Read),
            recv(lines.stop) -> _ => Next::Stop,
        }
    }

    /// Runs one read, and cleans up behind it.
    fn one(&self, read: Box<dyn Read>) {
        let place = read.place();
        // What the closure holds, or returns, may panic when it is dropped; the thread is not to end by that.
        let run = catch_unwind(AssertUnwindSafe(|| read.run(self)));
        if let Err(panic) = run {
            tracing::error!(%place, panic = panic_text(panic.as_ref()), "a read panicked at its end");
        }
        self.slot().lock().take();
        end_transaction(&self.connection);
        self.shared.slow.tell(&self.connection, place);
    }

    /// Runs the caller's closure, unless its time has passed while it waited.
    pub(super) fn read<T>(
        &self,
        mut limit: Limit,
        time: Duration,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let (asked, begun, end, place) = (limit.asked, Instant::now(), limit.end, limit.place);
        let counter = &self.shared.counters[self.number];
        if begun > end {
            let late = Error::Timeout { time };
            counter.ended(begun - asked, Some(&late));
            return Err(late);
        }
        limit.begun = begun;
        *self.slot().lock() = Some(limit);
        let result = match guarded(&self.connection, work) {
            Err(Error::Sqlite(error)) if is_interruption(&error) => Err(self.why(end, time, error)),
            result => result,
        };
        let ended = Instant::now();
        self.shared.lanes.took(place, ended - begun);
        let error = result.as_ref().err();
        counter.ended(ended - asked, error);
        let now = || self.shared.clock.now();
        let found_by = || format!("a read at {place}");
        self.shared.health.trap(error, now, found_by);
        result
    }

    fn slot(&self) -> &Slot {
        self.shared.running.slot(self.number)
    }

    /// Says why a statement was cut off.
    fn why(&self, end: Instant, time: Duration, error: rusqlite::Error) -> Error {
        if self.shared.closing.load(Ordering::Relaxed) {
            Error::Closed
        } else if Instant::now() > end {
            Error::Timeout { time }
        } else {
            Error::Sqlite(error)
        }
    }
}

enum Next {
    Read(Box<dyn Read>),
    LookAgain,
    Stop,
}

fn is_interruption(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// Runs the caller's closure; a panic in it is an error of this read alone.
fn guarded<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|panic| Err(Error::Panicked(panic_text(panic.as_ref()))))
}

/// Ends a transaction that the closure left open: it would pin the WAL and show the next reader old rows.
fn end_transaction(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a reader's transaction could not be ended");
    }
}
