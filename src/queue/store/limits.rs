//! What keeps jobs from running beside others of their key.
//!
//! A job that is due and may not run is *blocked*: it leaves the index of the claim, so that a thousand of them cost a
//! claim nothing. It comes back when one of its key ends, or when the rate allows the next start.

use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::store::claim::Claimed;
use crate::queue::store::claim::PerTime;

/// So many keys are looked at in one sweep.
const SWEEP: u32 = 200;

/// The limit that keeps a job that is due from being started, if one does: its name in `blocked_by`.
///
/// A start that is allowed is written into the log of its rate.
pub(super) fn hinders(tx: &Transaction<'_>, job: &Claimed) -> rusqlite::Result<Option<String>> {
    if let Some(limit) = &job.limit
        && running(tx, &limit.key)? >= i64::from(limit.at_most)
    {
        return Ok(Some(format!("c:{}", limit.key)));
    }
    let Some(rate) = &job.rate else {
        return Ok(None);
    };
    match open_at(tx, &rate.key, rate.at_most, rate.per_ms)? {
        Some(open_at) => {
            tx.prepare_cached(
                "INSERT INTO rates (key, open_at, rate_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET open_at = excluded.open_at, rate_ms = excluded.rate_ms",
            )?
            .execute(params![rate.key, open_at, rate.per_ms])?;
            Ok(Some(format!("r:{}", rate.key)))
        }
        None => {
            started(tx, rate)?;
            Ok(None)
        }
    }
}

/// Lets a job that is due wait for a limit.
pub(super) fn block(tx: &Transaction<'_>, job: &Claimed, blocked_by: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE jobs SET blocked_by = ?2 WHERE id = ?1")?
        .execute(params![job.id, blocked_by])?;
    // It may have been let go on in place of another of its key, and waits for something else now.
    if blocked_by.starts_with("r:")
        && let Some(limit) = &job.limit
    {
        freed(tx, &limit.key, limit.at_most)?;
    }
    Ok(())
}

/// Those of a key that run.
fn running(tx: &Transaction<'_>, key: &str) -> rusqlite::Result<i64> {
    tx.prepare_cached(
        "SELECT count(*) FROM jobs WHERE state = 'executing' AND limit_key IS NOT NULL AND limit_key = ?1",
    )?
    .query_row([key], |row| row.get(0))
}

/// When the next start of a key is allowed, if not now.
fn open_at(
    tx: &Transaction<'_>,
    key: &str,
    at_most: u32,
    per_ms: i64,
) -> rusqlite::Result<Option<i64>> {
    let now = tx.now_ms();
    // The clock was set back: they count as of now, and hold up for no longer than they may.
    tx.prepare_cached("UPDATE job_starts SET at = ?2 WHERE key = ?1 AND at > ?2")?
        .execute(params![key, now])?;
    let oldest: Option<i64> = tx
        .prepare_cached(
            "SELECT at FROM job_starts WHERE key = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![key, at_most - 1], |row| row.get(0))
        .optional()?;
    let open_at = oldest.map(|at| at.saturating_add(per_ms));
    Ok(open_at.filter(|at| *at > now))
}

fn started(tx: &Transaction<'_>, rate: &PerTime) -> rusqlite::Result<()> {
    let now = tx.now_ms();
    tx.prepare_cached("INSERT INTO job_starts (key, at) VALUES (?1, ?2)")?
        .execute(params![rate.key, now])?;
    tx.prepare_cached("DELETE FROM job_starts WHERE key = ?1 AND at <= ?2")?
        .execute(params![rate.key, now.saturating_sub(rate.per_ms)])?;
    Ok(())
}

/// Lets jobs of a key go on, as many as are free now that one of them has ended or gone away; says how many.
pub(in crate::queue) fn freed(
    tx: &Transaction<'_>,
    key: &str,
    at_most: u32,
) -> rusqlite::Result<usize> {
    let running = running(tx, key)?;
    let free = i64::from(at_most).saturating_sub(running);
    if free <= 0 {
        return Ok(0);
    }
    tx.prepare_cached(
        "UPDATE jobs SET blocked_by = NULL
         WHERE id IN (
             SELECT id FROM jobs
             WHERE blocked_by IS NOT NULL AND blocked_by = ?1 AND limit_max > ?3
             ORDER BY priority, run_at, id
             LIMIT ?2)",
    )?
    .execute(params![format!("c:{key}"), free, running])
}

/// Lets go on what waited for its rate, where that is open by now; says when the next one is.
pub(in crate::queue) fn open_rates(tx: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
    let now = tx.now_ms();
    let mut open = tx.prepare_cached(
        // Later than it can be means that the clock was set back.
        "SELECT key FROM rates WHERE open_at <= ?1 OR open_at > ?1 + rate_ms LIMIT ?2",
    )?;
    let keys = open.query_map(params![now, SWEEP], |row| row.get(0))?;
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    for key in keys {
        let blocked_by = format!("r:{key}");
        let next: Option<(u32, i64)> = tx
            .prepare_cached(
                "SELECT coalesce(rate_max, 1), coalesce(rate_ms, 1) FROM jobs
                 WHERE blocked_by IS NOT NULL AND blocked_by = ?1
                 ORDER BY priority, run_at, id
                 LIMIT 1",
            )?
            .query_row([&blocked_by], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let next_at = match next {
            Some((at_most, per_ms)) => {
                let begun = started_since(tx, &key, now.saturating_sub(per_ms))?;
                let free = i64::from(at_most).saturating_sub(begun).max(1);
                tx.prepare_cached(
                    "UPDATE jobs SET blocked_by = NULL
                     WHERE id IN (
                         SELECT id FROM jobs WHERE blocked_by IS NOT NULL AND blocked_by = ?1
                         ORDER BY priority, run_at, id
                         LIMIT ?2)",
                )?
                .execute(params![blocked_by, free])?;
                // The next one is free when the oldest start of this stretch is out of it.
                let oldest = oldest_since(tx, &key, now.saturating_sub(per_ms))?.unwrap_or(now);
                is_blocked(tx, &blocked_by)?.then(|| oldest.saturating_add(per_ms))
            }
            None => None,
        };
        match next_at {
            Some(at) => tx
                .prepare_cached("UPDATE rates SET open_at = ?2 WHERE key = ?1")?
                .execute(params![key, at])?,
            None => tx
                .prepare_cached("DELETE FROM rates WHERE key = ?1")?
                .execute([&key])?,
        };
    }
    tx.prepare_cached("SELECT min(open_at) FROM rates")?
        .query_row([], |row| row.get(0))
}

fn started_since(tx: &Transaction<'_>, key: &str, since: i64) -> rusqlite::Result<i64> {
    tx.prepare_cached("SELECT count(*) FROM job_starts WHERE key = ?1 AND at > ?2")?
        .query_row(params![key, since], |row| row.get(0))
}

fn oldest_since(tx: &Transaction<'_>, key: &str, since: i64) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT min(at) FROM job_starts WHERE key = ?1 AND at > ?2")?
        .query_row(params![key, since], |row| row.get(0))
}

fn is_blocked(tx: &Transaction<'_>, blocked_by: &str) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE blocked_by IS NOT NULL AND blocked_by = ?1)",
    )?
    .query_row([blocked_by], |row| row.get(0))
}

/// Lets jobs go on that are blocked by a key of which too few run: what freed them was undone by somebody's hand, or is
/// in a queue that is paused. Says how many.
pub(in crate::queue) fn sweep(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    let mut blocked = tx.prepare_cached(
        "WITH RECURSIVE keys (key) AS (
             SELECT min(blocked_by) FROM jobs WHERE blocked_by IS NOT NULL AND blocked_by >= 'c:' AND blocked_by < 'c;'
             UNION ALL
             SELECT (SELECT min(blocked_by) FROM jobs
                     WHERE blocked_by IS NOT NULL AND blocked_by > keys.key AND blocked_by < 'c;')
             FROM keys WHERE keys.key IS NOT NULL)
         SELECT name, most FROM (
             SELECT substr(key, 3) AS name,
                    (SELECT max(limit_max) FROM jobs WHERE blocked_by IS NOT NULL AND blocked_by = key) AS most
             FROM keys WHERE key IS NOT NULL)
         WHERE most > (SELECT count(*) FROM jobs
                       WHERE state = 'executing' AND limit_key IS NOT NULL AND limit_key = name)
         LIMIT ?1",
    )?;
    let keys = blocked.query_map([SWEEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys: Vec<(String, u32)> = keys.collect::<Result<_, _>>()?;
    let mut let_go = 0;
    for (key, at_most) in keys {
        let_go += freed(tx, &key, at_most)?;
    }
    Ok(let_go)
}
