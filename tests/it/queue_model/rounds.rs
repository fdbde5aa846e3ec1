//! What a process asks the table for: rounds, beats, and looks at others.

use crate::queue_model::orders::Can;
use crate::queue_model::orders::Flaw;
use crate::queue_model::orders::Queue;
use crate::queue_model::table::Claimer;
use crate::queue_model::world::Hand;
use crate::queue_model::world::JOBS;
use crate::queue_model::world::PROCESSES;
use crate::queue_model::world::Phase;
use crate::queue_model::world::State;
use crate::queue_model::world::World;

/// A beat that was seen so often, unchanged, is a dead one's. Nobody has to beat in time here: once is as good.
const SEEN_DEAD: u8 = 2;

impl Queue {
    /// Rounds, beats, and looks at others: what a process asks the table for.
    pub(super) fn rounds(&self, world: &World, index: usize, can: Can<'_>) {
        let one = &world.processes[index];
        if one.phase == Phase::Up || one.phase == Phase::Stopping {
            can("beats", &|world| Self::beat(world, index));
        }
        if one.phase == Phase::Up {
            can("has a round", &|world| {
                self.round(world, index, false, true);
            });
            can("has a round, patience is over", &|world| {
                self.round(world, index, true, true);
            });
            if world.losses < self.losses {
                can("has a round, and no answer", &|world| {
                    world.losses += 1;
                    self.round(world, index, false, false);
                });
            }
            if self.looks {
                can("looks at others", &|world| self.look(world, index));
            }
            if self.flaw != Flaw::NoSweep {
                can("sweeps", &|world| self.sweep(&mut world.table));
            }
        }
    }

    /// A transaction that claims; what ended is recorded by itself here, which it might be.
    fn round(&self, world: &mut World, index: usize, is_patience_over: bool, is_answered: bool) {
        let before = world.processes[index];
        if !world.table.has(before.id) && self.flaw != Flaw::NoEntry {
            self.enter(world, index);
        }
        if before.has_failed && self.flaw != Flaw::KeepsUnknown {
            self.put_back_unknown(world, index);
        }
        let one = &mut world.processes[index];
        one.has_failed = !is_answered;
        let (id, runs) = (one.id, one.runs());
        if let Some(entry) = world.table.entry(id) {
            entry.seen = [0; PROCESSES];
        }
        let is_alone = before.is_alone && runs > 0;
        let free = self.hands.saturating_sub(runs);
        let by = Claimer {
            id,
            free,
            runs,
            is_patience_over,
        };
        let mut claim = (Vec::new(), false);
        if !is_alone && free > 0 {
            claim = self.claim(world, by);
        }
        let (jobs, is_suspect) = claim;
        world.processes[index].is_alone = is_suspect || is_alone;
        for job in jobs {
            self.take(world, index, job);
        }
        if !is_answered {
            // What was claimed is not known here.
            let one = &mut world.processes[index];
            for job in 0..JOBS {
                if one.hands[job] != before.hands[job] {
                    let is_old = before.hands[job].runs;
                    one.hands[job] = Hand {
                        is_old,
                        ..before.hands[job]
                    };
                    one.before[job] = before.before[job];
                }
            }
            one.is_alone = before.is_alone;
        }
    }

    /// A claim: all others of the job are old by it.
    fn take(&self, world: &mut World, index: usize, job: usize) {
        for one in &mut world.processes {
            for hand in [&mut one.hands[job], &mut one.before[job]] {
                hand.is_old = hand.runs;
            }
        }
        let is_number = self.flaw == Flaw::ByAttempt;
        let attempt = u8::from(is_number) * world.table.rows[job].attempt;
        let one = &mut world.processes[index];
        if one.hands[job].runs {
            one.before[job] = one.hands[job];
        }
        one.hands[job] = Hand {
            runs: true,
            attempt,
            ..Hand::EMPTY
        };
    }

    /// The beat, by the thread of its own.
    fn beat(world: &mut World, index: usize) {
        let id = world.processes[index].id;
        if world.table.runs_any(id)
            && let Some(entry) = world.table.entry(id)
        {
            entry.seen = [0; PROCESSES];
        }
    }

    /// Looks at the others' beats, and for what is parked.
    fn look(&self, world: &mut World, index: usize) {
        let id = world.processes[index].id;
        if !world.table.has(id) {
            return;
        }
        if self.flaw != Flaw::ParksBlindly {
            self.unpark(&mut world.table, id);
        }
        let is_called = self.leaves(&world.table, id) && self.flaw != Flaw::NoCalls;
        let others: Vec<u8> = {
            let entries = world.table.workers.iter().flatten();
            entries
                .map(|entry| entry.id)
                .filter(|it| *it != id)
                .collect()
        };
        for other in others {
            let runs = world.table.runs_any(other);
            let Some(entry) = world.table.entry(other) else {
                continue;
            };
            if !runs && !is_called {
                entry.seen[index] = 0;
                continue;
            }
            entry.seen[index] += 1;
            if entry.seen[index] == SEEN_DEAD {
                world.table.leave(other);
                self.rescue(world, Some(other));
            }
        }
        if self.flaw == Flaw::NoEntry {
            return;
        }
        for job in 0..JOBS {
            let row = world.table.rows[job];
            if row.state == State::Executing && !world.table.has(row.worker) {
                self.rescue(world, Some(row.worker));
            }
        }
    }
}
