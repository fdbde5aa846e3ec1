//! A model of the hand-over: how requests find their way between containers that follow each other, in every order.
//!
//! One serves, others start and stand by; each but one is told to stop at any moment while it serves. Requests come to
//! any container at any time. What containers say to one another, and to the bucket, takes any time; a question may
//! break off, seen by the other side or not, and a release may get no answer, and arrive late or never. The order of
//! steps is that of `app/start/{mod,seat,control}.rs` and of `http/handover/flow.rs`.
//!
//! Looked for: a request that is refused, comes to a site that has ended, or can never get an answer; two sites at
//! once; a container that never comes to its end. A request is with one container at a time, so there is one answer;
//! only what reads is taken back from one that may have seen it.
//!
//! Not in it: how long a request may wait (`hold_ms`), places, a container that is killed or told to stop before it
//! serves, connections that break with a request on them, and the lease while nobody leaves, which is `lease_model`.

mod orders;
mod requests;
mod world;

use self::orders::Flaw;
use self::orders::Handover;
use crate::support::search::search;
use crate::support::waiting::slow;

/// A request with a body, between two containers.
const TWO: Handover = Handover {
    containers: 2,
    bodies: &[true],
    goes_on: true,
    flaw: Flaw::None,
    breaks: 1,
    failures: 1,
    gives_up: true,
    lingers_short: false,
    overlaps: false,
};

const THREE: Handover = Handover {
    containers: 3,
    failures: 0,
    ..TWO
};

const REFUSED: &str = "a request is refused";
const NO_END: &str = "no end, though all goes well";

/// The same for a request without a body.
fn bare(model: Handover) -> Handover {
    Handover {
        bodies: &[false],
        ..model
    }
}

fn fault(model: Handover) -> Option<&'static str> {
    search(&model).fault()
}

#[test]
fn between_two_containers_every_request_is_answered() {
    search(&TWO).is_sound("two containers");
    search(&bare(TWO)).is_sound("two containers, no body");
    if slow("two requests at once") {
        let both = Handover {
            bodies: &[true, false],
            ..TWO
        };
        search(&both).is_sound("two containers, two requests");
    }
}

#[test]
fn between_three_containers_every_request_is_answered() {
    let quiet = Handover { breaks: 0, ..THREE };
    search(&quiet).is_sound("three containers, no question breaks off");
    if slow("three containers, with questions that break off, and overlaps") {
        search(&THREE).is_sound("three containers");
        search(&bare(THREE)).is_sound("three containers, no body");
        let overlaps = Handover {
            overlaps: true,
            ..THREE
        };
        search(&overlaps).is_sound("three containers, two end at once");
        let failures = Handover {
            failures: 1,
            ..THREE
        };
        search(&failures).is_sound("three containers, a release without an answer");
    }
}

/// Why what has gone to and fro is passed on again: else a wait too short for the next one to know strands requests.
///
/// The shortest way: the old one passes on although the new one still passes to it; a request goes to and fro, and
/// waits at the old one for its front to be turned; but that was the last time.
#[test]
fn what_is_not_passed_on_again_is_stranded() {
    let short = |model| Handover {
        goes_on: false,
        gives_up: true,
        ..model
    };
    assert_eq!(fault(short(TWO)), Some(REFUSED));
    search(&short(bare(TWO))).is_sound("two containers, no body, a short wait");
    // Where a third one serves, what has no body is given back for ever.
    assert_eq!(fault(short(bare(THREE))), Some(NO_END));
}

/// An old one that closes right after it has passed on, since its end took longer than it lingers.
#[test]
fn one_that_does_not_linger_may_refuse_what_waits_there() {
    let short = Handover {
        lingers_short: true,
        ..TWO
    };
    assert_eq!(fault(short), Some(REFUSED));
}

#[test]
fn what_is_done_wrong_is_found() {
    let wrong = |flaw| fault(Handover { flaw, ..TWO });
    // These two strand nothing where what has gone to and fro is passed on again; it only takes longer.
    let stuck = |flaw| {
        fault(Handover {
            flaw,
            goes_on: false,
            gives_up: false,
            ..TWO
        })
    };
    assert_eq!(stuck(Flaw::NoAsk), Some(REFUSED));
    assert_eq!(stuck(Flaw::EarlyPass), Some(REFUSED));
    assert_eq!(wrong(Flaw::NoExpected), Some(REFUSED));
    let cut_off = "a site ends with a request in hand";
    assert_eq!(wrong(Flaw::EarlyRelease), Some(cut_off));
}
