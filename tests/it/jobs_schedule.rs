//! `houseboat jobs` and the schedule: `schedule`, `run-now`, `pause --entry`, `resume --entry`.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use serde_json::json;

use crate::jobs_cli::TEN;
use crate::jobs_cli::jobs;
use crate::jobs_cli::json_of;
use crate::jobs_cli::migrated;
use crate::jobs_cli::open;
use crate::jobs_cli::state;
use crate::jobs_cli::try_jobs;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::number;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// 2100-01-01, in UTC: an entry whose last tick was then is due at the next after that, whatever the clock says.
const THEN: i64 = 4_102_444_800_000;

/// Both of the entries that the site has.
const KNOWN: &str = "those that there are: \"check_due_monitors\", \"prune_history\"";

/// An entry as it stands after a tick, and after a job at ten.
fn stands(conn: &Connection, name: &str) {
    let sql =
        "INSERT INTO schedule (name, last_tick_at, enqueued_at, job_id) VALUES (?1, ?2, ?3, 7)";
    conn.execute(sql, rusqlite::params![name, THEN, TEN])
        .unwrap();
}

#[test]
fn the_schedule_says_when_each_entry_was_and_is_due_and_fits_a_terminal() {
    let folder = migrated();
    let conn = open(folder.path());
    stands(&conn, "check_due_monitors");
    stands(&conn, "prune_history");
    let sql = "UPDATE schedule SET enqueued_at = NULL, job_id = NULL, paused_at = 1 WHERE name = 'prune_history'";
    conn.execute(sql, []).unwrap();
    let zone = [
        ("HOUSEBOAT_QUEUE__ZONE", "Europe/Berlin"),
        ("HOUSEBOAT_LOG__LEVEL", "error"),
    ];
    let printed = run(folder.path(), &["jobs", "schedule"], &zone);
    assert_eq!(
        printed.out,
        "entry                                    last (UTC)          next (UTC)\n\
        \x20 when                                   job\n\
         check_due_monitors                       2026-11-21 10:00:00 2100-01-01 00:00:05\n\
        \x20 */5 * * * * * Europe/Berlin            check_due_monitors\n\
         prune_history                            never               paused\n\
        \x20 17 * * * * Europe/Berlin               prune_history\n",
        "{printed:?}"
    );
    assert!(printed.out.lines().all(|line| line.chars().count() <= 80));
    assert_eq!(
        json_of(folder.path(), &["schedule"]),
        json!([
            {
                "name": "check_due_monitors", "kind": "check_due_monitors", "expression": "*/5 * * * * *",
                "zone": "UTC", "last": "2026-11-21T10:00:00Z", "next": "2100-01-01T00:00:05Z", "is_paused": false,
                "last_job": 7,
            },
            {
                "name": "prune_history", "kind": "prune_history", "expression": "17 * * * *", "zone": "UTC",
                "last": null, "next": null, "is_paused": true, "last_job": null,
            },
        ])
    );
}

#[test]
fn an_entry_is_paused_and_resumed_by_its_name() {
    let folder = migrated();
    let conn = open(folder.path());
    stands(&conn, "prune_history");
    let entry = |verb: &str| jobs(folder.path(), &[verb, "--entry", "prune_history"]);
    let paused =
        "SELECT count(*) FROM schedule WHERE name = 'prune_history' AND paused_at IS NOT NULL";
    let due = "; due next at 2100-01-01 00:17:00 UTC\n";
    assert_eq!(
        entry("resume"),
        format!("prune_history: was not paused{due}")
    );
    assert_eq!(entry("pause"), "prune_history: paused\n");
    assert_eq!(number(&conn, paused), 1);
    assert_eq!(entry("pause"), "prune_history: is paused already\n");
    assert_eq!(entry("resume"), format!("prune_history: resumed{due}"));
    assert_eq!(number(&conn, paused), 0);
    let arguments = ["pause", "--entry", "prune_history"];
    let document = json!({
        "name": "prune_history", "kind": "prune_history", "expression": "17 * * * *", "zone": "UTC",
        "last": "2026-11-21T10:00:00Z", "next": null, "is_paused": true, "last_job": 7,
    });
    assert_eq!(json_of(folder.path(), &arguments), document);
    // It is no queue.
    assert_eq!(number(&conn, "SELECT count(*) FROM queues"), 0);
}

/// Has the job that waits stand otherwise.
fn set(folder: &Path, columns: &str) {
    let sql = format!("UPDATE jobs SET {columns} WHERE id = 1");
    assert_eq!(open(folder).execute(&sql, []).unwrap(), 1);
}

#[test]
fn run_now_enqueues_a_job_unless_the_entry_has_one_and_says_which() {
    let folder = migrated();
    let folder = folder.path();
    let now = ["run-now", "prune_history"];
    jobs(folder, &["pause", "--entry", "prune_history"]);
    assert_eq!(jobs(folder, &now), "prune_history: job 1 is enqueued\n");
    let conn = open(folder);
    let key = "SELECT count(*) FROM jobs WHERE kind = 'prune_history' AND unique_key LIKE '%schedule:prune_history'";
    assert_eq!(number(&conn, key), 1);
    assert_eq!(
        jobs(folder, &now),
        "prune_history: job 1 of it waits already\n"
    );
    set(folder, "state = 'retryable', run_at = run_at + 86400000");
    let told = "prune_history: job 1 of it failed before, and runs again\n";
    assert_eq!(jobs(folder, &now), told);
    assert_eq!(
        number(&conn, "SELECT run_at < enqueued_at + 86400000 FROM jobs"),
        1
    );
    // Snoozed by itself, or put off: neither has failed.
    set(
        folder,
        "state = 'available', attempt = 0, run_at = run_at + 86400000",
    );
    let told = "prune_history: job 1 of it waited for a later time, and runs now\n";
    assert_eq!(jobs(folder, &now), told);
    let is_due = "SELECT run_at < enqueued_at + 86400000 FROM jobs";
    assert_eq!(number(&conn, is_due), 1);
    assert_eq!(
        jobs(folder, &now),
        "prune_history: job 1 of it waits already\n"
    );
    for word in ["executing", "parked"] {
        set(folder, &format!("state = '{word}'"));
        let refused = try_jobs(folder, &now);
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
        let told = format!("prune_history: job 1 of it is {word}: no other is enqueued\n");
        assert_eq!(refused.err, told);
    }
    let refused = try_jobs(folder, &["run-now", "prune_history", "--json"]);
    assert_eq!(refused.code, Some(1));
    let document: Value = serde_json::from_str(&refused.out).unwrap();
    let same = json!({ "name": "prune_history", "job": 1, "is_new": false, "is_hastened": false, "state": "parked" });
    assert_eq!(document, same);
    set(folder, "state = 'completed', binds = 0, finished_at = 1");
    let told = json_of(folder, &now);
    let id = told["job"].as_i64().unwrap();
    assert_ne!(id, 1);
    let new = json!({
        "name": "prune_history", "job": id, "is_new": true, "is_hastened": false, "state": "available"
    });
    assert_eq!(told, new);
    assert_eq!(state(&conn, id), "available");
}

#[test]
fn an_entry_that_is_taken_for_a_queue_is_hinted_at() {
    let folder = migrated();
    let folder = folder.path();
    for verb in ["pause", "resume"] {
        let told = format!(
            "prune_history: {verb}d; no job of it waits or runs\n\
             prune_history is an entry of the schedule: for that it is `jobs {verb} --entry prune_history`\n"
        );
        assert_eq!(jobs(folder, &[verb, "prune_history"]), told);
        let other = format!("mail: {verb}d; no job of it waits or runs\n");
        assert_eq!(jobs(folder, &[verb, "mail"]), other);
        let document = json_of(folder, &[verb, "prune_history"]);
        assert_eq!(document["name"], "prune_history", "{document}");
    }
    // There is a queue of this name, by the settings or by a job of it.
    let set = [("HOUSEBOAT_QUEUE__QUEUES__PRUNE_HISTORY__WEIGHT", "2")];
    let printed = run(folder, &["jobs", "pause", "prune_history"], &set);
    let told = "prune_history: paused; no job of it waits or runs\n";
    assert_eq!(printed.out, told, "{printed:?}");
    jobs(folder, &["run-now", "prune_history"]);
    self::set(folder, "queue = 'prune_history'");
    let told = "prune_history: resumed; 1 wait, 0 run\n";
    assert_eq!(jobs(folder, &["resume", "prune_history"]), told);
}

#[test]
fn a_name_that_no_entry_has_is_answered_with_those_that_there_are() {
    let folder = migrated();
    let wrong: [&[&str]; 3] = [
        &["run-now", "prune"],
        &["pause", "--entry", "prune"],
        &["resume", "--entry", "prune"],
    ];
    for arguments in wrong {
        let refused = try_jobs(folder.path(), arguments);
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
        let told = format!("the schedule has no entry \"prune\": {KNOWN}\n");
        assert_eq!(refused.err, told, "{arguments:?}");
    }
    let conn = open(folder.path());
    assert_eq!(number(&conn, "SELECT count(*) FROM schedule"), 0);
}

#[test]
fn wrong_usage_of_the_schedule_is_named_and_exits_with_2() {
    let folder = migrated();
    let wrong: [(&[&str], &str); 6] = [
        (&["run-now"], "<NAME>"),
        (&["run-now", "one", "two"], "'two'"),
        (&["schedule", "one"], "'one'"),
        (&["pause"], "<QUEUE"),
        (&["resume"], "--entry"),
        (&["pause", "mail", "--entry", "one"], "--entry"),
    ];
    for (arguments, named) in wrong {
        let refused = try_jobs(folder.path(), arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert!(
            refused.err.contains(named),
            "{arguments:?}: {}",
            refused.err
        );
    }
}

#[tokio::test]
async fn run_now_wakes_a_running_site_whose_entry_is_paused() {
    // It is not to find the job by looking.
    let poll = ("HOUSEBOAT_QUEUE__POLL_MS", "3600000");
    let site = TestProcess::builder().variable(poll.0, poll.1);
    let site = site.start().await;
    // Nor is a tick to wake it: none has a job from now on.
    for entry in ["check_due_monitors", "prune_history"] {
        jobs(site.folder(), &["pause", "--entry", entry]);
    }
    let conn = open(site.folder());
    let busy = "SELECT count(*) FROM jobs WHERE state IN ('available', 'executing')";
    let idle = async || (number(&conn, busy) == 0).then_some(());
    wait_for("idle worker", SOON, idle).await;
    let told = json_of(site.folder(), &["run-now", "prune_history"]);
    assert_eq!(told["is_new"], true, "{told}");
    let id = told["job"].as_i64().unwrap();
    let done = async || (state(&conn, id) == "completed").then_some(());
    wait_for("end of the job", SOON, done).await;
    let listed = json_of(site.folder(), &["schedule"]);
    assert_eq!(listed[1]["last_job"], id, "{listed}");
    assert_eq!(listed[1]["is_paused"], true, "{listed}");
    assert_eq!(listed[1]["next"], Value::Null, "{listed}");
}
