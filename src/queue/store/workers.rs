//! Who runs jobs of this file.

use rusqlite::Connection;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::store::claim::Limit;
use crate::queue::store::finish::Dead;
use crate::queue::store::finish::Rescued;
use crate::queue::store::finish::rescue;
use crate::queue::store::set_back;

/// Another worker, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct Other {
    pub(in crate::queue) id: i64,
    pub(in crate::queue) beat: i64,
}

/// Enters a worker, and lets go on what waited for a program that knows its kinds.
pub(in crate::queue) fn enter(
    tx: &Transaction<'_>,
    name: &str,
    kinds: &str,
) -> rusqlite::Result<i64> {
    tx.prepare_cached("INSERT INTO workers (name, kinds, started_at) VALUES (?1, ?2, ?3)")?
        .execute(params![name, kinds, tx.now_ms()])?;
    let id = tx.last_insert_rowid();
    unpark(tx, id, kinds)?;
    set_back::mend(tx, 0)?;
    Ok(id)
}

/// Lets parked jobs of these kinds go on whose arguments this worker has not found to be unreadable; says how many.
pub(in crate::queue) fn unpark(
    tx: &Transaction<'_>,
    id: i64,
    kinds: &str,
) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "UPDATE jobs SET state = CASE WHEN attempt > 0 THEN 'retryable' ELSE 'available' END, worker = NULL
         WHERE state = 'parked' AND (state = 'completed' OR state = 'discarded' OR state = 'cancelled' OR state = 'parked') AND instr(coalesce(unread_by, ''), ',' || ?1 || ',') = 0 AND kind IN (SELECT value FROM json_each(?2))",
    )?
    .execute(params![id, kinds])
}

/// Takes a worker out that runs nothing any more.
pub(in crate::queue) fn leave(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM workers WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Puts back what all were running, and takes them out: none of them lives.
pub(in crate::queue) fn clear(tx: &Transaction<'_>) -> rusqlite::Result<Rescued> {
    tx.execute("DELETE FROM workers", [])?;
    rescue(tx, Dead::All)
}

/// Says that a worker lives; whether it is there, and was not taken for dead.
pub(in crate::queue) fn beat(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE workers SET beat = beat + 1 WHERE id = ?1")?
        .execute([id])?;
    Ok(changed == 1)
}

/// All but this one.
pub(in crate::queue) fn others(connection: &Connection, id: i64) -> rusqlite::Result<Vec<Other>> {
    let mut others = connection.prepare_cached("SELECT id, beat FROM workers WHERE id <> ?1")?;
    let others = others.query_map([id], |row| {
        Ok(Other {
            id: row.get(0)?,
            beat: row.get(1)?,
        })
    })?;
    others.collect()
}

/// Whether any but this one runs a job.
pub(in crate::queue) fn others_run(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'executing' AND worker <> ?1)",
        )?
        .query_row([id], |row| row.get(0))
}

/// Whether a worker runs no other kinds than these, which are JSON.
pub(in crate::queue) fn is_mixed(
    connection: &Connection,
    id: i64,
    kinds: &str,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (
                 SELECT 1 FROM workers, json_each(workers.kinds)
                 WHERE workers.id <> ?1 AND value NOT IN (SELECT value FROM json_each(?2)))",
        )?
        .query_row(params![id, kinds], |row| row.get(0))
}

/// Takes a worker out whose beat has not changed, and puts back what it was running; nothing if it has.
///
/// One that runs nothing need not beat, unless it was `called` each time before it was looked at.
pub(in crate::queue) fn bury(
    tx: &Transaction<'_>,
    other: Other,
    is_called: bool,
) -> rusqlite::Result<Option<Rescued>> {
    let changed = tx
        .prepare_cached(
            "DELETE FROM workers WHERE id = ?1 AND beat = ?2
                 AND (?3 OR EXISTS (SELECT 1 FROM jobs WHERE state = 'executing' AND worker = ?1))",
        )?
        .execute(params![other.id, other.beat, is_called])?;
    if changed == 0 {
        return Ok(None);
    }
    rescue(tx, Dead::One(other.id)).map(Some)
}

/// Puts back what nobody runs who is in the table.
pub(in crate::queue) fn orphans(tx: &Transaction<'_>) -> rusqlite::Result<Rescued> {
    let mut workers = tx.prepare_cached(
        "SELECT DISTINCT worker FROM jobs
         WHERE state = 'executing' AND (worker IS NULL OR worker NOT IN (SELECT id FROM workers))",
    )?;
    let workers = workers.query_map([], |row| row.get(0))?;
    let workers: Vec<Option<i64>> = workers.collect::<Result<_, _>>()?;
    let mut rescued = Rescued::default();
    for worker in workers {
        let one = rescue(tx, worker.map_or(Dead::Unnamed, Dead::One))?;
        rescued.available += one.available;
        rescued.discarded += one.discarded;
    }
    Ok(rescued)
}

/// A claim of a worker that still is its own.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Held {
    pub(in crate::queue) id: i64,
    pub(in crate::queue) claims: i64,
    pub(in crate::queue) limit: Option<Limit>,
    pub(in crate::queue) is_to_be_cancelled: bool,
}

/// The claims of a worker that still are its own.
pub(in crate::queue) fn held(connection: &Connection, id: i64) -> rusqlite::Result<Vec<Held>> {
    let mut held = connection.prepare_cached(
        "SELECT id, claims, cancel_reason IS NOT NULL, limit_key, limit_max FROM jobs WHERE state = 'executing' AND worker = ?1",
    )?;
    let held = held.query_map([id], |row| {
        Ok(Held {
            id: row.get(0)?,
            claims: row.get(1)?,
            is_to_be_cancelled: row.get(2)?,
            limit: Limit::of(row, 3, 4)?,
        })
    })?;
    held.collect()
}
