//! What is taken to be run.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::ValueRef;

use crate::database::Transaction;
use crate::queue::Backoff;
use crate::queue::passed::Passed;
use crate::queue::progress::Word;
use crate::queue::state::Priority;
use crate::queue::store::beside::Peer;
use crate::queue::store::limits;

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
    /// Where the request has one that this program can read.
    pub(in crate::queue) backoff: Option<Backoff>,
    pub(in crate::queue) limit: Option<Limit>,
    pub(in crate::queue) rate: Option<PerTime>,
    pub(in crate::queue) cursor: Option<String>,
    /// What it has said of how far it is, that is to be written with its end.
    pub(in crate::queue) last_word: Option<Word>,
    /// As the table has it; 1 binds until a worker starts the job.
    unique_scope: Option<u8>,
    deaths: u32,
    /// The workers that could not read the arguments.
    unread_by: Option<String>,
}

/// A limit of what runs at a time, as it is in the table.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Limit {
    pub(in crate::queue) key: String,
    pub(in crate::queue) at_most: u32,
}

impl Limit {
    /// The limit of a row, from the columns of its key and of how many.
    pub(super) fn of(row: &Row<'_>, key: usize, at_most: usize) -> rusqlite::Result<Option<Self>> {
        match row.get(key)? {
            Some(key) => Ok(Some(Self {
                key,
                at_most: row.get(at_most)?,
            })),
            None => Ok(None),
        }
    }
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

impl Claimed {
    /// Whether its end changes more than where it stands.
    pub(in crate::queue) fn is_plain(&self) -> bool {
        self.unique_scope.is_none() && self.deaths == 0
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
    /// Whether jobs may be due that only others can run: those stay where they are.
    pub(in crate::queue) is_mixed: bool,
    /// How far this worker has got past those.
    pub(in crate::queue) passed: Passed,
    /// At so many more jobs may be looked at.
    pub(in crate::queue) looks: usize,
    /// Whether that was not enough.
    pub(in crate::queue) is_cut: bool,
    /// Whether a job was met that is left to others.
    pub(in crate::queue) leaves: bool,
    /// All that are entered, once that is asked.
    pub(in crate::queue) peers: Option<Vec<Peer>>,
    /// The queues that are worked on, as JSON; all, if none are named.
    pub(in crate::queue) only_json: Option<&'a str>,
}

const COLUMNS: &str = "id, claims, kind, queue, arguments, attempt, attempts_max, timeout_ms,
    limit_key, limit_max, rate_key, rate_max, rate_ms, cursor, unique_scope, deaths, backoff,
    unread_by";

/// What is in the index of the claim.
pub(super) const WAITS: &str =
    "(state = 'available' OR state = 'retryable') AND blocked_by IS NULL";

impl Claimer<'_> {
    /// Takes up to `count` jobs of a queue that are due, best first; no suspects, and none that a limit keeps back.
    pub(in crate::queue) fn claim(
        &mut self,
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
                if self.is_mixed {
                    claimed.extend(self.claim_beside(tx, (queue, priority), wanted)?);
                    break;
                }
                let due = due(tx, (queue, priority), wanted)?;
                let is_all = due.len() < wanted;
                for job in due {
                    claimed.extend(self.take(tx, job)?);
                }
                // Those that are left to others would be met again.
                if is_all || self.leaves {
                    break;
                }
            }
        }
        Ok(claimed)
    }

    /// Takes a job that is due, if it may run here and now; if not, it is put where it waits.
    pub(super) fn take(
        &mut self,
        tx: &Transaction<'_>,
        job: Claimed,
    ) -> rusqlite::Result<Option<Claimed>> {
        let unread_by = job.unread_by.as_deref();
        if !self.can_run(&job.kind, unread_by) {
            self.leave(tx, (job.id, &job.kind, unread_by))?;
            return Ok(None);
        }
        if let Some(hinders) = limits::hinders(tx, &job)? {
            limits::block(tx, &job, &hinders)?;
            return Ok(None);
        }
        tx.prepare_cached(
            "UPDATE jobs
             SET state = 'executing', attempt = attempt + 1, claims = claims + 1, worker = ?2, started_at = ?3
             WHERE id = ?1",
        )?
        .execute(params![job.id, self.worker, tx.now_ms()])?;
        // In statements of their own: what a statement may change it looks up in every index that has it.
        if job.unique_scope == Some(UNTIL_STARTED) {
            tx.prepare_cached("UPDATE jobs SET binds = 0 WHERE id = ?1")?
                .execute([job.id])?;
        }
        Ok(Some(Claimed {
            claims: job.claims + 1,
            attempt: job.attempt + 1,
            ..job
        }))
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
                params![DEATHS_SUSPECT, self.kinds_json, self.only_json, self.worker],
                |row| row.get(0),
            )
            .optional()
    }

    /// Takes the suspect that has been due for longest, if nothing keeps it back.
    pub(in crate::queue) fn claim_suspect(
        &mut self,
        tx: &Transaction<'_>,
    ) -> rusqlite::Result<Option<Claimed>> {
        let job = tx
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE {SUSPECT} AND run_at <= ?5 ORDER BY run_at, id LIMIT 1"
            ))?
            .query_row(
                params![
                    DEATHS_SUSPECT,
                    self.kinds_json,
                    self.only_json,
                    self.worker,
                    tx.now_ms()
                ],
                claimed_row,
            )
            .optional()?;
        match job {
            Some(job) => self.take(tx, job),
            None => Ok(None),
        }
    }
}

const SUSPECT: &str = "deaths > 0 AND (state = 'available' OR state = 'retryable') AND deaths >= ?1 AND blocked_by IS NULL
    AND kind IN (SELECT value FROM json_each(?2)) AND instr(coalesce(unread_by, ''), ',' || ?4 || ',') = 0 AND (?3 IS NULL OR queue IN (SELECT value FROM json_each(?3)))
    AND queue NOT IN (SELECT name FROM queues WHERE paused_at IS NOT NULL)";

/// The next jobs of a queue that are due and are no suspects.
fn due(
    tx: &Transaction<'_>,
    (queue, priority): (&str, Priority),
    count: usize,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM jobs
         WHERE {WAITS} AND queue = ?1 AND priority = ?2 AND run_at <= ?3 AND deaths < ?4
         ORDER BY run_at, id
         LIMIT ?5"
    ))?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let values = params![queue, priority as u8, tx.now_ms(), DEATHS_SUSPECT, count];
    let rows = statement.query_map(values, claimed_row)?;
    rows.collect()
}

/// One job as a claim sees it.
pub(super) fn one(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Claimed> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?
        .query_row([id], claimed_row)
}

/// When the first job of a queue that is due after a time is so, in milliseconds since 1970; no suspects.
pub(in crate::queue) fn next_due(
    connection: &Connection,
    queue: &str,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT run_at FROM jobs
         WHERE {WAITS} AND queue = ?1 AND priority = ?2 AND deaths < ?3 AND run_at > ?4
         ORDER BY run_at
         LIMIT 1"
    ))?;
    let mut next = None;
    for priority in Priority::ALL {
        let values = params![queue, priority as u8, DEATHS_SUSPECT, after];
        let due: Option<i64> = statement.query_row(values, |row| row.get(0)).optional()?;
        next = next.into_iter().chain(due).min();
    }
    Ok(next)
}

/// The queues that jobs wait in, without those that are paused.
pub(in crate::queue) fn queues(tx: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let mut paused = tx.prepare_cached("SELECT name FROM queues WHERE paused_at IS NOT NULL")?;
    let paused = paused.query_map([], |row| row.get(0))?;
    let paused: Vec<String> = paused.collect::<Result<_, _>>()?;
    // From one name to the next, in the index: it does not matter how many jobs a queue has.
    let mut next = tx.prepare_cached(
        "SELECT queue FROM jobs
         WHERE (state = 'available' OR state = 'retryable') AND blocked_by IS NULL AND queue > ?1
         ORDER BY queue LIMIT 1",
    )?;
    let mut names: Vec<String> = Vec::new();
    let mut last = String::new();
    while let Some(name) = next
        .query_row([&last], |row| row.get::<_, String>(0))
        .optional()?
    {
        last.clone_from(&name);
        if !paused.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn claimed_row(row: &Row<'_>) -> rusqlite::Result<Claimed> {
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
        limit: Limit::of(row, 8, 9)?,
        rate: match rate {
            Some(key) => Some(PerTime {
                key,
                at_most: row.get(11)?,
                per_ms: row.get(12)?,
            }),
            None => None,
        },
        cursor: row.get(13)?,
        last_word: None,
        unique_scope: row.get(14)?,
        deaths: row.get(15)?,
        backoff: match row.get_ref(16)? {
            ValueRef::Text(json) => serde_json::from_slice(json).ok(),
            _ => None,
        },
        unread_by: row.get(17)?,
    })
}
