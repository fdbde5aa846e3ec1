//! `houseboat jobs` where it changes jobs: retry, discard, cancel.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::jobs_cli::job;
use crate::jobs_cli::jobs;
use crate::jobs_cli::json_of;
use crate::jobs_cli::migrated;
use crate::jobs_cli::open;
use crate::jobs_cli::state;
use crate::jobs_cli::try_jobs;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_retried_job_has_an_attempt_left_and_keeps_its_errors() {
    let folder = migrated();
    let conn = open(folder.path());
    let spent = "attempt = 20, error = 'refused', finished_at = 1, deaths = 2, cursor = '[2]', cancel_reason = 'no'";
    let discarded = job(&conn, "discarded", spent);
    let completed = job(&conn, "completed", "attempt = 1, cursor = '[9]'");
    for each in ["cancelled", "parked", "retryable"] {
        job(&conn, each, "run_at = run_at + 9000000000000");
    }
    let told = jobs(folder.path(), &["retry", "1", "2", "3", "4", "5"]);
    assert_eq!(
        told,
        "1: runs again\n2: runs again\n3: runs again\n4: runs again\n5: runs again\n"
    );
    let waits = "SELECT count(*) FROM jobs WHERE state = 'available' AND attempt < attempts_max AND deaths = 0
         AND finished_at IS NULL AND cancel_reason IS NULL AND run_at < enqueued_at + 9000000000000";
    assert_eq!(number(&conn, waits), 5);
    let kept = |id| {
        let sql = "SELECT attempts_max, error, cursor FROM jobs WHERE id = ?1";
        let row = conn.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let row: (u32, Option<String>, Option<String>) = row.unwrap();
        row
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(kept(discarded), (21, text("refused"), text("[2]")));
    assert_eq!(kept(completed), (20, None, None), "it begins anew");
}

#[test]
fn of_several_each_is_told_and_one_that_cannot_be_done_shows() {
    let folder = migrated();
    let conn = open(folder.path());
    job(&conn, "discarded", "");
    job(&conn, "executing", "");
    let told = try_jobs(folder.path(), &["retry", "1", "2", "9"]);
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.out,
        "1: runs again\n\
         2: it is executing: there is nothing to retry\n\
         9: there is no such job: it was pruned, or never was\n"
    );
    assert_eq!(told.err, "2 of 3 could not be done\n");
    let told = try_jobs(folder.path(), &["retry", "2", "--json"]);
    assert_eq!(told.code, Some(1));
    let document: Value = serde_json::from_str(&told.out).unwrap();
    let text = "it is executing: there is nothing to retry";
    assert_eq!(
        document,
        json!([{ "id": 2, "is_done": false, "text": text }])
    );
    let told = try_jobs(folder.path(), &["retry", "2"]);
    assert_eq!((told.code, told.out.as_str()), (Some(1), ""));
    assert_eq!(told.err, format!("2: {text}\n"));
}

#[test]
fn a_job_whose_unique_key_another_holds_is_not_retried() {
    let folder = migrated();
    let conn = open(folder.path());
    let key = "unique_key = 'send_mail:7', unique_scope = 0, binds";
    let old = job(&conn, "discarded", &format!("{key} = 0"));
    let new = job(&conn, "available", &format!("{key} = 1"));
    let refused = try_jobs(folder.path(), &["retry", "1"]);
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.err,
        "1: job 1 cannot run again: job 2 has its unique key now\n"
    );
    assert_eq!(state(&conn, old), "discarded");
    let all = try_jobs(folder.path(), &["retry", "--all", "--state", "discarded"]);
    assert_eq!(all.code, Some(1));
    assert_eq!(
        all.out,
        "0 run again\n1: job 1 cannot run again: job 2 has its unique key now\n"
    );
    // Once the other is gone it holds the key again.
    jobs(folder.path(), &["cancel", "2"]);
    jobs(folder.path(), &["retry", "1"]);
    assert_eq!(state(&conn, old), "available");
    let refused = try_jobs(folder.path(), &["retry", &new.to_string()]);
    assert_eq!(
        refused.err,
        "2: job 2 cannot run again: job 1 has its unique key now\n"
    );
}

#[test]
fn a_key_that_bound_for_a_time_that_is_over_is_in_nobodys_way() {
    let folder = migrated();
    let conn = open(folder.path());
    job(
        &conn,
        "discarded",
        "unique_key = 'send_mail:7', unique_scope = 0, binds = 0",
    );
    let over = "unique_key = 'send_mail:7', unique_scope = 2, unique_until = 1, binds = 1";
    job(&conn, "completed", over);
    jobs(folder.path(), &["retry", "1"]);
    assert_eq!(number(&conn, "SELECT sum(binds * id) FROM jobs"), 1);
    // And it does not bind again.
    jobs(folder.path(), &["retry", "2"]);
    assert_eq!(number(&conn, "SELECT sum(binds * id) FROM jobs"), 1);
}

#[test]
fn all_of_a_state_are_retried_in_batches() {
    let folder = migrated();
    let conn = open(folder.path());
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 450)
        INSERT INTO jobs (kind, queue, arguments, state, priority, attempts_max, run_at, enqueued_at)
        SELECT 'send_mail', 'mail', '{}', 'discarded', 1, 20, 1, 1 FROM n";
    conn.execute(many, []).unwrap();
    job(&conn, "discarded", "queue = 'default'");
    job(&conn, "discarded", "kind = 'other'");
    job(&conn, "cancelled", "");
    let all = [
        "retry",
        "--all",
        "--state",
        "discarded",
        "--queue",
        "mail",
        "--kind",
        "send_mail",
    ];
    assert_eq!(jobs(folder.path(), &all), "450 run again\n");
    assert_eq!(
        number(&conn, "SELECT count(*) FROM jobs WHERE state = 'available'"),
        450
    );
    assert_eq!(
        number(&conn, "SELECT min(id) FROM jobs WHERE state = 'discarded'"),
        451
    );
    let rest = json_of(folder.path(), &["retry", "--all", "--state", "discarded"]);
    assert_eq!(rest, json!({ "retried": 2, "refused": 0, "reasons": [] }));
    assert_eq!(
        number(&conn, "SELECT count(*) FROM jobs WHERE state = 'cancelled'"),
        1
    );
}

#[test]
fn only_jobs_that_failed_and_wait_are_discarded() {
    let folder = migrated();
    let conn = open(folder.path());
    job(&conn, "retryable", "error = 'refused'");
    job(&conn, "parked", "error = 'nobody knows it'");
    job(&conn, "available", "error = 'refused'");
    assert_eq!(
        jobs(folder.path(), &["discard", "1", "2", "3"]),
        "1: discarded\n2: discarded\n3: discarded\n"
    );
    let kept = "SELECT count(*) FROM jobs WHERE state = 'discarded' AND error IS NOT NULL AND finished_at IS NOT NULL";
    assert_eq!(number(&conn, kept), 3);
    let new = job(&conn, "available", "");
    let told = try_jobs(folder.path(), &["discard", "4", "1"]);
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.out,
        "4: it has not failed: cancel it, if it is not to run\n1: it is discarded: there is nothing to discard\n"
    );
    assert_eq!(state(&conn, new), "available");
}

#[test]
fn a_waiting_job_is_cancelled_with_a_reason() {
    let folder = migrated();
    let conn = open(folder.path());
    for each in ["available", "retryable", "parked"] {
        job(&conn, each, "");
    }
    let told = jobs(
        folder.path(),
        &["cancel", "1", "2", "3", "--reason", "not wanted"],
    );
    assert_eq!(told, "1: cancelled\n2: cancelled\n3: cancelled\n");
    let sql = "SELECT count(*) FROM jobs WHERE state = 'cancelled' AND error = 'not wanted' AND finished_at IS NOT NULL";
    assert_eq!(number(&conn, sql), 3);
    let again = try_jobs(folder.path(), &["cancel", "1"]);
    assert_eq!(again.code, Some(1));
    assert_eq!(
        again.err,
        "1: it is cancelled: there is nothing to cancel\n"
    );
}

#[test]
fn what_waits_for_the_limit_of_a_cancelled_job_goes_on() {
    let folder = migrated();
    let conn = open(folder.path());
    let limit = "limit_key = 'host', limit_max = 1, run_at = run_at";
    job(&conn, "available", limit);
    job(
        &conn,
        "available",
        &format!("{limit} + 1, blocked_by = 'c:host'"),
    );
    job(
        &conn,
        "available",
        &format!("{limit} + 2, blocked_by = 'c:host'"),
    );
    jobs(folder.path(), &["cancel", "1"]);
    let blocked = "SELECT sum(id) FROM jobs WHERE blocked_by IS NOT NULL";
    assert_eq!(number(&conn, blocked), 3);
    jobs(folder.path(), &["cancel", "3"]);
    let left = "SELECT count(*) FROM jobs WHERE blocked_by IS NOT NULL";
    assert_eq!(number(&conn, left), 0);
}

#[tokio::test]
async fn a_running_job_is_told_to_stop_and_ends_as_cancelled() {
    let site = TestProcess::builder()
        .variable("HOUSEBOAT_QUEUE__LEASE_MS", "3000")
        .start()
        .await;
    let hangs = Target::hangs().await;
    Monitor::new("hangs", &hangs.url("/"))
        .set("timeout_s", "25")
        .create(&site)
        .await;
    let conn = open(site.folder());
    let executing = "SELECT coalesce(max(id), 0) FROM jobs WHERE kind = 'check_monitor' AND state = 'executing'";
    let runs = async || Some(number(&conn, executing)).filter(|id| *id > 0);
    let id = wait_for("running job", SOON, runs).await;
    let told = jobs(
        site.folder(),
        &["cancel", &id.to_string(), "--reason", "too slow"],
    );
    assert_eq!(told, format!("{id}: is told to stop\n"));
    let ended = async || (state(&conn, id) == "cancelled").then_some(());
    wait_for("end of the job", SOON, ended).await;
    assert_eq!(
        json_of(site.folder(), &["show", &id.to_string()])["error"],
        "too slow"
    );
}
