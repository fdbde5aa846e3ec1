//! What `read` and `write` cost over the same SQL on a connection of one's own: one task, one call at a time.
//!
//! `cargo bench --bench in_process` runs everything in turn, round after round, and prints medians of the rounds.
//! Names of works as arguments (`-- read write`) run these alone, for a profiler.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::future::Future;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::database::Settings;
use rusqlite::Connection;

/// So many rows are read from.
const ROWS: u64 = 10_000;
const ROUNDS: usize = 9;
/// How long a work runs in a round.
const TIME: Duration = Duration::from_millis(400);
/// What `read` and `write` may cost over the same SQL, at the median.
const GOAL_MICROS: f64 = 15.0;

const SELECT: &str = "SELECT id, name, price FROM items WHERE id = ?1";
const INSERT: &str = "INSERT INTO events (item, note) VALUES (?1, 'a note of some length')";

const MIGRATIONS: Migrations = Migrations::new(
    "bench",
    &[(
        "V1__items",
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL) STRICT;
         CREATE TABLE events (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, note TEXT NOT NULL) STRICT;",
    )],
);

/// What a connection is set up with; the raw one is given what the database's own say.
const PRAGMAS: [&str; 9] = [
    "busy_timeout",
    "journal_mode",
    "synchronous",
    "foreign_keys",
    "journal_size_limit",
    "cache_size",
    "temp_store",
    "trusted_schema",
    "mmap_size",
];

type Row = (i64, String, i64);

fn select(conn: &Connection, id: u64) -> rusqlite::Result<Row> {
    conn.prepare_cached(SELECT)?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

fn insert(conn: &Connection, item: u64) -> rusqlite::Result<usize> {
    conn.prepare_cached(INSERT)?.execute([item])
}

fn raw_insert(conn: &Connection, item: u64) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    insert(conn, item)?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// A database with rows to read.
async fn open(folder: &Path) -> Database {
    let settings = Settings {
        path: folder.join("bench.sqlite3"),
        ..Settings::default()
    };
    let database = Database::open(&settings, Clock::system()).expect("the folder is writable");
    let migrated = database.migrate(&[MIGRATIONS]).await;
    migrated.expect("the schema is sound");
    let fill = database.write(|tx| {
        for id in 1..=ROWS {
            tx.execute("INSERT INTO items VALUES (?1, 'item ' || ?1, ?1 * 7)", [id])?;
        }
        Ok(())
    });
    fill.await.expect("the table is there");
    database
}

/// Another connection to the file, with the PRAGMAs of the database's own: of a reader, or of the writer.
async fn raw(database: &Database, is_reader: bool) -> Connection {
    let list = |conn: &Connection| {
        let value = |name: &&str| {
            conn.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        Ok(PRAGMAS.iter().map(value).collect::<Result<Vec<_>, _>>()?)
    };
    let values = if is_reader {
        database.read(list).await
    } else {
        database.write(move |tx| list(tx)).await
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it is what the database is compared with"
    )]
    let conn = Connection::open(database.path()).expect("the file is there");
    for (name, value) in PRAGMAS.iter().zip(values.expect("the PRAGMAs can be read")) {
        // Some answer with a row, some do not.
        let _ = conn.pragma_update_and_check(None, name, value, |_| Ok(()));
    }
    conn.set_prepared_statement_cache_capacity(128);
    conn
}

/// A thread that answers, and does nothing else: the least that another thread costs.
#[derive(Clone)]
struct Echo(crossbeam_channel::Sender<tokio::sync::oneshot::Sender<()>>);

impl Echo {
    fn start() -> Self {
        let (sender, receiver) =
            crossbeam_channel::bounded::<tokio::sync::oneshot::Sender<()>>(1024);
        std::thread::spawn(move || {
            for reply in receiver {
                let _ = reply.send(());
            }
        });
        Self(sender)
    }

    async fn call(&self) {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let sent = self.0.try_send(reply);
        sent.expect("one waits at a time");
        answer.await.expect("the thread runs");
    }
}

/// Calls `work` until its time is over, and gives what each call took, in nanoseconds and in order of length.
fn calls(mut work: impl FnMut(u64)) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut times = Vec::with_capacity(1 << 17);
    let end = Instant::now() + TIME;
    loop {
        let id = random.u64(1..=ROWS);
        let start = Instant::now();
        work(id);
        let stop = Instant::now();
        times.push(nanos(stop - start));
        if stop > end {
            times.sort_unstable();
            return times;
        }
    }
}

/// [`calls`], from a task on the runtime's own threads, as a handler is.
async fn tasks<F: Future<Output = ()> + Send>(
    work: impl Fn(u64) -> F + Send + 'static,
) -> Vec<u64> {
    let task = async move {
        let mut random = fastrand::Rng::with_seed(7);
        let mut times = Vec::with_capacity(1 << 17);
        let end = Instant::now() + TIME;
        loop {
            let id = random.u64(1..=ROWS);
            let start = Instant::now();
            work(id).await;
            let stop = Instant::now();
            times.push(nanos(stop - start));
            if stop > end {
                times.sort_unstable();
                return times;
            }
        }
    };
    tokio::spawn(task).await.expect("no call fails")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const WORKS: [&str; 5] = ["raw read", "read", "raw write", "write", "thread"];

struct Bench {
    database: Database,
    reader: Connection,
    writer: Connection,
    echo: Echo,
}

impl Bench {
    async fn run(&self, work: &str) -> Vec<u64> {
        let (database, echo) = (self.database.clone(), self.echo.clone());
        match work {
            "raw read" => calls(|id| {
                std::hint::black_box(select(&self.reader, id).expect("the row is there"));
            }),
            "raw write" => calls(|id| raw_insert(&self.writer, id).expect("nobody holds the file")),
            "read" => {
                tasks(move |id| {
                    let database = database.clone();
                    async move {
                        let row = database.read(move |conn| Ok(select(conn, id)?)).await;
                        std::hint::black_box(row.expect("the row is there"));
                    }
                })
                .await
            }
            "write" => {
                tasks(move |id| {
                    let database = database.clone();
                    async move {
                        let written = database.write(move |tx| Ok(insert(tx, id)?)).await;
                        written.expect("nobody holds the file");
                    }
                })
                .await
            }
            _ => {
                tasks(move |_| {
                    let echo = echo.clone();
                    async move { echo.call().await }
                })
                .await
            }
        }
    }
}

/// In microseconds, the time that so many percent of the calls stay below.
fn percentile(times: &[u64], percent: usize) -> f64 {
    let at = (times.len() * percent / 100).min(times.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "they are shorter than a day")]
    let micros = times[at] as f64 / 1000.0;
    micros
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments = std::env::args().skip(1);
    let wanted: Vec<String> = arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let works = WORKS
        .iter()
        .filter(|work| wanted.is_empty() || wanted.iter().any(|name| name == *work));
    let works: Vec<&str> = works.copied().collect();

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
    let database = open(folder.path()).await;
    let bench = Bench {
        reader: raw(&database, true).await,
        writer: raw(&database, false).await,
        database,
        echo: Echo::start(),
    };
    let mut rounds: Vec<Vec<(f64, f64)>> = vec![Vec::new(); works.len()];
    for _ in 0..ROUNDS {
        for (work, rounds) in works.iter().zip(&mut rounds) {
            let times = bench.run(work).await;
            rounds.push((percentile(&times, 50), percentile(&times, 99)));
        }
    }
    bench.database.close().await;

    println!("one task, one call at a time; medians of {ROUNDS} rounds of {TIME:?}\n");
    println!("| work | p50 µs | p99 µs | over raw, µs | from | to |\n|---|---|---|---|---|---|");
    let p50 = |rounds: &[(f64, f64)]| rounds.iter().map(|round| round.0).collect::<Vec<_>>();
    for (work, own) in works.iter().zip(&rounds) {
        let p99 = median(own.iter().map(|round| round.1).collect());
        print!("| {work} | {:.1} | {p99:.1} |", median(p50(own)));
        let raw = works
            .iter()
            .position(|other| *other == format!("raw {work}"));
        let Some(raw) = raw else {
            println!(" | | |");
            continue;
        };
        // Of each round, so that a disturbance meets both.
        let over: Vec<f64> = own
            .iter()
            .zip(&rounds[raw])
            .map(|(own, raw)| own.0 - raw.0)
            .collect();
        let (least, most) = over
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(*value), high.max(*value))
            });
        let over = median(over);
        let word = if over <= GOAL_MICROS {
            "reached"
        } else {
            "not reached"
        };
        println!(" {over:.1} ({word}: {GOAL_MICROS}) | {least:.1} | {most:.1} |");
    }
}
