//! What transactions do to the table: the statements of `queue/store`.

use crate::queue_model::orders::Flaw;
use crate::queue_model::orders::Queue;
use crate::queue_model::world::ATTEMPTS_MAX;
use crate::queue_model::world::Blocked;
use crate::queue_model::world::DEATHS_MAX;
use crate::queue_model::world::DEATHS_SUSPECT;
use crate::queue_model::world::End;
use crate::queue_model::world::Entry;
use crate::queue_model::world::Hand;
use crate::queue_model::world::JOBS;
use crate::queue_model::world::PROCESSES;
use crate::queue_model::world::Row;
use crate::queue_model::world::State;
use crate::queue_model::world::Table;
use crate::queue_model::world::Unique;
use crate::queue_model::world::World;

/// Who claims.
#[derive(Clone, Copy)]
pub(super) struct Claimer {
    pub(super) id: u8,
    /// How many it may claim.
    pub(super) free: usize,
    pub(super) runs: usize,
    /// Whether a suspect that is due has waited so long that nothing is begun before it.
    pub(super) is_patience_over: bool,
}

/// What a round has claimed: the jobs, and whether that is a suspect.
pub(super) type Claim = (Vec<usize>, bool);

impl Table {
    pub(super) fn has(&self, id: u8) -> bool {
        let mut ids = self.workers.iter().flatten().map(|entry| entry.id);
        ids.any(|it| it == id)
    }

    pub(super) fn entry(&mut self, id: u8) -> Option<&mut Entry> {
        self.workers
            .iter_mut()
            .flatten()
            .find(|entry| entry.id == id)
    }

    pub(super) fn leave(&mut self, id: u8) {
        for entry in &mut self.workers {
            entry.take_if(|entry| entry.id == id);
        }
    }

    pub(super) fn runs_any(&self, id: u8) -> bool {
        let is_its = |row: &Row| row.state == State::Executing && row.worker == id;
        self.rows.iter().any(is_its)
    }
}

impl Queue {
    /// Enters a worker, and lets go on what waits for its kinds.
    pub(super) fn enter(&self, world: &mut World, process: usize) {
        let ids = world.table.workers.iter().flatten().map(|entry| entry.id);
        let rows = world.table.rows.iter().map(|row| row.worker);
        // No id is given twice.
        let known = world.processes.iter().map(|process| process.id);
        let id = ids.chain(rows).chain(known).max().unwrap_or(0) + 1;
        let free = world.table.workers.iter_mut().find(|it| it.is_none());
        *free.expect("no room for another worker") = Some(Entry {
            id,
            process,
            seen: [0; PROCESSES],
            unread: [false; JOBS],
        });
        world.processes[process].id = id;
        self.unpark(&mut world.table, id);
    }

    /// Lets parked jobs go on that this worker may be able to run.
    pub(super) fn unpark(&self, table: &mut Table, id: u8) {
        for job in 0..JOBS {
            if table.rows[job].state == State::Parked && self.can(table, id, job) {
                table.rows[job].waits_again();
            }
        }
    }

    /// Whether a worker knows the kind, and has not found the arguments to be unreadable.
    fn can(&self, table: &Table, id: u8, job: usize) -> bool {
        let mut entries = table.workers.iter().flatten();
        let entry = entries.find(|entry| entry.id == id);
        entry.is_some_and(|entry| self.plans[job].known_by[entry.process] && !entry.unread[job])
    }

    /// Whether any worker does that is entered.
    fn can_any(&self, table: &Table, job: usize) -> bool {
        let mut entries = table.workers.iter().flatten();
        entries.any(|entry| self.can(table, entry.id, job))
    }

    /// Whether a worker leaves jobs to others.
    pub(super) fn leaves(&self, table: &Table, id: u8) -> bool {
        (0..JOBS).any(|job| self.waits(table, job) && !self.can(table, id, job))
    }

    /// Stores a job, unless one waits that holds its key.
    pub(super) fn enqueue(&self, world: &mut World, job: usize) {
        let unique = self.plans[job].unique;
        let rows = &mut world.table.rows;
        if unique != Unique::No {
            if rows.iter().any(|row| row.binds) {
                return;
            }
            let is_another = |row: &Row| row.waits() && !row.has_started;
            let others = rows.iter().enumerate();
            if others
                .filter(|(other, _)| self.plans[*other].unique != Unique::No)
                .any(|(_, row)| is_another(row))
            {
                world.wrong = Some("two of a key wait");
            }
            rows[job].binds = true;
        }
        rows[job].state = State::Available;
    }

    /// Lets those go on that wait for the limit, as many as are free.
    pub(super) fn freed(&self, table: &mut Table, at_most: u8) {
        let running = self.running(table);
        let mut free = at_most.saturating_sub(running);
        for (job, row) in table.rows.iter_mut().enumerate() {
            let may_run = self.plans[job].at_most > running;
            if free > 0 && row.blocked == Some(Blocked::Limit) && may_run {
                row.blocked = None;
                free -= 1;
            }
        }
    }

    fn freed_by(&self, table: &mut Table, job: usize) {
        if self.plans[job].at_most > 0 {
            self.freed(table, self.plans[job].at_most);
        }
    }

    /// Lets one go on for each free place, whoever was let go on before.
    pub(super) fn sweep(&self, table: &mut Table) {
        let blocked = (0..JOBS).filter(|job| table.rows[*job].blocked == Some(Blocked::Limit));
        if let Some(at_most) = blocked.map(|job| self.plans[job].at_most).max() {
            self.freed(table, at_most);
        }
    }

    /// Those of the limited key that run, as the table has it.
    fn running(&self, table: &Table) -> u8 {
        let limited = (0..JOBS).filter(|job| self.plans[*job].at_most > 0);
        let running = limited.filter(|job| table.rows[*job].state == State::Executing);
        u8::try_from(running.count()).unwrap()
    }

    /// Records how an attempt of a worker ended, if the claim is still there.
    pub(super) fn finish(
        &self,
        world: &mut World,
        job: usize,
        hand: Hand,
        (end, worker): (End, u8),
    ) {
        let row = &mut world.table.rows[job];
        let is_ours = match self.flaw {
            Flaw::NoToken => true,
            Flaw::ByAttempt => row.attempt == hand.attempt,
            _ => !hand.is_old,
        };
        if row.state != State::Executing || !is_ours {
            return;
        }
        if hand.is_old {
            world.wrong = Some("an old claim ends what another runs");
        }
        row.deaths = 0;
        row.worker = 0;
        match end {
            End::Well => row.state = State::Completed,
            _ if row.is_to_be_cancelled => row.state = State::Cancelled,
            End::Fails if row.attempt >= ATTEMPTS_MAX => row.state = State::Discarded,
            End::Fails => {
                row.state = State::Retryable;
                row.is_due = false;
            }
            End::Snoozes | End::PutBack => {
                row.state = State::Available;
                row.attempt -= 1;
                row.is_due = end == End::PutBack;
            }
            End::Unread => {
                row.attempt -= 1;
                row.state = State::Parked;
                self.leave(&mut world.table, job, worker);
            }
        }
        self.left(world, job);
    }

    /// Leaves a job that one could not read to another, if there is one that may.
    fn leave(&self, table: &mut Table, job: usize, worker: u8) {
        if let Some(entry) = table.entry(worker) {
            entry.unread[job] = self.flaw != Flaw::ForgetsUnread;
        }
        if self.can_any(table, job) && self.flaw != Flaw::ParksBlindly {
            table.rows[job].waits_again();
        }
    }

    /// What follows when a job runs no more, or waits no more.
    pub(super) fn left(&self, world: &mut World, job: usize) {
        let row = &mut world.table.rows[job];
        row.binds &= !row.is_over();
        if row.is_over() {
            row.is_to_be_cancelled = false;
            row.blocked = None;
        }
        if self.flaw == Flaw::Rebinds
            && row.waits()
            && self.plans[job].unique != Unique::No
            && !row.binds
        {
            row.binds = true;
            if world.table.rows.iter().filter(|row| row.binds).count() > 1 {
                world.wrong = Some("a transaction fails, and will each time");
            }
        }
        self.freed_by(&mut world.table, job);
    }

    /// Puts back what a worker was running that is dead.
    pub(super) fn rescue(&self, world: &mut World, worker: Option<u8>) {
        for job in 0..JOBS {
            let row = world.table.rows[job];
            let is_its = worker.is_none_or(|id| row.worker == id);
            if row.state != State::Executing || !is_its {
                continue;
            }
            if world.is_held(job) {
                world.was_buried_alive = true;
                if worker.is_none() {
                    world.wrong = Some("one that thinks it is alone rescues what another runs");
                }
            }
            let beside = |(other, it): (usize, &Row)| {
                other != job && it.state == State::Executing && it.worker == row.worker
            };
            let beside = world.table.rows.iter().enumerate().any(beside);
            let row = &mut world.table.rows[job];
            row.deaths += 1;
            row.worker = 0;
            row.is_due = true;
            if row.is_to_be_cancelled {
                row.state = State::Cancelled;
            } else if row.deaths >= DEATHS_MAX {
                row.state = State::Discarded;
                if beside {
                    world.wrong = Some("a job is set aside that did not run alone");
                }
            } else {
                row.state = State::Available;
                row.attempt -= 1;
            }
            self.left(world, job);
        }
    }

    /// Puts back what is this worker's, and not in its hands: the answer to its claim was lost.
    pub(super) fn put_back_unknown(&self, world: &mut World, process: usize) {
        let one = world.processes[process];
        for job in 0..JOBS {
            let row = &mut world.table.rows[job];
            let hand = one.hands[job];
            let is_known = hand.runs && !hand.is_old;
            if row.state != State::Executing || row.worker != one.id || is_known {
                continue;
            }
            row.worker = 0;
            row.attempt -= 1;
            row.state = if row.is_to_be_cancelled {
                State::Cancelled
            } else {
                State::Available
            };
            self.left(world, job);
        }
    }

    /// Whether a job waits that this process may claim, as far as the job and its queue say.
    fn waits(&self, table: &Table, job: usize) -> bool {
        let row = &table.rows[job];
        let is_paused = table.is_paused && self.plans[job].is_aside;
        row.waits() && row.is_due && row.blocked.is_none() && !is_paused
    }

    /// Claims what is due: jobs that nothing is known against, or one suspect, alone.
    pub(super) fn claim(&self, world: &mut World, by: Claimer) -> Claim {
        let table = &mut world.table;
        if table.starts == 0
            && let Some(row) = table
                .rows
                .iter_mut()
                .find(|row| row.blocked == Some(Blocked::Rate))
        {
            row.blocked = None;
        }
        for job in 0..JOBS {
            if self.waits(table, job) && !self.can_any(table, job) {
                table.rows[job].state = State::Parked;
            }
        }
        let is_suspect = |table: &Table, job: usize| table.rows[job].deaths >= DEATHS_SUSPECT;
        let mut suspects = (0..JOBS).filter(|job| {
            let seems_to_wait = self.flaw == Flaw::BlindSuspect && table.rows[*job].waits();
            is_suspect(table, *job)
                && self.can(table, by.id, *job)
                && (self.waits(table, *job) || seems_to_wait)
        });
        if let Some(suspect) = suspects.next() {
            if by.runs == 0 {
                if self.waits(table, suspect) && self.may_run(table, suspect, by) {
                    return (vec![suspect], true);
                }
                return (Vec::new(), false);
            }
            if by.is_patience_over {
                return (Vec::new(), false);
            }
        }
        let mut claimed = Vec::new();
        for job in 0..JOBS {
            if claimed.len() == by.free || !self.waits(table, job) || is_suspect(table, job) {
                continue;
            }
            if self.can(table, by.id, job) && self.may_run(table, job, by) {
                claimed.push(job);
            }
        }
        (claimed, false)
    }

    /// Takes a job, unless a limit keeps it back.
    fn may_run(&self, table: &mut Table, job: usize, by: Claimer) -> bool {
        let plan = self.plans[job];
        let is_full = plan.at_most > 0 && self.running(table) >= plan.at_most;
        let is_too_soon = plan.is_rated && table.starts > 0;
        let row = &mut table.rows[job];
        if self.flaw == Flaw::BindsNotWhenTaken && plan.unique == Unique::UntilStarted {
            row.binds = false;
        }
        if is_full {
            row.blocked = Some(Blocked::Limit);
            return false;
        }
        if is_too_soon {
            row.blocked = Some(Blocked::Rate);
            return false;
        }
        row.state = State::Executing;
        row.worker = by.id;
        row.attempt += 1;
        row.is_to_be_cancelled = false;
        row.has_started = true;
        if plan.unique == Unique::UntilStarted {
            row.binds = false;
        }
        table.starts += u8::from(plan.is_rated);
        true
    }

    /// Operator: ends a job that waits, or has it end when its attempt does.
    pub(super) fn cancel(&self, world: &mut World, job: usize) {
        let row = &mut world.table.rows[job];
        if row.state == State::Executing && self.flaw != Flaw::CancelsAtOnce {
            row.is_to_be_cancelled = true;
            return;
        }
        row.state = State::Cancelled;
        row.worker = 0;
        self.left(world, job);
    }

    /// Operator: gives a job that ended, or waits, another start; not if its key is another's by now.
    pub(super) fn retry(&self, world: &mut World, job: usize) {
        let is_bound = world.table.rows.iter().any(|row| row.binds);
        let is_unique = self.plans[job].unique != Unique::No;
        if is_unique && !world.table.rows[job].binds && is_bound {
            return;
        }
        for entry in world.table.workers.iter_mut().flatten() {
            entry.unread[job] = false;
        }
        let row = &mut world.table.rows[job];
        *row = Row {
            state: State::Available,
            worker: 0,
            attempt: 0,
            deaths: 0,
            is_due: true,
            binds: is_unique,
            blocked: None,
            is_to_be_cancelled: false,
            has_started: false,
            effects: 0,
        };
    }
}
