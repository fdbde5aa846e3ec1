//! `kill -9` at any moment: what is served afterwards was put as it is, and what was deleted or forgotten is not back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use houseboat::cache::Cache;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::cache::NEVER;
use crate::support::cache::settings;
use crate::support::twin::Twin;
use crate::support::twin::orders;
use crate::support::twin::voice;
use crate::support::waiting::slow;

const SEED: u64 = 20_261_121;
const ROUNDS: usize = 60;
const ROUNDS_SHORT: usize = 4;
const TASKS: usize = 16;
const KEYS: usize = 8;
const ROWS_MAX: usize = 16;
/// A process that nobody kills ends by itself.
const LIFE: Duration = Duration::from_mins(1);
/// A deletion that took as long may have been answered before the file had it.
const ANSWERED_EARLY: Duration = Duration::from_millis(45);

const ROWS: Migrations = Migrations::new(
    "rows",
    &[(
        "V1__rows",
        "CREATE TABLE rows (key INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;",
    )],
);

/// A value that says whose it is, and whether it is whole.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Value {
    space: usize,
    key: usize,
    number: u64,
    body: Vec<u8>,
}

impl Value {
    fn new(space: usize, key: usize, number: u64) -> Self {
        let seed = number ^ ((space * KEYS + key) as u64) << 50;
        let mut random = Rng::with_seed(seed);
        let most = 1 << random.u32(..15);
        let mut body = vec![0; random.usize(..most)];
        random.fill(&mut body);
        Self {
            space,
            key,
            number,
            body,
        }
    }
}

async fn open_database(folder: &Path) -> Database {
    let settings = houseboat::database::Settings {
        path: folder.join("site.sqlite3"),
        ..houseboat::database::Settings::default()
    };
    let database = Database::open(&settings, Clock::system()).unwrap();
    database.migrate(&[ROWS]).await.unwrap();
    database.within(LIFE)
}

async fn version(database: &Database, row: usize) -> i64 {
    let read = database.read(move |connection| {
        let sql = "SELECT coalesce(max(version), 0) FROM rows WHERE key = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row([row], |row| row.get(0))?)
    });
    read.await.unwrap()
}

/// By namespace and key, the number that was deleted last, with the deletion answered.
type Deleted = HashMap<(usize, usize), u64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_all_that_is_served_was_put_and_nothing_deleted_is_back() {
    let all = slow("56 of 60 kills");
    let folder = TempDir::new().unwrap();
    let mut random = Rng::with_seed(SEED);
    let mut deleted = Deleted::new();
    let (mut found, mut forgettable) = (0, 0);
    for round in 0..if all { ROUNDS } else { ROUNDS_SHORT } {
        let orders = format!("{round} {}", folder.path().display());
        let mut twin = Twin::start("cache_killed::the_twin_that_is_killed", &orders);
        // As a rule in the midst of it, and now and then while the file is being opened.
        if round % 5 != 4 {
            twin.says().await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(5..400))).await;
        let said = twin.kill();
        for line in said.iter().filter_map(|line| line.strip_prefix("deleted ")) {
            let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            let [space, key, number] = numbers[..] else {
                panic!("{line}")
            };
            let at = (
                usize::try_from(space).unwrap(),
                usize::try_from(key).unwrap(),
            );
            deleted.insert(at, number);
        }
        let what = format!("round {round} of seed {SEED}");
        let database = open_database(folder.path()).await;
        let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
        found += check_values(&cache, &deleted, &what).await;
        for row in 0..ROWS_MAX {
            if let Some(cached) = cache.get::<i64>(format!("row {row}")).await {
                assert_eq!(cached, version(&database, row).await, "{what}: row {row}");
                forgettable += 1;
            }
        }
        cache.close().await;
        database.close().await;
        let report = Cache::check(&settings(folder.path())).await.unwrap();
        assert!(report.is_ok(), "{what}: {report:?}");
    }
    assert!(found > 0 && !deleted.is_empty(), "nothing was at stake");
    // What was forgotten of late is deleted once more at the next open, and that is most of them.
    assert!(forgettable > 0 || !all, "no row was at stake");
    #[expect(clippy::print_stderr, reason = "it says how much was at stake")]
    {
        let deleted = deleted.len();
        eprintln!(
            "seed {SEED}: {found} values and {forgettable} rows found, {deleted} keys deleted"
        );
    }
    // What the processes wrote beside the file is gone with them.
    let names = std::fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().ends_with(".open")),
        "{left:?}"
    );
}

async fn check_values(cache: &Cache, deleted: &Deleted, what: &str) -> usize {
    let mut found = 0;
    for space in 0..TASKS {
        let cache = cache.namespace(&format!("n{space}"));
        for key in 0..KEYS {
            let Some(value) = cache.get::<Value>(format!("k{key}")).await else {
                continue;
            };
            let what = format!("{what}: {space} {key} {}", value.number);
            assert!(
                value == Value::new(space, key, value.number),
                "{what} is not as it was put"
            );
            let deleted = deleted.get(&(space, key)).copied().unwrap_or_default();
            assert!(
                value.number > deleted,
                "{what} is back, and {deleted} was deleted"
            );
            found += 1;
        }
    }
    found
}

/// Nothing, unless this is the program that was started to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_twin_that_is_killed() {
    let Some(orders) = orders() else {
        return;
    };
    let (round, folder) = orders.split_once(' ').unwrap();
    let round: u64 = round.parse().unwrap();
    let database = open_database(Path::new(folder)).await;
    let cache = Cache::open(&settings(Path::new(folder)), Clock::system()).await;
    let say = voice();
    let mut tasks = JoinSet::new();
    for space in 0..TASKS {
        let (root, database, say) = (cache.clone(), database.clone(), say.clone());
        tasks.spawn(async move {
            let cache = root.namespace(&format!("n{space}"));
            let mut random = Rng::with_seed(round * 100 + space as u64);
            // Whatever a round before this one has put has a smaller number.
            for number in round * 1_000_000_000 + 1.. {
                let key = random.usize(..KEYS);
                let name = format!("k{key}");
                let start = Instant::now();
                let keys = match random.u8(..40) {
                    0 => {
                        cache.clear().await;
                        0..KEYS
                    }
                    1..=6 => {
                        cache.delete(name).await;
                        key..key + 1
                    }
                    7..=12 => {
                        write_row(&root, &database, random.usize(..ROWS_MAX)).await;
                        continue;
                    }
                    13..=20 => {
                        read_row(&root, &database, random.usize(..ROWS_MAX)).await;
                        continue;
                    }
                    _ => {
                        let value = Value::new(space, key, number);
                        cache.put(name, &value, NEVER).await.unwrap();
                        continue;
                    }
                };
                // `number` is above all that was put before, and below all that will be.
                for key in keys.filter(|_| start.elapsed() < ANSWERED_EARLY) {
                    say(&format!("deleted {space} {key} {number}"));
                }
            }
        });
    }
    let over = tokio::time::timeout(LIFE, tasks.join_all()).await;
    panic!("nobody killed this process: {over:?}");
}

async fn write_row(cache: &Cache, database: &Database, row: usize) {
    let cache = cache.clone();
    let write = database.write(move |tx| {
        let sql = "INSERT INTO rows VALUES (?1, 1) ON CONFLICT DO UPDATE SET version = version + 1";
        tx.prepare_cached(sql)?.execute([row])?;
        cache.forget(tx, format!("row {row}"));
        Ok(())
    });
    write.await.unwrap();
}

async fn read_row(cache: &Cache, database: &Database, row: usize) {
    let database = database.clone();
    let compute = move || async move { Ok::<_, Infallible>(version(&database, row).await) };
    let Ok(_) = cache.fetch(format!("row {row}"), NEVER, compute).await;
}
