//! `houseboat jobs`, as an operator types it.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::number;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// 2026-11-21, 10:00:00 in UTC.
pub(crate) const TEN: i64 = 1_795_255_200_000;

/// A migrated file without a site.
pub(crate) fn migrated() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["migrate"], &[]).code, Some(0));
    folder
}

/// The file, changed from outside.
pub(crate) fn open(folder: &Path) -> Connection {
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let conn = Connection::open(folder.join("data/site.sqlite3")).unwrap();
    conn.busy_timeout(SOON).unwrap();
    conn
}

/// Stores a job of a kind that no site knows, and gives its id; `more` sets columns.
pub(crate) fn job(conn: &Connection, state: &str, more: &str) -> i64 {
    let sql = "INSERT INTO jobs (kind, queue, arguments, state, priority, attempts_max, run_at, enqueued_at)
         VALUES ('send_mail', 'mail', '{\"to\":7}', ?1, 1, 20, ?2, ?2)";
    conn.execute(sql, rusqlite::params![state, TEN]).unwrap();
    let id = conn.last_insert_rowid();
    if !more.is_empty() {
        let sql = format!("UPDATE jobs SET {more} WHERE id = {id}");
        conn.execute(&sql, []).unwrap();
    }
    id
}

/// Runs `jobs` with these arguments, which are to succeed.
pub(crate) fn jobs(folder: &Path, arguments: &[&str]) -> String {
    let printed = try_jobs(folder, arguments);
    assert_eq!(printed.code, Some(0), "{arguments:?}: {printed:?}");
    assert_eq!(printed.err, "", "{arguments:?}");
    printed.out
}

pub(crate) fn try_jobs(folder: &Path, arguments: &[&str]) -> Printed {
    let all: Vec<_> = ["jobs"].iter().chain(arguments).copied().collect();
    // A slow disk would be told of beside what the command says.
    run(folder, &all, &[("HOUSEBOAT_LOG__LEVEL", "error")])
}

pub(crate) fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    let all: Vec<_> = arguments.iter().chain(&["--json"]).copied().collect();
    serde_json::from_str(&jobs(folder, &all)).unwrap()
}

fn ids(listed: &Value) -> Vec<i64> {
    let jobs = listed.as_array().unwrap().iter();
    jobs.map(|job| job["id"].as_i64().unwrap()).collect()
}

pub(crate) fn state(conn: &Connection, id: i64) -> String {
    let sql = "SELECT state FROM jobs WHERE id = ?1";
    conn.query_row(sql, [id], |row| row.get(0)).unwrap()
}

#[test]
fn counts_are_by_state_and_by_queue() {
    let folder = migrated();
    assert_eq!(jobs(folder.path(), &[]).lines().count(), 7);
    let conn = open(folder.path());
    job(&conn, "available", "");
    job(&conn, "available", "blocked_by = 'c:host'");
    job(&conn, "executing", "queue = 'default'");
    job(&conn, "completed", "queue = 'past'");
    jobs(folder.path(), &["pause", "night"]);
    assert_eq!(
        jobs(folder.path(), &[]),
        "available         2\n\
         parked            0\n\
         executing         1\n\
         retryable         0\n\
         completed         1\n\
         discarded         0\n\
         cancelled         0\n\
         \n\
         queue                           waiting  running\n\
         default                               0        1\n\
         mail                                  2        0\n\
         night                                 0        0  paused\n"
    );
    assert_eq!(
        json_of(folder.path(), &[]),
        json!({
            "states": {
                "available": 2, "parked": 0, "executing": 1, "retryable": 0, "completed": 1, "discarded": 0,
                "cancelled": 0,
            },
            "queues": [
                { "name": "default", "is_paused": false, "waiting": 0, "running": 1 },
                { "name": "mail", "is_paused": false, "waiting": 2, "running": 0 },
                { "name": "night", "is_paused": true, "waiting": 0, "running": 0 },
            ],
        })
    );
}

#[test]
fn a_list_has_the_newest_first_and_fits_a_terminal() {
    let folder = migrated();
    assert_eq!(jobs(folder.path(), &["list"]), "there are no such jobs\n");
    assert_eq!(json_of(folder.path(), &["list"]), json!([]));
    let conn = open(folder.path());
    job(&conn, "available", "");
    let long = "kind = 'a_kind_with_a_very_long_name_indeed', queue = 'a_long_queue_name'";
    job(
        &conn,
        "discarded",
        &format!("{long}, attempt = 20, finished_at = {TEN} + 1500"),
    );
    let list = jobs(folder.path(), &["list"]);
    assert_eq!(
        list,
        "      id state      queue        kind                    try time (UTC)\n\
        \x20      2 discarded  a_long_queu… a_kind_with_a_very_…  20/20 2026-11-21 10:00:01\n\
        \x20      1 available  mail         send_mail              0/20 2026-11-21 10:00:00\n"
    );
    assert!(list.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_list_shows_what_is_asked_for() {
    let folder = migrated();
    let conn = open(folder.path());
    let one = job(&conn, "available", "");
    let two = job(&conn, "discarded", "");
    let three = job(&conn, "discarded", "queue = 'default'");
    let four = job(&conn, "discarded", "kind = 'other'");
    let list = |arguments: &[&str]| {
        let all: Vec<_> = ["list"].iter().chain(arguments).copied().collect();
        ids(&json_of(folder.path(), &all))
    };
    assert_eq!(list(&[]), [four, three, two, one]);
    assert_eq!(list(&["--state", "discarded"]), [four, three, two]);
    assert_eq!(list(&["--state", "executing"]), [0; 0]);
    assert_eq!(list(&["--queue", "mail"]), [four, two, one]);
    assert_eq!(list(&["--kind", "send_mail"]), [three, two, one]);
    let all = [
        "--state",
        "discarded",
        "--queue",
        "mail",
        "--kind",
        "send_mail",
    ];
    assert_eq!(list(&all), [two]);
    assert_eq!(list(&["--limit", "2"]), [four, three]);
    assert_eq!(list(&["--limit", "2", "--before", "3"]), [two, one]);
}

#[test]
fn the_names_in_json_are_stable() {
    let folder = migrated();
    let conn = open(folder.path());
    let more = format!(
        "attempt = 2, started_at = {TEN} + 1, error = 'refused', progress = 0.4, progress_text = 'page 2 of 5',
         blocked_by = 'c:host', unique_key = 'send_mail:7', unique_scope = 0, binds = 1, cursor = '[2]', deaths = 1"
    );
    let id = job(&conn, "retryable", &more);
    let error =
        "INSERT INTO job_errors (job, claim, attempt, at, error) VALUES (?1, ?2, ?2, ?3, ?4)";
    conn.execute(error, rusqlite::params![id, 1, TEN + 500, "no route"])
        .unwrap();
    conn.execute(error, rusqlite::params![id, 2, TEN + 60_000, "refused"])
        .unwrap();
    let listed = json!({
        "id": id, "kind": "send_mail", "queue": "mail", "state": "retryable", "priority": "normal",
        "attempt": 2, "attempts_max": 20, "run_at": "2026-11-21T10:00:00Z", "enqueued_at": "2026-11-21T10:00:00Z",
        "started_at": "2026-11-21T10:00:00.001Z", "finished_at": null, "error": "refused", "progress": 0.4,
        "progress_text": "page 2 of 5", "parked": false, "blocked_by": "concurrency:host",
    });
    assert_eq!(json_of(folder.path(), &["list"]), json!([listed]));
    let mut detail = listed;
    detail["arguments"] = json!({ "to": 7 });
    detail["cursor"] = json!([2]);
    detail["unique_key"] = json!("send_mail:7");
    detail["deaths"] = json!(1);
    detail["errors"] = json!([
        { "attempt": 1, "at": "2026-11-21T10:00:00.5Z", "error": "no route" },
        { "attempt": 2, "at": "2026-11-21T10:01:00Z", "error": "refused" },
    ]);
    assert_eq!(json_of(folder.path(), &["show", "1"]), detail);
}

#[test]
fn show_tells_all_of_a_job() {
    let folder = migrated();
    let conn = open(folder.path());
    let more = "attempt = 1, error = 'two\nlines\u{1b}[2J', progress = 0.4, progress_text = 'page 2 of 5', cursor = '[2]'";
    let id = job(&conn, "retryable", more);
    let sql =
        "INSERT INTO job_errors (job, claim, attempt, at, error) VALUES (?1, 1, 1, ?2, 'no route')";
    conn.execute(sql, [id, TEN + 500]).unwrap();
    assert_eq!(
        jobs(folder.path(), &["show", "1"]),
        "id         1\n\
         kind       send_mail\n\
         queue      mail\n\
         state      retryable\n\
         priority   normal\n\
         attempt    1 of 20\n\
         enqueued   2026-11-21 10:00:00 UTC\n\
         due        2026-11-21 10:00:00 UTC\n\
         progress   40 % page 2 of 5\n\
         cursor     [2]\n\
         arguments  {\"to\":7}\n\
         error      two lines [2J\n\
         \x20 attempt 1 failed at 2026-11-21 10:00:00 UTC: no route\n"
    );
    let none = try_jobs(folder.path(), &["show", "7"]);
    assert_eq!(none.code, Some(1));
    assert_eq!(none.err, "there is no job 7: it was pruned, or never was\n");
}

#[test]
fn a_queue_that_nobody_uses_may_be_paused_and_that_is_said() {
    let folder = migrated();
    let conn = open(folder.path());
    job(&conn, "available", "");
    assert_eq!(
        jobs(folder.path(), &["pause", "mail"]),
        "mail: paused; 1 wait, 0 run\n"
    );
    assert_eq!(
        jobs(folder.path(), &["pause", "mial"]),
        "mial: paused; no job of it waits or runs\n"
    );
    assert_eq!(
        jobs(folder.path(), &["resume", "mial"]),
        "mial: resumed; no job of it waits or runs\n"
    );
    assert_eq!(
        json_of(folder.path(), &["resume", "mail"]),
        json!({ "name": "mail", "is_paused": false, "waiting": 1, "running": 0 })
    );
    let paused = "SELECT count(*) FROM queues WHERE paused_at IS NOT NULL";
    assert_eq!(number(&conn, paused), 0);
}

#[test]
fn prune_deletes_what_ended_long_ago() {
    let folder = migrated();
    let conn = open(folder.path());
    job(&conn, "completed", "finished_at = 1");
    job(&conn, "discarded", "finished_at = 1");
    job(&conn, "available", "");
    assert_eq!(jobs(folder.path(), &["prune"]), "pruned 2\n");
    assert_eq!(json_of(folder.path(), &["prune"]), json!({ "pruned": 0 }));
    assert_eq!(number(&conn, "SELECT count(*) FROM jobs"), 1);
}

#[test]
fn wrong_usage_is_named_and_exits_with_2() {
    let folder = migrated();
    let long = "q".repeat(201);
    let wrong: [(&[&str], &str); 15] = [
        (&["lsit"], "list"),
        (
            &["list", "--state", "done"],
            "one of available, parked, executing, retryable, completed, discarded, cancelled",
        ),
        (&["list", "--limit", "0"], "1..=10000"),
        (&["list", "--limit", "10001"], "1..=10000"),
        (&["list", "--before", "x"], "--before"),
        (&["show"], "<ID>"),
        (&["show", "0"], "0"),
        (&["retry"], "<ID>"),
        (&["retry", "1", "x"], "'x'"),
        (&["retry", "--all"], "--state"),
        (&["retry", "1", "--all", "--state", "discarded"], "--all"),
        (&["retry", "1", "--queue", "mail"], "--all"),
        (
            &["retry", "--all", "--state", "executing"],
            "one of parked, retryable, completed, discarded, cancelled",
        ),
        (&["cancel"], "<ID>"),
        (&["pause", &long], "1 to 200 bytes"),
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
async fn a_paused_queue_of_a_running_site_begins_nothing_until_it_is_resumed() {
    let site = TestProcess::start().await;
    jobs(site.folder(), &["pause", "default"]);
    Monitor::new("one", &site.url("/up")).create(&site).await;
    let conn = open(site.folder());
    let waits = "SELECT count(*) FROM jobs WHERE kind = 'check_monitor' AND state = 'available'";
    assert_eq!(number(&conn, waits), 1);
    // A job of another queue is claimed meanwhile: nobody knows it, so it is parked.
    let other = job(&conn, "available", "");
    jobs(site.folder(), &["resume", "mail"]);
    let claimed = async || (state(&conn, other) == "parked").then_some(());
    wait_for("claim of another queue", SOON, claimed).await;
    assert_eq!(number(&conn, waits), 1);
    jobs(site.folder(), &["resume", "default"]);
    let checked = async || (number(&conn, "SELECT count(*) FROM checks") == 1).then_some(());
    wait_for("check", SOON, checked).await;
}
