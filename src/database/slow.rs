//! Statements that take long, told with their plan.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::trace::TraceEvent;
use rusqlite::trace::TraceEventCodes;

use crate::database::stats::Place;

/// The same statement is told of once in this time.
const PAUSE: Duration = Duration::from_mins(1);

/// So many different statements are remembered; beyond it all are forgotten, and may be told of again.
const STATEMENTS_MAX: usize = 1_000;

/// So many slow statements of one closure are told of.
const OF_ONE_MAX: usize = 8;

/// More of a statement's text, or of its plan, is not logged, in bytes.
const TEXT_BYTES_MAX: usize = 2_000;

thread_local! {
    /// From how long on a statement of this thread is slow.
    static LIMIT: Cell<Duration> = const { Cell::new(Duration::MAX) };
    /// What the closure that runs on this thread has had so far.
    static FOUND: RefCell<Vec<(String, Duration)>> = const { RefCell::new(Vec::new()) };
}

/// Tells of statements that take longer than a limit.
#[derive(Debug)]
pub(super) struct SlowLog {
    limit: Duration,
    hasher: RandomState,
    told: Mutex<HashMap<u64, Instant>>,
    count: AtomicU64,
}

impl SlowLog {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            hasher: RandomState::new(),
            told: Mutex::default(),
            count: AtomicU64::default(),
        }
    }

    /// Begins to watch what this thread does with the connection.
    ///
    /// SQLite counts in milliseconds, from a statement's first step to its end.
    pub(super) fn watch(&self, connection: &Connection) {
        LIMIT.set(self.limit);
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(note));
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells what was slow in the closure that has just ended on this thread.
    pub(super) fn tell(&self, connection: &Connection, place: Place) {
        self.each(|sql, duration_ms| {
            let plan = plan(connection, sql).unwrap_or_else(|error| error.to_string());
            let (sql, plan) = (short(sql), short(&plan));
            tracing::warn!(duration_ms, %place, sql, plan, "a statement was slow");
        });
    }

    /// Tells what was slow of the statements around closures: commits, checkpoints, waiting for another process.
    pub(super) fn tell_own(&self) {
        self.each(|sql, duration_ms| {
            tracing::warn!(
                duration_ms,
                sql,
                "the disk was slow, or another process in the way"
            );
        });
    }

    fn each(&self, tell: impl Fn(&str, u64)) {
        if FOUND.with_borrow(Vec::is_empty) {
            return;
        }
        for (sql, time) in FOUND.take() {
            self.count.fetch_add(1, Ordering::Relaxed);
            if self.is_due(&sql) {
                let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                tell(&sql, duration_ms);
            }
        }
    }

    fn is_due(&self, sql: &str) -> bool {
        let key = self.hasher.hash_one(sql);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.get(&key).is_some_and(|last| now - *last < PAUSE) {
            return false;
        }
        if told.len() >= STATEMENTS_MAX {
            told.clear();
        }
        told.insert(key, now);
        true
    }
}

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Profile(statement, time) = event
        && time >= LIMIT.get()
    {
        FOUND.with_borrow_mut(|found| {
            if found.len() < OF_ONE_MAX {
                found.push((statement.sql().into_owned(), time));
            }
        });
    }
}

/// What SQLite does for a statement: `SCAN` reads a whole table, `SEARCH` uses an index.
fn plan(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
    Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
}

/// A text cut to what fits a line of the log, its spaces and line breaks made one space each.
fn short(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > TEXT_BYTES_MAX {
        line.truncate(line.floor_char_boundary(TEXT_BYTES_MAX));
        line.push('…');
    }
    line
}
