//! A replica is not damaged by who asks for a copy while the site writes.

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::replication::Bucket;
use houseboat::replication::Generations;
use houseboat::replication::restore_to;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::replica::replication;
use crate::support::s3::S3;
use crate::support::s3::free_port;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

/// The damage came within three seconds.
const LOAD: Duration = Duration::from_secs(6);

const SOON: Duration = Duration::from_mins(1);

struct Ledger(Child);

impl Drop for Ledger {
    fn drop(&mut self) {
        // It fails only when the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The site that stores rows, as a container runs it.
fn ledger(folder: &Path, port: u16, s3: &S3) -> Ledger {
    let program = Path::new(env!("CARGO_BIN_EXE_houseboat")).with_file_name("examples/ledger");
    let mut command = Command::new(program);
    command.arg("start").current_dir(folder).env_clear();
    #[expect(clippy::disallowed_methods, reason = "litestream is on it")]
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.env("PORT", port.to_string());
    command.envs(s3.variables("site"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Ledger(command.spawn().unwrap())
}

/// Another program, which brings the WAL into the file whenever it likes.
fn write_beside(database: &Path, is_over: &AtomicBool) {
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.busy_timeout(SOON).unwrap();
    connection
        .execute_batch("CREATE TABLE words (word TEXT UNIQUE NOT NULL)")
        .unwrap();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        connection
            .execute("INSERT INTO words VALUES (?1)", [number.to_string()])
            .unwrap();
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_on_request_under_a_load_do_not_damage_the_replica() {
    if !slow("copies on request under a load") {
        return;
    }
    let (s3, folder) = (S3::start().await, TempDir::new().unwrap());
    let port = free_port();
    let mut site = ledger(folder.path(), port, &s3);
    let (client, url) = (client(), format!("http://127.0.0.1:{port}/rows"));
    wait_for("site that stores", SOON, async || {
        let stored = client.post(&url).body("first").send().await.ok()?;
        stored.status().is_success().then_some(())
    })
    .await;
    let (is_over, stored) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(1)),
    );
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (client, url) = (client.clone(), url.clone());
        let (is_over, stored) = (Arc::clone(&is_over), Arc::clone(&stored));
        writers.spawn(async move {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let text = format!("{number} {writer} {}", "x".repeat(20_000));
                let answer = client.post(&url).body(text).send().await.unwrap();
                assert!(answer.status().is_success(), "{}", answer.status());
                stored.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let database = folder.path().join("data/site.sqlite3");
    let (file, over) = (database.clone(), Arc::clone(&is_over));
    let beside = tokio::task::spawn_blocking(move || write_beside(&file, &over));
    let (begun, mut copies) = (Instant::now(), 0);
    let copy = url.replace("/rows", "/synced");
    while begun.elapsed() < LOAD {
        let answer = client.post(&copy).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        assert_eq!(answer.text().await.unwrap(), "Bucket");
        copies += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    beside.await.unwrap();
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    assert!(copies > 1, "only {copies} copies were made on request");
    let id = site.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let status = wait_for("end of the site", SOON, async || site.0.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");

    assert_eq!(
        restored_rows(&s3, &database).await,
        stored.load(Ordering::Relaxed)
    );
}

/// How many rows a restore of the youngest generation has; it is sound.
async fn restored_rows(s3: &S3, database: &Path) -> u64 {
    let settings = houseboat::replication::Settings {
        path: "site".to_owned(),
        ..replication(s3)
    };
    let generations = Generations::new(Bucket::replica(&settings).unwrap());
    let generation = generations.list().await.unwrap().pop().unwrap().to_string();
    let restored = database.with_file_name("restored.sqlite3");
    restore_to(&settings, database, &generation, None, &restored)
        .await
        .unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file from outside"
    )]
    let restored = rusqlite::Connection::open(restored).unwrap();
    let check: String = restored
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    restored
        .query_row("SELECT count(*) FROM rows", [], |row| row.get(0))
        .unwrap()
}
