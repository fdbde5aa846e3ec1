//! A real process, told to stop by a signal while a job of it holds a thread.

use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::chaos::LEASE;
use crate::support::chaos::signal;
use crate::support::ledger::example;
use crate::support::ledger::open;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// Longer than the grace, and than the lease.
const HELD: Duration = LEASE.saturating_add(Duration::from_millis(1_500));

/// A process of `examples/chaos/` that brings no jobs; it ends with its test.
struct Process {
    child: Child,
    runs: PathBuf,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let child = Command::new(example("chaos"))
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            runs: folder.join(format!("runs/{}", child.id())),
            child,
        }
    }

    /// The times at which runs began or ended here.
    fn times(&self, word: &str) -> Vec<i64> {
        let text = std::fs::read_to_string(&self.runs).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        let times = lines.map(|line| line.trim().split(' ').next().unwrap().parse().unwrap());
        times.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_job_that_holds_its_thread_is_put_back_when_it_has_ended_and_runs_once_more() {
    if !slow("a_job_that_holds_its_thread_is_put_back_when_it_has_ended_and_runs_once_more") {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("runs")).unwrap();
    std::fs::write(folder.path().join("control"), "0 0").unwrap();
    let path = folder.path().join("site.sqlite3");
    let mut first = Process::start(folder.path());
    are_entered(&path, 1).await;
    let conn = open(&path);
    let held = HELD.as_millis();
    let arguments = format!(r#"{{"tag": 1, "what": "Block", "ms": {held}}}"#);
    conn.execute(
        "INSERT INTO jobs (kind, arguments, priority, attempts_max, run_at, enqueued_at) VALUES ('act', ?1, 1, 1, 0, 0)",
        [arguments],
    )
    .unwrap();
    wait_for("begin of the job", SOON, async || {
        (!first.times("B").is_empty()).then_some(())
    })
    .await;
    let second = Process::start(folder.path());
    are_entered(&path, 2).await;
    signal(first.child.id(), Signal::TERM);
    let status = wait_for("end of the process", SOON, async || {
        let stands = stands(&conn);
        // In this order: it ends before it is put back.
        let has_ended = !first.times("E").is_empty();
        assert!(has_ended || stands == "executing 1 1 0", "{stands}");
        first.child.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
    wait_for("end of the job", SOON, async || {
        (stands(&conn) == "completed NULL 2 0").then_some(())
    })
    .await;
    let attempts: i64 = conn
        .query_row("SELECT attempt FROM jobs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(attempts, 1, "the stop spends none");
    assert_eq!((first.times("B").len(), second.times("B").len()), (1, 1));
    let (ended, begun) = (first.times("E")[0], second.times("B")[0]);
    assert!(
        begun > ended,
        "begun at {begun}, and the other ended at {ended}"
    );
    let held = i64::try_from(HELD.as_nanos()).unwrap();
    assert!(ended - first.times("B")[0] >= held);
}

/// State, worker, claims and deaths of the one job.
fn stands(conn: &Connection) -> String {
    let sql =
        "SELECT printf('%s %s %d %d', state, coalesce(worker, 'NULL'), claims, deaths) FROM jobs";
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn are_entered(path: &Path, count: i64) {
    wait_for(&format!("{count} workers"), SOON, async || {
        let sql = "SELECT count(*) FROM workers";
        let entered = open(path).query_row(sql, [], |row| row.get::<_, i64>(0));
        (entered.ok()? == count).then_some(())
    })
    .await;
}
