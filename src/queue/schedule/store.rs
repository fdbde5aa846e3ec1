//! Every statement on the table `schedule`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::database::Transaction;

/// What the table knows of an entry. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// No tick up to this time is enqueued any more.
    pub(super) last_tick_at: i64,
    pub(super) enqueued_at: Option<i64>,
    pub(super) job_id: Option<i64>,
    pub(super) paused_at: Option<i64>,
}

pub(super) fn row(connection: &Connection, name: &str) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached(
            "SELECT last_tick_at, enqueued_at, job_id, paused_at FROM schedule WHERE name = ?1",
        )?
        .query_row([name], |row| {
            Ok(Row {
                last_tick_at: row.get(0)?,
                enqueued_at: row.get(1)?,
                job_id: row.get(2)?,
                paused_at: row.get(3)?,
            })
        })
        .optional()
}

/// Has an entry begin now if it is new, and gives what is known of it.
pub(super) fn begin(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<Row> {
    let now = tx.now_ms();
    tx.prepare_cached(
        "INSERT INTO schedule (name, last_tick_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute(params![name, now])?;
    let began = Row {
        last_tick_at: now,
        ..Row::default()
    };
    Ok(row(tx, name)?.unwrap_or(began))
}

/// Says that ticks up to `at_ms` are done with; never goes back.
pub(super) fn advance(tx: &Transaction<'_>, name: &str, at_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE schedule SET last_tick_at = ?2 WHERE name = ?1 AND last_tick_at < ?2",
    )?
    .execute(params![name, at_ms])?;
    Ok(())
}

/// Has an entry go on from now if its last tick is later than `beyond_ms`: the clock was wrong then.
pub(super) fn correct(tx: &Transaction<'_>, name: &str, beyond_ms: i64) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE schedule SET last_tick_at = ?2 WHERE name = ?1 AND last_tick_at > ?3",
        )?
        .execute(params![name, tx.now_ms(), beyond_ms])?;
    Ok(changed > 0)
}

/// Notes the job that was enqueued last.
pub(super) fn enqueued(tx: &Transaction<'_>, name: &str, job_id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE schedule SET enqueued_at = ?2, job_id = ?3 WHERE name = ?1")?
        .execute(params![name, tx.now_ms(), job_id])?;
    Ok(())
}

/// Pauses an entry; says whether it was not paused.
pub(super) fn pause(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE schedule SET paused_at = ?2 WHERE name = ?1 AND paused_at IS NULL")?
        .execute(params![name, tx.now_ms()])?;
    Ok(changed > 0)
}

/// Ends a pause, and with it the ticks that were due in it; says whether there was one.
pub(super) fn resume(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE schedule SET paused_at = NULL, last_tick_at = max(last_tick_at, ?2)
             WHERE name = ?1 AND paused_at IS NOT NULL",
        )?
        .execute(params![name, tx.now_ms()])?;
    Ok(changed > 0)
}
