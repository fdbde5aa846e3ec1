//! The schedule: how its entries stand, and what is done with one of them.

use jiff::Timestamp;
use serde_json::json;

use crate::cli::jobs::Done;
use crate::cli::jobs::table;
use crate::cli::jobs::table::plain;
use crate::cli::jobs::table::utc;
use crate::error::Result;
use crate::queue::Scheduled;
use crate::queue::Scheduler;
use crate::queue::State;

pub(super) async fn list(scheduler: &Scheduler, json: bool) -> Result<String> {
    let entries = scheduler.schedule().await?;
    if json {
        return Ok(table::json(&entries));
    }
    if entries.is_empty() {
        return Ok("the schedule is empty\n".to_owned());
    }
    let times = |last: &str, next: &str| format!("{last:<19} {next}");
    let mut text = table::pair("entry", &times("last (UTC)", "next (UTC)"));
    text.push_str(&table::pair("  when", "job"));
    for entry in entries {
        let last = entry.last.map_or_else(|| "never".to_owned(), utc);
        text.push_str(&table::pair(&entry.name, &times(&last, &next(&entry))));
        text.push_str(&table::pair(&format!("  {}", when(&entry)), entry.kind));
    }
    Ok(text)
}

fn next(entry: &Scheduled) -> String {
    let next = entry.next.map(utc);
    next.unwrap_or_else(|| if entry.is_paused { "paused" } else { "never" }.to_owned())
}

/// Its expression, and the zone in which that is read.
fn when(entry: &Scheduled) -> String {
    match &entry.zone {
        Some(zone) => format!("{} {zone}", entry.expression),
        None => entry.expression.clone(),
    }
}

/// What to say of a queue that nobody uses, if an entry has its name.
pub(super) async fn hint(scheduler: &Scheduler, (verb, name): (&str, &str)) -> Result<String> {
    let entries = scheduler.schedule().await?;
    if !entries.iter().any(|entry| entry.name == name) {
        return Ok(String::new());
    }
    let name = plain(name);
    Ok(format!(
        "{name} is an entry of the schedule: for that it is `jobs {verb} --entry {name}`\n"
    ))
}

pub(super) async fn pause(scheduler: &Scheduler, name: &str, json: bool) -> Result<String> {
    let is_new = scheduler.pause_entry(name).await?;
    let told = if is_new {
        "paused"
    } else {
        "is paused already"
    };
    told_of_entry(scheduler, (name, told), json).await
}

pub(super) async fn resume(scheduler: &Scheduler, name: &str, json: bool) -> Result<String> {
    let is_new = scheduler.resume_entry(name).await?;
    let told = if is_new { "resumed" } else { "was not paused" };
    told_of_entry(scheduler, (name, told), json).await
}

async fn told_of_entry(
    scheduler: &Scheduler,
    (name, told): (&str, &str),
    json: bool,
) -> Result<String> {
    let mut entries = scheduler.schedule().await?.into_iter();
    let entry = entries.find(|entry| entry.name == name);
    if json {
        return Ok(table::json(&entry));
    }
    let next = entry.and_then(|entry| entry.next);
    let due = |next: Timestamp| format!("; due next at {} UTC", utc(next));
    let due = next.map_or_else(String::new, due);
    Ok(format!("{}: {told}{due}\n", plain(name)))
}

/// One that runs, or that no program can run, keeps another from being enqueued.
pub(super) async fn run_now(scheduler: &Scheduler, name: &str, json: bool) -> Result<Done> {
    let run = scheduler.run_now(name).await?;
    let (job, state) = (run.job, run.state.as_str());
    let (is_done, told) = match run.state {
        _ if run.is_new => (true, format!("job {job} is enqueued")),
        State::Retryable => (
            true,
            format!("job {job} of it failed before, and runs again"),
        ),
        State::Available if run.is_hastened => (
            true,
            format!("job {job} of it waited for a later time, and runs now"),
        ),
        State::Available => (true, format!("job {job} of it waits already")),
        _ => (
            false,
            format!("job {job} of it is {state}: no other is enqueued"),
        ),
    };
    let told = format!("{}: {told}", plain(name));
    let text = match (json, is_done) {
        (true, _) => {
            let (is_new, is_hastened) = (run.is_new, run.is_hastened);
            table::json(&json!({
                "name": name, "job": job, "is_new": is_new, "is_hastened": is_hastened, "state": state,
            }))
        }
        (false, true) => told.clone() + "\n",
        // Said once, where errors are said.
        (false, false) => String::new(),
    };
    let failure = (!is_done).then_some(told);
    Ok(Done { text, failure })
}
