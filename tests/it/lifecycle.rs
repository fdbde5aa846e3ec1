//! Real processes: starts, stops, and a crash at any moment.

use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::process::command;
use crate::support::site::Monitor;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

/// `server.stop_ms` is 10 s; the rest is for a busy machine.
const STOP: Duration = Duration::from_secs(12);
const JOBS: Duration = Duration::from_mins(1);
/// Few, for each adds a monitor a round, and the site takes 100.
const WRITERS: usize = 4;
/// What is written in each round before the kill, at least.
const WRITES_MIN: u64 = 10;

/// The last number that each monitor was given, as far as the site said so.
type Acknowledged = Arc<Mutex<HashMap<String, u64>>>;

#[tokio::test]
async fn a_site_that_is_told_to_stop_exits_with_0() {
    let mut site = TestProcess::start().await;
    let up = client().get(site.url("/up")).send().await.unwrap();
    assert_eq!(up.status(), 200);
    site.terminate();
    let status = site.wait(STOP).await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
}

#[tokio::test]
async fn ctrl_c_stops_the_site_as_well() {
    let mut site = TestProcess::start().await;
    site.interrupt();
    let status = site.wait(STOP).await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut site = TestProcess::start().await;
    let hangs = Target::hangs().await;
    let mut monitor = Monitor::new("hangs", &hangs.url("/"));
    monitor.set("timeout_s", "25").create(&site).await;
    let folder = site.folder().to_owned();
    let executing =
        "SELECT count(*) FROM jobs WHERE kind = 'check_monitor' AND state = 'executing'";
    let runs = async || (number(&database(&folder), executing) == 1).then_some(());
    wait_for("running job", JOBS, runs).await;
    site.terminate();
    let waits = async || {
        site.log()
            .contains("waiting for requests and jobs")
            .then_some(())
    };
    wait_for("line that says what it waits for", STOP, waits).await;
    site.terminate();
    let status = site.wait(Duration::from_secs(4)).await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
}

/// A process that ends with the test.
struct Owned(std::process::Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_full_disk_under_the_log_stops_neither_the_site_nor_its_stop() {
    let folder = TempDir::new().unwrap();
    // Nothing can say which port was taken, so it is chosen here.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut site = command(folder.path())
        .env("HOUSEBOAT_SERVER__PORT", port.to_string())
        .stderr(full)
        .spawn()
        .map(Owned)
        .unwrap();
    let client = client();
    let up = async || {
        client
            .get(format!("http://127.0.0.1:{port}/up"))
            .send()
            .await
            .ok()
    };
    let answer = wait_for("answer", STOP, up).await;
    assert_eq!(answer.status(), 200);
    let kill = std::process::Command::new("kill")
        .arg(site.0.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    let status = wait_for("end of the site", STOP, async || site.0.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_site_stops() {
    let mut site = TestProcess::start().await;
    let body = "name=half";
    let mut stream = TcpStream::connect(site.address()).unwrap();
    stream.set_read_timeout(Some(STOP)).unwrap();
    let head = format!(
        "POST /monitors HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Site: same-origin\r\nCookie: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        site.address(),
        site.signed_in().await.cookie,
        body.len()
    );
    let (first, rest) = body.split_at(4);
    stream.write_all((head + first).as_bytes()).unwrap();
    // The request must have arrived before the signal does.
    tokio::time::sleep(Duration::from_millis(200)).await;
    site.terminate();
    let address = site.address().to_owned();
    let closed = async || TcpStream::connect(&address).is_err().then_some(());
    wait_for("closed port", STOP, closed).await;
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 422"),
        "{answer}\n{}",
        site.log()
    );
    assert_eq!(site.wait(STOP).await.code(), Some(0), "{}", site.log());
}

#[tokio::test]
async fn a_job_in_flight_does_not_hold_up_the_stop() {
    let target = Target::hangs().await;
    let mut site = TestProcess::start().await;
    let mut monitor = Monitor::new("hangs", &target.url("/"));
    monitor.set("interval_s", "86400").set("timeout_s", "60");
    monitor.create(&site).await;
    let executing =
        "SELECT count(*) FROM jobs WHERE kind = 'check_monitor' AND state = 'executing'";
    let runs = async || (number(&database(site.folder()), executing) == 1).then_some(());
    wait_for("running check", STOP, runs).await;

    let asked = Instant::now();
    site.terminate();
    let status = site.wait(STOP).await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
    assert!(asked.elapsed() < STOP);
    let waiting = "SELECT count(*) FROM jobs WHERE kind = 'check_monitor' AND state = 'available'";
    assert_eq!(
        number(&database(site.folder()), waiting),
        1,
        "the job goes back"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let site = TestProcess::start().await;
    let (_, port) = site.address().rsplit_once(':').unwrap();
    let mut second = TestProcess::builder()
        .variable("HOUSEBOAT_SERVER__PORT", port)
        .spawn();
    let status = second.wait(STOP).await;
    assert_eq!(status.code(), Some(1), "{}", second.log());
    let log = second.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains(port) && last.contains("in use"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let rounds = if slow("16 of 20 kills") { 20 } else { 4 };
    let target = Target::answers("hello").await;
    let folder = TempDir::new().unwrap();
    let acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let mut site = start_in(folder.path()).await;
        assert_nothing_is_lost(folder.path(), &acknowledged);
        let writers = write_until_it_ends(&site, &target, round, &acknowledged).await;
        // A kill before anything was written would show nothing.
        let goal = total(&acknowledged) + WRITES_MIN;
        let enough = async || (total(&acknowledged) >= goal).then_some(());
        wait_for("writes", JOBS, enough).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..600))).await;
        site.kill();
        writers.join_all().await;
    }
    let mut site = start_in(folder.path()).await;
    assert_nothing_is_lost(folder.path(), &acknowledged);
    let every_job_ends = async || (unfinished(folder.path()) == 0).then_some(());
    wait_for("end of every job", JOBS, every_job_ends).await;
    site.terminate();
    assert_eq!(site.wait(STOP).await.code(), Some(0), "{}", site.log());
    let check = TestProcess::builder()
        .folder(folder.path())
        .argument("check");
    let mut check = check.spawn();
    assert_eq!(check.wait(STOP).await.code(), Some(0), "{}", check.log());
}

/// How many writes the site has said that it has stored.
fn total(acknowledged: &Acknowledged) -> u64 {
    let acknowledged = acknowledged.lock().unwrap();
    acknowledged.values().map(|number| number + 1).sum()
}

async fn start_in(folder: &Path) -> TestProcess {
    TestProcess::builder().folder(folder).start().await
}

/// Every writer adds a monitor and renames it, counting, until the site is gone.
async fn write_until_it_ends(
    site: &TestProcess,
    target: &Target,
    round: usize,
    acknowledged: &Acknowledged,
) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, site, target) = (site.owner().await, site.url(""), target.url("/"));
        let acknowledged = Arc::clone(acknowledged);
        writers.spawn(async move {
            let monitor = format!("{round}.{writer}");
            let mut path = "/monitors".to_owned();
            for number in 0.. {
                let mut form = Monitor::new(&format!("{monitor} {number}"), &target);
                form.set("interval_s", "86400");
                let answer = post_form(&client, &format!("{site}{path}"), &form.pairs()).await;
                let Ok(answer) = answer else { return };
                assert_eq!(answer.status(), 303, "{monitor}");
                answer.headers()["location"]
                    .to_str()
                    .unwrap()
                    .clone_into(&mut path);
                acknowledged.lock().unwrap().insert(monitor.clone(), number);
            }
        });
    }
    writers
}

fn assert_nothing_is_lost(folder: &Path, acknowledged: &Acknowledged) {
    let conn = database(folder);
    let check = "PRAGMA integrity_check";
    let verdict: String = conn.query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let stored = names(&conn);
    for (monitor, number) in &*acknowledged.lock().unwrap() {
        let found = stored.get(monitor);
        let kept = found.is_some_and(|found| found >= number);
        assert!(
            kept,
            "{monitor}: {number} was acknowledged, {found:?} is stored"
        );
    }
    let without = "SELECT count(*) FROM monitors WHERE id NOT IN
                   (SELECT json_extract(arguments, '$.monitor') FROM jobs WHERE kind = 'check_monitor')";
    assert_eq!(
        number(&conn, without),
        0,
        "a monitor was stored without its job"
    );
}

/// Jobs that have not completed, and monitors that were never checked.
fn unfinished(folder: &Path) -> i64 {
    let conn = database(folder);
    let open = "SELECT count(*) FROM jobs WHERE kind = 'check_monitor' AND state <> 'completed'";
    let unchecked = "SELECT count(*) FROM monitors WHERE id NOT IN (SELECT monitor_id FROM checks)";
    number(&conn, open) + number(&conn, unchecked)
}

/// The last number that each monitor was given.
fn names(conn: &Connection) -> HashMap<String, u64> {
    let mut statement = conn.prepare("SELECT name FROM monitors").unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    let parts = names.map(|name: rusqlite::Result<String>| {
        let name = name.unwrap();
        let (monitor, number) = name.split_once(' ').unwrap();
        (monitor.to_owned(), number.parse().unwrap())
    });
    parts.collect()
}
