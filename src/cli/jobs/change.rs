//! What is done to jobs and queues.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::cli::jobs::Done;
use crate::cli::jobs::table;
use crate::database;
use crate::error::Result;
use crate::queue;
use crate::queue::Filter;
use crate::queue::Queue;
use crate::queue::State;

/// What became of one job.
#[derive(Debug, Serialize)]
struct Changed {
    id: i64,
    is_done: bool,
    text: String,
}

pub(super) async fn retry(queue: &Queue, ids: &[i64], json: bool) -> Result<Done> {
    let mut all = Vec::new();
    for id in ids {
        let changed = match queue.retry(*id).await {
            Err(error) if is_taken(&error) => refused(*id, error.to_string()),
            Ok(true) => done(*id, "runs again"),
            Ok(false) => nothing(queue, *id, "retry").await?,
            Err(error) => return Err(error.into()),
        };
        all.push(changed);
    }
    Ok(told(&all, json))
}

fn is_taken(error: &database::Error) -> bool {
    let reason = error.abort_reason::<queue::Error>();
    matches!(reason, Some(queue::Error::Taken { .. }))
}

pub(super) async fn retry_all(queue: &Queue, filter: &Filter, json: bool) -> Result<Done> {
    let all = queue.retry_all(filter).await?;
    let mut text = if json {
        table::json(&all)
    } else {
        format!("{} run again\n", all.retried)
    };
    for (id, reason) in all.reasons.iter().filter(|_| !json) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{id}: {reason}");
    }
    let total = all.retried + all.refused;
    let failure = format!("{} of {total} jobs could not be retried", all.refused);
    Ok(Done {
        text,
        failure: (all.refused > 0).then_some(failure),
    })
}

pub(super) async fn discard(queue: &Queue, ids: &[i64], json: bool) -> Result<Done> {
    let mut all = Vec::new();
    for id in ids {
        all.push(if queue.discard(*id).await? {
            done(*id, "discarded")
        } else {
            nothing(queue, *id, "discard").await?
        });
    }
    Ok(told(&all, json))
}

pub(super) async fn cancel(
    queue: &Queue,
    (ids, reason): (&[i64], &str),
    json: bool,
) -> Result<Done> {
    let mut all = Vec::new();
    for id in ids {
        if !queue.cancel(*id, reason).await? {
            all.push(nothing(queue, *id, "cancel").await?);
            continue;
        }
        let runs = state(queue, *id).await? == Some(State::Executing);
        let text = if runs { "is told to stop" } else { "cancelled" };
        all.push(done(*id, text));
    }
    Ok(told(&all, json))
}

async fn state(queue: &Queue, id: i64) -> Result<Option<State>> {
    let job = queue.get(id).await?;
    Ok(job.map(|job| job.listed.state))
}

fn done(id: i64, text: &str) -> Changed {
    let (is_done, text) = (true, text.to_owned());
    Changed { id, is_done, text }
}

fn refused(id: i64, text: String) -> Changed {
    let is_done = false;
    Changed { id, is_done, text }
}

/// Says why there was nothing to do.
async fn nothing(queue: &Queue, id: i64, verb: &str) -> Result<Changed> {
    let text = match state(queue, id).await? {
        None => "there is no such job: it was pruned, or never was".to_owned(),
        Some(State::Available) if verb == "discard" => {
            "it has not failed: cancel it, if it is not to run".to_owned()
        }
        Some(state) => format!("it is {}: there is nothing to {verb}", state.as_str()),
    };
    Ok(refused(id, text))
}

/// A line for each, or one document for all.
fn told(all: &[Changed], json: bool) -> Done {
    let mut text = String::new();
    if json {
        text = table::json(&all);
    } else {
        for changed in all {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}: {}", changed.id, changed.text);
        }
    }
    let left = all.iter().filter(|changed| !changed.is_done).count();
    let failure = match (left, all) {
        (0, _) => None,
        (_, [one]) if !json => {
            // Said once, where errors are said.
            text.clear();
            Some(format!("{}: {}", one.id, one.text))
        }
        (left, all) => Some(format!("{left} of {} could not be done", all.len())),
    };
    Done { text, failure }
}

pub(super) async fn pause(queue: &Queue, name: &str, json: bool) -> Result<String> {
    queue.pause(name).await?;
    told_of_queue(queue, (name, "paused"), json).await
}

pub(super) async fn resume(queue: &Queue, name: &str, json: bool) -> Result<String> {
    queue.resume(name).await?;
    told_of_queue(queue, (name, "resumed"), json).await
}

/// A name that nobody uses may be a mistake, or be of jobs to come.
async fn told_of_queue(queue: &Queue, (name, verb): (&str, &str), json: bool) -> Result<String> {
    let queues = queue.queues().await?;
    let found = queues.into_iter().find(|queue| queue.name == name);
    let (waiting, running) = found.map_or((0, 0), |queue| (queue.waiting, queue.running));
    if json {
        let is_paused = verb == "paused";
        let status =
            json!({ "name": name, "is_paused": is_paused, "waiting": waiting, "running": running });
        return Ok(table::json(&status));
    }
    let name = table::plain(name);
    Ok(if waiting + running == 0 {
        format!("{name}: {verb}; no job of it waits or runs\n")
    } else {
        format!("{name}: {verb}; {waiting} wait, {running} run\n")
    })
}
