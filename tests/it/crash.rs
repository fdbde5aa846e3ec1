//! `kill -9` at any moment: what was acknowledged is there, whole, and nothing is there by half.
//!
//! The process that is killed is this test program, started once more to run [`the_process_that_is_killed`] alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Result;
use houseboat::database::Settings;
use houseboat::database::Synchronous;
use houseboat::database::Transaction;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::database::settings;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

/// Tells the program that it is the one to be killed, and where: `round synchronous folder`.
const ORDERS: &str = "HOUSEBOAT_TEST_CRASH";
/// Of the moments at which processes are killed.
const SEED: u64 = 20_261_121;
const ROUNDS: i64 = 100;
const ROUNDS_SHORT: i64 = 5;
/// Every so many rounds all rows are deleted, so that the checks stay short.
const PRUNE: i64 = 10;
/// Each has one write under way at most.
const TASKS: usize = 32;
/// How soon a process has stored something, on a machine that does much else.
const START: Duration = Duration::from_secs(30);
/// A process that nobody kills ends by itself.
const LIFE: Duration = Duration::from_mins(1);

const HALVES: Migrations = Migrations::new(
    "halves",
    &[(
        "V1__halves",
        "CREATE TABLE firsts (key INTEGER PRIMARY KEY, is_doomed INTEGER NOT NULL) STRICT;
         CREATE TABLE seconds (
             id INTEGER PRIMARY KEY,
             key INTEGER NOT NULL UNIQUE REFERENCES firsts (key) ON DELETE CASCADE
         ) STRICT;",
    )],
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_and_nothing_by_half() {
    let all = slow("95 of 100 kills");
    let folder = TempDir::new().unwrap();
    open(folder.path(), "normal").await.close().await;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut stored = BTreeSet::new();
    let mut total = 0;
    for round in 0..if all { ROUNDS } else { ROUNDS_SHORT } {
        let synchronous = if round % 2 == 0 { "normal" } else { "full" };
        // As a rule in the midst of the load, and now and then while the file is being opened.
        let is_early = round % 5 == 4;
        let delay = random.u64(if is_early { 0..60 } else { 5..150 });
        let what = format!("round {round} of seed {SEED}, {synchronous}, {delay} ms");
        let mut process = Process::start(folder.path(), round, synchronous);
        if !is_early {
            process.wait_for_first().await;
        }
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let acknowledged = keys(&process.kill(), &what);
        total += acknowledged.len();
        stored.extend(acknowledged);

        let database = open(folder.path(), synchronous).await;
        check(&database, &mut stored, &what).await;
        if round % PRUNE == PRUNE - 1 {
            let prune = database.write(|tx| Ok(tx.execute("DELETE FROM firsts", [])?));
            prune.await.unwrap();
            stored.clear();
        }
        database.close().await;
    }
    #[expect(clippy::print_stderr, reason = "it says how much was at stake")]
    {
        eprintln!("seed {SEED}: {total} writes were acknowledged before the kills");
    }
}

/// What `process` said of the writes that were answered; nothing else may have happened there.
fn keys(lines: &[String], what: &str) -> BTreeSet<i64> {
    let wrong: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("wrong "))
        .collect();
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    let keys = lines.iter().filter_map(|line| line.strip_prefix("stored "));
    keys.map(|key| key.parse().unwrap()).collect()
}

/// Looks at the file after a kill; what it has more than `stored` was under way, and is stored from now on.
async fn check(database: &Database, stored: &mut BTreeSet<i64>, what: &str) {
    let found = database.read(|conn| {
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let broken = column(conn, "SELECT count(*) FROM pragma_foreign_key_check")?;
        let doomed = column(conn, "SELECT key FROM firsts WHERE is_doomed")?;
        let firsts = column(conn, "SELECT key FROM firsts")?;
        let seconds = column(conn, "SELECT key FROM seconds")?;
        Ok((sound, broken, doomed, firsts, seconds))
    });
    let (sound, broken, doomed, firsts, seconds) = found.await.unwrap();
    assert_eq!(sound, "ok", "{what}");
    assert_eq!(
        broken,
        BTreeSet::from([0]),
        "{what}: foreign keys point nowhere"
    );
    assert_eq!(doomed, BTreeSet::new(), "{what}: a failed write is there");
    let halves: Vec<_> = firsts.symmetric_difference(&seconds).collect();
    assert!(halves.is_empty(), "{what}: there by half: {halves:?}");
    let lost: Vec<_> = stored.difference(&firsts).collect();
    assert!(lost.is_empty(), "{what}: acknowledged and lost: {lost:?}");
    let unasked = firsts.len() - stored.len();
    assert!(
        unasked <= TASKS,
        "{what}: {unasked} rows that nobody was told of"
    );
    *stored = firsts;
}

fn column(conn: &Connection, sql: &str) -> Result<BTreeSet<i64>> {
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

async fn open(folder: &Path, synchronous: &str) -> Database {
    let settings = Settings {
        synchronous: match synchronous {
            "full" => Synchronous::Full,
            _ => Synchronous::Normal,
        },
        ..settings(folder)
    };
    let database = Database::open(&settings, Clock::system()).unwrap();
    database.migrate(&[HALVES]).await.unwrap();
    database.within(LIFE)
}

/// A process under load that says which of its writes were answered; killed when dropped.
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Process {
    fn start(folder: &Path, round: i64, synchronous: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::the_process_that_is_killed",
                "--nocapture",
            ])
            .env(
                ORDERS,
                format!("{round} {synchronous} {}", folder.display()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Its panics are wanted.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            lines,
            reader: Some(reader),
        }
    }

    async fn wait_for_first(&self) {
        let is_there = async || {
            let lines = self.lines.lock().unwrap();
            lines
                .iter()
                .any(|line| line.starts_with("stored "))
                .then_some(())
        };
        wait_for("acknowledged write", START, is_there).await;
    }

    /// Kills it, and gives all that it wrote.
    fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Ends with the pipe.
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing, unless this is the program that was started to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the test that is configured, not the site"
    )]
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let [round, synchronous, folder] = orders.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{ORDERS} is {orders:?}");
    };
    let round: i64 = round.parse().unwrap();
    let database = open(Path::new(folder), synchronous).await;
    let out = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let out = Arc::new(File::from(out));
    say(&out, "\nopen");
    let mut tasks = JoinSet::new();
    for task in (0_i64..).take(TASKS) {
        let (database, out) = (database.clone(), Arc::clone(&out));
        let first_key = round * 1_000_000_000 + task * 1_000_000;
        tasks.spawn(async move { work(&database, &out, first_key).await });
    }
    let over = tokio::time::timeout(LIFE, tasks.join_all()).await;
    panic!("nobody killed this process: {over:?}");
}

/// Writes, reads what it has written, and fails on purpose, until it is killed.
async fn work(database: &Database, out: &File, first_key: i64) {
    let mut random = fastrand::Rng::with_seed(first_key.unsigned_abs());
    let mut last = None;
    for key in first_key.. {
        let failed = match (random.u8(..10), last) {
            (0, _) => database.write(move |tx| fail(tx, key)).await,
            (1, _) => database.write(move |tx| panic_half_way(tx, key)).await,
            (2, Some(last)) => database.write(move |tx| store_twice(tx, key, last)).await,
            (3..=4, Some(last)) => {
                if !database
                    .read(move |conn| is_there(conn, last))
                    .await
                    .unwrap()
                {
                    say(
                        out,
                        &format!("wrong {last} was answered, and is not to be read"),
                    );
                }
                continue;
            }
            _ => {
                match database.write(move |tx| store(tx, key, false)).await {
                    Ok(()) => say(out, &format!("stored {key}")),
                    Err(error) => say(out, &format!("wrong {key} was refused: {error}")),
                }
                last = Some(key);
                continue;
            }
        };
        if failed.is_ok() {
            say(out, &format!("wrong {key} should have failed"));
        }
    }
}

/// One `write(2)` for a line, so that a kill leaves no half of one.
fn say(mut out: &File, line: &str) {
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn store(tx: &Transaction<'_>, key: i64, is_doomed: bool) -> Result<()> {
    tx.prepare_cached("INSERT INTO firsts VALUES (?1, ?2)")?
        .execute((key, is_doomed))?;
    tx.prepare_cached("INSERT INTO seconds (key) VALUES (?1)")?
        .execute([key])?;
    Ok(())
}

/// Fails at the third row: `last` is there already.
fn store_twice(tx: &Transaction<'_>, key: i64, last: i64) -> Result<()> {
    store(tx, key, true)?;
    store(tx, last, true)
}

fn fail(tx: &Transaction<'_>, key: i64) -> Result<()> {
    store(tx, key, true)?;
    Err(Error::abort("on purpose"))
}

fn panic_half_way(tx: &Transaction<'_>, key: i64) -> Result<()> {
    tx.execute("INSERT INTO firsts VALUES (?1, 1)", [key])?;
    panic!("on purpose");
}

fn is_there(conn: &Connection, key: i64) -> Result<bool> {
    let sql = "SELECT count(*) = 1 FROM firsts JOIN seconds USING (key) WHERE key = ?1";
    Ok(conn
        .prepare_cached(sql)?
        .query_row([key], |row| row.get(0))?)
}
