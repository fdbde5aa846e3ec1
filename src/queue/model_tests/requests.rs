//! What is asked for: jobs with all kinds of limits.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::queue::Concurrency;
use crate::queue::Conflict;
use crate::queue::Priority;
use crate::queue::Rate;
use crate::queue::Request;
use crate::queue::State;
use crate::queue::Unique;
use crate::queue::request::When;

pub(super) const PROCESSES: usize = 3;

const RATE: u32 = 2;
const PER: Duration = Duration::from_secs(10);
pub(super) const PERIOD: Duration = Duration::from_mins(1);

/// With a part of these: until a job is started all of them bind.
const CHOSEN: [State; 4] = [
    State::Parked,
    State::Retryable,
    State::Completed,
    State::Cancelled,
];

/// The last one knows a kind, and can read arguments, that the others do not.
pub(super) fn kinds(process: usize) -> Arc<[String]> {
    let known: &[&str] = if process + 1 == PROCESSES {
        &["plain", "strange", "new"]
    } else {
        &["plain", "strange"]
    };
    known.iter().map(|kind| (*kind).to_owned()).collect()
}

pub(super) fn kinds_json(process: usize) -> Arc<str> {
    serde_json::Value::from(kinds(process).to_vec())
        .to_string()
        .into()
}

/// Any request; keys are few, so that they meet.
pub(super) fn any(rng: &mut Rng) -> Request {
    let unique = match rng.u32(..10) {
        0 => Some(Unique::new("ended")),
        1 | 2 => Some(Unique::new("started").until_started()),
        3 => Some(Unique::new("within").within(PERIOD)),
        4 | 5 => Some(Unique::new("chosen").while_in(&CHOSEN[..rng.usize(2..=4)])),
        _ => None,
    };
    let conflicts = [Conflict::Keep, Conflict::Replace, Conflict::Postpone];
    let conflict = rng.choice(conflicts).unwrap();
    let concurrency = match rng.u32(..6) {
        0 | 1 => Some(Concurrency::new("one", 1)),
        2 => Some(Concurrency::new("two", 2)),
        3 => Some(Concurrency::new("mixed", rng.u32(1..=2))),
        _ => None,
    };
    let is_rated = rng.u32(..4) == 0;
    Request {
        kind: rng.choice(["plain", "plain", "strange", "new"]).unwrap(),
        queue: rng.choice(["default", "aside"]).unwrap().to_owned(),
        arguments: Ok("{}".to_owned()),
        priority: rng.choice(Priority::ALL).unwrap(),
        attempts_max: rng.u32(1..4),
        timeout: None,
        backoff: None,
        unique: unique.map(|unique| unique.on_conflict(conflict)),
        concurrency,
        rate: is_rated.then(|| Rate::new("rate", RATE, PER)),
        when: match rng.u32(..3) {
            0 => When::In(Duration::from_millis(rng.u64(..20_000))),
            _ => When::Now,
        },
    }
}
