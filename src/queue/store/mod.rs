//! Every statement on the tables of jobs; those of the schedule are beside it.

pub(super) mod beside;
pub(super) mod claim;
pub(super) mod enqueue;
pub(super) mod finish;
pub(super) mod limits;
pub(super) mod set_back;
pub(super) mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::State;
use crate::queue::progress::Word;

/// Longer error texts are cut.
const ERROR_BYTES_MAX: usize = 2_000;

/// How many jobs there are in each state.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<BTreeMap<State, u64>> {
    let mut counts: BTreeMap<_, _> = State::ALL.map(|state| (state, 0)).into();
    let mut statement =
        connection.prepare_cached("SELECT state, count(*) FROM jobs GROUP BY state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(state) = State::of(row.get_ref(0)?.as_str()?) {
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
    let mut statement = tx.prepare_cached(
        "DELETE FROM jobs
         WHERE id IN (
             SELECT id FROM jobs
             WHERE state = ?1 AND (state = 'completed' OR state = 'discarded' OR state = 'cancelled' OR state = 'parked') AND finished_at < ?2
                 AND coalesce(binds = 1 AND unique_until > ?4 AND coalesce(instr(unique_states, state), 1), 0) = 0
             ORDER BY finished_at
             LIMIT ?3)
         RETURNING id",
    )?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let ids = statement.query_map(
        params![state.as_str(), before_ms, count, tx.now_ms()],
        |row| row.get(0),
    )?;
    let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
    let mut errors = tx.prepare_cached("DELETE FROM job_errors WHERE job = ?1")?;
    for id in &ids {
        errors.execute([id])?;
    }
    Ok(ids.len())
}

/// Saves where the next attempt goes on; says whether the claim is still there.
pub(super) fn save_cursor(
    tx: &Transaction<'_>,
    id: i64,
    claims: i64,
    cursor: &str,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET cursor = ?3 WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
        )?
        .execute(params![id, claims, cursor])?;
    Ok(changed == 1)
}

/// Says how far a job is.
pub(super) fn save_progress(
    tx: &Transaction<'_>,
    (id, claims): (i64, i64),
    word: &Word,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE jobs SET progress = ?3, progress_text = ?4
         WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
    )?
    .execute(params![id, claims, word.part, cut(&word.text)])?;
    Ok(())
}

/// Where a job stands, and why it failed.
pub(super) fn stands(
    connection: &Connection,
    id: i64,
) -> rusqlite::Result<(State, Option<String>)> {
    connection
        .prepare_cached("SELECT state, error FROM jobs WHERE id = ?1")?
        .query_row([id], |row| {
            let state = State::of(row.get_ref(0)?.as_str()?);
            Ok((state.unwrap_or(State::Available), row.get(1)?))
        })
}

/// The arguments of the jobs of a kind that wait.
pub(super) fn waiting(
    connection: &Connection,
    kind: &str,
    limit: i64,
) -> rusqlite::Result<Vec<String>> {
    let mut waiting = connection.prepare_cached(
        "SELECT arguments FROM jobs WHERE kind = ?1 AND state IN ('available', 'retryable', 'parked')
         ORDER BY id LIMIT ?2",
    )?;
    let waiting = waiting.query_map(params![kind, limit], |row| row.get(0))?;
    waiting.collect()
}

/// Lets a job run now that waits for a later time: for its next attempt, or, if `is_any`, for any; says whether it does.
pub(super) fn hasten(tx: &Transaction<'_>, id: i64, is_any: bool) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET run_at = ?1
             WHERE id = ?2 AND run_at > ?1 AND (state = 'retryable' OR ?3 AND state = 'available')",
        )?
        .execute(params![tx.now_ms(), id, is_any])?;
    Ok(changed > 0)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]
}
