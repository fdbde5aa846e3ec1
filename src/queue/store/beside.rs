//! Claims beside workers of another version of the program: they run other kinds, or can read other arguments.
//!
//! What this worker cannot run is left where it is for one that lives and can; what nobody can is parked.

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::params;

use crate::database::Transaction;
use crate::queue::passed::Name;
use crate::queue::state::Priority;
use crate::queue::store::claim::Claimed;
use crate::queue::store::claim::Claimer;
use crate::queue::store::claim::DEATHS_SUSPECT;
use crate::queue::store::claim::WAITS;
use crate::queue::store::claim::one;
use crate::queue::store::finish::free;
use crate::queue::store::finish::park_waiting;

/// So many are looked at at once.
const BATCH: usize = 200;

/// To park one takes as long as to look at so many.
const PARKING: usize = 20;

/// So many suspects are looked at.
const SUSPECTS: u32 = 64;

/// A worker that is entered.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Peer {
    id: i64,
    kinds: HashSet<String>,
}

/// All workers that are entered.
pub(super) fn peers(connection: &Connection) -> rusqlite::Result<Vec<Peer>> {
    let mut peers = connection.prepare_cached("SELECT id, kinds FROM workers")?;
    let peers = peers.query_map([], |row| {
        let kinds: String = row.get(1)?;
        Ok(Peer {
            id: row.get(0)?,
            // Nothing else writes there; who knew no kind would run none.
            kinds: serde_json::from_str(&kinds).unwrap_or_default(),
        })
    })?;
    peers.collect()
}

/// Whether one of them knows a kind, and is not among those that could not read the arguments.
pub(super) fn can_any(peers: &[Peer], kind: &str, unread_by: Option<&str>) -> bool {
    let can = |peer: &Peer| peer.kinds.contains(kind) && !is_among(unread_by, peer.id);
    peers.iter().any(can)
}

/// Whether a worker could not read the arguments.
pub(super) fn is_among(unread_by: Option<&str>, worker: i64) -> bool {
    unread_by.is_some_and(|ids| ids.contains(&format!(",{worker},")))
}

/// Those that could not read the arguments, with one more, and without those that are gone.
pub(super) fn with(peers: &[Peer], unread_by: Option<&str>, worker: i64) -> String {
    let ids = peers.iter().map(|peer| peer.id);
    let unable = ids.filter(|id| *id != worker && is_among(unread_by, *id));
    let ids = std::iter::once(worker).chain(unable);
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    format!(",{},", ids.join(","))
}

/// A job that waits, as far as it has to be known to be passed.
struct Seen {
    id: i64,
    run_at: i64,
    kind: String,
    unread_by: Option<String>,
}

impl Claimer<'_> {
    /// Whether this worker knows the kind, and has not found the arguments to be unreadable.
    pub(super) fn can_run(&self, kind: &str, unread_by: Option<&str>) -> bool {
        self.kinds.iter().any(|known| known == kind) && !is_among(unread_by, self.worker)
    }

    /// Leaves a job that this worker cannot run to one that can, or parks it; says whether it is left.
    pub(super) fn leave(
        &mut self,
        tx: &Transaction<'_>,
        (id, kind, unread_by): (i64, &str, Option<&str>),
    ) -> rusqlite::Result<bool> {
        let peers = match self.peers.take() {
            Some(peers) => peers,
            None => peers(tx)?,
        };
        let is_left = can_any(&peers, kind, unread_by);
        self.peers = Some(peers);
        if is_left {
            self.leaves = true;
            return Ok(true);
        }
        let error = match unread_by {
            Some(_) => None,
            None => Some("no program that runs jobs knows this kind"),
        };
        let limit = park_waiting(tx, id, error)?;
        free(tx, true, limit.as_ref())?;
        self.looks = self.looks.saturating_sub(PARKING);
        Ok(false)
    }

    /// Takes up to `wanted` jobs of a line, from where the last look at it has ended.
    pub(super) fn claim_beside(
        &mut self,
        tx: &Transaction<'_>,
        (queue, priority): (&str, Priority),
        wanted: usize,
    ) -> rusqlite::Result<Vec<Claimed>> {
        let name: Name = (queue.to_owned(), priority as u8);
        let mut line = self.passed.line(&name);
        let mut claimed = Vec::new();
        let mut is_end = false;
        while claimed.len() < wanted && self.looks > 0 && !is_end {
            let count = self.looks.min(BATCH);
            let seen = after(tx, &name, (line.run_at, line.id), count)?;
            is_end = seen.len() < count;
            for job in seen {
                if claimed.len() == wanted || self.looks == 0 {
                    is_end = false;
                    break;
                }
                (line.run_at, line.id) = (job.run_at, job.id);
                self.looks -= 1;
                let unread_by = job.unread_by.as_deref();
                if self.can_run(&job.kind, unread_by) {
                    claimed.extend(self.take(tx, one(tx, job.id)?)?);
                } else if self.leave(tx, (job.id, &job.kind, unread_by))? {
                    line.passed += 1;
                }
            }
        }
        let is_cut = claimed.len() < wanted && !is_end;
        self.is_cut |= is_cut;
        self.passed.keep(name, line, (is_end, is_cut), tx.now_ms());
        Ok(claimed)
    }

    /// Parks the suspects that are due and that nobody can run.
    pub(in crate::queue) fn park_suspects(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut suspects = tx.prepare_cached(&format!(
            "SELECT id, run_at, kind, unread_by FROM jobs
             WHERE deaths > 0 AND {WAITS} AND deaths >= ?1 AND run_at <= ?2 ORDER BY run_at LIMIT ?3"
        ))?;
        let suspects = suspects.query_map(params![DEATHS_SUSPECT, tx.now_ms(), SUSPECTS], seen)?;
        let suspects: Vec<Seen> = suspects.collect::<Result<_, _>>()?;
        for job in suspects {
            let unread_by = job.unread_by.as_deref();
            if !self.can_run(&job.kind, unread_by) {
                self.leave(tx, (job.id, &job.kind, unread_by))?;
            }
        }
        Ok(())
    }
}

/// The next of a line that are due and are no suspects.
fn after(
    tx: &Transaction<'_>,
    (queue, priority): &Name,
    (run_at, id): (i64, i64),
    count: usize,
) -> rusqlite::Result<Vec<Seen>> {
    let mut all = Vec::new();
    // As two: SQLite would look through all that have the same time.
    for range in [
        "run_at = ?4 AND id > ?5",
        "run_at > ?4 AND run_at <= ?3 AND ?5 IS NOT NULL",
    ] {
        let mut next = tx.prepare_cached(&format!(
            "SELECT id, run_at, kind, unread_by FROM jobs
             WHERE {WAITS} AND queue = ?1 AND priority = ?2 AND run_at <= ?3 AND deaths < ?6 AND {range}
             ORDER BY run_at, id LIMIT ?7"
        ))?;
        let left = i64::try_from(count - all.len()).unwrap_or(i64::MAX);
        let values = params![
            queue,
            priority,
            tx.now_ms(),
            run_at,
            id,
            DEATHS_SUSPECT,
            left
        ];
        for job in next.query_map(values, seen)? {
            all.push(job?);
        }
    }
    Ok(all)
}

fn seen(row: &rusqlite::Row<'_>) -> rusqlite::Result<Seen> {
    Ok(Seen {
        id: row.get(0)?,
        run_at: row.get(1)?,
        kind: row.get(2)?,
        unread_by: row.get(3)?,
    })
}
