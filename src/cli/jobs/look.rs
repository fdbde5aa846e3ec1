//! What there is: counts, a list, one job.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use serde_json::json;

use crate::cli::jobs::Done;
use crate::cli::jobs::table;
use crate::cli::jobs::table::plain;
use crate::cli::jobs::table::utc;
use crate::error::Result;
use crate::queue::Detail;
use crate::queue::Filter;
use crate::queue::Listed;
use crate::queue::Queue;
use crate::queue::State;

pub(super) async fn counts(queue: &Queue, json: bool) -> Result<String> {
    let (counts, queues) = (queue.counts().await?, queue.queues().await?);
    if json {
        let states: BTreeMap<_, _> = counts.iter().map(|(it, n)| (it.as_str(), n)).collect();
        return Ok(table::json(&json!({ "states": states, "queues": queues })));
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (state, count) in counts {
        let _ = writeln!(text, "{:<10} {count:>8}", state.as_str());
    }
    if !queues.is_empty() {
        let _ = writeln!(text, "\n{:<30} {:>8} {:>8}", "queue", "waiting", "running");
    }
    for queue in queues {
        let name = plain(&queue.name);
        let paused = if queue.is_paused { "  paused" } else { "" };
        let _ = writeln!(
            text,
            "{name:<30} {:>8} {:>8}{paused}",
            queue.waiting, queue.running
        );
    }
    Ok(text)
}

pub(super) async fn list(queue: &Queue, filter: &Filter, json: bool) -> Result<String> {
    let jobs = queue.list(filter).await?;
    if json {
        return Ok(table::json(&jobs));
    }
    if jobs.is_empty() {
        return Ok("there are no such jobs\n".to_owned());
    }
    let mut text = table::line(["id", "state", "queue", "kind", "try", "time (UTC)"]);
    for job in jobs {
        text.push_str(&table::line([
            &job.id.to_string(),
            job.state.as_str(),
            &job.queue,
            &job.kind,
            &format!("{}/{}", job.attempt, job.attempts_max),
            &utc(when(&job)),
        ]));
    }
    Ok(text)
}

/// When it ended, was begun, or is due.
fn when(job: &Listed) -> Timestamp {
    let time = match job.state {
        State::Executing => job.started_at,
        state if state.is_final() => job.finished_at,
        _ => None,
    };
    time.unwrap_or(job.run_at)
}

pub(super) async fn show(queue: &Queue, id: i64, json: bool) -> Result<Done> {
    let Some(job) = queue.get(id).await? else {
        return Ok(Done {
            text: String::new(),
            failure: Some(format!("there is no job {id}: it was pruned, or never was")),
        });
    };
    let text = if json {
        table::json(&as_json(&job))
    } else {
        text(&job)
    };
    Ok(Done {
        text,
        failure: None,
    })
}

/// With the arguments and the cursor as what they are, and not as texts.
fn as_json(job: &Detail) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let mut value = json!(job);
    value["arguments"] = parsed(&job.arguments);
    value["cursor"] = job.cursor.as_deref().map_or(Value::Null, parsed);
    value
}

fn text(job: &Detail) -> String {
    let listed = &job.listed;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10} {}", plain(value));
    };
    line("id", &listed.id.to_string());
    line("kind", &listed.kind);
    line("queue", &listed.queue);
    line("state", listed.state.as_str());
    line("priority", &format!("{:?}", listed.priority).to_lowercase());
    line(
        "attempt",
        &format!("{} of {}", listed.attempt, listed.attempts_max),
    );
    let times = [
        ("enqueued", Some(listed.enqueued_at)),
        ("due", Some(listed.run_at)),
        ("started", listed.started_at),
        ("finished", listed.finished_at),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            line(name, &format!("{} UTC", utc(time)));
        }
    }
    if let Some(part) = listed.progress {
        let said = listed.progress_text.as_deref().unwrap_or_default();
        line("progress", &format!("{:.0} % {said}", part * 100.0));
    }
    let others = [
        ("waits for", &listed.blocked_by),
        ("unique", &job.unique_key),
        ("cursor", &job.cursor),
    ];
    for (name, value) in others {
        if let Some(value) = value {
            line(name, value);
        }
    }
    if job.deaths > 0 {
        line("deaths", &format!("{} in a row", job.deaths));
    }
    line("arguments", &job.arguments);
    if let Some(error) = &listed.error {
        line("error", error);
    }
    for error in &job.errors {
        let _ = writeln!(
            text,
            "  attempt {} failed at {} UTC: {}",
            error.attempt,
            utc(error.at),
            plain(&error.error)
        );
    }
    text
}
