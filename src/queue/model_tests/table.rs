//! What is looked for in the table, and what an operator does to it.

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::database::Transaction;

/// What may never be there: a query for each, that finds what is wrong.
const WRONG: [(&str, &str); 11] = [
    (
        "runs by one that could not read it",
        "SELECT id FROM jobs WHERE state = 'executing' AND instr(coalesce(unread_by, ''), ',' || worker || ',') > 0",
    ),
    (
        "parked, though there is one that may be able to run it",
        "SELECT jobs.id FROM jobs, workers, json_each(workers.kinds)
         WHERE state = 'parked' AND value = kind AND instr(coalesce(unread_by, ''), ',' || workers.id || ',') = 0",
    ),
    (
        "blocked, though it does not wait",
        "SELECT id FROM jobs WHERE blocked_by IS NOT NULL AND state NOT IN ('available', 'retryable')",
    ),
    (
        "more of a key run than may",
        "SELECT min(id) FROM jobs WHERE state = 'executing' AND limit_key IS NOT NULL
         GROUP BY limit_key HAVING count(*) > max(limit_max)",
    ),
    (
        "runs by nobody",
        "SELECT id FROM jobs WHERE state = 'executing' AND worker IS NULL",
    ),
    (
        "has a worker, though it is over",
        "SELECT id FROM jobs WHERE worker IS NOT NULL AND state IN ('completed', 'discarded', 'cancelled')",
    ),
    (
        "has more attempts than it may, or fewer than none",
        "SELECT id FROM jobs WHERE attempt < 0 OR attempt > attempts_max",
    ),
    (
        "has died too often",
        "SELECT id FROM jobs WHERE deaths > 3 OR deaths = 3 AND state NOT IN ('discarded', 'available')",
    ),
    (
        "has a key to itself, and so has another",
        "SELECT min(id) FROM jobs WHERE unique_scope = 0 AND state NOT IN ('completed', 'discarded', 'cancelled')
         GROUP BY unique_key HAVING count(*) > 1",
    ),
    (
        "is over, and keeps its key",
        "SELECT id FROM jobs WHERE binds = 1 AND unique_scope < 2
             AND state IN ('completed', 'discarded', 'cancelled')",
    ),
    (
        "is over without a time, or has a time and is not over",
        "SELECT id FROM jobs
         WHERE (finished_at IS NULL) = (state IN ('completed', 'discarded', 'cancelled'))",
    ),
];

/// What is wrong with the table, if anything is.
pub(super) fn wrong(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for (what, sql) in WRONG {
        let id: Option<i64> = connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            return Ok(Some(format!("job {id}: {what}: {}", dump(connection)?)));
        }
    }
    Ok(None)
}

/// Jobs whose key binds at least until they are started, and that wait for their first start, two with the same key.
pub(super) fn doubled(connection: &Connection, started: &HashSet<i64>) -> rusqlite::Result<bool> {
    let mut waiting = connection.prepare_cached(
        "SELECT id, unique_key FROM jobs WHERE unique_scope IN (1, 3) AND (state = 'available' OR state = 'retryable')",
    )?;
    let waiting = waiting.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let waiting: Vec<(i64, String)> = waiting.collect::<Result<_, _>>()?;
    let mut keys = HashSet::new();
    let mut first = waiting.into_iter().filter(|(id, _)| !started.contains(id));
    Ok(!first.all(|(_, key)| keys.insert(key)))
}

/// What is not over, as text.
pub(super) fn dump(connection: &Connection) -> rusqlite::Result<String> {
    let mut rows = connection.prepare_cached(
        "SELECT json_object('id', id, 'kind', kind, 'queue', queue, 'state', state, 'attempt', attempt, 'claims', claims,
             'worker', worker, 'deaths', deaths, 'run_at', run_at, 'key', unique_key, 'scope', unique_scope, 'binds', binds,
             'limit', limit_key, 'rate', rate_key, 'blocked', blocked_by, 'cancel', cancel_reason,
             'unread', unread_by)
         FROM jobs WHERE state NOT IN ('completed', 'discarded', 'cancelled')",
    )?;
    let rows = rows.query_map([], |row| row.get(0))?;
    let rows: Vec<String> = rows.collect::<Result<_, _>>()?;
    Ok(rows.join("\n"))
}

/// Whether a claim is the one that the table has.
pub(super) fn is_current(
    connection: &Connection,
    (id, claims): (i64, i64),
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND claims = ?2 AND state = 'executing'")?
        .exists(params![id, claims])
}

/// Everything of a job that an end could change; `None` once it is pruned.
pub(super) fn row(connection: &Connection, id: i64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT json_array(state, attempt, claims, worker, deaths, run_at, finished_at, error, binds, blocked_by)
             FROM jobs WHERE id = ?1",
        )?
        .query_row([id], |row| row.get(0))
        .optional()
}

/// Empties the table, for the next sequence.
pub(super) fn empty(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in [
        "jobs",
        "job_errors",
        "workers",
        "job_starts",
        "rates",
        "queues",
    ] {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    Ok(())
}
