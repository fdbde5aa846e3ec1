//! Other programs on the file: the `sqlite3` shell writes to it, and copies of it are made, all at the same time.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::database::Result;
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::database::settings;
use crate::support::command::run;
use crate::support::waiting::all_tests_are_wanted;

/// How long it goes on, in seconds, where another time than [`SHORT`] is wanted.
const SECONDS: &str = "HOUSEBOAT_TEST_FOREIGN_SECONDS";
const SHORT: Duration = Duration::from_secs(2);
/// Each writes, and reads what it has written.
const TASKS: i64 = 16;
/// What has to have happened, on the slowest machine.
const SHELL_MIN: i64 = 20;
const OWN_MIN: i64 = 200;
const COPIES_MIN: i64 = 2;
/// Rows that the shell writes in a transaction.
const ROWS: i64 = 5;

const TABLES: Migrations = Migrations::new(
    "foreign",
    &[(
        "V1__rows",
        "CREATE TABLE own (key INTEGER PRIMARY KEY, task INTEGER NOT NULL) STRICT;
         CREATE TABLE shell (key INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;",
    )],
);

/// What all have in common.
struct Load {
    database: Database,
    is_over: AtomicBool,
    own: AtomicI64,
    shell: AtomicI64,
    copies: AtomicI64,
    write_times: Mutex<Vec<Duration>>,
}

/// Ends the load when it is dropped.
struct Over(Arc<Load>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_locked_out_and_nothing_is_lost_beside_another_program() {
    if !shell_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    database.migrate(&[TABLES]).await.unwrap();
    let shell = Shell::start(database.path());
    let load = Arc::new(Load {
        database,
        is_over: AtomicBool::new(false),
        own: AtomicI64::new(0),
        shell: AtomicI64::new(0),
        copies: AtomicI64::new(0),
        write_times: Mutex::default(),
    });
    // Should anything fail below, the threads hear of it, and the test ends.
    let over = Over(Arc::clone(&load));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(own(Arc::clone(&load), task));
    }
    let beside = Arc::clone(&load);
    let shell = tokio::task::spawn_blocking(move || foreign(&beside, shell));
    let beside = Arc::clone(&load);
    let copies = tokio::task::spawn_blocking(move || {
        copy(&beside, folder.path());
        folder
    });
    let start = Instant::now();
    let is_enough = || {
        let counts = [&load.own, &load.shell, &load.copies];
        let least = [OWN_MIN, SHELL_MIN, COPIES_MIN];
        let mut both = counts.iter().zip(least);
        both.all(|(count, least)| count.load(Ordering::SeqCst) >= least)
    };
    while start.elapsed() < length() || !is_enough() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let ended = tasks.try_join_next();
        assert!(ended.is_none(), "a task has ended: {ended:?}");
        assert!(!shell.is_finished(), "{:?}", shell.await);
        assert!(!copies.is_finished(), "{:?}", copies.await);
    }
    drop(over);
    let mut written = BTreeMap::new();
    while let Some(task) = tasks.join_next().await {
        let (task, count) = task.unwrap();
        written.insert(task, count);
    }
    shell.await.unwrap();
    let _folder = copies.await.unwrap();

    let database = &load.database;
    let found = database.read(|conn| {
        let mut statement = conn.prepare("SELECT task, count(*) FROM own GROUP BY task")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<BTreeMap<i64, i64>>>()?)
    });
    assert_eq!(found.await.unwrap(), written);
    let shell = number(database, "SELECT count(*) FROM shell").await;
    assert_eq!(shell, load.shell.load(Ordering::SeqCst) * ROWS);
    let sound = database.read(|conn| {
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        Ok(sound)
    });
    assert_eq!(sound.await.unwrap(), "ok");
    database.close().await;
    tell(&load, start.elapsed());
}

/// Writes and reads until it is over; every error fails the test. Gives the number of its rows.
async fn own(load: Arc<Load>, task: i64) -> (i64, i64) {
    let mut count = 0;
    while !load.is_over.load(Ordering::SeqCst) {
        let begin = Instant::now();
        let write = load.database.write(move |tx| {
            tx.prepare_cached("INSERT INTO own (task) VALUES (?1)")?
                .execute([task])?;
            Ok(tx.last_insert_rowid())
        });
        let key = write.await.unwrap();
        load.write_times.lock().unwrap().push(begin.elapsed());
        count += 1;
        load.own.fetch_add(1, Ordering::SeqCst);
        let read = load.database.read(move |conn| {
            let sql = "SELECT task FROM own WHERE key = ?1";
            Ok(conn
                .prepare_cached(sql)?
                .query_row([key], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(read.await.unwrap(), task);
        // Some hundred requests a second, as many as a busy site has.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (task, count)
}

async fn number(database: &Database, sql: &'static str) -> i64 {
    let read = database.read(move |conn: &Connection| -> Result<i64> {
        Ok(conn.query_row(sql, [], |row| row.get(0))?)
    });
    read.await.unwrap()
}

/// Has the shell write transactions, one after another, until it is over.
fn foreign(load: &Load, mut shell: Shell) {
    // What the counting adds to a transaction: some 20 ms of holding the lock.
    let count = shell.calibrate(Duration::from_millis(20));
    let mut random = fastrand::Rng::with_seed(7);
    let mut done = 0;
    while !load.is_over.load(Ordering::SeqCst) {
        done += 1;
        shell.run(&format!(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO shell (number) SELECT {done} FROM n;
             {}
             COMMIT;",
            counting(count)
        ));
        load.shell.store(done, Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_millis(random.u64(0..40)));
    }
}

/// Has the command `backup` make copies, one after another, until it is over: each has what was answered before it.
fn copy(load: &Load, folder: &Path) {
    let copy = folder.join("copy.sqlite3");
    let arguments = ["backup", copy.to_str().unwrap()];
    let path = load.database.path().to_str().unwrap();
    while !load.is_over.load(Ordering::SeqCst) {
        let (own, shell) = (&load.own, &load.shell);
        let before = (own.load(Ordering::SeqCst), shell.load(Ordering::SeqCst));
        let printed = run(folder, &arguments, &[("HOUSEBOAT_DATABASE__PATH", path)]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        #[expect(clippy::disallowed_methods, reason = "it is a file that nobody serves")]
        let conn = Connection::open(&copy).unwrap();
        let found = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(
            found("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
            0
        );
        assert!(found("SELECT count(*) FROM own") >= before.0);
        let rows = found("SELECT count(*) FROM shell");
        assert!(
            rows >= before.1 * ROWS && rows % ROWS == 0,
            "{rows} rows of the shell"
        );
        drop(conn);
        std::fs::remove_file(&copy).unwrap();
        load.copies.fetch_add(1, Ordering::SeqCst);
    }
}

fn counting(count: u64) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT 'counted ' || count(*) FROM n;"
    )
}

/// The `sqlite3` shell, on the file.
struct Shell {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn start(path: &Path) -> Self {
        let mut child = Command::new("sqlite3")
            .args(["-batch", "-bail", "-init", "/dev/null"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Self {
            child,
            to,
            from: BufReader::new(from),
        };
        // A shell older than 3.51.3 may spoil a file that two programs checkpoint at the same time, so this one does not.
        shell.run("PRAGMA busy_timeout = 10000; PRAGMA wal_autocheckpoint = 0;");
        shell
    }

    /// Runs `sql` to its end; an error ends the shell, and fails the test.
    fn run(&mut self, sql: &str) {
        writeln!(self.to, "{sql}\nSELECT 'ready';").unwrap();
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            let read = self.from.read_line(&mut line).unwrap();
            assert!(read > 0, "the shell has ended: {:?}", self.child.wait());
        }
    }

    /// How far it counts in `time`.
    fn calibrate(&mut self, time: Duration) -> u64 {
        let mut count = 10_000;
        loop {
            let start = Instant::now();
            self.run(&counting(count));
            if start.elapsed() >= time {
                return count;
            }
            count *= 2;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a shell; says that the test is skipped, or fails it where all tests are wanted.
fn shell_is_there() -> bool {
    let version = Command::new("sqlite3").arg("--version").output();
    let is_there = version.is_ok_and(|version| version.status.success());
    assert!(is_there || !all_tests_are_wanted(), "there is no `sqlite3`");
    if !is_there {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: there is no `sqlite3` to write beside");
        }
    }
    is_there
}

fn length() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the test that is configured, not the site"
    )]
    let seconds = std::env::var(SECONDS);
    seconds.map_or(SHORT, |seconds| {
        Duration::from_secs(seconds.parse().unwrap())
    })
}

/// Says how it went.
fn tell(load: &Load, time: Duration) {
    let mut times = std::mem::take(&mut *load.write_times.lock().unwrap());
    times.sort_unstable();
    let part = |percent: usize| times[(times.len() - 1) * percent / 100];
    #[expect(clippy::print_stderr, reason = "it says how it went")]
    {
        eprintln!(
            "{time:?}: {} own writes (median {:?}, p99 {:?}, longest {:?}), {} transactions of the shell, {} copies",
            times.len(),
            part(50),
            part(99),
            part(100),
            load.shell.load(Ordering::SeqCst),
            load.copies.load(Ordering::SeqCst),
        );
    }
}
