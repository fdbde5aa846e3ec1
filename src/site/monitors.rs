//! Every statement on the table `monitors`.

use std::time::Duration;

use houseboat::database::Result;
use houseboat::database::Transaction;
use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::site::form::MonitorInput;
use crate::site::probe::Method;
use crate::site::probe::Target;

/// So many monitors at the most: all of them stand on one page.
pub(crate) const MONITORS_MAX: u32 = 100;

/// A monitor as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    pub(crate) id: i64,
    pub(crate) input: MonitorInput,
    pub(crate) paused: bool,
    /// In a row, up to now.
    pub(crate) failures: u32,
    /// Whether an incident goes on.
    pub(crate) down: bool,
    /// When its settings were changed last.
    pub(crate) changed_at: Timestamp,
}

const COLUMNS: &str =
    "id, name, method, address, expected_status, body_text, timeout_ms, interval_ms,
    failures_max, paused, failures, changed_at,
    EXISTS (SELECT 1 FROM incidents WHERE monitor_id = monitors.id AND ended_at IS NULL)";

/// All of them, by name.
pub(crate) fn list(conn: &Connection) -> Result<Vec<Monitor>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM monitors WHERE deleted_at IS NULL ORDER BY name COLLATE NOCASE, id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let monitors = statement.query_map([], monitor)?;
    Ok(monitors.collect::<rusqlite::Result<_>>()?)
}

/// One of them, unless it is deleted.
pub(crate) fn find(conn: &Connection, id: i64) -> Result<Option<Monitor>> {
    let sql = format!("SELECT {COLUMNS} FROM monitors WHERE id = ?1 AND deleted_at IS NULL");
    let mut statement = conn.prepare_cached(&sql)?;
    Ok(statement.query_row([id], monitor).optional()?)
}

pub(crate) fn count(conn: &Connection) -> Result<u32> {
    let sql = "SELECT count(*) FROM monitors WHERE deleted_at IS NULL";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

/// Stores a new one, whose first check is the caller's to enqueue.
pub(crate) fn insert(tx: &Transaction<'_>, input: &MonitorInput) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO monitors (name, method, address, expected_status, body_text, timeout_ms, interval_ms,
             failures_max, next_check_at, created_at, changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 + ?7, ?9, ?9)",
    )?
    .execute(params_from_iter(values(tx, input)))?;
    Ok(tx.last_insert_rowid())
}

/// Changes one; what it counted of failures is forgotten. Says whether it is there.
pub(crate) fn update(tx: &Transaction<'_>, id: i64, input: &MonitorInput) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE monitors
             SET name = ?1, method = ?2, address = ?3, expected_status = ?4, body_text = ?5, timeout_ms = ?6,
                 interval_ms = ?7, failures_max = ?8, next_check_at = ?9 + ?7, changed_at = ?9, failures = 0
             WHERE id = ?10 AND deleted_at IS NULL",
        )?
        .execute(params_from_iter(values(tx, input).into_iter().chain([id.into()])))?;
    Ok(changed == 1)
}

/// What of a monitor is stored, as ?1 to ?8, and the time as ?9.
fn values(tx: &Transaction<'_>, input: &MonitorInput) -> [Value; 9] {
    let target = &input.target;
    [
        input.name.clone().into(),
        target.method.as_str().to_owned().into(),
        target.address.clone().into(),
        target.expected_status.into(),
        target.body_text.clone().into(),
        millis(target.timeout).into(),
        millis(input.interval).into(),
        input.failures_max.into(),
        tx.now_ms().into(),
    ]
}

/// Pauses or resumes one; what it counted of failures is forgotten. Says whether it is there.
pub(crate) fn set_activity(tx: &Transaction<'_>, id: i64, activity: Activity) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE monitors
             SET paused = ?1, failures = 0, next_check_at = ?2 + interval_ms, changed_at = ?2
             WHERE id = ?3 AND deleted_at IS NULL",
        )?
        .execute(params![activity == Activity::Paused, tx.now_ms(), id])?;
    Ok(changed == 1)
}

/// Whether a monitor is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    Paused,
    Watched,
}

/// Takes one off the site; its history goes later, in small steps. Says whether it was there.
pub(crate) fn delete(tx: &Transaction<'_>, id: i64) -> Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE monitors SET deleted_at = ?1 WHERE id = ?2 AND deleted_at IS NULL")?
        .execute([tx.now_ms(), id])?;
    Ok(changed == 1)
}

/// Removes those that are deleted and have no history left.
pub(crate) fn remove_deleted(tx: &Transaction<'_>) -> Result<()> {
    tx.execute(
        "DELETE FROM monitors
         WHERE deleted_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM checks WHERE monitor_id = monitors.id)
             AND NOT EXISTS (SELECT 1 FROM periods WHERE monitor_id = monitors.id)
             AND NOT EXISTS (SELECT 1 FROM incidents WHERE monitor_id = monitors.id)",
        [],
    )?;
    Ok(())
}

/// Those whose time has come; each has its next time set, on the beat of its interval.
///
/// A time further away than the interval is one that a clock set back has left behind: it counts as come.
pub(crate) fn take_due(tx: &Transaction<'_>) -> Result<Vec<i64>> {
    let mut statement = tx.prepare_cached(
        "UPDATE monitors
         SET next_check_at = CASE
             WHEN next_check_at <= ?1
             THEN next_check_at + ((?1 - next_check_at) / interval_ms + 1) * interval_ms
             ELSE ?1 + interval_ms
         END
         WHERE paused = 0 AND deleted_at IS NULL
             AND (next_check_at <= ?1 OR next_check_at > ?1 + interval_ms)
         RETURNING id",
    )?;
    let ids = statement.query_map([tx.now_ms()], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Makes a monitor due now: the next tick of the schedule checks it.
pub(crate) fn check_soon(tx: &Transaction<'_>, id: i64) -> Result<()> {
    tx.prepare_cached("UPDATE monitors SET next_check_at = ?1 WHERE id = ?2")?
        .execute([tx.now_ms(), id])?;
    Ok(())
}

/// The numbers of all, deleted ones included.
pub(crate) fn ids(conn: &Connection) -> Result<Vec<i64>> {
    let mut statement = conn.prepare_cached("SELECT id FROM monitors")?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Counts one more failure and says how many there are in a row.
pub(crate) fn count_failure(tx: &Transaction<'_>, id: i64) -> Result<u32> {
    let mut statement = tx.prepare_cached(
        "UPDATE monitors SET failures = failures + 1 WHERE id = ?1 RETURNING failures",
    )?;
    Ok(statement.query_row([id], |row| row.get(0))?)
}

pub(crate) fn forget_failures(tx: &Transaction<'_>, id: i64) -> Result<()> {
    tx.prepare_cached("UPDATE monitors SET failures = 0 WHERE id = ?1 AND failures > 0")?
        .execute([id])?;
    Ok(())
}

/// Grows with every change that shows on a page.
pub(crate) fn revision(conn: &Connection) -> Result<i64> {
    let mut statement = conn.prepare_cached("SELECT number FROM revision")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn monitor(row: &Row<'_>) -> rusqlite::Result<Monitor> {
    let method: String = row.get(2)?;
    let target = Target {
        // The form lets no other in.
        method: Method::parse(&method).unwrap_or(Method::Get),
        address: row.get(3)?,
        expected_status: row.get(4)?,
        body_text: row.get(5)?,
        timeout: Duration::from_millis(row.get(6)?),
    };
    let input = MonitorInput {
        name: row.get(1)?,
        target,
        interval: Duration::from_millis(row.get(7)?),
        failures_max: row.get(8)?,
    };
    Ok(Monitor {
        id: row.get(0)?,
        input,
        paused: row.get(9)?,
        failures: row.get(10)?,
        changed_at: timestamp(row.get(11)?),
        down: row.get(12)?,
    })
}

/// A time from a table.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
