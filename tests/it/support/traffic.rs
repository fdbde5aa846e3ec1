//! What a site does with its cache all the while, and how long the longest call took.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use houseboat::cache::Cache;
use tokio::task::JoinSet;

use crate::support::cache::MINUTE;

const TASKS: usize = 4;
const KEYS: usize = 200;
/// By design it is 50 ms; the rest is for a machine that does much else.
const LONGEST: Duration = Duration::from_secs(2);

/// Some tasks that put, get, fetch, increment and delete, and look whether what they are given is theirs.
#[derive(Debug)]
pub(crate) struct Traffic {
    tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

/// What the calls took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    longest: Duration,
    verb: &'static str,
    calls: usize,
    hits: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            longest,
            verb,
            calls,
            hits,
        } = self;
        write!(
            formatter,
            "{calls} calls, {hits} hits; the longest was {verb} with {longest:?}"
        )
    }
}

/// A value that says whose it is, and shows when it is not whole.
pub(crate) fn value_of(task: usize, key: usize) -> String {
    let word = format!("[{task} {key}]");
    word.repeat(1 + key * 20 / word.len())
}

impl Traffic {
    pub(crate) fn start(cache: &Cache, number: u64) -> Self {
        let mut traffic = Self {
            tasks: JoinSet::new(),
            is_over: Arc::default(),
            seen: Arc::default(),
        };
        for task in 0..TASKS {
            let (is_over, seen) = (Arc::clone(&traffic.is_over), Arc::clone(&traffic.seen));
            let cache = cache.namespace(&format!("task {task}"));
            let mut random = Rng::with_seed(number * 100 + task as u64);
            traffic.tasks.spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let key = random.usize(..KEYS);
                    let start = Instant::now();
                    let (verb, is_hit) = call(&cache, random.u8(..20), task, key).await;
                    seen.lock().unwrap().add(verb, start.elapsed(), is_hit);
                    // At full speed it would be a benchmark.
                    if random.u8(..8) == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            });
        }
        traffic
    }

    /// Lets it go on until it has had so many calls more.
    pub(crate) async fn goes_on(&self, calls: usize) {
        let enough = self.seen.lock().unwrap().calls + calls;
        while self.seen.lock().unwrap().calls < enough {
            assert!(self.tasks.len() == TASKS);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends it, and looks at what was seen.
    pub(crate) async fn end(mut self) -> Seen {
        self.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let seen = self.seen.lock().unwrap().clone();
        assert!(seen.longest < LONGEST, "{seen}");
        seen
    }
}

impl Seen {
    fn add(&mut self, verb: &'static str, took: Duration, is_hit: bool) {
        self.calls += 1;
        self.hits += usize::from(is_hit);
        if took > self.longest {
            (self.longest, self.verb) = (took, verb);
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        let (calls, hits) = (self.calls + other.calls, self.hits + other.hits);
        let longer = if other.longest > self.longest {
            other
        } else {
            self
        };
        Self {
            calls,
            hits,
            ..longer
        }
    }
}

async fn call(cache: &Cache, verb: u8, task: usize, key: usize) -> (&'static str, bool) {
    let name = format!("k{key}");
    match verb {
        0..=6 => {
            cache.put(name, &value_of(task, key), MINUTE).await.unwrap();
            ("put", false)
        }
        7..=14 => {
            let found: Option<String> = cache.get(name).await;
            let is_hit = found.is_some();
            assert!(found.is_none_or(|found| found == value_of(task, key)));
            ("get", is_hit)
        }
        15 => {
            let value = value_of(task, key);
            let compute = move || async move { Ok::<_, Infallible>(value) };
            let Ok(fetched) = cache.fetch(name, MINUTE, compute).await;
            assert!(fetched == value_of(task, key));
            ("fetch", false)
        }
        16 => {
            cache.increment("count", 1, MINUTE).await.unwrap();
            ("increment", false)
        }
        17 => {
            cache
                .put_if_absent(name, &value_of(task, key), MINUTE)
                .await
                .unwrap();
            ("put_if_absent", false)
        }
        18 => {
            let found = cache.get_many::<String>(&[name, "k0".to_owned()]).await;
            for (found, key) in found.into_iter().zip([key, 0]) {
                assert!(found.is_none_or(|found| found == value_of(task, key)));
            }
            ("get_many", false)
        }
        _ => {
            cache.delete(&name).await;
            assert_eq!(cache.get::<String>(&name).await, None);
            ("delete", false)
        }
    }
}
