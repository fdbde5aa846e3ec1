//! What is taken to be run.

use std::cell::Cell;
use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::state::Priority;
use crate::queue::store::finish::block;
use crate::queue::store::finish::park;
use crate::queue::store::limits;
use crate::queue::store::workers;

/// After so many deaths of the process in a row while it ran, a job is set aside.
///
/// Before the last of them it ran alone, so that none is set aside for what another did.
pub(super) const DEATHS_MAX: u32 = 3;

/// A job that two processes died with is a suspect: it runs alone.
pub(super) const DEATHS_SUSPECT: u32 = DEATHS_MAX - 1;

/// A claim looks so often for jobs in place of those that may not run now; then it is the next one's turn.
const LOOKS: u32 = 8;

/// A job that this worker now runs.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Claimed {
    pub(in crate::queue) id: i64,
    /// The token: who claims it again has another.
    pub(in crate::queue) claims: i64,
    pub(in crate::queue) kind: String,
    pub(in crate::queue) queue: String,
    pub(in crate::queue) arguments: String,
    pub(in crate::queue) attempt: u32,
    pub(in crate::queue) attempts_max: u32,
    pub(in crate::queue) timeout_ms: Option<u64>,
    pub(in crate::queue) limit: Option<Limit>,
    pub(in crate::queue) rate: Option<PerTime>,
    pub(in crate::queue) cursor: Option<String>,
    run_at: i64,
    unique_scope: Option<u8>,
}

/// A limit of what runs at a time, as it is in the table.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Limit {
    pub(in crate::queue) key: String,
    pub(in crate::queue) at_most: u32,
}

/// A limit of starts, as it is in the table.
#[derive(Clone, Debug)]
pub(in crate::queue) struct PerTime {
    pub(in crate::queue) key: String,
    pub(in crate::queue) at_most: u32,
    pub(in crate::queue) per_ms: i64,
}

/// `unique_scope` of a key that binds until a worker starts the job.
const UNTIL_STARTED: u8 = 1;

/// How many of each limited key have been taken and are not decided on: in the table they run.
#[derive(Default)]
struct Undecided(HashMap<String, i64>);

impl Undecided {
    fn of(taken: &[Claimed]) -> Self {
        let mut undecided = HashMap::new();
        for limit in taken.iter().filter_map(|job| job.limit.as_ref()) {
            *undecided.entry(limit.key.clone()).or_insert(0) += 1;
        }
        Self(undecided)
    }

    /// Takes a job out, and says how many of its key are left.
    fn decide(&mut self, job: &Claimed) -> i64 {
        let left = job.limit.as_ref().and_then(|it| self.0.get_mut(&it.key));
        left.map_or(0, |left| {
            *left -= 1;
            *left
        })
    }
}

/// Who claims.
#[derive(Debug)]
pub(in crate::queue) struct Claimer<'a> {
    pub(in crate::queue) worker: i64,
    /// The kinds that it knows.
    pub(in crate::queue) kinds: &'a [String],
    /// The same as JSON.
    pub(in crate::queue) kinds_json: &'a str,
    /// Whether another worker knows kinds that this one does not: those stay where they are.
    pub(in crate::queue) is_mixed: bool,
    /// Whether a job of such a kind was met.
    pub(in crate::queue) met_foreign: Cell<bool>,
    /// The queues that are worked on, as JSON; all, if none are named.
    pub(in crate::queue) only_json: Option<&'a str>,
}

const COLUMNS: &str = "id, claims, kind, queue, arguments, attempt, attempts_max, timeout_ms,
    limit_key, limit_max, rate_key, rate_max, rate_ms, cursor, run_at, unique_scope";

const TAKE: &str = "UPDATE jobs
     SET state = 'executing', attempt = attempt + 1, claims = claims + 1, worker = ?2, started_at = ?1,
         cancel_reason = NULL";

impl Claimer<'_> {
    /// Takes up to `count` jobs of a queue that are due, best first; no suspects, and none that a limit keeps back.
    pub(in crate::queue) fn claim(
        &self,
        tx: &Transaction<'_>,
        queue: &str,
        count: usize,
    ) -> rusqlite::Result<Vec<Claimed>> {
        let mut claimed = Vec::new();
        for priority in Priority::ALL {
            for _ in 0..LOOKS {
                let wanted = count.saturating_sub(claimed.len());
                if wanted == 0 {
                    return Ok(claimed);
                }
                let mut taken = self.take(tx, (queue, priority), wanted)?;
                let is_all = taken.len() < wanted;
                taken.sort_unstable_by_key(|job| (job.run_at, job.id));
                let mut undecided = Undecided::of(&taken);
                for job in taken {
                    if self.may_run(tx, &job, &mut undecided)? {
                        claimed.push(job);
                    }
                }
                if is_all {
                    break;
                }
            }
        }
        Ok(claimed)
    }

    fn take(
        &self,
        tx: &Transaction<'_>,
        (queue, priority): (&str, Priority),
        count: usize,
    ) -> rusqlite::Result<Vec<Claimed>> {
        let kinds = if self.is_mixed {
            "AND kind IN (SELECT value FROM json_each(?7))"
        } else {
            "AND ?7 IS NOT NULL"
        };
        let mut statement = tx.prepare_cached(&format!(
            "{TAKE}
             WHERE id IN (
                 SELECT id FROM jobs
                 WHERE state IN ('available', 'retryable') AND blocked_by IS NULL
                     AND queue = ?3 AND priority = ?4 AND run_at <= ?1 AND deaths < ?6 {kinds}
                 ORDER BY run_at, id
                 LIMIT ?5)
             RETURNING {COLUMNS}"
        ))?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let rows = statement.query_map(
            params![
                tx.now_ms(),
                self.worker,
                queue,
                priority as u8,
                count,
                DEATHS_SUSPECT,
                self.kinds_json
            ],
            claimed_row,
        )?;
        rows.collect()
    }

    /// Whether a claimed job may run here and now; if not, it is put where it waits.
    fn may_run(
        &self,
        tx: &Transaction<'_>,
        job: &Claimed,
        undecided: &mut Undecided,
    ) -> rusqlite::Result<bool> {
        let undecided = undecided.decide(job);
        if !self.kinds.contains(&job.kind) {
            if workers::know(tx, &job.kind)? {
                self.met_foreign.set(true);
                block(tx, job, None)?;
            } else {
                park(tx, job, "no program that runs jobs knows this kind")?;
            }
            return Ok(false);
        }
        if job.limit.is_some() || job.rate.is_some() {
            let hinders = limits::hinders(tx, job, undecided)?;
            if hinders.is_some() {
                block(tx, job, hinders)?;
                return Ok(false);
            }
        }
        if job.unique_scope == Some(UNTIL_STARTED) {
            tx.prepare_cached("UPDATE jobs SET binds = 0 WHERE id = ?1")?
                .execute([job.id])?;
        }
        Ok(true)
    }

    /// When the next job of a queue that is no suspect is due, in milliseconds since 1970.
    pub(in crate::queue) fn next_due(
        &self,
        connection: &Connection,
        queue: &str,
    ) -> rusqlite::Result<Option<i64>> {
        let kinds = if self.is_mixed {
            "AND kind IN (SELECT value FROM json_each(?4))"
        } else {
            "AND ?4 IS NOT NULL"
        };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT run_at FROM jobs
             WHERE state IN ('available', 'retryable') AND blocked_by IS NULL
                 AND queue = ?1 AND priority = ?2 AND deaths < ?3 {kinds}
             ORDER BY run_at
             LIMIT 1"
        ))?;
        let mut next = None;
        for priority in Priority::ALL {
            let values = params![queue, priority as u8, DEATHS_SUSPECT, self.kinds_json];
            let due: Option<i64> = statement.query_row(values, |row| row.get(0)).optional()?;
            next = next.into_iter().chain(due).min();
        }
        Ok(next)
    }

    /// When the next suspect is due, or since when it has been, in milliseconds since 1970.
    pub(in crate::queue) fn next_suspect(
        &self,
        connection: &Connection,
    ) -> rusqlite::Result<Option<i64>> {
        connection
            .prepare_cached(&format!(
                "SELECT run_at FROM jobs WHERE {SUSPECT} ORDER BY run_at LIMIT 1"
            ))?
            .query_row(
                params![DEATHS_SUSPECT, self.kinds_json, self.only_json],
                |row| row.get(0),
            )
            .optional()
    }

    /// Takes the suspect that has been due for longest, if nothing keeps it back.
    pub(in crate::queue) fn claim_suspect(
        &self,
        tx: &Transaction<'_>,
    ) -> rusqlite::Result<Option<Claimed>> {
        let job = tx
            .prepare_cached(&format!(
                "{TAKE} WHERE id = (SELECT id FROM jobs WHERE {SUSPECT_BY_NUMBER} AND run_at <= ?1
                                    ORDER BY run_at, id LIMIT 1)
                 RETURNING {COLUMNS}"
            ))?
            .query_row(
                params![
                    tx.now_ms(),
                    self.worker,
                    DEATHS_SUSPECT,
                    self.kinds_json,
                    self.only_json
                ],
                claimed_row,
            )
            .optional()?;
        match job {
            Some(job) if !self.may_run(tx, &job, &mut Undecided::default())? => Ok(None),
            job => Ok(job),
        }
    }
}

const SUSPECT: &str = "deaths > 0 AND state IN ('available', 'retryable') AND deaths >= ?1 AND blocked_by IS NULL
    AND kind IN (SELECT value FROM json_each(?2)) AND (?3 IS NULL OR queue IN (SELECT value FROM json_each(?3)))
    AND queue NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)";

const SUSPECT_BY_NUMBER: &str =
    "deaths > 0 AND state IN ('available', 'retryable') AND deaths >= ?3
    AND blocked_by IS NULL AND kind IN (SELECT value FROM json_each(?4))
    AND (?5 IS NULL OR queue IN (SELECT value FROM json_each(?5)))
    AND queue NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)";

/// The queues that jobs wait in, without those that are paused.
pub(in crate::queue) fn queues(tx: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let mut names = tx.prepare_cached(
        // From one name to the next, in the index: it does not matter how many jobs a queue has.
        "WITH RECURSIVE names (name) AS (
             SELECT min(queue) FROM jobs WHERE state IN ('available', 'retryable') AND blocked_by IS NULL
             UNION ALL
             SELECT (SELECT min(queue) FROM jobs
                     WHERE state IN ('available', 'retryable') AND blocked_by IS NULL AND queue > names.name)
             FROM names WHERE names.name IS NOT NULL)
         SELECT name FROM names
         WHERE name IS NOT NULL AND name NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)",
    )?;
    names.query_map([], |row| row.get(0))?.collect()
}

fn claimed_row(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    let limit: Option<String> = row.get(8)?;
    let rate: Option<String> = row.get(10)?;
    Ok(Claimed {
        id: row.get(0)?,
        claims: row.get(1)?,
        kind: row.get(2)?,
        queue: row.get(3)?,
        arguments: row.get(4)?,
        attempt: row.get(5)?,
        attempts_max: row.get(6)?,
        timeout_ms: row.get(7)?,
        limit: match limit {
            Some(key) => Some(Limit {
                key,
                at_most: row.get(9)?,
            }),
            None => None,
        },
        rate: match rate {
            Some(key) => Some(PerTime {
                key,
                at_most: row.get(11)?,
                per_ms: row.get(12)?,
            }),
            None => None,
        },
        cursor: row.get(13)?,
        run_at: row.get(14)?,
        unique_scope: row.get(15)?,
    })
}
