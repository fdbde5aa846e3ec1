//! The statements by which an operator looks at jobs and changes them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::Error;
use crate::queue::Priority;
use crate::queue::State;
use crate::queue::operate::AttemptError;
use crate::queue::operate::Detail;
use crate::queue::operate::Filter;
use crate::queue::operate::LIST_MAX;
use crate::queue::operate::Listed;
use crate::queue::operate::QueueStatus;
use crate::queue::store::claim::Limit;
use crate::queue::store::cut;
use crate::queue::store::enqueue::IS_OVER;
use crate::queue::store::limits;

const COLUMNS: &str =
    "id, kind, queue, state, priority, attempt, attempts_max, run_at, enqueued_at, started_at,
     finished_at, error, progress, progress_text, blocked_by";

/// A job that does not wait or run any more.
pub(super) struct Freed {
    /// Its limit of how many run at a time.
    limit: Option<Limit>,
}

/// Jobs that fit, the newest first.
pub(super) fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Listed>> {
    // Where there are few of a state among many others, the index of that state finds them; SQLite's own choice, where
    // it knows nothing of the table, is to read that from its end.
    let order = match filter.state {
        Some(State::Parked | State::Executing | State::Discarded | State::Cancelled) => "+id",
        _ => "id",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM jobs
         WHERE {} AND (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR id < ?3)
         ORDER BY {order} DESC
         LIMIT ?4",
        in_state(filter.state)
    ))?;
    let limit = filter.limit.min(LIST_MAX);
    let rows = statement.query_map(
        params![filter.queue, filter.kind, filter.before, limit],
        listed,
    )?;
    rows.collect()
}

/// As text, so that SQLite sees which of its indexes has all of them; for that of the ends it has to be said twice.
fn in_state(state: Option<State>) -> String {
    let word = state.map(State::as_str).unwrap_or_default();
    match state {
        None => "true".to_owned(),
        Some(State::Discarded | State::Cancelled) => {
            format!(
                // The condition of the index.
                "state = '{word}' AND (state = 'completed' OR state = 'discarded' OR state = 'cancelled' OR state = 'parked')"
            )
        }
        Some(_) => format!("state = '{word}'"),
    }
}

/// The job with the highest id; 0 where there is none.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM jobs", [], |row| {
        row.get(0)
    })
}

/// Jobs that fit, the oldest first: those after the first id of the range, up to its last.
pub(super) fn ids(
    connection: &Connection,
    filter: &Filter,
    range: RangeInclusive<i64>,
    count: u32,
) -> rusqlite::Result<Vec<i64>> {
    // By the id alone: all batches together read the table once.
    let mut statement = connection.prepare_cached(
        "SELECT id FROM jobs
         WHERE state = ?1 AND (?2 IS NULL OR queue = ?2) AND (?3 IS NULL OR kind = ?3) AND id > ?4 AND id <= ?5
         ORDER BY id
         LIMIT ?6",
    )?;
    let state = filter.state.map(State::as_str);
    let (after, last) = range.into_inner();
    let rows = statement.query_map(
        params![state, filter.queue, filter.kind, after, last, count],
        |row| row.get(0),
    )?;
    rows.collect()
}

/// Whether a job is in this state.
pub(super) fn is_in(tx: &Transaction<'_>, id: i64, state: State) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND state = ?2)")?
        .query_row(params![id, state.as_str()], |row| row.get(0))
}

/// All of one job, as it stands at the time given.
pub(super) fn get(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<Option<Detail>> {
    // So that the job and its errors are of one moment.
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT {COLUMNS}, arguments, iif(binds = 1 AND NOT {IS_OVER}, unique_key, NULL) AS unique_key, cursor, deaths
         FROM jobs WHERE id = ?1"
    ))?;
    let detail = statement.query_row([id, now], |row| {
        Ok(Detail {
            listed: listed(row)?,
            arguments: row.get("arguments")?,
            unique_key: row.get("unique_key")?,
            cursor: row.get("cursor")?,
            deaths: row.get("deaths")?,
            errors: Vec::new(),
        })
    });
    let Some(mut detail) = detail.optional()? else {
        return Ok(None);
    };
    let mut statement = transaction.prepare_cached(
        "SELECT attempt, at, error FROM job_errors WHERE job = ?1 ORDER BY claim",
    )?;
    let errors = statement.query_map([id], |row| {
        Ok(AttemptError {
            attempt: row.get(0)?,
            at: time(row.get(1)?),
            error: row.get(2)?,
        })
    })?;
    detail.errors = errors.collect::<Result<_, _>>()?;
    Ok(Some(detail))
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let unknown = |column: &str, value: &str| {
        let text = format!("{value:?} is no {column} that this program knows");
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, text.into())
    };
    let word: String = row.get("state")?;
    let state = State::of(&word).ok_or_else(|| unknown("state", &word))?;
    let number: u8 = row.get("priority")?;
    let priority = Priority::ALL
        .into_iter()
        .find(|priority| *priority as u8 == number);
    let optional = |name: &str| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(name)?.map(time))
    };
    let blocked_by: Option<String> = row.get("blocked_by")?;
    Ok(Listed {
        id: row.get("id")?,
        kind: row.get("kind")?,
        queue: row.get("queue")?,
        state,
        priority: priority.ok_or_else(|| unknown("priority", &number.to_string()))?,
        attempt: row.get("attempt")?,
        attempts_max: row.get("attempts_max")?,
        run_at: time(row.get("run_at")?),
        enqueued_at: time(row.get("enqueued_at")?),
        started_at: optional("started_at")?,
        finished_at: optional("finished_at")?,
        error: row.get("error")?,
        progress: row.get("progress")?,
        progress_text: row.get("progress_text")?,
        parked: state == State::Parked,
        blocked_by: blocked_by.map(|name| limit_name(&name)),
    })
}

/// `concurrency:key` for `c:key`.
fn limit_name(name: &str) -> String {
    match name.split_once(':') {
        Some(("c", key)) => format!("concurrency:{key}"),
        Some(("r", key)) => format!("rate:{key}"),
        _ => name.to_owned(),
    }
}

/// As near as there is one.
fn time(milliseconds: i64) -> Timestamp {
    let end = if milliseconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_millisecond(milliseconds).unwrap_or(end)
}

/// Lets a job run again; says whether there was something to do.
pub(super) fn retry(tx: &Transaction<'_>, id: i64) -> Result<bool, Error> {
    if let Some(holder) = holder(tx, id)? {
        return Err(Error::Taken { id, holder });
    }
    let changed = tx
        .prepare_cached(&format!(
            "UPDATE jobs
             SET state = 'available', run_at = ?2, finished_at = NULL, deaths = 0, worker = NULL, unread_by = NULL,
                 cancel_reason = NULL,
                 attempts_max = max(attempts_max, attempt + 1), binds = iif({IS_TO_BIND}, 1, binds),
                 cursor = iif(state = 'completed', NULL, cursor), progress = NULL, progress_text = NULL
             WHERE id = ?1 AND state IN ('parked', 'retryable', 'completed', 'discarded', 'cancelled')"
        ))?
        .execute(params![id, tx.now_ms()])?;
    Ok(changed == 1)
}

/// Whether a job that waits again is to hold its unique key again: what has not ended never lost it, or was not to have
/// it any longer.
const IS_TO_BIND: &str =
    "unique_key IS NOT NULL AND state IN ('completed', 'discarded', 'cancelled')
     AND (unique_until IS NULL OR unique_until > ?2)";

/// Another job that has the unique key that this one had, and is to have again.
fn holder(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<i64>> {
    let key: Option<String> = tx
        .prepare_cached(&format!(
            "SELECT unique_key FROM jobs WHERE id = ?1 AND {IS_TO_BIND}"
        ))?
        .query_row([id, tx.now_ms()], |row| row.get(0))
        .optional()?;
    let Some(key) = key else {
        return Ok(None);
    };
    tx.prepare_cached(&format!(
        "UPDATE jobs SET binds = 0 WHERE unique_key = ?1 AND binds = 1 AND {IS_OVER}"
    ))?
    .execute(params![key, tx.now_ms()])?;
    tx.prepare_cached("SELECT id FROM jobs WHERE unique_key = ?1 AND binds = 1 AND id <> ?2")?
        .query_row(params![key, id], |row| row.get(0))
        .optional()
}

/// What became of a job that was to be cancelled.
pub(super) enum Cancelled {
    /// It waited, and is cancelled.
    Waiting(Freed),
    /// It runs, and is to stop.
    Running,
}

/// Cancels a job that waits, or has one that runs end as cancelled.
pub(super) fn cancel(
    tx: &Transaction<'_>,
    id: i64,
    reason: &str,
) -> rusqlite::Result<Option<Cancelled>> {
    let waiting = tx
        .prepare_cached(
            "UPDATE jobs
             SET state = 'cancelled', finished_at = ?2, error = ?3, deaths = 0, worker = NULL, blocked_by = NULL,
                 binds = iif(unique_scope >= 2, binds, 0)
             WHERE id = ?1 AND state IN ('available', 'parked', 'retryable')
             RETURNING limit_key, limit_max",
        )?
        .query_row(params![id, tx.now_ms(), cut(reason)], freed)
        .optional()?;
    if let Some(freed) = waiting {
        return Ok(Some(Cancelled::Waiting(freed)));
    }
    let told = tx
        .prepare_cached("UPDATE jobs SET cancel_reason = ?2 WHERE id = ?1 AND state = 'executing'")?
        .execute(params![id, cut(reason)])?;
    Ok((told == 1).then_some(Cancelled::Running))
}

/// Gives up a job that failed and waits.
pub(super) fn discard(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<Freed>> {
    tx.prepare_cached(
        "UPDATE jobs
         SET state = 'discarded', finished_at = ?2, deaths = 0, worker = NULL, blocked_by = NULL,
             binds = iif(unique_scope >= 2, binds, 0)
         WHERE id = ?1
             AND (state IN ('retryable', 'parked') OR state = 'available' AND error IS NOT NULL)
         RETURNING limit_key, limit_max",
    )?
    .query_row(params![id, tx.now_ms()], freed)
    .optional()
}

fn freed(row: &Row<'_>) -> rusqlite::Result<Freed> {
    let (key, at_most): (Option<String>, Option<u32>) = (row.get(0)?, row.get(1)?);
    let limit = key.zip(at_most);
    Ok(Freed {
        limit: limit.map(|(key, at_most)| Limit { key, at_most }),
    })
}

/// Lets others of its key go on, as many as are free; says whether it had a limit.
pub(super) fn free(tx: &Transaction<'_>, freed: &Freed) -> rusqlite::Result<bool> {
    if let Some(limit) = &freed.limit {
        limits::freed(tx, &limit.key, limit.at_most)?;
    }
    Ok(freed.limit.is_some())
}

pub(super) fn pause(tx: &Transaction<'_>, queue: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO queues (name, paused_at) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(paused_at, excluded.paused_at)",
    )?
    .execute(params![queue, tx.now_ms()])?;
    Ok(())
}

pub(super) fn resume(tx: &Transaction<'_>, queue: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE queues SET paused_at = NULL WHERE name = ?1")?
        .execute([queue])?;
    Ok(())
}

/// The queues by name; what has ended is not read.
pub(super) fn queues(connection: &Connection) -> rusqlite::Result<Vec<QueueStatus>> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, count(*), 0, 0 FROM jobs
             WHERE (state = 'available' OR state = 'retryable') AND blocked_by IS NULL GROUP BY queue
         UNION ALL
         SELECT queue, count(*), 0, 0 FROM jobs WHERE blocked_by IS NOT NULL GROUP BY queue
         UNION ALL
         SELECT queue, 0, count(*), 0 FROM jobs WHERE state = 'executing' GROUP BY queue
         UNION ALL
         SELECT name, 0, 0, 1 FROM queues WHERE paused_at IS NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut queues = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let queue = queues.entry(name.clone()).or_insert(QueueStatus {
            name,
            is_paused: false,
            waiting: 0,
            running: 0,
        });
        queue.waiting += row.get::<_, u64>(1)?;
        queue.running += row.get::<_, u64>(2)?;
        queue.is_paused |= row.get::<_, bool>(3)?;
    }
    Ok(queues.into_values().collect())
}
