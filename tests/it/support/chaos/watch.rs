//! An eye on the table while it is worked on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::chaos::LEASE;
use crate::support::chaos::nanos;
use crate::support::chaos::since_boot;
use crate::support::ledger::open;

const PAUSE: Duration = Duration::from_millis(100);

/// What a process that was killed ran is put back within so much, where another one lives all the time.
const RESCUE: Duration = LEASE.saturating_add(Duration::from_secs(7));

/// What may not be in the table at any moment.
const NEVER: [(&str, &str); 4] = [
    (
        "two jobs hold the unique key",
        "SELECT unique_key FROM jobs WHERE binds = 1 GROUP BY unique_key HAVING count(*) > 1",
    ),
    (
        "two jobs that have not ended have the unique key",
        "SELECT unique_key FROM jobs WHERE unique_scope = 0 AND state IN ('available', 'parked', 'executing', 'retryable')
         GROUP BY unique_key HAVING count(*) > 1",
    ),
    (
        "more jobs run than the limit allows",
        "SELECT limit_key FROM jobs WHERE state = 'executing' AND limit_key IS NOT NULL
         GROUP BY limit_key HAVING count(*) > min(limit_max)",
    ),
    (
        "blocked, and does not wait",
        "SELECT state || ' ' || blocked_by FROM jobs
         WHERE blocked_by IS NOT NULL AND state NOT IN ('available', 'retryable')",
    ),
];

/// Who lives, and who does not.
#[derive(Debug, Default)]
struct Known {
    /// Since when.
    alive: BTreeMap<u32, i64>,
    dead: BTreeMap<u32, i64>,
    /// When a process was stopped last; the end of time while one is.
    disturbed: i64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    pub(crate) problems: BTreeSet<String>,
    /// Of each process that died while it ran jobs: when the last of them was seen as its own, after its death.
    pub(crate) rescues: BTreeMap<u32, Duration>,
}

#[derive(Debug)]
pub(crate) struct Watch {
    known: Arc<Mutex<Known>>,
    thread: Option<(mpsc::Sender<()>, JoinHandle<Seen>)>,
}

impl Watch {
    pub(crate) fn new(database: &Path) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let (stop, stopped) = mpsc::channel();
        let watcher = Watcher {
            database: database.to_owned(),
            known: Arc::clone(&known),
            owners: BTreeMap::new(),
            seen: Seen::default(),
        };
        let thread = std::thread::spawn(move || watcher.run(&stopped));
        Self {
            known,
            thread: Some((stop, thread)),
        }
    }

    pub(crate) fn began(&self, pid: u32) {
        self.known.lock().unwrap().alive.insert(pid, since_boot());
    }

    pub(crate) fn ended(&self, pid: u32) {
        let mut known = self.known.lock().unwrap();
        known.alive.remove(&pid);
        known.dead.insert(pid, since_boot());
    }

    pub(crate) fn disturb(&self, is_disturbed: bool) {
        let until = if is_disturbed { i64::MAX } else { since_boot() };
        self.known.lock().unwrap().disturbed = until;
    }

    /// Ends it.
    pub(crate) fn seen(&mut self) -> Seen {
        let (stop, thread) = self.thread.take().unwrap();
        drop(stop);
        thread.join().unwrap()
    }
}

struct Watcher {
    database: PathBuf,
    known: Arc<Mutex<Known>>,
    /// Which process a worker is of.
    owners: BTreeMap<i64, u32>,
    seen: Seen,
}

impl Watcher {
    fn run(mut self, stopped: &mpsc::Receiver<()>) -> Seen {
        let mut conn = None;
        while stopped.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
            if conn.is_none() && self.database.exists() {
                let new = open(&self.database);
                let is_ready = new.prepare("SELECT binds FROM jobs").is_ok();
                conn = is_ready.then_some(new);
            }
            if let Some(conn) = &conn {
                self.look(conn).unwrap();
            }
        }
        self.seen
    }

    fn look(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        self.seen.looks += 1;
        for (what, sql) in NEVER {
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_map([], |row| row.get::<_, String>(0))?;
            for row in rows {
                self.seen.problems.insert(format!("{what} {}", row?));
            }
        }
        let mut workers = conn.prepare_cached("SELECT id, name FROM workers")?;
        let workers = workers.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        for worker in workers {
            let (id, name) = worker?;
            let pid = name.rsplit(' ').next().and_then(|pid| pid.parse().ok());
            self.owners.insert(id, pid.unwrap());
        }
        let mut executing = conn.prepare_cached(
            "SELECT DISTINCT worker FROM jobs WHERE state = 'executing' AND worker IS NOT NULL",
        )?;
        let executing = executing.query_map([], |row| row.get(0))?;
        let executing: Vec<i64> = executing.collect::<Result<_, _>>()?;
        for worker in executing {
            self.look_at(worker);
        }
        Ok(())
    }

    fn look_at(&mut self, worker: i64) {
        let known = self.known.lock().unwrap();
        let owner = self.owners.get(&worker);
        let Some((pid, died)) = owner.and_then(|pid| Some((*pid, *known.dead.get(pid)?))) else {
            return;
        };
        let now = since_boot();
        let took = Duration::from_nanos(u64::try_from(now - died).unwrap());
        self.seen.rescues.insert(pid, took);
        // Each needs a moment from its start to its first look.
        let start = nanos(Duration::from_secs(2));
        let is_late = known.alive.values().any(|spawned| {
            let since = died.max(spawned + start).max(known.disturbed);
            now.saturating_sub(since) > nanos(RESCUE)
        });
        if is_late {
            let problem =
                format!("what the dead process {pid} ran is not put back within {RESCUE:?}");
            self.seen.problems.insert(problem);
        }
    }
}
