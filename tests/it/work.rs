//! `houseboat work`: processes that run jobs beside the one that serves.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::jobs_cli::open;
use crate::support::command::run;
use crate::support::ledger::Container;
use crate::support::ledger::LEASE;
use crate::support::process::Builder;
use crate::support::process::TestProcess;
use crate::support::s3::S3;
use crate::support::site::Monitor;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// Of `queue.stop_ms` in these tests: what a job that hangs is given at a stop.
const GRACE: (&str, &str) = ("HOUSEBOAT_QUEUE__STOP_MS", "300");

const CHECKS: &str = "kind = 'check_monitor'";
const CHECKING: &str = "kind = 'check_monitor' AND state = 'executing'";

/// A site that runs no jobs itself.
async fn site() -> TestProcess {
    without_workers().start().await
}

fn without_workers() -> Builder {
    TestProcess::builder()
        .variable("HOUSEBOAT_QUEUE__WORKERS", "0")
        .variable(GRACE.0, GRACE.1)
}

/// `work` on the site's disk, with these arguments.
fn work(folder: &Path, arguments: &[&str]) -> TestProcess {
    let builder = TestProcess::builder()
        .folder(folder)
        .variable(GRACE.0, GRACE.1)
        .argument("work");
    let builder = arguments
        .iter()
        .fold(builder, |builder, it| builder.argument(it));
    builder.spawn()
}

async fn monitor(site: &TestProcess, name: &str, target: &Target) {
    Monitor::new(name, &target.url("/"))
        .set("timeout_s", "25")
        .create(site)
        .await;
}

fn count(conn: &Connection, which: &str) -> i64 {
    number(conn, &format!("SELECT count(*) FROM jobs WHERE {which}"))
}

async fn until(conn: &Connection, which: &str, wanted: i64, process: &TestProcess) {
    let found = async || (count(conn, which) == wanted).then_some(());
    let what = format!("{wanted} jobs where {which}");
    tokio::select! {
        () = wait_for(&what, SOON * 2, found) => {}
        () = tokio::time::sleep(SOON) => {
            panic!("not {wanted} jobs where {which}:\n{}", process.log());
        }
    }
}

async fn says(process: &TestProcess, text: &str) {
    let said = async || process.log().contains(text).then_some(());
    wait_for(&format!("line with {text:?}"), SOON, said).await;
}

#[tokio::test]
async fn it_runs_the_jobs_of_a_site_that_runs_none() {
    let site = site().await;
    let conn = open(site.folder());
    let target = Target::answers("hello").await;
    monitor(&site, "one", &target).await;
    assert_eq!(count(&conn, CHECKS), 1);
    let mut work = work(site.folder(), &["--workers", "2"]);
    until(
        &conn,
        &format!("{CHECKS} AND state = 'completed'"),
        1,
        &work,
    )
    .await;
    // It is told of what comes later, too.
    monitor(&site, "two", &target).await;
    until(
        &conn,
        &format!("{CHECKS} AND state = 'completed'"),
        2,
        &work,
    )
    .await;
    work.terminate();
    let status = work.wait(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", work.log());
}

#[tokio::test]
async fn two_of_them_share_the_load() {
    let site = site().await;
    let conn = open(site.folder());
    let hangs = Target::hangs().await;
    let _works = [1, 2].map(|_| work(site.folder(), &["--workers", "1"]));
    for name in ["one", "two"] {
        monitor(&site, name, &hangs).await;
    }
    let by = async || {
        let sql = format!("SELECT count(DISTINCT worker) FROM jobs WHERE {CHECKING}");
        (number(&conn, &sql) == 2).then_some(())
    };
    wait_for("job for each", SOON, by).await;
}

#[tokio::test]
async fn it_takes_only_jobs_of_the_queues_it_is_given() {
    let site = site().await;
    let conn = open(site.folder());
    let target = Target::answers("hello").await;
    for name in ["one", "two"] {
        monitor(&site, name, &target).await;
    }
    let last = format!("id = (SELECT max(id) FROM jobs WHERE {CHECKS})");
    let sql = format!("UPDATE jobs SET queue = 'mail' WHERE {last}");
    conn.execute(&sql, []).unwrap();
    let work = work(site.folder(), &["--queues", "news,mail", "--workers", "4"]);
    until(&conn, &format!("{last} AND state = 'completed'"), 1, &work).await;
    assert_eq!(
        count(&conn, &format!("{CHECKS} AND state = 'available'")),
        1
    );
}

#[tokio::test]
async fn a_job_that_does_not_end_in_time_is_put_back_at_the_stop() {
    let site = site().await;
    let conn = open(site.folder());
    let hangs = Target::hangs().await;
    monitor(&site, "hangs", &hangs).await;
    let mut work = work(site.folder(), &["--workers", "1"]);
    until(&conn, CHECKING, 1, &work).await;
    work.terminate();
    let status = work.wait(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", work.log());
    let back = format!("{CHECKS} AND state = 'available' AND attempt = 0");
    assert_eq!(count(&conn, &back), 1, "{}", work.log());
}

#[tokio::test]
async fn it_leaves_with_the_server_and_goes_on_with_the_next() {
    let mut site = site().await;
    let conn = open(site.folder());
    let mut hangs = Target::hangs().await;
    monitor(&site, "hangs", &hangs).await;
    let work = work(site.folder(), &["--workers", "1"]);
    until(&conn, CHECKING, 1, &work).await;
    site.terminate();
    assert_eq!(site.wait(SOON).await.code(), Some(0), "{}", site.log());
    // The server has waited for it.
    assert_eq!(count(&conn, CHECKING), 0, "{}", work.log());
    assert!(
        site.log().contains("waiting for `work` to end"),
        "{}",
        site.log()
    );
    says(&work, "waiting for a server").await;
    hangs.switch_off().await;
    let _next = without_workers().folder(site.folder()).start().await;
    until(
        &conn,
        &format!("{CHECKS} AND state = 'completed'"),
        1,
        &work,
    )
    .await;
}

#[tokio::test]
async fn it_begins_nothing_more_once_its_server_was_killed() {
    let mut site = site().await;
    let conn = open(site.folder());
    let hangs = Target::hangs().await;
    monitor(&site, "hangs", &hangs).await;
    let mut work = work(site.folder(), &["--workers", "1"]);
    until(&conn, CHECKING, 1, &work).await;
    site.kill();
    until(&conn, CHECKING, 0, &work).await;
    says(&work, "waiting for a server").await;
    assert_eq!(
        count(&conn, &format!("{CHECKS} AND state = 'available'")),
        1
    );
    work.terminate();
    assert_eq!(work.wait(SOON).await.code(), Some(0), "{}", work.log());
}

#[tokio::test]
async fn the_server_runs_what_a_killed_one_was_running() {
    let lease = ("HOUSEBOAT_QUEUE__LEASE_MS", "3000");
    if !slow("the_server_runs_what_a_killed_one_was_running") {
        return;
    }
    let site = TestProcess::builder()
        .variable(lease.0, lease.1)
        .start()
        .await;
    let conn = open(site.folder());
    let mut hangs = Target::hangs().await;
    run(site.folder(), &["jobs", "pause", "default"], &[]);
    monitor(&site, "hangs", &hangs).await;
    let sql = format!("UPDATE jobs SET queue = 'mail' WHERE {CHECKS}");
    conn.execute(&sql, []).unwrap();
    run(site.folder(), &["jobs", "pause", "mail"], &[]);
    let mut work = work(site.folder(), &["--queues", "mail", "--workers", "1"]);
    says(&work, "running jobs").await;
    run(site.folder(), &["jobs", "resume", "mail"], &[]);
    until(&conn, CHECKING, 1, &work).await;
    hangs.switch_off().await;
    work.kill();
    until(
        &conn,
        &format!("{CHECKS} AND state = 'completed'"),
        1,
        &site,
    )
    .await;
}

#[tokio::test]
async fn it_waits_for_migrations_and_not_for_ever() {
    let site = site().await;
    let conn = open(site.folder());
    // As an older server has it.
    let sql = "SELECT version, name, applied_on, checksum FROM migrations_site ORDER BY version DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| {
        let last: (i64, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(last)
    };
    let last = conn.query_row(sql, [], row).unwrap();
    conn.execute("DELETE FROM migrations_site WHERE version = ?1", [last.0])
        .unwrap();
    let mut hasty = work(site.folder(), &["--wait", "0"]);
    assert_eq!(hasty.wait(SOON).await.code(), Some(1));
    says(&hasty, "1 migrations are pending").await;
    let patient = work(site.folder(), &[]);
    says(&patient, "waiting for migrations").await;
    conn.execute("INSERT INTO migrations_site VALUES (?1, ?2, ?3, ?4)", last)
        .unwrap();
    says(&patient, "running jobs").await;
}

#[tokio::test]
async fn a_file_that_is_newer_than_the_program_is_refused() {
    let site = site().await;
    let conn = open(site.folder());
    let sql = "INSERT INTO migrations_site VALUES (99, 'later', '2026-11-21T10:00:00Z', '7')";
    conn.execute(sql, []).unwrap();
    let mut work = work(site.folder(), &[]);
    assert_eq!(work.wait(SOON).await.code(), Some(1));
    says(&work, "this database is newer than the program").await;
}

/// A container of the reference site that replicates, and runs no jobs itself.
async fn container(folder: &Path, s3: &S3) -> Container {
    let builder = without_workers().folder(folder).argument("start");
    let own = [
        ("HOUSEBOAT_REPLICATION__LEASE_MS", "3000"),
        ("HOUSEBOAT_HANDOVER__GRACE_MS", "30000"),
        ("HOUSEBOAT_HANDOVER__LINGER_MS", "2000"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = own.into_iter().chain(s3.variables("site"));
    let builder = variables.fold(builder, |builder, (name, value)| {
        builder.variable(&name, value)
    });
    Container::of(builder.start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_disk_of_a_standby_it_runs_nothing_until_that_serves() {
    if !slow("on_the_disk_of_a_standby_it_runs_nothing_until_that_serves") {
        return;
    }
    let s3 = S3::start().await;
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = container(folders[0].path(), &s3).await;
    first.is("serving").await;
    let conn = open(first.folder());
    let mut hangs = Target::hangs().await;
    monitor(&first, "hangs", &hangs).await;
    let second = container(folders[1].path(), &s3).await;
    second.is("standby").await;
    let works = [&first, &second].map(|container| work(container.folder(), &["--workers", "1"]));
    until(&conn, CHECKING, 1, &works[0]).await;
    says(&works[1], "waiting for a server").await;
    drop(conn);
    first.stop().await;
    // What it put back is in the last copy, which the second one has: nobody runs it twice.
    hangs.switch_off().await;
    second.is("serving").await;
    let conn = open(second.folder());
    until(
        &conn,
        &format!("{CHECKS} AND state = 'completed'"),
        1,
        &works[1],
    )
    .await;
    assert_eq!(
        count(&conn, &format!("{CHECKS} AND (deaths > 0 OR claims <> 2)")),
        0,
        "{}",
        works[1].log()
    );
    assert!(!works[0].log().contains("WARN"), "{}", works[0].log());
    assert_eq!(works[0].log().matches("running jobs").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_right_of_its_server_runs_out_it_stores_nothing_more() {
    if !slow("when_the_right_of_its_server_runs_out_it_stores_nothing_more") {
        return;
    }
    let s3 = S3::start().await;
    let folder = TempDir::new().unwrap();
    let server = container(folder.path(), &s3).await;
    server.is("serving").await;
    let conn = open(server.folder());
    let work = work(server.folder(), &["--workers", "1"]);
    says(&work, "running jobs").await;
    // As a container that is paused: another may take over meanwhile, from the bucket.
    server.signal("STOP");
    says(&work, "waiting for a server").await;
    assert_eq!(work.log().matches("running jobs").count(), 1);
    let waits = "INSERT INTO jobs (kind, queue, arguments, state, priority, attempts_max, run_at, enqueued_at)
        VALUES ('prune_history', 'default', '{}', 'available', 1, 1, 1, 1)";
    conn.execute(waits, []).unwrap();
    std::fs::write(server.folder().join("data/site.sqlite3.wake"), "!").unwrap();
    tokio::time::sleep(LEASE).await;
    assert_eq!(
        count(&conn, "kind = 'prune_history' AND state = 'available'"),
        1
    );
    server.signal("CONT");
    until(
        &conn,
        "kind = 'prune_history' AND state = 'completed'",
        1,
        &work,
    )
    .await;
}

#[test]
fn wrong_usage_is_named_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let none = ("HOUSEBOAT_QUEUE__WORKERS", "0");
    let wrong: [(&[&str], &str); 5] = [
        (&["work"], "queue.workers is 0 here"),
        (&["work", "--workers", "0"], "1..=1024"),
        (&["work", "--workers", "1025"], "1..=1024"),
        (&["work", "--queues", "mail,"], "1 to 200 bytes"),
        (&["work", "--wait", "x"], "--wait"),
    ];
    for (arguments, named) in wrong {
        let refused = run(folder.path(), arguments, &[none]);
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert!(
            refused.err.contains(named),
            "{arguments:?}: {}",
            refused.err
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
