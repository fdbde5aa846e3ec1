//! One transaction of a worker: it says that it lives, records what ended, and claims what is due.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::database;
use crate::database::Transaction;
use crate::queue::passed::LOOKS;
use crate::queue::passed::Passed;
use crate::queue::settings::QueueSettings;
use crate::queue::shares::Due;
use crate::queue::shares::Shares;
use crate::queue::store::claim;
use crate::queue::store::claim::Claimed;
use crate::queue::store::claim::Claimer;
use crate::queue::store::finish;
use crate::queue::store::finish::End;
use crate::queue::store::limits;
use crate::queue::store::set_back;
use crate::queue::store::workers;

/// A suspect waits so long for a moment when nothing else runs; then nothing else is begun before it.
const SUSPECT_WAIT_MS: i64 = 60_000;

/// What a round is to do.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// The worker as it is entered; 0 before.
    pub(super) worker: i64,
    pub(super) name: Arc<str>,
    pub(super) kinds: Arc<[String]>,
    pub(super) kinds_json: Arc<str>,
    /// The queues that are worked on, and the same as JSON; all, if none are named.
    pub(super) only: Option<Arc<[String]>>,
    pub(super) only_json: Option<Arc<str>>,
    pub(super) queues: Arc<BTreeMap<String, QueueSettings>>,
    /// How many may run, and how many do, of each queue.
    pub(super) workers: usize,
    pub(super) running: HashMap<String, usize>,
    /// Whether what runs is a suspect, beside which nothing may run.
    pub(super) is_alone: bool,
    /// Whether others may run jobs that this worker cannot, and how far it has got past those.
    pub(super) is_mixed: bool,
    pub(super) passed: Passed,
    /// What each queue has had lately.
    pub(super) shares: Shares,
    /// When the last round was, in milliseconds since 1970; 0 before the first.
    pub(super) last: i64,
    pub(super) ended: Arc<Vec<(Claimed, End)>>,
    /// The claims that are known here, where the answer of a round may have been lost.
    pub(super) in_doubt: Option<Arc<HashSet<(i64, i64)>>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an answer of its own"
)]
pub(super) struct Outcome {
    pub(super) worker: i64,
    pub(super) jobs: Vec<Claimed>,
    /// Whether what was claimed is a suspect.
    pub(super) is_alone: bool,
    pub(super) is_mixed: bool,
    pub(super) passed: Passed,
    pub(super) has_others: bool,
    /// Whether jobs are due that are left to them.
    pub(super) leaves: bool,
    /// What each queue has had by now.
    pub(super) shares: Shares,
    /// When this was, and when the next one is due, in milliseconds since 1970.
    pub(super) now: i64,
    pub(super) due: Option<i64>,
}

impl Round {
    pub(super) fn run(&self, tx: &Transaction<'_>) -> database::Result<Outcome> {
        let mut outcome = Outcome {
            worker: self.worker,
            is_mixed: self.is_mixed,
            passed: self.passed.clone(),
            shares: self.shares.clone(),
            now: tx.now_ms(),
            ..Outcome::default()
        };
        // One that was taken for dead must not claim by a name that nobody watches any more.
        if !workers::beat(tx, self.worker)? {
            outcome.worker = workers::enter(tx, &self.name, &self.kinds_json)?;
            outcome.is_mixed = workers::is_mixed(tx, outcome.worker, &self.kinds_json)?;
        }
        for (job, end) in self.ended.iter() {
            if !finish::finish(tx, job, end)? {
                tracing::warn!(
                    job.id,
                    job.kind,
                    "its end does not count: it was not this worker's any more"
                );
            }
        }
        if let Some(known) = &self.in_doubt {
            finish::put_back_unknowns(tx, outcome.worker, known)?;
        }
        outcome.has_others = !workers::others(tx, outcome.worker)?.is_empty();
        outcome.is_mixed &= outcome.has_others;
        let rates = limits::open_rates(tx)?;
        let running: usize = self.running.values().sum();
        let free = self.workers.saturating_sub(running);
        if free == 0 || (self.is_alone && running > 0) {
            return Ok(outcome);
        }
        self.claim(tx, free, &mut outcome)?;
        if outcome.jobs.len() < free && !outcome.is_alone {
            outcome.due = outcome.due.into_iter().chain(rates).min();
        }
        Ok(outcome)
    }

    /// Claims what is due: jobs that nothing is known against, or one suspect, alone.
    fn claim(
        &self,
        tx: &Transaction<'_>,
        free: usize,
        outcome: &mut Outcome,
    ) -> database::Result<()> {
        let mut claimer = Claimer {
            worker: outcome.worker,
            kinds: &self.kinds,
            kinds_json: &self.kinds_json,
            is_mixed: outcome.is_mixed,
            passed: std::mem::take(&mut outcome.passed),
            looks: LOOKS,
            is_cut: false,
            leaves: false,
            peers: None,
            only_json: self.only_json.as_deref(),
        };
        claimer.passed.forget(tx.now_ms());
        self.claim_with(tx, &mut claimer, free, outcome)?;
        outcome.is_mixed |= claimer.leaves;
        outcome.leaves = claimer.leaves || !claimer.passed.is_empty();
        outcome.passed = claimer.passed;
        Ok(())
    }

    fn claim_with(
        &self,
        tx: &Transaction<'_>,
        claimer: &mut Claimer<'_>,
        free: usize,
        outcome: &mut Outcome,
    ) -> database::Result<()> {
        let now = tx.now_ms();
        let suspect = claimer.next_suspect(tx)?;
        if let Some(since) = suspect.filter(|due| *due <= now) {
            if free == self.workers {
                outcome.jobs.extend(claimer.claim_suspect(tx)?);
                outcome.is_alone = !outcome.jobs.is_empty();
                if outcome.is_alone {
                    return Ok(());
                }
            }
            // Where there is always something to run, its turn would never come.
            if now.saturating_sub(since) > SUSPECT_WAIT_MS && free < self.workers {
                return Ok(());
            }
        }
        let names = self.names(tx)?;
        let shares = self.shares(tx, (&names, free), outcome)?;
        for (name, share) in &shares {
            let jobs = claimer.claim(tx, name, *share)?;
            outcome.jobs.extend(jobs);
        }
        if shares.len() > 1 {
            self.take_what_is_left(tx, claimer, (&names, free), outcome)?;
        }
        if outcome.jobs.len() < free {
            claimer.park_suspects(tx)?;
        }
        if outcome.jobs.is_empty() && limits::sweep(tx)? + set_back::mend(tx, self.last)? > 0 {
            outcome.due = Some(now);
            return Ok(());
        }
        if outcome.jobs.len() < free {
            // What is due by now and was not taken is left to others.
            let after = if claimer.is_mixed { now } else { i64::MIN };
            for name in names {
                let has_room = self.room(&name, &outcome.jobs) > 0;
                let due = claim::next_due(tx, &name, after)?.filter(|_| has_room);
                outcome.due = outcome.due.into_iter().chain(due).min();
            }
            let again = claimer.is_cut.then_some(now);
            let again = again.or_else(|| claimer.passed.again_at());
            outcome.due = outcome.due.into_iter().chain(again).min();
            // One that is due waits for the end of what runs, and not for a time.
            let suspect = suspect.filter(|due| *due > now);
            outcome.due = outcome.due.into_iter().chain(suspect).min();
        }
        Ok(())
    }

    /// The queues that jobs wait in and that are worked on.
    fn names(&self, tx: &Transaction<'_>) -> database::Result<Vec<String>> {
        let mut names = claim::queues(tx)?;
        if let Some(only) = &self.only {
            names.retain(|name| only.contains(name));
        }
        Ok(names)
    }

    /// How many to claim of each queue that has something due, by its weight.
    fn shares(
        &self,
        tx: &Transaction<'_>,
        (names, free): (&[String], usize),
        outcome: &mut Outcome,
    ) -> database::Result<Vec<(String, usize)>> {
        if let [name] = names {
            return Ok(vec![(name.clone(), free.min(self.room(name, &[])))]);
        }
        let mut due = Vec::new();
        for name in names {
            if claim::next_due(tx, name, i64::MIN)?.is_some_and(|at| at <= tx.now_ms()) {
                due.push(name);
            }
        }
        let due = due.into_iter().map(|name| Due {
            name: name.clone(),
            weight: self.weight(name),
            running: self.running.get(name).copied().unwrap_or(0),
            room: self.room(name, &[]),
        });
        Ok(outcome.shares.divide(due.collect(), self.workers, free))
    }

    /// Gives to whoever can use it what is left when each queue has had its share.
    fn take_what_is_left(
        &self,
        tx: &Transaction<'_>,
        claimer: &mut Claimer<'_>,
        (names, free): (&[String], usize),
        outcome: &mut Outcome,
    ) -> database::Result<()> {
        for name in names {
            let left = free.saturating_sub(outcome.jobs.len());
            if left == 0 {
                break;
            }
            let room = self.room(name, &outcome.jobs).min(left);
            let jobs = claimer.claim(tx, name, room)?;
            outcome.jobs.extend(jobs);
        }
        Ok(())
    }

    fn weight(&self, name: &str) -> usize {
        let weight = self.queues.get(name).and_then(|queue| queue.weight);
        usize::try_from(weight.unwrap_or(1).max(1)).unwrap_or(1)
    }

    /// How many more of a queue may run, beside what does and what was claimed now.
    fn room(&self, name: &str, claimed: &[Claimed]) -> usize {
        let most = self.queues.get(name).and_then(|queue| queue.workers);
        let running = self.running.get(name).copied().unwrap_or(0);
        let claimed = claimed.iter().filter(|job| job.queue == name).count();
        most.unwrap_or(self.workers)
            .min(self.workers)
            .saturating_sub(running + claimed)
    }
}
