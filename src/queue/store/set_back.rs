//! What was due already when the clock was set back: it is due still.

use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::database::Transaction;

/// By so much clocks are set back all the time, and it is not worth a look.
const STEP_MS: i64 = 1_000;

/// Makes due what was due before the clock was set back, if it was; says how many jobs that are.
///
/// `last` is a time that it has shown; another is that of the last job that was enqueued. Those that wait for a time of
/// their own are left to it; those that failed wait no longer than they had to.
pub(in crate::queue) fn mend(tx: &Transaction<'_>, last: i64) -> rusqlite::Result<usize> {
    let now = tx.now_ms();
    let newest: Option<(i64, i64)> = tx
        .prepare_cached("SELECT id, enqueued_at FROM jobs ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let shown = newest.map_or(last, |(_, at)| at.max(last));
    if shown <= now.saturating_add(STEP_MS) {
        return Ok(0);
    }
    tracing::warn!(by_ms = shown - now, "the clock was set back");
    if let Some((id, _)) = newest {
        // It is seen once.
        tx.prepare_cached(
            "UPDATE jobs SET enqueued_at = ?1, unique_until = unique_until - (enqueued_at - ?1)
             WHERE id = ?2 AND enqueued_at > ?1",
        )?
        .execute(params![now, id])?;
    }
    tx.prepare_cached(
        "UPDATE jobs
         SET run_at = CASE WHEN run_at <= ?2 THEN ?1 ELSE max(?1, run_at - (?2 - ?1)) END
         WHERE (state = 'available' OR state = 'retryable') AND run_at > ?1
             AND (run_at <= ?2 OR state = 'retryable')",
    )?
    .execute(params![now, shown])
}
