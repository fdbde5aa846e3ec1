//! Every statement on the table `incidents`.

use std::time::Duration;

use houseboat::database::Result;
use houseboat::database::Transaction;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::site::monitors::millis;
use crate::site::monitors::timestamp;
use crate::site::pages::Incident;
use crate::site::probe::Cause;

/// Begins one, unless one goes on already; gives its number if it is new.
pub(crate) fn open(tx: &Transaction<'_>, monitor: i64, incident: &Incident) -> Result<Option<i64>> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO incidents (monitor_id, started_at, cause, detail) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING
         RETURNING id",
    )?;
    let parameters = params![
        monitor,
        incident.start.as_millisecond(),
        incident.cause.as_str(),
        incident.detail
    ];
    Ok(statement
        .query_row(parameters, |row| row.get(0))
        .optional()?)
}

/// Ends the one that goes on, if one does, and gives its number and what it was.
pub(crate) fn close(tx: &Transaction<'_>, monitor: i64) -> Result<Option<(i64, Incident)>> {
    let mut statement = tx.prepare_cached(
        "UPDATE incidents SET ended_at = ?1 WHERE monitor_id = ?2 AND ended_at IS NULL
         RETURNING started_at, ended_at, cause, detail, id",
    )?;
    let closed = statement.query_row(params![tx.now_ms(), monitor], |row| {
        Ok((row.get(4)?, incident(row)?))
    });
    Ok(closed.optional()?)
}

/// Whether one has ended, or is not there any more.
pub(crate) fn is_over(conn: &Connection, id: i64) -> Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM incidents WHERE id = ?1 AND ended_at IS NULL)";
    Ok(conn.query_row(sql, [id], |row| row.get(0))?)
}

/// The last of a monitor, newest first.
pub(crate) fn last(conn: &Connection, monitor: i64, count: u32) -> Result<Vec<Incident>> {
    let mut statement = conn.prepare_cached(
        "SELECT started_at, ended_at, cause, detail FROM incidents
         WHERE monitor_id = ?1 ORDER BY started_at DESC, id DESC LIMIT ?2",
    )?;
    let incidents = statement.query_map(params![monitor, count], incident)?;
    Ok(incidents.collect::<rusqlite::Result<_>>()?)
}

/// Deletes those that ended long enough ago, and those of deleted monitors.
pub(crate) fn prune(tx: &Transaction<'_>, keep: Duration) -> Result<()> {
    tx.execute(
        "DELETE FROM incidents
         WHERE ended_at < ?1
             OR monitor_id IN (SELECT id FROM monitors WHERE deleted_at IS NOT NULL)",
        [tx.now_ms() - millis(keep)],
    )?;
    Ok(())
}

fn incident(row: &Row<'_>) -> rusqlite::Result<Incident> {
    let cause: String = row.get(2)?;
    let end: Option<i64> = row.get(1)?;
    Ok(Incident {
        start: timestamp(row.get(0)?),
        end: end.map(timestamp),
        cause: Cause::parse(&cause).unwrap_or(Cause::Protocol),
        detail: row.get(3)?,
    })
}
