//! A model of the lease: everything that containers and a bucket can do, in every order.
//!
//! From one container that has the lease and writes: others start, look, take, restore, serve, renew, copy, name their
//! generation, end in order and give the lease back; any is paused anywhere, for any time, or killed. Clocks differ by
//! a minute, and in speed by a tenth. How a request finds its way between containers is not in it.
//!
//! The rules are the real ones (`replication::rules`, `Record`); the order of steps is that of `app/start` and of
//! `replication/lease.rs`. A bucket without conditional writes is not in it: two can hold the lease there.

mod data;
mod lease;
mod world;

use houseboat::replication::Outage;

use self::lease::Flaw;
use self::lease::Lease;
use crate::support::search::search;
use crate::support::waiting::slow;

/// Who acknowledges writes, with answers of the bucket that do not come.
const RIGHT: Lease = Lease {
    containers: 2,
    outage: Outage::Stop,
    flaw: Flaw::None,
    writes: 1,
    renewals: 2,
    cuts: 1,
    crashes: 0,
    data: false,
    progress: false,
    steps_max: usize::MAX,
};

/// Where the writes are, with copies that are late, and containers that are killed.
const DATA: Lease = Lease {
    renewals: 0,
    crashes: 1,
    cuts: 0,
    data: true,
    ..RIGHT
};

const TWICE: &str = "a write is acknowledged by one that another has taken the lease from";
const LOST: &str = "more is lost than what came after the last copy";

fn fault(flaw: Flaw, lease: Lease) -> Option<&'static str> {
    search(&Lease { flaw, ..lease }).fault()
}

#[test]
fn only_the_holder_acknowledges_writes() {
    search(&RIGHT).is_sound("two containers, the right");
    if slow("more cuts, and three containers") {
        let more = Lease { cuts: 2, ..RIGHT };
        search(&more).is_sound("two containers, more of it");
        let three = Lease {
            containers: 3,
            renewals: 1,
            cuts: 0,
            steps_max: 26,
            ..RIGHT
        };
        search(&three).is_sound("three containers, the right, up to 26 steps");
    }
}

#[test]
fn what_is_copied_is_never_lost() {
    search(&DATA).is_sound("two containers, the data");
    if slow("cuts, and three containers with their data") {
        let cut = Lease {
            cuts: 1,
            crashes: 0,
            ..DATA
        };
        search(&cut).is_sound("two containers, data and cuts");
        let three = Lease {
            containers: 3,
            crashes: 0,
            steps_max: 24,
            ..DATA
        };
        search(&three).is_sound("three containers, the data, up to 24 steps");
    }
}

/// From every state: somebody serves, if nothing fails from there on and anybody lives or can start.
#[test]
fn somebody_serves_in_the_end() {
    let cut = Lease {
        progress: true,
        renewals: 1,
        crashes: 1,
        ..RIGHT
    };
    search(&cut).is_sound("two containers, progress");
}

#[test]
fn what_is_done_wrong_with_the_right_is_found() {
    let once = Lease {
        renewals: 1,
        cuts: 0,
        ..RIGHT
    };
    assert_eq!(fault(Flaw::NoFence, once), Some(TWICE));
    assert_eq!(fault(Flaw::FromAnswer, once), Some(TWICE));
    assert_eq!(fault(Flaw::ByStamp, once), Some(TWICE));
    let taken_twice = "an epoch, and so a generation's name, is taken twice";
    let three = Lease {
        containers: 3,
        ..once
    };
    assert!(fault(Flaw::NoCondition, once).is_some());
    assert_eq!(
        fault(
            Flaw::NoCondition,
            Lease {
                renewals: 0,
                ..three
            }
        ),
        Some(taken_twice)
    );
    assert_eq!(fault(Flaw::SameBeat, RIGHT), Some(TWICE));
}

#[test]
fn what_is_done_wrong_with_the_data_is_found() {
    let not_whole = "the record names a generation that is not whole";
    assert_eq!(fault(Flaw::EarlyRelease, DATA), Some(not_whole));
    assert_eq!(
        fault(Flaw::OneGeneration, DATA),
        Some("two write into one generation")
    );
    assert_eq!(
        fault(
            Flaw::LastOnly,
            Lease {
                containers: 3,
                ..DATA
            }
        ),
        Some(LOST)
    );
}

/// What `replication.outage = "serve"` gives up: a holder that has no answer from the bucket goes on, and cannot know
/// that another one has an answer, and has found the holder silent.
///
/// The shortest way: the holder sends a renewal; no answer comes; meanwhile the time of its lease goes by for the
/// other one, which cannot ask it either, takes the lease, and both serve.
#[test]
fn outage_serve_may_have_two_that_write() {
    let found = search(&Lease {
        outage: Outage::Serve,
        renewals: 1,
        ..RIGHT
    });
    #[expect(clippy::print_stdout, reason = "the shortest way is the result")]
    {
        println!("{:?}", found.wrong);
    }
    assert_eq!(found.fault(), Some(TWICE));
    // While every answer comes, it gives nothing up.
    let answered = Lease {
        outage: Outage::Serve,
        cuts: 0,
        ..RIGHT
    };
    search(&answered).is_sound("two containers, the bucket answers");
}
