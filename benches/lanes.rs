//! What slow reads do to the short ones beside them.
//!
//! `cargo bench --bench lanes`: 64 tasks read by id, one after another, while 0, 1, 4 and 16 tasks keep slow reads
//! running, all from one place in the code. Rounds are interleaved, and medians of them printed.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Settings;
use tokio::task::JoinSet;

/// What a slow read may take, its wait included.
const PATIENCE: Duration = Duration::from_mins(1);

const ROWS: u64 = 10_000;
const ROUNDS: usize = 5;
const TASKS: usize = 64;
/// How long a round with so many slow reads is measured.
const TIME: Duration = Duration::from_secs(2);
/// How many slow reads run beside.
const SLOW: [usize; 4] = [0, 1, 4, 16];
/// What a slow read takes where nothing else runs, about.
const SLOW_TIME: Duration = Duration::from_millis(300);

const MIGRATIONS: Migrations = Migrations::new(
    "bench",
    &[(
        "V1__items",
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL) STRICT;",
    )],
);

/// What a round has shown.
#[derive(Clone, Copy, Default)]
struct Round {
    rate: f64,
    p50: f64,
    p99: f64,
    longest: f64,
    refused: f64,
    slow: f64,
}

async fn short(database: &Database, id: u64) -> Result<(), Error> {
    let read = database.read(move |conn| {
        let mut statement =
            conn.prepare_cached("SELECT id, name, price FROM items WHERE id = ?1")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
            ))
        };
        Ok(statement.query_row([id], row)?)
    });
    read.await.map(|row| drop(std::hint::black_box(row)))
}

/// Counts to `count` in SQL; every slow read comes from here.
async fn slow(database: &Database, count: u64) -> Result<(), Error> {
    let read = database.read(move |conn| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
        Ok(conn.prepare_cached(sql)?.query_row([count], |row| row.get::<_, i64>(0))?)
    });
    read.await.map(drop)
}

async fn open(folder: &std::path::Path) -> Database {
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

/// How far [`slow`] counts in its time on this machine.
async fn calibrate(database: &Database) -> u64 {
    let mut count = 100_000;
    loop {
        let start = Instant::now();
        slow(database, count).await.expect("nothing else runs");
        if start.elapsed() >= SLOW_TIME / 4 {
            let rate = u128::from(count) * SLOW_TIME.as_nanos() / start.elapsed().as_nanos();
            return u64::try_from(rate).expect("it counts no further than a while");
        }
        count *= 2;
    }
}

async fn round(database: &Database, beside: usize, count: u64) -> Round {
    let over = Arc::new(AtomicBool::new(false));
    let mut slow_ones = JoinSet::new();
    for _ in 0..beside {
        // They wait for one another.
        let (database, over) = (database.within(PATIENCE), Arc::clone(&over));
        slow_ones.spawn(async move {
            let (mut times, start) = (0_u32, Instant::now());
            while !over.load(Ordering::Relaxed) {
                slow(&database, count)
                    .await
                    .expect("a slow read has a minute");
                times += 1;
            }
            start.elapsed().as_secs_f64() * 1000.0 / f64::from(times)
        });
    }
    // Until the slow ones hold what they can hold.
    tokio::time::sleep(SLOW_TIME).await;
    let mut short_ones = JoinSet::new();
    let start = Instant::now();
    for seed in 0..TASKS {
        let database = database.clone();
        short_ones.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed as u64);
            let (mut times, mut refused) = (Vec::new(), 0_u32);
            while start.elapsed() < TIME {
                let begin = Instant::now();
                match short(&database, random.u64(1..=ROWS)).await {
                    Ok(()) => times.push(begin.elapsed()),
                    Err(_) => refused += 1,
                }
            }
            (times, refused)
        });
    }
    let (mut times, mut refused) = (Vec::new(), 0.0);
    while let Some(done) = short_ones.join_next().await {
        let (own, not) = done.expect("no task panics");
        times.extend(own);
        refused += f64::from(not);
    }
    let took = start.elapsed();
    over.store(true, Ordering::Relaxed);
    let slow_times = slow_ones.join_all().await;
    times.sort_unstable();
    let micros = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
    let rate = times.len() as f64 / took.as_secs_f64();
    Round {
        rate,
        p50: micros(50),
        p99: micros(99),
        longest: micros(100),
        refused,
        slow: median(slow_times),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
    let database = open(folder.path()).await;
    let count = calibrate(&database).await;
    let mut rounds = SLOW.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (beside, rounds) in SLOW.iter().zip(&mut rounds) {
            rounds.push(round(&database, *beside, count).await);
        }
    }
    database.close().await;
    println!(
        "{TASKS} tasks read by id beside slow reads of about {SLOW_TIME:?}; medians of {ROUNDS} rounds of {TIME:?}\n"
    );
    println!(
        "| slow reads | short reads/s | p50 µs | p99 µs | longest µs | errors | a slow read, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (beside, rounds) in SLOW.iter().zip(&rounds) {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        println!(
            "| {beside} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            of(|round| round.rate),
            of(|round| round.p50),
            of(|round| round.p99),
            of(|round| round.longest),
            rounds.iter().map(|round| round.refused).sum::<f64>(),
            of(|round| round.slow),
        );
    }
}
