//! The hand-over: every order in which containers can act, as `app/start` lets them.
//!
//! Every message takes any time. A step of one container that takes no time but its own is one step here.

use crate::handover_model::world::At;
use crate::handover_model::world::CONTAINERS;
use crate::handover_model::world::Container;
use crate::handover_model::world::Mode;
use crate::handover_model::world::Phase;
use crate::handover_model::world::REQUESTS;
use crate::handover_model::world::Request;
use crate::handover_model::world::Who;
use crate::handover_model::world::World;
use crate::support::search::Model;
use crate::support::search::Step;

/// What is done wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// Nobody asks the next one whether it still passes requests on.
    NoAsk,
    /// Requests are passed on from the signal on.
    EarlyPass,
    /// Who waited at the signal is forgotten when its question breaks off.
    NoExpected,
    /// The lease is given back while the site has requests in hand.
    EarlyRelease,
}

/// What may happen, and how often.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) containers: usize,
    /// The requests: whether each has a body.
    pub(super) bodies: &'static [bool],
    /// Whether what was passed on often is passed on once more after a while; else it is given back, or, with a body,
    /// waits for the front to be turned.
    pub(super) goes_on: bool,
    pub(super) flaw: Flaw,
    /// How often a question, or the answer to it, is lost.
    pub(super) breaks: u8,
    /// How often a release gets no answer from the bucket.
    pub(super) failures: u8,
    /// Whether the wait for the next one to know may be too short.
    pub(super) gives_up: bool,
    /// Whether a container may linger so short that the next one does not know yet.
    pub(super) lingers_short: bool,
    /// Whether a container that is followed may be signalled while another one still ends.
    pub(super) overlaps: bool,
}

pub(super) type Can<'a> = &'a mut dyn FnMut(&'static str, Who, &dyn Fn(&mut World));

impl Model for Handover {
    type State = World;

    /// One serves; the others start.
    fn start(&self) -> World {
        let mut containers = [Container::OFF; CONTAINERS];
        containers[0] = Container {
            phase: Phase::Serving,
            mode: Mode::Serve,
            is_holder: true,
            ..Container::OFF
        };
        World {
            holder: Some(0),
            version: 0,
            containers,
            requests: [Request::NEW; REQUESTS],
            breaks: 0,
            failures: 0,
            wrong: None,
        }
    }

    fn steps(&self, world: &World, next: &mut Vec<(Step, World)>) {
        let mut can = |name, who, change: &dyn Fn(&mut World)| {
            let mut world = world.clone();
            change(&mut world);
            next.push(((name, who), world));
        };
        for who in 0..self.containers {
            self.wait(world, who, &mut can);
            self.seat(world, who, &mut can);
            self.leave(world, who, &mut can);
            self.end(world, who, &mut can);
        }
        for index in 0..self.bodies.len() {
            self.request(world, index, &mut can);
        }
    }

    fn wrong(&self, world: &World) -> Option<&'static str> {
        let sites = world.containers.iter().filter(|one| one.has_site());
        if sites.count() > 1 {
            return Some("two sites are open");
        }
        let is_cut_off = |request: &Request| {
            let site = request.last().filter(|_| request.at == At::Site);
            site.is_some_and(|who| !world.containers[who].has_site())
        };
        if world.requests.iter().any(is_cut_off) {
            return Some("a site ends with a request in hand");
        }
        world.wrong
    }

    fn calm(&self, world: &World) -> Option<World> {
        let is_on_its_way = |request: &Request| !matches!(request.at, At::Visitor | At::Answered);
        let is_busy = world.containers.iter().any(Container::ends);
        if !is_busy && !world.requests.iter().any(is_on_its_way) {
            return None;
        }
        let mut steps = Vec::new();
        self.steps(world, &mut steps);
        let rank = |(name, _): &Step| match *name {
            "a request comes" | "is taken back" | "is signalled" | "breaks off"
            | "breaks off unseen" | "cannot release" | "gives up asking" => None,
            "arrives" | "is answered" => Some(1),
            "wakes" => Some(2),
            "starts" | "sees it run out" => Some(3),
            "is tried again" => Some(4),
            "closes" | "has ended" => Some(5),
            _ => Some(0),
        };
        let ranked = steps
            .into_iter()
            .filter_map(|(step, world)| Some((rank(&step)?, world)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, world)| world)
    }
}

impl Handover {
    /// A container that stands by: `take_lease` and `stand_by`.
    fn wait(&self, world: &World, who: Who, can: Can<'_>) {
        let one = &world.containers[who];
        let set = |phase| move |world: &mut World| world.containers[who].phase = phase;
        match one.phase {
            Phase::Off => can("starts", who, &set(Phase::Looking)),
            Phase::Looking => {
                can(
                    "looks",
                    who,
                    &set(Phase::Looked(world.holder, false, world.version)),
                );
                if world
                    .holder
                    .is_some_and(|holder| world.containers[holder].has_stopped())
                {
                    let seen = Phase::Looked(world.holder, true, world.version);
                    can("sees it run out", who, &set(seen));
                }
            }
            Phase::Looked(holder, has_run_out, version) => can("decides", who, &|world| {
                let is_held = holder.filter(|there| {
                    let is_gone = has_run_out || world.containers[who].gone == Some(*there);
                    !is_gone || world.containers[*there].holds()
                });
                if let Some(holder) = is_held {
                    world.containers[who].phase = Phase::Asking(holder);
                    self.turn(world, who, Mode::Pass(holder));
                } else {
                    world.containers[who].phase = Phase::Taking(version);
                    self.turn(world, who, Mode::Hold);
                }
            }),
            Phase::Asking(holder) => {
                can("its question arrives", who, &|world| {
                    let other = &mut world.containers[holder];
                    let (is_there, has_left) = (other.is_there(), other.has_left);
                    let waits = is_there && other.is_holder;
                    if waits {
                        other.add_question(who);
                    }
                    world.containers[who].phase = match (is_there, waits) {
                        (false, _) => Phase::Sleeping,
                        (true, true) => Phase::Waiting(holder),
                        (true, false) => Phase::Answered(holder, has_left),
                    };
                });
                self.breaks_off(world, (who, holder), can);
            }
            Phase::Waiting(holder) => self.breaks_off(world, (who, holder), can),
            Phase::Answered(holder, has_left) => {
                can("has its answer", who, &|world| {
                    let one = &mut world.containers[who];
                    if has_left {
                        one.gone = Some(holder);
                        one.phase = Phase::Looking;
                        self.turn(world, who, Mode::Hold);
                    } else {
                        one.phase = Phase::Sleeping;
                    }
                });
                self.breaks_off(world, (who, holder), can);
            }
            Phase::Sleeping => can("wakes", who, &set(Phase::Looking)),
            _ => {}
        }
    }

    /// A question is lost, or its answer; the other side may see that, or not.
    fn breaks_off(&self, world: &World, (who, holder): (Who, Who), can: Can<'_>) {
        let has_closed = !world.containers[holder].is_there();
        if world.breaks < self.breaks || has_closed {
            let breaks = u8::from(!has_closed);
            can("breaks off", who, &|world| {
                world.breaks += breaks;
                world.containers[who].phase = Phase::Sleeping;
                world.containers[holder].drop_question(who);
            });
            can("breaks off unseen", who, &|world| {
                world.breaks += breaks;
                world.containers[who].phase = Phase::Sleeping;
                for question in world.containers[holder].questions.iter_mut().flatten() {
                    question.1 &= question.0 != who;
                }
            });
        }
    }

    /// From the lease to the site.
    fn seat(&self, world: &World, who: Who, can: Can<'_>) {
        let one = &world.containers[who];
        match one.phase {
            Phase::Taking(version) => can("takes", who, &|world| {
                let is_same = world.version == version;
                world.containers[who].phase = if is_same {
                    Phase::Taken
                } else {
                    Phase::Looking
                };
                if is_same {
                    world.holder = Some(who);
                    world.version += 1;
                }
            }),
            Phase::Taken => can("has the lease", who, &|world| {
                world.containers[who].is_holder = true;
                world.containers[who].phase = Phase::Restoring;
            }),
            Phase::Restoring => can("serves", who, &|world| {
                world.containers[who].phase = Phase::Serving;
                self.turn(world, who, Mode::Serve);
            }),
            _ => {}
        }
    }

    /// From the signal to the release: `drain`, and `leave`.
    fn leave(&self, world: &World, who: Who, can: Can<'_>) {
        let one = &world.containers[who];
        for (other, _) in one.questions.into_iter().flatten().filter(|it| !it.1) {
            can("notices a lost question", who, &|world| {
                world.containers[who].drop_question(other);
            });
        }
        if let Some(version) = one.late {
            can("its release arrives late", who, &|world| {
                world.containers[who].late = None;
                if world.version == version {
                    world.holder = None;
                    world.version += 1;
                }
            });
        }
        match one.phase {
            Phase::Serving if self.may_end(world, who) => can("is signalled", who, &|world| {
                let one = &mut world.containers[who];
                one.phase = Phase::Draining;
                one.expected = one.first_question();
                match one.expected {
                    None => Self::close(world, who),
                    Some(next) if self.flaw == Flaw::EarlyPass => {
                        self.turn(world, who, Mode::Pass(next));
                    }
                    Some(_) => self.turn(world, who, Mode::Hold),
                }
            }),
            Phase::Draining if self.flaw == Flaw::EarlyRelease || !world.is_in_hand(who) => {
                can("releases", who, &|world| {
                    world.containers[who].phase = Phase::Released;
                    if world.holder == Some(who) {
                        world.holder = None;
                        world.version += 1;
                    }
                });
                if world.failures < self.failures {
                    can("cannot release", who, &|world| {
                        world.failures += 1;
                        world.containers[who].phase = Phase::Released;
                        world.containers[who].late = Some(world.version);
                    });
                }
            }
            _ => {}
        }
    }

    /// From the release to the end: the rest of `live`, and `end`.
    fn end(&self, world: &World, who: Who, can: Can<'_>) {
        match world.containers[who].phase {
            Phase::Released => can("says that it has left", who, &|world| self.tell(world, who)),
            Phase::Telling(next) => {
                let other = &world.containers[next];
                if !matches!(other.mode, Mode::Pass(_)) || !other.is_there() {
                    can("asks", who, &|world| {
                        world.containers[who].phase = Phase::Told(next);
                    });
                }
                if self.gives_up {
                    can("gives up asking", who, &|world| self.pass(world, who, next));
                }
            }
            Phase::Told(next) => can("passes on", who, &|world| self.pass(world, who, next)),
            Phase::Lingering if self.may_close(world, who) => can("closes", who, &|world| {
                world.containers[who].phase = Phase::Closed;
                Self::close(world, who);
            }),
            Phase::Closed if !world.requests.iter().any(|request| request.is_with(who)) => {
                can("has ended", who, &|world| {
                    world.containers[who] = Container {
                        phase: Phase::Gone,
                        has_left: true,
                        late: world.containers[who].late,
                        ..Container::OFF
                    };
                });
            }
            _ => {}
        }
    }

    /// Tells all who wait, and goes on to pass to the first; if there is nobody, that is the end.
    fn tell(&self, world: &mut World, who: Who) {
        let one = &mut world.containers[who];
        one.is_holder = false;
        one.has_left = true;
        let told = one.first_question();
        let questions = std::mem::take(&mut one.questions);
        let expected = one.expected.filter(|_| self.flaw != Flaw::NoExpected);
        match told.or(expected) {
            Some(next) if matches!(self.flaw, Flaw::NoAsk | Flaw::EarlyPass) => {
                self.pass(world, who, next);
            }
            Some(next) => one.phase = Phase::Telling(next),
            None => {
                one.phase = Phase::Closed;
                Self::close(world, who);
            }
        }
        for (other, _) in questions.into_iter().flatten().filter(|it| it.1) {
            world.containers[other].phase = Phase::Answered(who, true);
        }
    }

    fn pass(&self, world: &mut World, who: Who, next: Who) {
        world.containers[who].phase = Phase::Lingering;
        self.turn(world, who, Mode::Pass(next));
    }

    /// Nobody is told to stop who has no successor; or, but with overlaps, while another one still ends.
    ///
    /// Nor is one whom nobody asks to wait, while a request that came to it is on its way to another one: what came
    /// back then would find its site ended. That takes a connection that fails for longer than a site lives.
    fn may_end(&self, world: &World, who: Who) -> bool {
        let others = || (0..self.containers).filter(|other| *other != who);
        let follows = |other: Who| {
            let one = &world.containers[other];
            one.phase != Phase::Gone && !one.ends()
        };
        let is_out = |request: &Request| request.is_with(who) && request.at != At::Site;
        let is_plain = world.containers[who].first_question().is_none();
        let is_first = !others().any(|other| world.containers[other].ends());
        others().any(follows)
            && !(is_plain && world.requests.iter().any(is_out))
            && (is_first || self.overlaps && !is_plain)
    }

    /// A container lingers until the next one knows that nothing is to be passed back, and what waits was tried again.
    fn may_close(&self, world: &World, who: Who) -> bool {
        let knows = |one: &Container| one.mode != Mode::Pass(who) || one.is_closed;
        let is_tried =
            |request: &Request| request.at == At::Held(true) && request.last() == Some(who);
        // The first one was told first.
        if who != 0 && world.containers[0].ends() {
            return false;
        }
        match world.containers[who].mode {
            Mode::Pass(next) if !self.lingers_short => {
                knows(&world.containers[next]) && !world.requests.iter().any(is_tried)
            }
            _ => true,
        }
    }
}

impl World {
    fn is_in_hand(&self, who: Who) -> bool {
        let is_here = |request: &Request| request.at == At::Site && request.last() == Some(who);
        self.requests.iter().any(is_here)
    }
}
