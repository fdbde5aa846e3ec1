//! A model of the queue: everything that happens to jobs, in every order.
//!
//! Two processes claim, run and record; each is killed or told to stop at any moment, or taken for dead though it only
//! paused, since nobody has to beat in time here. Operators cancel, retry, pause and resume; rounds get no answer. What a
//! transaction does is what the statements of `queue/store` do, and the order of steps is that of `queue/worker.rs`,
//! `round.rs` and `pulse.rs`.
//!
//! Looked for: two that hold the same claim, an old claim that changes anything, more of a key than may run, two that
//! hold a unique key, a job that is set aside for what another did, and any state from which a job that somebody could
//! run does not come to its end though nothing fails any more.
//!
//! Not in it: how workers learn of jobs (here they ask at any time, as they do every `queue.poll_ms`), priorities,
//! weights, the clock, and how long anything takes; `queue/model_tests.rs` has the real statements.

mod orders;
mod rounds;
mod table;
mod world;

use self::orders::Flaw;
use self::orders::Queue;
use self::world::JOBS;
use self::world::Plan;
use self::world::Unique;
use crate::support::search::search;
use crate::support::waiting::slow;

const ANY: Plan = Plan {
    finishes: true,
    fails: true,
    snoozes: true,
    ..Plan::PLAIN
};
const LIMITED: Plan = Plan {
    at_most: 1,
    ..Plan::PLAIN
};
const LIMITED_TO_TWO: Plan = Plan {
    at_most: 2,
    ..Plan::PLAIN
};

/// One job that may end in every way.
const ONE: Queue = Queue {
    plans: &[ANY; JOBS],
    jobs: 1,
    flaw: Flaw::None,
    processes: 2,
    hands: 1,
    looks: true,
    is_begun: true,
    kills: 1,
    signals: 0,
    operations: 0,
    losses: 0,
};

/// The lock that tells who is alone.
const LOCKS: Queue = Queue {
    plans: &[Plan::PLAIN; JOBS],
    is_begun: false,
    signals: 1,
    ..ONE
};

/// Three of a key, one of them in a queue that may be paused.
const LIMITS: Queue = Queue {
    plans: &[
        Plan {
            is_aside: true,
            ..LIMITED
        },
        LIMITED,
        LIMITED,
    ],
    jobs: 3,
    looks: false,
    kills: 0,
    operations: 2,
    ..ONE
};

/// Of one key, with limits that differ.
const UNLIKE: Queue = Queue {
    plans: &[LIMITED, LIMITED_TO_TWO, LIMITED_TO_TWO],
    hands: 2,
    operations: 1,
    ..LIMITS
};

/// Some with a limit, some with a rate, one with both.
const RATES: Queue = Queue {
    plans: &[
        Plan {
            is_aside: true,
            is_rated: true,
            ..LIMITED
        },
        Plan {
            is_rated: true,
            ..Plan::PLAIN
        },
        LIMITED,
    ],
    ..LIMITS
};

/// A kind, and arguments, that only the second process knows.
const KINDS: Queue = Queue {
    plans: &[
        Plan {
            known_by: [false, true],
            ..Plan::PLAIN
        },
        Plan {
            read_by: [false, true],
            ..Plan::PLAIN
        },
        Plan::PLAIN,
    ],
    jobs: 2,
    kills: 0,
    signals: 1,
    ..ONE
};

/// A kind that only the second process knows, which may be killed, and one that nobody does.
const STRANGE: Queue = Queue {
    plans: &[
        Plan {
            known_by: [false, true],
            ..Plan::PLAIN
        },
        Plan {
            known_by: [false; 2],
            ..LIMITED
        },
        LIMITED,
    ],
    jobs: 3,
    kills: 1,
    signals: 0,
    ..KINDS
};

/// A process that dies again and again.
const SUSPECTS: Queue = Queue {
    plans: &[
        Plan {
            is_aside: true,
            ..LIMITED
        },
        LIMITED,
        Plan::PLAIN,
    ],
    jobs: 3,
    processes: 1,
    hands: 2,
    kills: 3,
    operations: 1,
    ..ONE
};

/// Three of which one may wait at a time, and one may run.
const UNIQUE: Queue = Queue {
    plans: &[Plan {
        unique: Unique::UntilStarted,
        ..LIMITED
    }; JOBS],
    jobs: 3,
    processes: 1,
    hands: 2,
    operations: 1,
    ..ONE
};

const UNIQUE_TO_THE_END: Queue = Queue {
    plans: &[Plan {
        unique: Unique::UntilEnded,
        fails: true,
        ..Plan::PLAIN
    }; JOBS],
    jobs: 2,
    ..UNIQUE
};

const OLD: &str = "an old claim ends what another runs";
const STUCK: &str = "no end, though all goes well";

fn fault(flaw: Flaw, queue: Queue) -> Option<&'static str> {
    search(&Queue { flaw, ..queue }).fault()
}

#[test]
fn a_claim_is_held_by_one_and_comes_to_its_end() {
    let by_hand = Queue {
        kills: 0,
        operations: 1,
        ..ONE
    };
    search(&by_hand).is_sound("one job, an operator");
    search(&LOCKS).is_sound("one job, the lock");
    if slow("a job that is killed, stopped, cancelled and forgotten, and two jobs") {
        search(&ONE).is_sound("one job, a kill");
        let stopped = Queue {
            signals: 1,
            operations: 1,
            ..ONE
        };
        search(&stopped).is_sound("one job, a kill, a stop and an operator");
        let lost = Queue { losses: 1, ..ONE };
        search(&lost).is_sound("one job, a kill and a lost answer");
        let two = Queue {
            plans: &[Plan::PLAIN; JOBS],
            jobs: 2,
            hands: 2,
            ..ONE
        };
        search(&two).is_sound("two jobs, a kill");
    }
}

#[test]
fn limits_are_held_and_keep_nothing_back_for_ever() {
    search(&LIMITS).is_sound("a limit");
    search(&UNLIKE).is_sound("limits that differ");
    search(&RATES).is_sound("limits and rates");
    if slow("limits, and processes that are taken for dead") {
        let looks = Queue {
            looks: true,
            operations: 1,
            ..LIMITS
        };
        search(&looks).is_sound("a limit, and pauses");
    }
}

#[test]
fn what_one_cannot_run_another_does() {
    search(&KINDS).is_sound("kinds");
    if slow("kinds, and a kill") {
        search(&Queue { kills: 1, ..KINDS }).is_sound("kinds, and a kill");
        search(&STRANGE).is_sound("a kind that nobody knows");
    }
}

#[test]
fn a_suspect_runs_alone_and_holds_up_nothing_else() {
    search(&SUSPECTS).is_sound("suspects");
}

#[test]
fn a_unique_key_is_held_once_and_never_in_the_way() {
    search(&UNIQUE).is_sound("unique until the start");
    search(&UNIQUE_TO_THE_END).is_sound("unique until the end");
    let two = Queue {
        processes: 2,
        looks: false,
        kills: 0,
        ..UNIQUE
    };
    search(&two).is_sound("unique until the start, two processes");
}

#[test]
fn what_is_done_wrong_with_claims_is_found() {
    let by_hand = Queue {
        operations: 1,
        ..ONE
    };
    assert_eq!(fault(Flaw::NoToken, by_hand), Some(OLD));
    assert_eq!(fault(Flaw::ByAttempt, by_hand), Some(OLD));
    // One that was paused, and taken for dead, says that it is done with what another runs by now.
    assert_eq!(fault(Flaw::NoToken, ONE), Some(OLD));
    assert_eq!(fault(Flaw::ByAttempt, ONE), Some(OLD));
    assert_eq!(fault(Flaw::NoEntry, ONE), Some(STUCK));
    let lost = Queue { losses: 1, ..ONE };
    assert_eq!(fault(Flaw::KeepsUnknown, lost), Some(STUCK));
    assert_eq!(
        fault(Flaw::LateRescue, LOCKS),
        Some("one that thinks it is alone rescues what another runs")
    );
    let cancelled = Queue {
        kills: 0,
        operations: 2,
        ..ONE
    };
    assert_eq!(
        fault(Flaw::CancelsAtOnce, cancelled),
        Some("a job runs twice at once")
    );
}

#[test]
fn what_is_done_wrong_with_waiting_is_found() {
    assert_eq!(fault(Flaw::NoSweep, LIMITS), Some(STUCK));
    assert_eq!(fault(Flaw::BlindSuspect, SUSPECTS), Some(STUCK));
    assert_eq!(fault(Flaw::ParksBlindly, KINDS), Some(STUCK));
    assert_eq!(fault(Flaw::ForgetsUnread, KINDS), Some(STUCK));
    assert_eq!(fault(Flaw::NoCalls, STRANGE), Some(STUCK));
    assert_eq!(
        fault(Flaw::Rebinds, UNIQUE),
        Some("a transaction fails, and will each time")
    );
    assert_eq!(
        fault(Flaw::BindsNotWhenTaken, UNIQUE),
        Some("two of a key wait")
    );
}
