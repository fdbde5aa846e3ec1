//! Every statement on the table `jobs`.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::Error;
use crate::queue::job::Request;
use crate::queue::job::When;

/// Which of the jobs that are due is claimed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High = 0,
    /// What a job has that says nothing.
    Normal = 1,
    /// When nothing else is due.
    Low = 2,
}

impl Priority {
    const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

/// Where a job stands. One that is scheduled is `available` with a time in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum State {
    /// It waits for its time, or for a worker.
    Available,
    /// A worker runs it.
    Executing,
    /// It failed and waits for its next attempt.
    Retryable,
    /// It is done.
    Completed,
    /// It failed too often.
    Discarded,
    /// It was not to be done.
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 6] = [
        Self::Available,
        Self::Executing,
        Self::Retryable,
        Self::Completed,
        Self::Discarded,
        Self::Cancelled,
    ];

    /// The word in the table, in logs and on pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Executing => "executing",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }
}

/// After so many deaths of the process in a row while it ran, a job is set aside.
///
/// Before the last of them it ran alone, so that none is set aside for what another did.
const DEATHS_MAX: u32 = 3;

/// A job that two processes died with is a suspect: it runs alone.
const DEATHS_SUSPECT: u32 = DEATHS_MAX - 1;

/// Longer error texts are cut.
const ERROR_BYTES_MAX: usize = 2_000;

/// A job that this worker now runs.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) arguments: String,
    pub(super) attempt: u32,
    pub(super) attempts_max: u32,
}

/// How an attempt ended, in the table's terms.
#[derive(Clone, Debug)]
pub(super) enum End {
    Complete,
    Retry {
        wait: Duration,
        error: String,
    },
    Discard {
        error: String,
    },
    Cancel {
        reason: String,
    },
    /// Back as it was before the claim, after this time.
    PutBack {
        wait: Duration,
        error: Option<String>,
    },
}

/// Stores a job; `None` if its unique key is taken.
pub(super) fn insert(tx: &Transaction<'_>, request: Request) -> Result<Option<i64>, Error> {
    let now = tx.now_ms();
    let run_at = match request.when {
        When::Now => now,
        When::In(delay) => now.saturating_add(millis(delay)),
        When::At(at) => at.as_millisecond(),
    };
    let mut statement = tx.prepare_cached(
        "INSERT INTO jobs (kind, arguments, priority, attempts_max, unique_key, run_at, enqueued_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO NOTHING
         RETURNING id",
    )?;
    let id = statement
        .query_row(
            params![
                request.kind,
                request.arguments?,
                request.priority as u8,
                request.attempts_max,
                request.unique_key,
                run_at,
                now
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(id)
}

/// Takes up to `count` jobs that are due, of the kinds given (a JSON array), best first; no suspects.
pub(super) fn claim(
    tx: &Transaction<'_>,
    kinds: &str,
    count: usize,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut statement = tx.prepare_cached(
        "UPDATE jobs
         SET state = 'executing', attempt = attempt + 1, started_at = ?1
         WHERE id IN (
             SELECT id FROM jobs
             WHERE state IN ('available', 'retryable') AND priority = ?2 AND run_at <= ?1
                 AND deaths < ?5 AND kind IN (SELECT value FROM json_each(?3))
             ORDER BY run_at, id
             LIMIT ?4)
         RETURNING id, kind, arguments, attempt, attempts_max",
    )?;
    let mut claimed = Vec::new();
    for priority in Priority::ALL {
        let wanted = count.saturating_sub(claimed.len());
        if wanted == 0 {
            break;
        }
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let rows = statement.query_map(
            params![tx.now_ms(), priority as u8, kinds, limit, DEATHS_SUSPECT],
            claimed_row,
        )?;
        for row in rows {
            claimed.push(row?);
        }
    }
    Ok(claimed)
}

/// When the next suspect is due, or since when it has been, in milliseconds since 1970.
pub(super) fn next_suspect(connection: &Connection, kinds: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT run_at FROM jobs
             WHERE deaths > 0 AND state IN ('available', 'retryable') AND deaths >= ?1
                 AND kind IN (SELECT value FROM json_each(?2))
             ORDER BY run_at
             LIMIT 1",
        )?
        .query_row(params![DEATHS_SUSPECT, kinds], |row| row.get(0))
        .optional()
}

/// Takes the suspect that has been due for longest.
pub(super) fn claim_suspect(
    tx: &Transaction<'_>,
    kinds: &str,
) -> rusqlite::Result<Option<Claimed>> {
    tx.prepare_cached(
        "UPDATE jobs
         SET state = 'executing', attempt = attempt + 1, started_at = ?1
         WHERE id = (
             SELECT id FROM jobs
             WHERE deaths > 0 AND state IN ('available', 'retryable') AND deaths >= ?2 AND run_at <= ?1
                 AND kind IN (SELECT value FROM json_each(?3))
             ORDER BY run_at, id
             LIMIT 1)
         RETURNING id, kind, arguments, attempt, attempts_max",
    )?
    .query_row(params![tx.now_ms(), DEATHS_SUSPECT, kinds], claimed_row)
    .optional()
}

fn claimed_row(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        id: row.get(0)?,
        kind: row.get(1)?,
        arguments: row.get(2)?,
        attempt: row.get(3)?,
        attempts_max: row.get(4)?,
    })
}

/// When the next job of these kinds that is no suspect is due, in milliseconds since 1970.
pub(super) fn next_due(connection: &Connection, kinds: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT run_at FROM jobs
         WHERE state IN ('available', 'retryable') AND priority = ?1
             AND deaths < ?2 AND kind IN (SELECT value FROM json_each(?3))
         ORDER BY run_at
         LIMIT 1",
    )?;
    let mut next = None;
    for priority in Priority::ALL {
        let due: Option<i64> = statement
            .query_row(params![priority as u8, DEATHS_SUSPECT, kinds], |row| {
                row.get(0)
            })
            .optional()?;
        next = match (next, due) {
            (Some(next), Some(due)) => Some(i64::min(next, due)),
            (next, due) => next.or(due),
        };
    }
    Ok(next)
}

/// Records how an attempt ended.
///
/// Does nothing if the job is not at this attempt any more: then another holds it.
pub(super) fn finish(
    tx: &Transaction<'_>,
    id: i64,
    attempt: u32,
    end: &End,
) -> rusqlite::Result<()> {
    let now = tx.now_ms();
    let (state, run_at, finished_at, error) = match end {
        End::Complete => (State::Completed, None, Some(now), None),
        End::Retry { wait, error } => {
            (State::Retryable, Some(after(now, *wait)), None, Some(error))
        }
        End::Discard { error } => (State::Discarded, None, Some(now), Some(error)),
        End::Cancel { reason } => (State::Cancelled, None, Some(now), Some(reason)),
        End::PutBack { wait, error } => (
            State::Available,
            Some(after(now, *wait)),
            None,
            error.as_ref(),
        ),
    };
    let spent = u32::from(!matches!(end, End::PutBack { .. }));
    tx.prepare_cached(
        "UPDATE jobs
         SET state = ?1, run_at = coalesce(?2, run_at), finished_at = ?3, error = coalesce(?4, error),
             attempt = attempt - 1 + ?5, deaths = 0
         WHERE id = ?6 AND attempt = ?7 AND state = 'executing'",
    )?
    .execute(params![
        state.as_str(),
        run_at,
        finished_at,
        error.map(|text| cut(text)),
        spent,
        id,
        attempt
    ])?;
    Ok(())
}

/// Puts back what a dead process was running: it is due at once, and the attempt is not counted.
///
/// What was running at three deaths in a row is discarded.
pub(super) fn rescue(tx: &Transaction<'_>) -> rusqlite::Result<Rescued> {
    let discarded = tx
        .prepare_cached(
            "UPDATE jobs
             SET state = 'discarded', deaths = deaths + 1, finished_at = ?1,
                 error = 'the process died each time this job ran'
             WHERE state = 'executing' AND deaths + 1 >= ?2",
        )?
        .execute(params![tx.now_ms(), DEATHS_MAX])?;
    let available = tx
        .prepare_cached(
            "UPDATE jobs
             SET state = 'available', deaths = deaths + 1, attempt = attempt - 1, run_at = ?1
             WHERE state = 'executing'",
        )?
        .execute(params![tx.now_ms()])?;
    Ok(Rescued {
        available,
        discarded,
    })
}

/// What became of the jobs that a dead process was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescued {
    /// So many run again.
    pub available: usize,
    /// So many are set aside.
    pub discarded: usize,
}

/// How many jobs there are in each state.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<BTreeMap<State, u64>> {
    let mut counts: BTreeMap<_, _> = State::ALL.map(|state| (state, 0)).into();
    let mut statement =
        connection.prepare_cached("SELECT state, count(*) FROM jobs GROUP BY state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let word = row.get_ref(0)?.as_str()?;
        let state = State::ALL.into_iter().find(|state| state.as_str() == word);
        if let Some(state) = state {
            counts.insert(state, row.get(1)?);
        }
    }
    Ok(counts)
}

/// Deletes up to `count` jobs that ended before the given time; says how many those were.
pub(super) fn prune(
    tx: &Transaction<'_>,
    state: State,
    before_ms: i64,
    count: usize,
) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM jobs
         WHERE id IN (
             SELECT id FROM jobs
             WHERE state = ?1 AND state IN ('completed', 'discarded', 'cancelled') AND finished_at < ?2
             ORDER BY finished_at
             LIMIT ?3)",
    )?
    .execute(params![
        state.as_str(),
        before_ms,
        i64::try_from(count).unwrap_or(i64::MAX)
    ])
}

/// Lets a job that failed and waits run now.
pub(super) fn hasten(tx: &Transaction<'_>, unique_key: &str) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET run_at = ?1 WHERE unique_key = ?2 AND state = 'retryable'",
        )?
        .execute(params![tx.now_ms(), unique_key])?;
    Ok(changed > 0)
}

fn after(now: i64, wait: Duration) -> i64 {
    now.saturating_add(millis(wait))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]
}
