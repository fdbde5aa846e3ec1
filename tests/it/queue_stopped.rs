//! A process that was stopped (SIGSTOP, a paused container) and goes on.

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;

use houseboat::database::Clock;
use tokio::sync::Notify;

use crate::support::jobs::SOON;
use crate::support::ledger::example;
use crate::support::stage::Stage;
use crate::support::stage::play;
use crate::support::stage::workers;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

/// `examples/stopped.rs`, which ends when it is dropped.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let arguments = ["-s", name, &self.0.id().to_string()];
        let status = Command::new("kill").args(arguments).status().unwrap();
        assert!(status.success(), "the process is gone");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_claimed_before_a_stop_and_taken_over_meanwhile_is_not_begun_after_it() {
    if !slow("a process that is stopped for a lease") {
        return;
    }
    let stage = Stage::gated(Clock::system()).await;
    let file: String = stage.get("SELECT file FROM pragma_database_list").await;
    let folder = PathBuf::from(file).parent().unwrap().to_owned();
    let begun = || std::fs::read_to_string(folder.join("begun")).unwrap_or_default();
    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
    for part in ["one", "two", "three"] {
        stage.enqueue(play(part)).await;
    }
    let process = Command::new(example("stopped"))
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    let process = Process(process);
    // All three are claimed by one round; there are threads for two.
    wait_for("two that run", SOON, async || {
        (begun().lines().count() == 2).then_some(())
    })
    .await;
    let running = "SELECT count(*) FROM jobs WHERE state = 'executing'";
    assert_eq!(stage.get::<i64>(running).await, 3);
    let other = stage.another().await;
    let work = other.work(workers(3));
    stage.are_entered(2).await;
    process.signal("STOP");
    // The other one takes it for dead, and does all of it.
    stage.let_go(3);
    stage.is_done().await;
    assert_eq!(stage.begun().len(), 3);
    // While nobody can write, nobody can tell the process either that its claims are lost.
    let (locked, free) = (Arc::new(Notify::new()), channel::<()>());
    let (told, held) = (Arc::clone(&locked), free.1);
    let third = stage.another().await;
    let lock = tokio::spawn(async move {
        let write = third.database.write(move |tx| {
            tx.execute_batch("CREATE TABLE held (id INTEGER)")?;
            told.notify_one();
            let _ = held.recv_timeout(SOON);
            Ok(())
        });
        write.await
    });
    locked.notified().await;
    File::create(folder.join("go")).unwrap();
    process.signal("CONT");
    wait_for("end of the two", SOON, async || {
        let is_told = log().contains("not begun");
        (is_told || begun().lines().count() == 3).then_some(())
    })
    .await;
    assert_eq!(begun().lines().count(), 2, "{}", log());
    free.0.send(()).unwrap();
    lock.await.unwrap().unwrap();
    // And all goes on.
    stage.enqueue(play("four")).await;
    stage.let_go(1);
    stage.is_done().await;
    work.stop().await;
    drop(process);
    let rows = "SELECT count(*) FROM jobs WHERE state = 'completed' AND attempt = 1";
    assert_eq!(stage.get::<i64>(rows).await, 4);
}
