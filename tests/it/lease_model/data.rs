//! The data: what the site of a container writes, copies and restores.

use houseboat::replication::Record;

use crate::lease_model::lease::Can;
use crate::lease_model::lease::Flaw;
use crate::lease_model::lease::Lease;
use crate::lease_model::lease::World;
use crate::lease_model::lease::number;
use crate::lease_model::world::Note;
use crate::lease_model::world::Phase;
use crate::lease_model::world::Put;
use crate::lease_model::world::Why;
use crate::lease_model::world::is_open;

/// That a generation can be restored, beside the writes that it has.
const WHOLE: u8 = 1 << 7;

impl Lease {
    /// Writes, their answers, the copies, and the renewals.
    pub(super) fn site(&self, world: &World, index: usize, can: Can<'_>) {
        let one = &world.containers[index];
        let has_right = is_open(index, one.right);
        if one.open != 0 {
            can("answers", &|world, index| {
                let bit = std::mem::take(&mut world.containers[index].open);
                if has_right || self.flaw == Flaw::NoFence {
                    world.acknowledge(index, bit);
                }
            });
        }
        if one.phase == Phase::Serving {
            if one.open == 0 && one.writes < self.writes && has_right {
                can("commits", &|world, index| {
                    let one = &mut world.containers[index];
                    one.open = 1 << (2 * index + usize::from(one.writes));
                    if self.data {
                        one.data |= one.open;
                        one.writes += 1;
                    }
                });
            }
            can("is signalled", &|world, index| {
                world.turn(index, Phase::Draining);
            });
        }
        let own = self.generation(one.held.epoch);
        let copied = world.generations[usize::from(own)];
        if self.data && one.is_copied() && copied != one.data | WHOLE {
            can("copies", &|world, index| self.copy(world, index));
        }
        if !one.keeps() || one.talk.is_some() {
            return;
        }
        if one.phase == Phase::Serving && copied & WHOLE != 0 && one.held.generation != own {
            can("names its generation", &|world, index| {
                let old = world.containers[index].held;
                let new = Note {
                    generation: own,
                    ..old.by(Record::renewed)
                };
                world.say(index, Why::Announce, Put { old, new });
            });
        }
        if one.renewals < self.renewals {
            can("renews", &|world, index| {
                let one = &mut world.containers[index];
                one.renewals = one.renewals.saturating_add(1);
                let old = one.held;
                world.say(
                    index,
                    Why::Renew,
                    Put {
                        old,
                        new: old.by(Record::renewed),
                    },
                );
            });
        }
    }

    pub(super) fn generation(&self, epoch: u8) -> u8 {
        if self.flaw == Flaw::OneGeneration {
            1
        } else {
            epoch
        }
    }

    pub(super) fn copy(&self, world: &mut World, index: usize) {
        let one = &world.containers[index];
        let generation = usize::from(self.generation(one.held.epoch));
        let owner = &mut world.owners[generation];
        if *owner != 0 && *owner != number(index) {
            world.wrong = Some("two write into one generation");
        }
        *owner = number(index);
        world.generations[generation] = one.data | WHOLE;
    }

    pub(super) fn restore(&self, world: &mut World, index: usize, before: Note) {
        let (named, youngest) = (usize::from(before.generation), usize::from(before.epoch));
        let oldest = if self.flaw == Flaw::LastOnly {
            youngest
        } else {
            named + 1
        };
        let is_whole = |epoch: &usize| world.generations[*epoch] & WHOLE != 0;
        let found = (oldest.max(named + 1)..=youngest)
            .rev()
            .find(is_whole)
            .unwrap_or(named);
        if found > 0 && !is_whole(&found) {
            world.wrong = Some("the record names a generation that is not whole");
        }
        let data = world.generations[found] & !WHOLE;
        world.containers[index].data = data;
        world.turn(index, Phase::Serving);
        if !world.note.is_of(world.containers[index].held) {
            // It was late, and will find that it has no right any more.
            return;
        }
        let lost = world.acknowledged & !data;
        let may_miss = (1..=youngest).fold(0, |may_miss, epoch| may_miss | world.not_copied(epoch));
        if lost & !may_miss != 0 {
            world.wrong = Some("more is lost than what came after the last copy");
        }
        world.acknowledged &= data;
    }
}

impl World {
    /// The writes of an epoch's holder that a crash may cost: those that were not in its generation when the next one
    /// took the lease, if it did not end in order.
    fn not_copied(&self, epoch: usize) -> u8 {
        let Some(taker) = self.takers[epoch].checked_sub(1) else {
            return 0;
        };
        if usize::from(self.whole) == epoch {
            return 0;
        }
        (3 << (2 * taker)) & !self.ends[epoch]
    }
}
