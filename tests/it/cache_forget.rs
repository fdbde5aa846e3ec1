//! The race that a cache beside a database loses: who read before the commit puts after it.
//!
//! Writers, readers and plain gets go through gates, and a seeded schedule says who passes next. Once the caller of
//! a commit is told of it, nobody who begins later may be given what was there before.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use futures_util::future::join_all;
use houseboat::cache::Cache;
use houseboat::cache::Ttl;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Result;
use houseboat::database::Transaction;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::cache::Form;
use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::fetch;
use crate::support::waiting::slow;

const SEED: u64 = 20_261_121;
const ROUNDS: usize = 10_000;
const ROUNDS_SHORT: usize = 300;
/// A fault is found within so many.
const FOUND: usize = 200;
const KEYS: usize = 8;
/// What takes longer than this hangs.
const SOON: Duration = Duration::from_secs(20);

const ROWS: Migrations = Migrations::new(
    "rows",
    &[(
        "V1__rows",
        "CREATE TABLE rows (key INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;
         INSERT INTO rows VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0);",
    )],
);

/// How a writer takes care of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// As it should.
    Forget,
    /// As it is often done: deleted first, and written then.
    DeleteBefore,
}

/// Those who wait to be let on, by a number of their own.
#[derive(Clone, Debug, Default)]
struct Gates {
    waiting: Arc<Mutex<HashMap<usize, oneshot::Sender<()>>>>,
    numbers: Arc<AtomicUsize>,
    progress: Arc<Notify>,
}

impl Gates {
    fn come(&self) -> oneshot::Receiver<()> {
        let (go_on, gone) = oneshot::channel();
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        self.waiting.lock().unwrap().insert(number, go_on);
        self.progress.notify_one();
        gone
    }

    async fn pass(&self) {
        self.come().await.unwrap();
    }

    /// On a thread of the database.
    fn pass_blocking(&self) {
        self.come().blocking_recv().unwrap();
    }

    /// Lets one on, if there is one.
    fn open(&self, random: &mut Rng) {
        let mut waiting = self.waiting.lock().unwrap();
        let mut numbers: Vec<usize> = waiting.keys().copied().collect();
        numbers.sort_unstable();
        if let Some(number) = random.choice(numbers) {
            // Who is gone needs nothing.
            let _ = waiting.remove(&number).unwrap().send(());
        }
    }
}

/// One database, one cache, and what all of them know.
#[derive(Clone, Debug)]
struct World {
    database: Database,
    cache: Cache,
    gates: Gates,
    /// By key, the version that the caller of a commit was told of.
    told: Arc<[AtomicI64; KEYS]>,
    wrong: Arc<Mutex<Vec<String>>>,
}

fn name(key: usize) -> String {
    format!("row {key}")
}

fn version(connection: &rusqlite::Connection, key: usize) -> Result<i64> {
    let mut statement = connection.prepare_cached("SELECT version FROM rows WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0))?)
}

fn raise(tx: &Transaction<'_>, key: usize) -> Result<i64> {
    tx.prepare_cached("UPDATE rows SET version = version + 1 WHERE key = ?1")?
        .execute([key])?;
    version(tx, key)
}

impl World {
    async fn write(self, key: usize, care: Care, is_all: bool, is_rolled_back: bool) {
        self.gates.pass().await;
        if care == Care::DeleteBefore {
            self.cache.delete(name(key)).await;
        }
        let (cache, gates) = (self.cache.clone(), self.gates.clone());
        let written = self.database.write(move |tx| {
            gates.pass_blocking();
            let version = raise(tx, key)?;
            match care {
                Care::DeleteBefore => {}
                Care::Forget if is_all => cache.forget_all(tx),
                Care::Forget => cache.forget(tx, name(key)),
            }
            gates.pass_blocking();
            if is_rolled_back {
                return Err(Error::abort("on purpose"));
            }
            Ok(version)
        });
        match written.await {
            Ok(version) => _ = self.told[key].fetch_max(version, Ordering::SeqCst),
            Err(error) => assert!(is_rolled_back, "{error}"),
        }
    }

    async fn read(self, key: usize, ttl: Ttl) {
        self.gates.pass().await;
        let told = self.told[key].load(Ordering::SeqCst);
        let inside = self.clone();
        let compute = move || async move {
            inside.gates.pass().await;
            let read = inside
                .database
                .read(move |connection| version(connection, key))
                .await;
            inside.gates.pass().await;
            Ok::<_, Infallible>(read.unwrap())
        };
        let Ok(found) = self.cache.fetch(name(key), ttl, compute).await;
        self.look("fetch", key, told, found);
    }

    async fn get(self, key: usize) {
        self.gates.pass().await;
        let told = self.told[key].load(Ordering::SeqCst);
        if let Some(found) = self.cache.get(name(key)).await {
            self.look("get", key, told, found);
        }
    }

    fn look(&self, verb: &str, key: usize, told: i64, found: i64) {
        if found < told {
            let wrong = format!("{verb} of {key} gave {found} after the commit of {told}");
            self.wrong.lock().unwrap().push(wrong);
        }
    }

    /// One round: some of each on one key, in the order that `random` makes, and a look when all is over.
    async fn round(&self, stage: &Stage, random: &mut Rng, care: Care) {
        let key = random.usize(..KEYS);
        let mut tasks = JoinSet::new();
        for _ in 0..random.usize(1..=2) {
            let (is_all, is_rolled_back) = (random.u8(..8) == 0, random.u8(..4) == 0);
            tasks.spawn(self.clone().write(key, care, is_all, is_rolled_back));
        }
        for _ in 0..random.usize(1..=4) {
            let ttl = match random.u8(..3) {
                0 => Ttl::from(NEVER),
                1 => Ttl::from(MINUTE),
                _ => Ttl::fresh(MINUTE).stale(MINUTE * 9),
            };
            tasks.spawn(self.clone().read(key, ttl));
        }
        for _ in 0..random.usize(..=2) {
            tasks.spawn(self.clone().get(key));
        }
        if random.u8(..4) == 0 {
            stage.clock.advance(MINUTE / 2);
        }
        let scheduled = tokio::time::timeout(SOON, self.schedule(&mut tasks, random));
        scheduled.await.expect("all of them come to their end");
        let told = self.told[key].load(Ordering::SeqCst);
        if let Some(found) = self.cache.get(name(key)).await {
            self.look("the last get", key, told, found);
        }
    }

    async fn schedule(&self, tasks: &mut JoinSet<()>, random: &mut Rng) {
        loop {
            // Who was let on has some time to get to the next gate; on which thread that is, nobody knows.
            for _ in 0..random.usize(..12) {
                tokio::task::yield_now().await;
            }
            let pause = Duration::from_micros(random.u64(1..100));
            let _ = tokio::time::timeout(pause, self.gates.progress.notified()).await;
            while let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
            // A refresh in the background may be on its way still: it goes through a gate of its own.
            let is_waited = !self.gates.waiting.lock().unwrap().is_empty();
            if tasks.is_empty() && !is_waited {
                return;
            }
            self.gates.open(random);
        }
    }
}

/// Runs rounds until something is wrong, or so many; gives what was wrong, and in which round.
async fn play(form: Form, rounds: usize, seed: u64, care: Care) -> Option<(usize, Vec<String>)> {
    let stage = Stage::with(form, |settings| settings.value_bytes_max = 2_000).await;
    let world = World {
        database: Database::open_temporary(&[ROWS]).await.unwrap(),
        cache: stage.cache(),
        gates: Gates::default(),
        told: Arc::default(),
        wrong: Arc::default(),
    };
    let mut random = Rng::with_seed(seed);
    for round in 0..rounds {
        world.round(&stage, &mut random, care).await;
        let wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
        if !wrong.is_empty() {
            return Some((round, wrong));
        }
    }
    world.cache.close().await;
    world.database.close().await;
    None
}

#[tokio::test]
async fn nobody_is_given_what_was_there_before_a_commit() {
    let rounds = if slow("9,700 of 10,000 interleavings") {
        ROUNDS
    } else {
        ROUNDS_SHORT
    };
    // Side by side: each waits most of its time.
    let forms = [Form::Both, Form::Memory, Form::File];
    let plays = forms.into_iter().zip(SEED..).map(async |(form, seed)| {
        let wrong = play(form, rounds / 3 + 1, seed, Care::Forget).await;
        assert_eq!(wrong, None, "{form:?}, seed {seed}");
    });
    join_all(plays).await;
}

#[tokio::test]
async fn who_deletes_before_the_commit_is_found_out() {
    for form in [Form::Both, Form::Memory, Form::File] {
        let wrong = play(form, ROUNDS, SEED, Care::DeleteBefore).await;
        let (round, _) = wrong.expect("these tests find the fault that they are for");
        assert!(round < FOUND, "found after {round} rounds only");
    }
}

#[tokio::test]
async fn what_is_rolled_back_forgets_nothing_and_what_is_committed_does_at_once() {
    let database = Database::open_temporary(&[ROWS]).await.unwrap();
    for form in [Form::Both, Form::Memory, Form::File, Form::Reopened] {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let page = cache.namespace("page");
        for cache in [&cache, &page] {
            for key in ["k", "other"] {
                cache.put(key, &7, NEVER).await.unwrap();
            }
        }
        stage.settle().await;
        let (cache, page) = (stage.cache(), stage.cache().namespace("page"));
        let there = async || {
            let mut there = Vec::new();
            for cache in [&cache, &page] {
                for key in ["k", "other"] {
                    there.push(cache.contains(key).await);
                }
            }
            there
        };
        for is_panic in [false, true] {
            let (inside, page) = (cache.clone(), page.clone());
            let failed = database.write(move |tx| {
                raise(tx, 0)?;
                inside.forget(tx, "k");
                page.forget_all(tx);
                assert!(!is_panic, "on purpose");
                Err::<(), _>(Error::abort("on purpose"))
            });
            failed.await.unwrap_err();
            assert_eq!(there().await, [true; 4], "{form:?}");
        }
        let inside = cache.clone();
        let committed = database.write(move |tx| {
            raise(tx, 0)?;
            inside.forget(tx, "k");
            inside.forget(tx, "missing");
            inside.forget(tx, "k");
            Ok(())
        });
        committed.await.unwrap();
        assert_eq!(there().await, [false, true, true, true], "{form:?}");
        let inside = page.clone();
        database
            .write(move |tx| {
                inside.forget_all(tx);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(there().await, [false, true, false, false], "{form:?}");
        // It is kept again, and what was forgotten stays so.
        assert_eq!(fetch(&page, "k", NEVER, 8).await, (8, true));
        stage.settle().await;
        let page = stage.cache().namespace("page");
        assert_eq!(page.get("k").await, Some(8));
        assert_eq!(page.get::<i32>("other").await, None);
        assert_eq!(stage.cache().get::<i32>("k").await, None);
    }
}

#[tokio::test]
async fn a_stale_value_is_forgotten_as_well() {
    let database = Database::open_temporary(&[ROWS]).await.unwrap();
    for form in [Form::Both, Form::Memory, Form::File, Form::Reopened] {
        let stage = Stage::new(form).await;
        let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 9);
        stage.cache().put("k", &7, ttl).await.unwrap();
        stage.settle().await;
        stage.clock.advance(MINUTE);
        let inside = stage.cache();
        database
            .write(move |tx| {
                inside.forget(tx, "k");
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(
            fetch(&stage.cache(), "k", ttl, 8).await,
            (8, true),
            "{form:?}"
        );
        stage.settle().await;
        assert_eq!(stage.cache().get("k").await, Some(8), "{form:?}");
    }
}

/// What keeps the key out of a small memory, most of the time.
const CROWD: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_asks_after_a_put_or_a_deletion_is_not_given_what_was_there_before() {
    for memory in [0, 20_000, 32 << 20] {
        let stage = Stage::with(Form::Both, |settings| {
            settings.memory_bytes_max = memory;
            settings.value_bytes_max = 2_000;
        })
        .await;
        let cache = stage.cache();
        let told = Arc::new(AtomicI64::new(0));
        let mut readers = JoinSet::new();
        for _ in 0..3 {
            let (cache, told) = (cache.clone(), Arc::clone(&told));
            readers.spawn(async move {
                let mut random = Rng::new();
                loop {
                    let before = told.load(Ordering::SeqCst);
                    if let Some(found) = cache.get::<i64>("k").await {
                        assert!(found >= before, "{found} after {before}, {memory} bytes");
                    }
                    cache
                        .get::<i64>(format!("crowd {}", random.usize(..CROWD)))
                        .await;
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut random = Rng::with_seed(SEED);
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < Duration::from_millis(900) {
            number += 1;
            if random.bool() {
                // In the file, and then gone from there.
                cache.delete("k").await;
            } else {
                cache.put("k", &number, NEVER).await.unwrap();
            }
            told.store(number, Ordering::SeqCst);
            let crowd = format!("crowd {}", random.usize(..CROWD));
            cache.put(crowd, &number, NEVER).await.unwrap();
            tokio::task::yield_now().await;
        }
        // None of them has panicked.
        assert!(readers.try_join_next().is_none(), "{memory} bytes");
        readers.shutdown().await;
        assert!(number > 100, "{number} changes only");
    }
}
