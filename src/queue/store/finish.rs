//! How a claim ends.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::store::beside;
use crate::queue::store::claim::Claimed;
use crate::queue::store::claim::DEATHS_MAX;
use crate::queue::store::claim::DEATHS_SUSPECT;
use crate::queue::store::claim::Limit;
use crate::queue::store::cut;
use crate::queue::store::limits;
use crate::queue::store::millis;
use crate::queue::store::save_progress;
use crate::queue::store::workers;

/// So many errors of a job are kept, the last ones.
const ERRORS_MAX: u32 = 100;

/// How an attempt ended, in the table's terms.
#[derive(Clone, Debug)]
pub(in crate::queue) enum End {
    Complete,
    Retry {
        wait: Duration,
        error: String,
    },
    Discard {
        error: String,
    },
    Cancel {
        reason: String,
    },
    /// Back as it was before the claim, after this time.
    PutBack {
        wait: Duration,
    },
    /// For a worker that can read its arguments.
    Park {
        error: String,
    },
}

impl End {
    /// Whether there may be something to claim after it: the job itself, or one that waited for its place.
    pub(in crate::queue) fn brings(&self, job: &Claimed) -> bool {
        job.limit.is_some()
            || !matches!(
                self,
                Self::Complete | Self::Discard { .. } | Self::Cancel { .. }
            )
    }
}

/// Records how an attempt ended; says whether the claim was still there.
///
/// If it was not, nothing is changed: another runs the job, or somebody has decided about it.
pub(in crate::queue) fn finish(
    tx: &Transaction<'_>,
    job: &Claimed,
    end: &End,
) -> rusqlite::Result<bool> {
    if let Some(word) = &job.last_word {
        save_progress(tx, (job.id, job.claims), word)?;
    }
    if let End::Complete = end {
        let token = (job.id, job.claims, job.is_plain());
        return complete(tx, token, job.limit.as_ref());
    }
    if let Some(reason) = asked_to_cancel(tx, job)? {
        let is_ours = give_up(tx, job, ("cancelled", &reason))?;
        return free(tx, is_ours, job.limit.as_ref());
    }
    let is_ours = match end {
        End::Complete => false,
        End::Retry { wait, error } => {
            let run_at = tx.now_ms().saturating_add(millis(*wait));
            failed(tx, job, error)? && wait_again(tx, job, ("retryable", run_at, 1))?
        }
        End::Discard { error } => {
            failed(tx, job, error)? && give_up(tx, job, ("discarded", error))?
        }
        End::Cancel { reason } => give_up(tx, job, ("cancelled", reason))?,
        End::PutBack { wait } => {
            let run_at = tx.now_ms().saturating_add(millis(*wait));
            wait_again(tx, job, ("available", run_at, 0))?
        }
        End::Park { error } => return park(tx, job, error),
    };
    free(tx, is_ours, job.limit.as_ref())
}

/// Completes a job in its own transaction, or after it.
pub(in crate::queue) fn complete(
    tx: &Transaction<'_>,
    (id, claims, is_plain): (i64, i64, bool),
    limit: Option<&Limit>,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET state = 'completed', finished_at = ?1, worker = NULL
             WHERE id = ?2 AND claims = ?3 AND state = 'executing'",
        )?
        .execute(params![tx.now_ms(), id, claims])?;
    if changed == 1 && !is_plain {
        tx.prepare_cached(
            "UPDATE jobs SET deaths = 0, binds = CASE WHEN unique_scope >= 2 THEN binds ELSE 0 END WHERE id = ?1",
        )?
        .execute([id])?;
    }
    free(tx, changed == 1, limit)
}

pub(super) fn free(
    tx: &Transaction<'_>,
    is_ours: bool,
    limit: Option<&Limit>,
) -> rusqlite::Result<bool> {
    if is_ours && let Some(limit) = limit {
        limits::freed(tx, &limit.key, limit.at_most)?;
    }
    Ok(is_ours)
}

/// Why somebody wants this claim to end as cancelled.
fn asked_to_cancel(tx: &Transaction<'_>, job: &Claimed) -> rusqlite::Result<Option<String>> {
    let reason = tx
        .prepare_cached(
            "SELECT cancel_reason FROM jobs WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
        )?
        .query_row([job.id, job.claims], |row| row.get(0))
        .optional()?;
    Ok(reason.flatten())
}

/// Ends a job that is not done.
fn give_up(
    tx: &Transaction<'_>,
    job: &Claimed,
    (state, error): (&str, &str),
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs
             SET state = ?4, finished_at = ?1, error = ?5, worker = NULL, deaths = 0,
                 binds = CASE WHEN unique_scope >= 2 THEN binds ELSE 0 END
             WHERE id = ?2 AND claims = ?3 AND state = 'executing'",
        )?
        .execute(params![tx.now_ms(), job.id, job.claims, state, cut(error)])?;
    Ok(changed == 1)
}

/// Lets a job wait for its next claim; of the attempt that was counted `spent` remains.
fn wait_again(
    tx: &Transaction<'_>,
    job: &Claimed,
    (state, run_at, spent): (&str, i64, u32),
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs
             SET state = ?3, run_at = ?4, attempt = attempt - 1 + ?5, worker = NULL, deaths = 0
             WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
        )?
        .execute(params![job.id, job.claims, state, run_at, spent])?;
    Ok(changed == 1)
}

/// Keeps the error of an attempt; says whether the claim is still there.
fn failed(tx: &Transaction<'_>, job: &Claimed, error: &str) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET error = ?3 WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
        )?
        .execute(params![job.id, job.claims, cut(error)])?;
    if changed == 1 {
        note(tx, (job.id, job.claims, job.attempt), error)?;
    }
    Ok(changed == 1)
}

fn note(
    tx: &Transaction<'_>,
    (id, claims, attempt): (i64, i64, u32),
    error: &str,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO job_errors (job, claim, attempt, at, error) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![id, claims, attempt, tx.now_ms(), cut(error)])?;
    tx.prepare_cached(
        "DELETE FROM job_errors WHERE job = ?1 AND claim IN (
             SELECT claim FROM job_errors WHERE job = ?1 ORDER BY claim DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![id, ERRORS_MAX])?;
    Ok(())
}

/// Leaves a job to a worker that lives and may be able to read its arguments, or puts it aside until there is one.
pub(super) fn park(tx: &Transaction<'_>, job: &Claimed, error: &str) -> rusqlite::Result<bool> {
    let claim: Option<(i64, Option<String>)> = tx
        .prepare_cached(
            "SELECT coalesce(worker, 0), unread_by FROM jobs WHERE id = ?1 AND claims = ?2 AND state = 'executing'",
        )?
        .query_row([job.id, job.claims], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((worker, unread_by)) = claim else {
        return Ok(false);
    };
    let peers = beside::peers(tx)?;
    let unread_by = beside::with(&peers, unread_by.as_deref(), worker);
    let is_left = beside::can_any(&peers, &job.kind, Some(&unread_by));
    tx.prepare_cached(
        "UPDATE jobs
         SET state = CASE WHEN NOT ?4 THEN 'parked' WHEN attempt > 1 THEN 'retryable' ELSE 'available' END,
             attempt = attempt - 1, worker = NULL, error = ?2, unread_by = ?3
         WHERE id = ?1",
    )?
    .execute(params![job.id, cut(error), unread_by, is_left])?;
    free(tx, true, job.limit.as_ref())
}

/// Puts a job that waits aside until there is a worker that can run it; gives its limit.
pub(super) fn park_waiting(
    tx: &Transaction<'_>,
    id: i64,
    error: Option<&str>,
) -> rusqlite::Result<Option<Limit>> {
    tx.prepare_cached(
        "UPDATE jobs SET state = 'parked', error = coalesce(?2, error) WHERE id = ?1",
    )?
    .execute(params![id, error])?;
    tx.prepare_cached("SELECT limit_key, limit_max FROM jobs WHERE id = ?1")?
        .query_row([id], |row| Limit::of(row, 0, 1))
}

/// Whose jobs are put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Dead {
    /// Nobody lives who could run any.
    All,
    One(i64),
    /// One that gave no name.
    Unnamed,
}

/// What became of the jobs that a dead process was running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// So many run again.
    pub available: usize,
    /// So many are set aside.
    pub discarded: usize,
}

/// Puts back what a dead process was running: it is due at once, and the attempt is not counted.
///
/// What was running at three deaths in a row is discarded.
pub(in crate::queue) fn rescue(tx: &Transaction<'_>, dead: Dead) -> rusqlite::Result<Rescued> {
    let (is_all, worker) = match dead {
        Dead::All => (true, None),
        Dead::One(id) => (false, Some(id)),
        Dead::Unnamed => (false, None),
    };
    let mut running = tx.prepare_cached(
        "SELECT id, claims, attempt, deaths, limit_key, limit_max, cancel_reason IS NOT NULL FROM jobs
         WHERE state = 'executing' AND (?1 OR worker IS ?2)",
    )?;
    let jobs = running.query_map(params![is_all, worker], |row| {
        Ok(Left {
            id: row.get(0)?,
            claims: row.get(1)?,
            attempt: row.get(2)?,
            deaths: row.get(3)?,
            limit: Limit::of(row, 4, 5)?,
            is_to_be_cancelled: row.get(6)?,
        })
    })?;
    let jobs: Vec<Left> = jobs.collect::<Result<_, _>>()?;
    let mut rescued = Rescued::default();
    for job in jobs {
        let token = (job.id, job.claims, job.attempt);
        note(tx, token, "the process died while it ran")?;
        if job.is_to_be_cancelled {
            cancel_left(tx, job.id)?;
        } else if job.deaths + 1 >= DEATHS_MAX {
            set_aside(tx, job.id)?;
            rescued.discarded += 1;
        } else {
            put_back(tx, job.id)?;
            rescued.available += 1;
        }
        free(tx, true, job.limit.as_ref())?;
    }
    Ok(rescued)
}

/// What a dead process has left.
struct Left {
    id: i64,
    claims: i64,
    attempt: u32,
    deaths: u32,
    limit: Option<Limit>,
    is_to_be_cancelled: bool,
}

fn cancel_left(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE jobs
         SET state = 'cancelled', finished_at = ?1, worker = NULL, error = cancel_reason,
             binds = CASE WHEN unique_scope >= 2 THEN binds ELSE 0 END
         WHERE id = ?2",
    )?
    .execute(params![tx.now_ms(), id])?;
    Ok(())
}

/// Puts claims back that their worker does not know of: the answer of a round was lost, and nothing of them was run.
pub(in crate::queue) fn put_back_unknowns(
    tx: &Transaction<'_>,
    worker: i64,
    known: &HashSet<(i64, i64)>,
) -> rusqlite::Result<()> {
    for held in workers::held(tx, worker)? {
        if known.contains(&(held.id, held.claims)) {
            continue;
        }
        if held.is_to_be_cancelled {
            cancel_left(tx, held.id)?;
        } else {
            tx.prepare_cached(
                "UPDATE jobs SET state = 'available', attempt = attempt - 1, worker = NULL WHERE id = ?1",
            )?
            .execute([held.id])?;
        }
        free(tx, true, held.limit.as_ref())?;
    }
    Ok(())
}

fn set_aside(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE jobs
         SET state = 'discarded', deaths = deaths + 1, finished_at = ?1, worker = NULL,
             binds = CASE WHEN unique_scope >= 2 THEN binds ELSE 0 END,
             error = 'the process died each time this job ran'
         WHERE id = ?2",
    )?
    .execute(params![tx.now_ms(), id])?;
    Ok(())
}

/// It keeps its place before what came after it. A suspect waits for its turn from now on.
fn put_back(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE jobs
         SET state = 'available', deaths = deaths + 1, attempt = attempt - 1, worker = NULL,
             run_at = CASE WHEN deaths + 1 < ?3 THEN min(run_at, ?1) ELSE ?1 END
         WHERE id = ?2",
    )?
    .execute(params![tx.now_ms(), id, DEATHS_SUSPECT])?;
    Ok(())
}
