//! What may happen next: the steps of processes, of operators and of time.

use crate::queue_model::world::End;
use crate::queue_model::world::Hand;
use crate::queue_model::world::JOBS;
use crate::queue_model::world::Lock;
use crate::queue_model::world::PROCESSES;
use crate::queue_model::world::Phase;
use crate::queue_model::world::Plan;
use crate::queue_model::world::Process;
use crate::queue_model::world::State;
use crate::queue_model::world::Unique;
use crate::queue_model::world::World;
use crate::support::search::Model;
use crate::support::search::Step;

/// What is done wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// An end is recorded for whoever runs the job.
    NoToken,
    /// The number of the attempt is the token, which is the same again after a rescue.
    ByAttempt,
    /// One that was taken for dead goes on with its old id, and only jobs of workers in the table are rescued.
    NoEntry,
    /// A claim whose answer was lost is left as it is.
    KeepsUnknown,
    /// One that is alone rescues after it has let go of the lock.
    LateRescue,
    /// An operator's cancel ends a job that still runs.
    CancelsAtOnce,
    /// What a limit keeps back is let go on only when one of its key ends.
    NoSweep,
    /// A suspect counts as due though its queue is paused.
    BlindSuspect,
    /// Jobs that one could not read wait for the next start.
    ParksBlindly,
    /// One that could not read a job tries again.
    ForgetsUnread,
    /// Who runs nothing is never taken for dead.
    NoCalls,
    /// What is put back gets its key again.
    Rebinds,
    /// A key that binds until the start is free once the job is looked at.
    BindsNotWhenTaken,
}

/// What there is to do, and what may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub(super) plans: &'static [Plan; JOBS],
    pub(super) jobs: usize,
    pub(super) flaw: Flaw,
    /// Jobs that one process runs at a time.
    pub(super) hands: usize,
    pub(super) kills: u8,
    /// How often a process is told to stop.
    pub(super) signals: u8,
    /// Cancel, retry, pause and resume.
    pub(super) operations: u8,
    /// Rounds that get no answer, though they are committed.
    pub(super) losses: u8,
    /// Whether processes run from the first, and start at once; else each step of their start is one.
    pub(super) is_begun: bool,
    pub(super) processes: usize,
    /// Whether they look at each other's beats.
    pub(super) looks: bool,
}

impl Model for Queue {
    type State = World;

    /// Jobs wait for two processes; those of which there may be one at a time come later.
    fn start(&self) -> World {
        let mut world = World::new();
        if self.is_begun {
            for index in 0..self.processes {
                self.start_at_once(&mut world, index);
            }
            for job in 0..self.jobs {
                if self.plans[job].unique == Unique::No {
                    self.enqueue(&mut world, job);
                }
            }
        }
        world.tidy();
        world
    }

    fn steps(&self, world: &World, next: &mut Vec<(Step, World)>) {
        for index in 0..self.processes {
            let mut can = |name, change: &dyn Fn(&mut World)| {
                let mut after = world.clone();
                change(&mut after);
                after.tidy();
                if after != *world {
                    next.push(((name, index), after));
                }
            };
            self.life(world, index, &mut can);
            self.rounds(world, index, &mut can);
            self.work(world, index, &mut can);
        }
        for job in 0..self.jobs {
            let mut can = |name, change: &dyn Fn(&mut World)| {
                let mut after = world.clone();
                change(&mut after);
                after.tidy();
                if after != *world {
                    next.push(((name, job), after));
                }
            };
            self.outside(world, job, &mut can);
        }
    }

    fn wrong(&self, world: &World) -> Option<&'static str> {
        let rows = &world.table.rows;
        let limited = |job: usize| self.plans[job].at_most > 0;
        let at_most = (0..self.jobs).map(|job| self.plans[job].at_most).max();
        let at_most = usize::from(at_most.unwrap_or(0));
        let executing =
            (0..JOBS).filter(|job| limited(*job) && rows[*job].state == State::Executing);
        if executing.count() > at_most {
            return Some("more of a key are in the table as running than may");
        }
        if rows.iter().any(|row| row.effects > 1) {
            return Some("an effect is there twice, though it is one commit with the end");
        }
        if rows.iter().any(|row| row.blocked.is_some() && !row.waits()) {
            return Some("a limit keeps back what does not wait");
        }
        if !world.was_buried_alive {
            if world.running(limited) > at_most {
                return Some("more of a key run than may");
            }
            if (0..JOBS).any(|job| world.running(|it| it == job) > 1) {
                return Some("a job runs twice at once");
            }
        }
        world.wrong
    }

    fn calm(&self, world: &World) -> Option<World> {
        if (0..self.jobs).all(|job| self.is_well(world, job)) {
            return None;
        }
        let calm = Self {
            kills: 0,
            signals: 0,
            operations: 0,
            losses: 0,
            ..*self
        };
        let is_dead = |process: &Process| process.phase == Phase::Off;
        let all_dead = world.processes.iter().all(is_dead);
        let mut steps = Vec::new();
        calm.steps(world, &mut steps);
        let rank = |name: &str| match name {
            "is enqueued" | "fails" | "snoozes" | "has a round" => None,
            "starts" => all_dead.then_some(8),
            "finishes" | "ends well" | "cannot read" => Some(1),
            "has a round, patience is over" => Some(2),
            "beats" => Some(3),
            "looks at others" => Some(4),
            "sweeps" => Some(5),
            "is due" | "a start is long ago" => Some(6),
            _ => Some(0),
        };
        let ranked = steps
            .into_iter()
            .filter_map(|((name, index), world)| Some((rank(name)?, index, world)));
        // Of two that race, the first one may win each time.
        let next = ranked.min_by_key(|(rank, index, _)| (*rank, *index));
        let next = next.map(|(_, _, world)| world);
        // With nothing that could be done, this state itself is the one without an end.
        Some(next.unwrap_or_else(|| world.clone()))
    }
}

pub(super) type Can<'a> = &'a mut dyn FnMut(&'static str, &dyn Fn(&mut World));

impl Queue {
    /// Whether a job is at its end, or rightly waits.
    fn is_well(&self, world: &World, job: usize) -> bool {
        let (plan, row) = (&self.plans[job], &world.table.rows[job]);
        let is_paused = plan.is_aside && world.table.is_paused && row.state != State::Executing;
        if row.state == State::Absent || row.is_over() || is_paused {
            return true;
        }
        if world.processes.iter().all(|one| one.phase == Phase::Off) {
            return false;
        }
        // Nobody lives who can run it, and so it shows.
        let can = |(index, one): (usize, &Process)| {
            one.phase != Phase::Off && plan.known_by[index] && plan.read_by[index]
        };
        row.state == State::Parked && !world.processes.iter().enumerate().any(can)
    }

    /// A process' way to the table, and its end.
    fn life(&self, world: &World, index: usize, can: Can<'_>) {
        let one = &world.processes[index];
        let others = || (0..PROCESSES).filter(|other| *other != index);
        let other_has = |lock| others().any(|other| world.processes[other].lock == lock);
        match one.phase {
            Phase::Off if self.is_begun => can("starts", &|world| {
                self.start_at_once(world, index);
            }),
            Phase::Off if !other_has(Lock::Exclusive) => can("starts", &|world| {
                let is_alone = !other_has(Lock::Shared);
                let one = &mut world.processes[index];
                (one.phase, one.lock) = if is_alone {
                    (Phase::Alone, Lock::Exclusive)
                } else {
                    (Phase::Locked, Lock::Shared)
                };
                one.is_to_rescue = is_alone;
            }),
            Phase::Alone => can("rescues, alone", &|world| {
                if self.flaw != Flaw::LateRescue {
                    self.rescue_all(world, index);
                }
                let one = &mut world.processes[index];
                (one.phase, one.lock) = (Phase::Turning, Lock::None);
            }),
            Phase::Turning if !other_has(Lock::Exclusive) => can("shares the lock", &|world| {
                let one = &mut world.processes[index];
                (one.phase, one.lock) = (Phase::Locked, Lock::Shared);
            }),
            Phase::Locked => can("enters", &|world| {
                if world.processes[index].is_to_rescue {
                    self.rescue_all(world, index);
                }
                self.enter(world, index);
                world.processes[index].phase = Phase::Up;
            }),
            Phase::Up if world.signals < self.signals => can("is signalled", &|world| {
                world.signals += 1;
                world.processes[index].phase = Phase::Stopping;
            }),
            Phase::Stopping => can("puts back, and leaves", &|world| self.end(world, index)),
            _ => {}
        }
        if one.phase != Phase::Off && world.kills < self.kills {
            can("is killed", &|world| {
                world.kills += 1;
                world.processes[index] = Process::OFF;
                world.forget(index);
            });
        }
    }

    /// A start that no other comes in between of.
    fn start_at_once(&self, world: &mut World, index: usize) {
        let is_alone = world.processes.iter().all(|it| it.lock == Lock::None);
        if is_alone {
            self.rescue_all(world, index);
        }
        self.enter(world, index);
        let one = &mut world.processes[index];
        (one.phase, one.lock) = (Phase::Up, Lock::Shared);
    }

    fn rescue_all(&self, world: &mut World, index: usize) {
        world.table.workers = Default::default();
        self.rescue(world, None);
        world.processes[index].is_to_rescue = false;
    }

    /// The last transaction of one that was told to stop, and its end.
    fn end(&self, world: &mut World, index: usize) {
        let one = world.processes[index];
        for job in 0..JOBS {
            if one.hands[job].runs {
                self.finish(world, job, one.hands[job], (End::PutBack, one.id));
                world.processes[index].hands[job] = Hand::EMPTY;
            }
        }
        self.put_back_unknown(world, index);
        world.table.leave(one.id);
        world.processes[index] = Process::OFF;
        world.forget(index);
    }

    /// What a process does with its jobs, and records.
    fn work(&self, world: &World, index: usize, can: Can<'_>) {
        for job in 0..JOBS {
            let plan = &self.plans[job];
            let (hand, id) = (world.processes[index].hands[job], world.processes[index].id);
            if world.processes[index].before[job].runs {
                can("ends well, late", &|world| {
                    let hand =
                        std::mem::replace(&mut world.processes[index].before[job], Hand::EMPTY);
                    self.finish(world, job, hand, (End::Well, id));
                });
            }
            if !hand.runs {
                continue;
            }
            let mut ends = |name, end| {
                can(name, &|world| {
                    world.processes[index].hands[job] = Hand::EMPTY;
                    self.finish(world, job, hand, (end, id));
                });
            };
            if !plan.read_by[index] {
                ends("cannot read", End::Unread);
                continue;
            }
            if hand.is_done || !plan.finishes {
                ends("ends well", End::Well);
            }
            if plan.fails {
                ends("fails", End::Fails);
            }
            if plan.snoozes {
                ends("snoozes", End::Snoozes);
            }
            if plan.finishes && !hand.is_done {
                can("finishes", &|world| self.finish_itself(world, index, job));
            }
        }
    }

    /// The job's own transaction: its effect and its end, or neither.
    fn finish_itself(&self, world: &mut World, index: usize, job: usize) {
        let hand = world.processes[index].hands[job];
        let is_ours = !hand.is_old || self.flaw == Flaw::NoToken;
        if world.table.rows[job].state == State::Executing && is_ours {
            self.finish(world, job, hand, (End::Well, 0));
            world.table.rows[job].effects += 1;
        }
        world.processes[index].hands[job].is_done = true;
    }

    /// Requests, operators, time.
    fn outside(&self, world: &World, job: usize, can: Can<'_>) {
        let row = &world.table.rows[job];
        if row.state == State::Absent {
            can("is enqueued", &|world| self.enqueue(world, job));
            return;
        }
        if row.waits() && !row.is_due {
            can("is due", &|world| world.table.rows[job].is_due = true);
        }
        if job == 0 && world.table.starts > 0 {
            can("a start is long ago", &|world| world.table.starts -= 1);
        }
        if world.operations >= self.operations {
            return;
        }
        if !row.is_over() {
            can("is cancelled", &|world| {
                world.operations += 1;
                self.cancel(world, job);
            });
        }
        if row.state != State::Executing {
            can("is retried by hand", &|world| {
                world.operations += 1;
                self.retry(world, job);
            });
        }
        if self.plans[job].is_aside {
            can("its queue is paused or resumed", &|world| {
                world.operations += 1;
                world.table.is_paused = !world.table.is_paused;
            });
        }
    }
}

impl World {
    /// What a process has seen of the others goes with it.
    fn forget(&mut self, index: usize) {
        for entry in self.table.workers.iter_mut().flatten() {
            entry.seen[index] = 0;
        }
    }
}
