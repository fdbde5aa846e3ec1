//! The lease: every order in which containers and a bucket can act, as `start` and `Lease` let them.
//!
//! Time passes at any moment, for all at once, and nobody has to act in time: so each container is paused in all ways
//! that there are. A write to the bucket arrives at any time after it was sent, also when its sender has given it up
//! or is dead, or never.

use houseboat::replication::Outage;
use houseboat::replication::Record;
use houseboat::replication::rules::Sight;

use crate::lease_model::world::CONTAINERS;
use crate::lease_model::world::Container;
use crate::lease_model::world::Note;
use crate::lease_model::world::OLD;
use crate::lease_model::world::Phase;
use crate::lease_model::world::Put;
use crate::lease_model::world::Stage;
use crate::lease_model::world::Talk;
use crate::lease_model::world::Why;
use crate::lease_model::world::holder;
use crate::lease_model::world::is_open;
use crate::lease_model::world::sight;
use crate::lease_model::world::sight_by_stamp;
use crate::support::search::Model;
use crate::support::search::Step;

/// What is done wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// A write is answered without a look at the fence.
    NoFence,
    /// The right counts from the answer to a renewal.
    FromAnswer,
    /// Who waits believes the time in the record.
    ByStamp,
    /// The record is written whatever it was.
    NoCondition,
    /// The lease is given back before the last copy.
    EarlyRelease,
    /// All write into one generation.
    OneGeneration,
    /// After a renewal without an answer, the next one looks the same to others.
    SameBeat,
    /// Of the generations that the record does not name, only the last holder's is looked at.
    LastOnly,
    /// With the bucket out of reach, also a refusal counts as that.
    RefusalExtends,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) containers: usize,
    pub(super) outage: Outage,
    pub(super) flaw: Flaw,
    /// Writes of each container; at most two.
    pub(super) writes: u8,
    /// Renewals of each container, beside the one that names its generation.
    pub(super) renewals: u8,
    /// How often no answer comes from the bucket.
    pub(super) cuts: u8,
    pub(super) crashes: u8,
    /// Whether it is followed where the writes are; else only who acknowledges them.
    pub(super) data: bool,
    /// Whether it is looked whether somebody serves in the end.
    pub(super) progress: bool,
    /// How many steps are tried.
    pub(super) steps_max: usize,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    pub(super) note: Note,
    /// How long ago the record was written, where that is believed.
    pub(super) stamp: u8,
    pub(super) containers: [Container; CONTAINERS],
    /// By epoch: what is in its generation, and whose that is.
    pub(super) generations: [u8; CONTAINERS + 1],
    pub(super) owners: [u8; CONTAINERS + 1],
    /// By epoch: what was in its generation when the next one took the lease.
    pub(super) ends: [u8; CONTAINERS + 1],
    /// By epoch: who has taken it.
    pub(super) takers: [u8; CONTAINERS + 1],
    /// What visitors were told is stored, without what a crash may have cost.
    pub(super) acknowledged: u8,
    /// The epoch whose holder has copied everything before another one took the lease.
    pub(super) whole: u8,
    pub(super) cuts: u8,
    pub(super) crashes: u8,
    pub(super) wrong: Option<&'static str>,
}

impl Model for Lease {
    type State = World;

    /// One has the lease, as the first ever; the others start.
    fn start(&self) -> World {
        let note = Note {
            epoch: 1,
            holder: 1,
            ..Note::default()
        };
        let first = Container {
            held: note,
            right: 0,
            phase: Phase::Serving,
            ..Container::OFF
        };
        let mut containers = [Container::OFF; CONTAINERS];
        containers[0] = first;
        World {
            note,
            stamp: 0,
            containers,
            generations: [0; CONTAINERS + 1],
            owners: [0; CONTAINERS + 1],
            ends: [0; CONTAINERS + 1],
            takers: [0, 1, 0, 0],
            acknowledged: 0,
            whole: 0,
            cuts: 0,
            crashes: 0,
            wrong: None,
        }
    }

    fn steps(&self, world: &World, next: &mut Vec<(Step, World)>) {
        let mut later = world.clone();
        if self.flaw == Flaw::ByStamp {
            later.stamp = (later.stamp + 1).min(OLD);
        }
        for (index, one) in later.containers.iter_mut().enumerate() {
            one.grow_older(index);
        }
        next.push((("time passes", 0), later));
        for index in 0..self.containers {
            let mut can = |name, change: &dyn Fn(&mut World, usize)| {
                let mut world = world.clone();
                change(&mut world, index);
                self.tidy(&mut world);
                next.push(((name, index), world));
            };
            self.life(world, index, &mut can);
            self.talk(world, index, &mut can);
            self.site(world, index, &mut can);
        }
    }

    fn steps_max(&self) -> usize {
        self.steps_max
    }

    fn wrong(&self, world: &World) -> Option<&'static str> {
        world.wrong
    }

    fn calm(&self, world: &World) -> Option<World> {
        let holder = usize::from(world.note.holder);
        if !self.progress || holder > 0 && world.serves(holder - 1) {
            return None;
        }
        let is_alive = |one: &Container| !matches!(one.phase, Phase::Off | Phase::Gone);
        let somebody = world.containers.iter().any(is_alive);
        let calm = Self {
            renewals: u8::MAX,
            cuts: 0,
            crashes: 0,
            ..*self
        };
        let mut steps = Vec::new();
        calm.steps(world, &mut steps);
        let rank = |(name, _): &Step| match *name {
            "crashes" | "is signalled" | "commits" | "is given up" | "arrives late" => None,
            "starts" if somebody => None,
            "time passes" => somebody.then_some(3),
            "renews" => Some(2),
            "gets no answer" => Some(1),
            _ => Some(0),
        };
        let ranked = steps
            .into_iter()
            .filter_map(|(step, world)| Some((rank(&step)?, world)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, world)| world)
    }
}

pub(super) type Can<'a> = &'a mut dyn FnMut(&'static str, &dyn Fn(&mut World, usize));

impl Lease {
    /// Makes those states the same from which the same can follow: what is written never comes back.
    fn tidy(&self, world: &mut World) {
        let note = world.note;
        let mark = Note {
            generation: 0,
            ..note
        };
        for (index, one) in world.containers.iter_mut().enumerate() {
            // What the rules take for another record counts no more.
            let counts =
                |seen| seen == mark || sight(index, mark, Some((seen, OLD))) == Sight::Expired;
            one.seen = one.seen.filter(|(seen, _)| counts(*seen));
            if self.flaw == Flaw::NoCondition {
                continue;
            }
            one.stray = one.stray.filter(|put| put.old == note);
            if let Some(talk) = one.talk
                && talk.stage == Stage::Sent
                && talk.put.old != note
            {
                self.refuse(one, talk);
            }
        }
    }

    /// A container's way to the lease, and its end.
    fn life(&self, world: &World, index: usize, can: Can<'_>) {
        let one = &world.containers[index];
        if one.phase != Phase::Off && one.phase != Phase::Gone && world.crashes < self.crashes {
            can("crashes", &|world, index| {
                world.crashes += 1;
                world.containers[index].end();
            });
        }
        match one.phase {
            Phase::Off if index < 2 || world.note.epoch == 2 => {
                can("starts", &|world, index| world.turn(index, Phase::Looking));
            }
            Phase::Looking => self.look(world, index, can),
            Phase::Restoring(before) => can("restores", &|world, index| {
                self.restore(world, index, before);
            }),
            Phase::Draining if one.open == 0 => {
                can("copies the last", &|world, index| {
                    let held = world.containers[index].held;
                    if self.flaw != Flaw::EarlyRelease {
                        self.copy(world, index);
                    }
                    if world.note.is_of(held) {
                        world.whole = held.epoch;
                    }
                    world.turn(index, Phase::Copied(true));
                });
                if world.cuts < self.cuts {
                    can("cannot copy", &|world, index| {
                        world.cuts += 1;
                        world.turn(index, Phase::Copied(false));
                    });
                }
            }
            Phase::Copied(is_whole) if one.talk.is_none_or(|talk| talk.why != Why::Release) => {
                can("releases", &|world, index| {
                    let one = &mut world.containers[index];
                    one.give_up();
                    one.right = OLD;
                    let old = one.held;
                    let released = old.by(Record::released);
                    let generation = if is_whole {
                        self.generation(old.epoch)
                    } else {
                        old.generation
                    };
                    world.say(
                        index,
                        Why::Release,
                        Put {
                            old,
                            new: Note {
                                generation,
                                ..released
                            },
                        },
                    );
                });
            }
            _ => {}
        }
    }

    /// Reads the record, and asks for the lease if it may.
    ///
    /// In one step, for time between reading, deciding and asking helps only the holder: the wait counts from later,
    /// and the condition is that the record is the same until the request arrives.
    fn look(&self, world: &World, index: usize, can: Can<'_>) {
        let (note, one) = (world.note, &world.containers[index]);
        let there = usize::from(note.holder).checked_sub(1);
        let sight = match there {
            Some(there) if self.flaw == Flaw::ByStamp => sight_by_stamp(index, there, world.stamp),
            _ if note.epoch == 0 => Sight::Free,
            _ => sight(index, note, one.seen),
        };
        match sight {
            Sight::Free => can("asks for the lease", &World::ask),
            Sight::Held if one.seen.is_none() => can("waits", &|world, index| {
                let mark = Note {
                    generation: 0,
                    ..note
                };
                world.containers[index].seen = Some((mark, 0));
            }),
            Sight::Held => {}
            Sight::Expired => {
                if there.is_some_and(|there| world.serves(there)) {
                    can("gets an answer", &|world, index| {
                        let one = &mut world.containers[index];
                        one.seen = one.seen.map(|(seen, _)| (seen, 0));
                    });
                }
                can("gets no answer", &World::ask);
            }
        }
    }

    /// What is said to the bucket, and what comes of it.
    fn talk(&self, world: &World, index: usize, can: Can<'_>) {
        let one = &world.containers[index];
        if one.stray.is_some() {
            can("arrives late", &|world, index| {
                if let Some(put) = world.containers[index].stray.take() {
                    Self::write(world, index, put);
                }
            });
        }
        let Some(talk) = one.talk else {
            return;
        };
        if world.cuts < self.cuts {
            can("is given up", &|world, index| {
                world.cuts += 1;
                let one = &mut world.containers[index];
                one.give_up();
                self.fail(one, talk);
            });
        }
        match talk.stage {
            Stage::Sent => can("arrives", &|world, index| {
                let stage = Stage::Written;
                world.containers[index].talk = Some(Talk { stage, ..talk });
                Self::write(world, index, talk.put);
            }),
            Stage::Written => can("is written", &|world, index| {
                self.succeed(world, index, talk);
            }),
            Stage::Refused => can("reads again", &|world, index| {
                let (found, one) = (world.note, &mut world.containers[index]);
                if !found.is_of(one.held) {
                    return one.end();
                }
                let mut new = talk.put.new;
                if self.flaw != Flaw::SameBeat {
                    new.beat = found.beat + 1;
                }
                let (put, stage) = (Put { old: found, new }, Stage::Sent);
                one.talk = Some(Talk {
                    stage,
                    is_second: true,
                    put,
                    age: 0,
                    ..talk
                });
            }),
        }
    }

    /// What was under way to the bucket finds another record there than it was to replace.
    fn refuse(&self, one: &mut Container, talk: Talk) {
        one.talk = None;
        if talk.why == Why::Take {
            one.phase = Phase::Looking;
        } else if talk.is_second && self.flaw == Flaw::RefusalExtends {
            self.fail(one, talk);
        } else {
            one.talk = Some(Talk {
                stage: Stage::Refused,
                ..talk
            });
        }
    }

    /// The bucket takes a write.
    fn write(world: &mut World, index: usize, put: Put) {
        if put.new.epoch != put.old.epoch {
            let taker = &mut world.takers[usize::from(put.new.epoch)];
            if *taker != 0 {
                world.wrong = Some("an epoch, and so a generation's name, is taken twice");
            }
            *taker = number(index);
            let before = usize::from(put.old.epoch);
            world.ends[before] = world.generations[before];
        }
        world.note = put.new;
        world.stamp = 0;
    }

    fn succeed(&self, world: &mut World, index: usize, talk: Talk) {
        let one = &mut world.containers[index];
        one.talk = None;
        one.held = talk.put.new;
        if talk.why == Why::Release {
            return one.end();
        }
        let age = if self.flaw == Flaw::FromAnswer {
            0
        } else {
            talk.age
        };
        one.right = one.right.min(age);
        if let Phase::Taking(before) = one.phase {
            one.phase = Phase::Restoring(before);
        }
    }

    /// No answer came, or one that helps nothing.
    fn fail(&self, one: &mut Container, talk: Talk) {
        match talk.why {
            Why::Take | Why::Release => one.end(),
            Why::Renew | Why::Announce if self.outage == Outage::Serve => {
                one.right = one.right.min(talk.age);
            }
            Why::Renew | Why::Announce => {}
        }
    }
}

impl World {
    pub(super) fn turn(&mut self, index: usize, phase: Phase) {
        self.containers[index].phase = phase;
    }

    pub(super) fn ask(&mut self, index: usize) {
        let old = self.note;
        let new = old.by(|record| record.taken_by(holder(number(index))));
        self.say(index, Why::Take, Put { old, new });
        self.containers[index].seen = None;
        self.turn(index, Phase::Taking(old));
    }

    pub(super) fn say(&mut self, index: usize, why: Why, put: Put) {
        let stage = Stage::Sent;
        self.containers[index].talk = Some(Talk {
            why,
            stage,
            is_second: false,
            put,
            age: 0,
        });
    }

    pub(super) fn serves(&self, index: usize) -> bool {
        let one = &self.containers[index];
        one.is_copied() && is_open(index, one.right)
    }

    /// A visitor is told that a write is stored.
    pub(super) fn acknowledge(&mut self, index: usize, bit: u8) {
        let held = self.containers[index].held;
        if !self.note.is_of(held) {
            self.wrong =
                Some("a write is acknowledged by one that another has taken the lease from");
        }
        self.acknowledged |= bit & self.containers[index].data;
    }
}

pub(super) fn number(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap()
}
