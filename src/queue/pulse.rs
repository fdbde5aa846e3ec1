//! The heartbeat of a worker, and its eye on the others.
//!
//! It has a thread of its own, which a runtime that jobs keep busy cannot starve. While nothing runs, here or elsewhere,
//! it sleeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::database;
use crate::database::Database;
use crate::database::Transaction;
use crate::queue::Queue;
use crate::queue::hands::Grip;
use crate::queue::hands::Hands;
use crate::queue::store;
use crate::queue::store::finish::Rescued;
use crate::queue::store::limits;
use crate::queue::store::workers;
use crate::queue::store::workers::Held;
use crate::queue::store::workers::Other;
use crate::queue::wake::Wake;

/// So many looks in a lease, and so many without a change in a row are a death.
const LOOKS: u32 = 3;

/// What the worker and its pulse share.
#[derive(Debug)]
pub(super) struct Pulse {
    pub(super) database: Database,
    pub(super) wake: Arc<Wake>,
    pub(super) hands: Hands,
    pub(super) owner: u64,
    /// The worker as it is entered; 0 before.
    pub(super) worker: AtomicI64,
    pub(super) kinds: Arc<str>,
    pub(super) lease: Duration,
    /// Whether jobs are due that are left to others.
    pub(super) leaves: AtomicBool,
    /// Told when there is something to watch over.
    pub(super) active: Notify,
    /// When it was made, and when the last sign of life was given, in milliseconds since then.
    pub(super) since: Instant,
    pub(super) sign: AtomicU64,
}

/// How many workers this process has had.
static OWNERS: AtomicU64 = AtomicU64::new(1);

/// What one look has found.
struct Look {
    /// When it was, or a little before.
    at: Instant,
    is_known: bool,
    held: Vec<Held>,
    others: Vec<Other>,
    /// Whether others run jobs, which are to be watched over.
    others_run: bool,
    rescued: Rescued,
}

impl Pulse {
    pub(super) fn new(queue: &Queue, worker: i64, kinds: Arc<str>, lease: Duration) -> Self {
        Self {
            database: queue.database.clone(),
            wake: Arc::clone(&queue.wake),
            hands: queue.hands.clone(),
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            worker: AtomicI64::new(worker),
            kinds,
            lease,
            leaves: AtomicBool::new(false),
            active: Notify::new(),
            since: Instant::now(),
            sign: AtomicU64::new(0),
        }
    }

    /// Beats on a thread of its own until `stop`.
    pub(super) fn start(
        self: &Arc<Self>,
        stop: CancellationToken,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let pulse = Arc::clone(self);
        let thread = std::thread::Builder::new().name("houseboat-beat".to_owned());
        thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(stop.run_until_cancelled(pulse.run()));
                }
                Err(error) => tracing::error!(%error, "no heartbeat: other processes may take this one for dead"),
            }
        })
    }

    /// Says that others have seen this worker alive, at this moment or later.
    pub(super) fn gave_sign(&self, at: Instant) {
        let at = at.saturating_duration_since(self.since).as_millis();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        self.sign.fetch_max(at, Ordering::AcqRel);
    }

    /// Whether nobody can have taken what was claimed by this entry: since the last sign of life it is not long enough.
    ///
    /// Without a look at the database. The clock goes on while the process is stopped.
    pub(super) fn holds(&self, worker: i64) -> bool {
        let sign = Duration::from_millis(self.sign.load(Ordering::Acquire));
        let silent = self.since.elapsed().saturating_sub(sign);
        self.worker.load(Ordering::Acquire) == worker && silent < self.patience()
    }

    /// How long it is from one look to the next.
    pub(super) fn pause(&self) -> Duration {
        self.lease / LOOKS
    }

    /// For how long others certainly wait for a sign of life, with a third of a lease to spare.
    fn patience(&self) -> Duration {
        self.pause() * (LOOKS - 1)
    }

    async fn run(&self) {
        let mut seen = HashMap::new();
        let mut beaten = Instant::now();
        let (mut has_others, mut others_run) = (false, false);
        let mut did_leave = false;
        loop {
            // Where nothing runs there is nothing to lose.
            let leaves = self.leaves.load(Ordering::Acquire);
            if leaves != did_leave {
                // What was seen of one that was not called says nothing.
                seen.clear();
                did_leave = leaves;
            }
            if leaves {
                // Those who live look for themselves, and beat; then this one learns whether the jobs are still there.
                self.wake.wake();
            }
            if leaves || others_run || !self.hands.of(self.owner).is_empty() {
                tokio::time::sleep(self.pause()).await;
            } else {
                self.active.notified().await;
                beaten = Instant::now();
            }
            let held = self.hands.of(self.owner);
            let look = tokio::time::timeout(self.pause(), self.look(held.clone())).await;
            match look {
                Ok(Ok(look)) => {
                    beaten = look.at;
                    has_others = !look.others.is_empty();
                    others_run = look.others_run;
                    self.wake.has_others(has_others);
                    // Before anybody here can claim it again.
                    self.heed(&look, &held);
                    tell_of(look.rescued);
                    self.bury(&look.others, &mut seen, leaves).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "no heartbeat"),
                Err(_) => tracing::debug!("the database does not take a heartbeat"),
            }
            // Before the others may take them over.
            if has_others && beaten.elapsed() > self.patience() {
                tracing::warn!(
                    jobs = held.len(),
                    "no sign of life could be given: the jobs are broken off"
                );
                for (_, grip) in &held {
                    grip.break_off();
                }
            }
        }
    }

    async fn look(&self, running: Vec<(i64, Arc<Grip>)>) -> database::Result<Look> {
        let worker = self.worker.load(Ordering::Acquire);
        let (kinds, wake) = (Arc::clone(&self.kinds), Arc::clone(&self.wake));
        let look = self.database.write(move |tx| {
            // Not when the answer is there: in between this process may be stopped.
            let at = Instant::now();
            let is_known = workers::beat(tx, worker)?;
            write_down(tx, running)?;
            let let_go = limits::sweep(tx)?;
            let rescued = workers::orphans(tx)?;
            let unparked = workers::unpark(tx, worker, &kinds)?;
            if unparked + let_go > 0 || rescued != Rescued::default() {
                // By the commit, which may come when nobody waits for the answer any more.
                tx.after_commit(move || wake.wake());
            }
            Ok(Look {
                at,
                is_known,
                held: workers::held(tx, worker)?,
                others: workers::others(tx, worker)?,
                others_run: workers::others_run(tx, worker)?,
                rescued,
            })
        });
        let look = look.await?;
        if look.is_known {
            self.gave_sign(look.at);
        }
        Ok(look)
    }

    /// Breaks off what is not ours any more, and asks those to end that are to be cancelled.
    fn heed(&self, look: &Look, before: &[(i64, Arc<Grip>)]) {
        // Who is not in the table any more holds nothing: what it ran is put back in the same transaction.
        let own = look.held.iter().filter(|_| look.is_known);
        let held: HashMap<i64, &Held> = own.map(|held| (held.id, held)).collect();
        for (job, grip) in before {
            let row = held.get(job).filter(|row| row.claims == grip.claims);
            match row {
                Some(row) if row.is_to_be_cancelled => grip.cancel(),
                None if grip.is_to_be_there() => grip.break_off(),
                Some(_) | None => {}
            }
        }
        if !look.is_known {
            // The next round enters the worker anew.
            self.wake.wake();
        }
    }

    /// Takes for dead whoever was looked at often enough and gave no sign.
    ///
    /// Those for whom jobs are left are called, and so beat though they run nothing.
    async fn bury(&self, others: &[Other], seen: &mut HashMap<i64, (i64, u32)>, is_called: bool) {
        seen.retain(|id, _| others.iter().any(|other| other.id == *id));
        for other in others {
            let known = seen.insert(other.id, (other.beat, 0));
            let (Some((beat, before)), Some((_, looks))) = (known, seen.get_mut(&other.id)) else {
                continue;
            };
            if beat != other.beat {
                continue;
            }
            *looks = before + 1;
            if *looks < LOOKS {
                continue;
            }
            *looks = 0;
            let other = *other;
            let buried = self
                .database
                .write(move |tx| Ok(workers::bury(tx, other, is_called)?));
            match buried.await {
                Ok(Some(rescued)) => {
                    tracing::warn!(
                        worker = other.id,
                        "a process that ran jobs gives no sign of life"
                    );
                    tell_of(rescued);
                    self.wake.wake();
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the jobs of a dead process are not put back yet");
                }
            }
        }
    }
}

/// Writes what the jobs have said last of how far they are, and nobody has written yet.
fn write_down(tx: &Transaction<'_>, running: Vec<(i64, Arc<Grip>)>) -> rusqlite::Result<()> {
    for (job, grip) in running {
        if let Some(word) = grip.progress.last() {
            store::save_progress(tx, (job, grip.claims), &word)?;
            tx.after_commit(move || grip.progress.is_written(&word));
        }
    }
    Ok(())
}

pub(super) fn tell_of(rescued: Rescued) {
    if rescued != Rescued::default() {
        tracing::warn!(
            available = rescued.available,
            discarded = rescued.discarded,
            "jobs of a process that died are put back"
        );
    }
}
