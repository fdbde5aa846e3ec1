//! Every statement on the tables `checks` and `periods`: what was found, and what it comes to.

use std::time::Duration;

use houseboat::database::Result;
use houseboat::database::Transaction;
use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::params;

use crate::site::chart::Cell;
use crate::site::chart::Point;
use crate::site::monitors::millis;
use crate::site::monitors::timestamp;
use crate::site::pages::Check;
use crate::site::pages::Uptime;
use crate::site::probe::Cause;
use crate::site::probe::Failure;
use crate::site::probe::Finding;

/// The chart of a day has so many points at the most: 288.
pub(crate) const FIVE_MINUTES: Duration = Duration::from_mins(5);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Periods of five minutes are read for a day back, and of an hour for a week: a day more of each is kept.
const SHORT_KEPT: [(Duration, i64); 2] = [(FIVE_MINUTES, 2 * DAY_MS), (HOUR, 8 * DAY_MS)];

/// Stores what a check found.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    monitor: i64,
    at: Timestamp,
    finding: &Finding,
) -> Result<()> {
    let duration_ms = finding.duration.as_secs_f64() * 1_000.0;
    let failure = finding.failure.as_ref();
    tx.prepare_cached(
        "INSERT INTO checks (monitor_id, at, duration_ms, status, cause, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        monitor,
        at.as_millisecond(),
        duration_ms,
        finding.status,
        failure.map(|failure| failure.cause.as_str()),
        failure.map(|failure| &failure.detail)
    ])?;
    for length in [FIVE_MINUTES, HOUR, DAY] {
        let counted_ms = if failure.is_some() { 0.0 } else { duration_ms };
        tx.prepare_cached(
            "INSERT INTO periods (monitor_id, length_ms, start_at, checks, failures, sum_ms, max_ms)
             VALUES (?1, ?2, ?3 - ?3 % ?2, 1, ?4, ?5, ?5)
             ON CONFLICT DO UPDATE SET
                 checks = checks + 1, failures = failures + excluded.failures,
                 sum_ms = sum_ms + excluded.sum_ms, max_ms = max(max_ms, excluded.max_ms)",
        )?
        .execute(params![
            monitor,
            millis(length),
            at.as_millisecond(),
            failure.is_some(),
            counted_ms
        ])?;
    }
    Ok(())
}

/// The last checks, newest first.
pub(crate) fn last(conn: &Connection, monitor: i64, count: u32) -> Result<Vec<Check>> {
    let mut statement = conn.prepare_cached(
        "SELECT at, duration_ms, status, cause, detail FROM checks
         WHERE monitor_id = ?1 ORDER BY at DESC, id DESC LIMIT ?2",
    )?;
    let checks = statement.query_map(params![monitor, count], check)?;
    Ok(checks.collect::<rusqlite::Result<_>>()?)
}

/// The first of the last `count` checks.
pub(crate) fn first_of_last(conn: &Connection, monitor: i64, count: u32) -> Result<Option<Check>> {
    Ok(last(conn, monitor, count)?.pop())
}

/// The response times of the last 24 hours, in steps of five minutes.
pub(crate) fn points(conn: &Connection, monitor: i64, now: Timestamp) -> Result<Vec<Point>> {
    let mut statement = conn.prepare_cached(
        "SELECT start_at, sum_ms / max(checks - failures, 1), max_ms, failures, checks FROM periods
         WHERE monitor_id = ?1 AND length_ms = ?2 AND start_at > ?3
         ORDER BY start_at",
    )?;
    // With the period that lies half before it.
    let after = now.as_millisecond() - DAY_MS - millis(FIVE_MINUTES);
    let points = statement.query_map(params![monitor, millis(FIVE_MINUTES), after], |row| {
        Ok(Point {
            at: timestamp(row.get(0)?),
            mean_ms: row.get(1)?,
            max_ms: row.get(2)?,
            failures: row.get(3)?,
            checks: row.get(4)?,
        })
    })?;
    Ok(points.collect::<rusqlite::Result<_>>()?)
}

/// The shares of checks that were up.
pub(crate) fn uptime(conn: &Connection, monitor: i64, now: Timestamp) -> Result<Uptime> {
    let share = |length: Duration, days: i64| -> Result<Option<f64>> {
        let mut statement = conn.prepare_cached(
            "SELECT 1.0 - 1.0 * sum(failures) / sum(checks) FROM periods
             WHERE monitor_id = ?1 AND length_ms = ?2 AND start_at > ?3",
        )?;
        // With the period that lies half before them.
        let after = now.as_millisecond() - days * DAY_MS - millis(length);
        Ok(statement.query_row(params![monitor, millis(length), after], |row| row.get(0))?)
    };
    Ok(Uptime {
        day: share(FIVE_MINUTES, 1)?,
        week: share(HOUR, 7)?,
        quarter: share(DAY, 90)?,
    })
}

/// The last 90 days (UTC), oldest first.
pub(crate) fn days(conn: &Connection, monitor: i64, now: Timestamp) -> Result<Vec<Cell>> {
    let mut statement = conn.prepare_cached(
        "WITH RECURSIVE days (start_at) AS (
             SELECT ?2 - ?2 % ?3 - 89 * ?3
             UNION ALL
             SELECT start_at + ?3 FROM days WHERE start_at + ?3 <= ?2
         )
         SELECT days.start_at, 1.0 - 1.0 * periods.failures / periods.checks
         FROM days LEFT JOIN periods
             ON periods.monitor_id = ?1 AND periods.length_ms = ?3 AND periods.start_at = days.start_at
         ORDER BY days.start_at",
    )?;
    let parameters = params![monitor, now.as_millisecond(), DAY_MS];
    let cells = statement.query_map(parameters, |row| {
        Ok(Cell {
            start: timestamp(row.get(0)?),
            uptime: row.get(1)?,
        })
    })?;
    Ok(cells.collect::<rusqlite::Result<_>>()?)
}

/// Deletes up to `count` checks, older than the time given or of deleted monitors; says how many those were.
pub(crate) fn prune_checks(tx: &Transaction<'_>, keep: Duration, count: u32) -> Result<usize> {
    let before = tx.now_ms() - millis(keep);
    let old = tx
        .prepare_cached(
            "DELETE FROM checks
             WHERE id IN (SELECT id FROM checks WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![before, count])?;
    let orphaned = tx
        .prepare_cached(
            "DELETE FROM checks
             WHERE id IN (
                 SELECT checks.id FROM monitors JOIN checks ON checks.monitor_id = monitors.id
                 WHERE monitors.deleted_at IS NOT NULL LIMIT ?1)",
        )?
        .execute([count])?;
    Ok(old.max(orphaned))
}

/// Deletes the periods of a monitor that nothing reads any more; all, if the monitor is deleted.
pub(crate) fn prune_periods(tx: &Transaction<'_>, monitor: i64, keep: Duration) -> Result<()> {
    let sql = "SELECT deleted_at IS NOT NULL FROM monitors WHERE id = ?1";
    let deleted: bool = tx.query_row(sql, [monitor], |row| row.get(0))?;
    let mut statement = tx.prepare_cached(
        "DELETE FROM periods WHERE monitor_id = ?1 AND length_ms = ?2 AND start_at < ?3",
    )?;
    let kept = SHORT_KEPT.into_iter().chain([(DAY, millis(keep))]);
    for (length, kept_ms) in kept {
        let before = if deleted {
            i64::MAX
        } else {
            tx.now_ms() - kept_ms
        };
        statement.execute(params![monitor, millis(length), before])?;
    }
    Ok(())
}

fn check(row: &Row<'_>) -> rusqlite::Result<Check> {
    let cause: Option<String> = row.get(3)?;
    let detail: Option<String> = row.get(4)?;
    let failure = |cause: String| {
        // A cause of a newer program is shown as the most general one.
        let cause = Cause::parse(&cause).unwrap_or(Cause::Protocol);
        Failure::new(cause, detail.unwrap_or_default())
    };
    let duration_ms: f64 = row.get(1)?;
    Ok(Check {
        at: timestamp(row.get(0)?),
        duration: Duration::try_from_secs_f64(duration_ms / 1_000.0).unwrap_or_default(),
        status: row.get(2)?,
        failure: cause.map(failure),
    })
}
