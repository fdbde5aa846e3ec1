//! A request's way, as `http/handover/flow.rs` lets it go.

use crate::handover_model::orders::Can;
use crate::handover_model::orders::Handover;
use crate::handover_model::world::At;
use crate::handover_model::world::Mode;
use crate::handover_model::world::REQUESTS;
use crate::handover_model::world::Request;
use crate::handover_model::world::Who;
use crate::handover_model::world::World;

/// How often a request is passed on before it has to wait, as the program has it.
const HOPS_MAX: usize = 3;

impl Handover {
    /// Everything that may happen to a request.
    pub(super) fn request(&self, world: &World, index: usize, can: Can<'_>) {
        let request = &world.requests[index];
        match request.at {
            At::Visitor => {
                for who in 0..self.containers {
                    if world.containers[who].is_there() {
                        can("a request comes", who, &|world| {
                            world.requests[index].push(who);
                            self.enter(world, index, false);
                        });
                    }
                }
            }
            At::Between(to) => can("arrives", to, &|world| {
                if world.containers[to].is_there() {
                    world.requests[index].push(to);
                    self.enter(world, index, false);
                } else {
                    // Nobody has seen it, and nothing of a body is sent.
                    self.again(world, index, to);
                }
            }),
            At::Held(true) => can("is tried again", at(request), &|world| {
                self.enter(world, index, true);
            }),
            At::Site => can("is answered", at(request), &|world| {
                world.requests[index] = Request {
                    at: At::Answered,
                    ..Request::NEW
                };
            }),
            At::Held(false) | At::Answered => {}
        }
        if !self.bodies[index] && !world.requests[index].is_shortened {
            self.left_behind(world, index, can);
        }
    }

    /// What only reads is taken back from a peer that is not passed to any more.
    fn left_behind(&self, world: &World, index: usize, can: Can<'_>) {
        let request = &world.requests[index];
        let on_its_way = match request.at {
            At::Between(to) => Some(to),
            _ => None,
        };
        let way = request.way().chain(on_its_way).collect::<Vec<_>>();
        for (place, pair) in way.windows(2).enumerate() {
            if world.containers[pair[0]].mode != Mode::Pass(pair[1]) {
                can("is taken back", pair[0], &|world| {
                    while world.requests[index].hops() > place {
                        world.requests[index].pop();
                    }
                    self.again(world, index, pair[1]);
                });
            }
        }
    }

    /// Looks what the front does, and does that; `again` is when nothing has changed, and it has waited.
    fn enter(&self, world: &mut World, index: usize, again: bool) {
        let request = world.requests[index];
        let here = at(&request);
        let has_to_wait = request.hops() >= HOPS_MAX;
        match world.containers[here].mode {
            Mode::Serve => {
                if !world.containers[here].has_site() {
                    world.wrong = Some("a request comes to a site that has ended");
                }
                world.requests[index].at = At::Site;
            }
            Mode::Hold => Self::hold(world, index, false),
            Mode::Pass(_) if has_to_wait && !again => {
                Self::hold(world, index, self.goes_on || !self.bodies[index]);
            }
            Mode::Pass(_) if has_to_wait && !self.goes_on => {
                world.requests[index].pop();
                self.again(world, index, here);
            }
            Mode::Pass(peer) => world.requests[index].at = At::Between(peer),
        }
    }

    fn hold(world: &mut World, index: usize, for_a_while: bool) {
        if world.containers[at(&world.requests[index])].is_closed {
            world.wrong = Some("a request is refused");
        }
        world.requests[index].at = At::Held(for_a_while);
    }

    /// The last container has it back from `peer`: it waits a while, unless its front was turned meanwhile.
    fn again(&self, world: &mut World, index: usize, peer: Who) {
        if world.containers[at(&world.requests[index])].mode == Mode::Pass(peer) {
            Self::hold(world, index, true);
        } else {
            self.enter(world, index, false);
        }
    }

    /// Turns a front; who is held there looks at once, long before it is turned once more.
    pub(super) fn turn(&self, world: &mut World, who: Who, mode: Mode) {
        world.containers[who].mode = mode;
        for index in 0..REQUESTS {
            if world.requests[index].is_held_at(who) {
                self.enter(world, index, false);
            }
        }
    }

    /// Closes the doors: what is held is refused, and questions break off.
    pub(super) fn close(world: &mut World, who: Who) {
        world.containers[who].is_closed = true;
        if world.requests.iter().any(|request| request.is_held_at(who)) {
            world.wrong = Some("a request is refused");
        }
    }
}

fn at(request: &Request) -> Who {
    request.last().expect("it was sent")
}
