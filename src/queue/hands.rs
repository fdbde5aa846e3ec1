//! What a process has in hand: the claims that it runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use crate::queue::progress::Progress;

/// A claim that is run, for who has to break it off.
#[derive(Debug)]
pub(super) struct Grip {
    pub(super) claims: i64,
    /// The worker that runs it: one of this process.
    pub(super) owner: u64,
    /// The job is asked to end.
    pub(super) stop: CancellationToken,
    /// The job is broken off.
    pub(super) lost: CancellationToken,
    /// The job has ended, or is not run at all any more.
    pub(super) over: CancellationToken,
    /// The job has completed itself, in a transaction of its own.
    pub(super) is_finished: Arc<AtomicBool>,
    /// How far it is.
    pub(super) progress: Arc<Progress>,
    /// Whether a look has asked it to end, since it is to be cancelled.
    pub(super) was_asked: AtomicBool,
}

impl Grip {
    pub(super) fn new(claims: i64, owner: u64) -> Self {
        Self {
            claims,
            owner,
            stop: CancellationToken::new(),
            lost: CancellationToken::new(),
            over: CancellationToken::new(),
            is_finished: Arc::default(),
            progress: Arc::default(),
            was_asked: AtomicBool::new(false),
        }
    }

    /// Asks it to end, the first time; breaks it off, the second.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
        if self.was_asked.swap(true, Ordering::Relaxed) {
            self.lost.cancel();
        }
    }

    /// Whether its row in the table is to be of this claim still.
    pub(super) fn is_to_be_there(&self) -> bool {
        !self.is_finished.load(Ordering::Acquire)
    }

    /// Breaks it off at once.
    pub(super) fn break_off(&self) {
        self.stop.cancel();
        self.lost.cancel();
    }
}

/// The claims of all workers of a queue's handle, by job.
#[derive(Clone, Debug, Default)]
pub(super) struct Hands(Arc<Mutex<HashMap<i64, Arc<Grip>>>>);

impl Hands {
    /// Takes a claim in hand; gives the one before of the same job, if it is not recorded yet how that ended.
    pub(super) fn take(&self, job: i64, grip: Arc<Grip>) -> Option<Arc<Grip>> {
        self.grips().insert(job, grip)
    }

    /// Lets go of a claim; of no later one of the same job.
    pub(super) fn let_go(&self, job: i64, claims: i64) {
        let mut grips = self.grips();
        if grips.get(&job).is_some_and(|grip| grip.claims == claims) {
            grips.remove(&job);
        }
    }

    /// What a worker holds at this moment.
    pub(super) fn of(&self, owner: u64) -> Vec<(i64, Arc<Grip>)> {
        let grips = self.grips();
        let own = grips.iter().filter(|(_, grip)| grip.owner == owner);
        own.map(|(job, grip)| (*job, Arc::clone(grip))).collect()
    }

    /// Asks a job to end, if it is run here.
    pub(super) fn ask_to_end(&self, job: i64) {
        if let Some(grip) = self.grips().get(&job) {
            grip.stop.cancel();
        }
    }

    fn grips(&self) -> MutexGuard<'_, HashMap<i64, Arc<Grip>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
