//! The load that every cache is put under, the same for Houseboat and for its peers: closed loops of tasks that ask for
//! one key after another. A run is described by words (`tasks=64 work=get`), and gives a line of numbers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// What a value has, in bytes.
pub(crate) const VALUE_BYTES: usize = 1_024;

/// Values are kept so long, where they are not kept for ever.
pub(crate) const TTL: Duration = Duration::from_hours(1);

/// A task lets others run after so many calls: one that never waits would have its thread to itself.
const TURN: u64 = 32;

/// Whether a call found what it asked for, where it asked for something.
pub(crate) type IsFound = bool;

/// What is measured.
pub(crate) trait Store: Clone + Send + Sync + 'static {
    /// The value is decoded, as a site would have it.
    fn get(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    /// The same without a copy of the value, where there is such a thing.
    fn share(&self, key: &str) -> impl Future<Output = IsFound> + Send;
    fn put(&self, key: &str, value: &str) -> impl Future<Output = ()> + Send;
    fn fetch(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    fn increment(&self, key: &str) -> impl Future<Output = ()> + Send;
    fn allow(&self, key: &str) -> impl Future<Output = ()> + Send;
    /// Waits while much of what was put is not where it belongs.
    fn pace(&self) -> impl Future<Output = ()> + Send;
    /// Returns when what was put is where it belongs; it is not asked any more then.
    fn settle(&self) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Get,
    Share,
    Put,
    /// Nine gets and a put.
    Mix,
    Fetch,
    Increment,
    Allow,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Uniform,
    /// With an exponent of 0.99, the popular ones all over the range.
    Zipf,
    /// One after another, from the end of those that are there.
    New,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) pick: Pick,
    pub(crate) tasks: u64,
    pub(crate) seconds: f64,
    /// So many keys are asked for.
    pub(crate) keys: u64,
    /// So many of them are there before.
    pub(crate) fill: u64,
    /// What the cache may take, in bytes: the file, or Redis.
    pub(crate) bytes_max: u64,
    /// What it may take in memory, in bytes, before the file.
    pub(crate) memory_bytes_max: u64,
    pub(crate) has_ttl: bool,
}

impl Load {
    pub(crate) const DEFAULT: Self = Self {
        work: Work::Get,
        pick: Pick::Uniform,
        tasks: 64,
        seconds: 5.0,
        keys: 10_000,
        fill: 10_000,
        bytes_max: 256 << 20,
        memory_bytes_max: 32 << 20,
        has_ttl: true,
    };

    /// A run by its words; what is not said is as by default.
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut load = Self::DEFAULT;
        for word in words {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            let number = || value.parse::<u64>().expect("a number");
            match name {
                "work" => {
                    load.work = match value {
                        "get" => Work::Get,
                        "share" => Work::Share,
                        "put" => Work::Put,
                        "mix" => Work::Mix,
                        "fetch" => Work::Fetch,
                        "increment" => Work::Increment,
                        "allow" => Work::Allow,
                        _ => panic!("no such work: {value}"),
                    }
                }
                "pick" => {
                    load.pick = match value {
                        "uniform" => Pick::Uniform,
                        "zipf" => Pick::Zipf,
                        "new" => Pick::New,
                        _ => panic!("no such pick: {value}"),
                    }
                }
                "tasks" => load.tasks = number(),
                "seconds" => load.seconds = value.parse().expect("a number of seconds"),
                "keys" => load.keys = number(),
                "fill" => load.fill = number(),
                "bytes_max" => load.bytes_max = number(),
                "memory_bytes_max" => load.memory_bytes_max = number(),
                "has_ttl" => load.has_ttl = value.parse().expect("true or false"),
                _ => panic!("no such word: {name}"),
            }
        }
        load
    }

    /// Puts what is to be there before, from some tasks.
    pub(crate) async fn fill<S: Store>(&self, store: &S) {
        let next = Arc::new(AtomicU64::new(0));
        let tasks = (0..64).map(|_| {
            let (store, next, fill) = (store.clone(), Arc::clone(&next), self.fill);
            tokio::spawn(async move {
                let mut words = Words::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= fill {
                        return;
                    }
                    words.set(number);
                    store.put(words.key(), words.value()).await;
                    if number.is_multiple_of(TURN) {
                        store.pace().await;
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("the fill does not panic");
        }
    }

    /// Puts the store under load.
    ///
    /// The rate is of the whole time until all that was put is where it belongs.
    pub(crate) async fn run<S: Store>(&self, store: &S, rss: impl FnOnce() -> u64) -> Seen {
        let keys = Keys::new(self);
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(self.seconds);
        let tasks = (0..self.tasks).map(|task| {
            let (store, keys, load) = (store.clone(), keys.clone(), *self);
            tokio::spawn(async move { load.one(&store, keys, task, end).await })
        });
        let mut times = Times::new();
        for task in tasks.collect::<Vec<_>>() {
            times.add(&task.await.expect("the load does not panic"));
        }
        let rss = rss();
        store.settle().await;
        let took = start.elapsed().as_secs_f64();
        let calls = times.calls;
        Seen {
            rate: calls as f64 / took,
            p50: times.at(0.5),
            p99: times.at(0.99),
            max: times.max as f64 / 1e3,
            rss: rss as f64 / f64::from(1 << 20),
            missed: times.missed as f64 / calls.max(1) as f64 * 100.0,
            dropped: 0.0,
            from_file: 0.0,
        }
    }

    async fn one<S: Store>(&self, store: &S, keys: Keys, task: u64, end: Instant) -> Times {
        let mut random = fastrand::Rng::with_seed(task * 7_919 + 17);
        let (mut times, mut words) = (Times::new(), Words::new());
        loop {
            let mut begun = Instant::now();
            if begun >= end {
                return times;
            }
            for _ in 0..TURN {
                words.set(keys.next(&mut random));
                let key = words.key();
                let is_found = match self.work {
                    Work::Get => is_value(store.get(key).await),
                    Work::Share => store.share(key).await,
                    Work::Fetch => is_value(store.fetch(key).await),
                    Work::Mix if random.u8(..10) < 9 => is_value(store.get(key).await),
                    Work::Put | Work::Mix => {
                        store.put(key, words.value()).await;
                        true
                    }
                    Work::Increment => {
                        store.increment(key).await;
                        true
                    }
                    Work::Allow => {
                        store.allow(key).await;
                        true
                    }
                };
                // The end of one call is the beginning of the next: to ask the time twice costs as much as a get.
                let ended = Instant::now();
                times.record(ended - begun, is_found);
                begun = ended;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Whether there is a value; one of another length is none that was put.
fn is_value(value: Option<String>) -> IsFound {
    if let Some(value) = &value {
        assert_eq!(value.len(), VALUE_BYTES, "it is what was put");
    }
    std::hint::black_box(value).is_some()
}

/// A key and its value, which begins with the key, made in place.
struct Words {
    value: String,
}

const KEY_BYTES: usize = 16;

impl Words {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(5);
        let value = (0..VALUE_BYTES).map(|_| random.alphanumeric()).collect();
        Self { value }
    }

    fn set(&mut self, mut number: u64) {
        let mut key = *b"item:00000000000";
        for digit in key[5..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let key = std::str::from_utf8(&key).expect("digits are ASCII");
        self.value.replace_range(..KEY_BYTES, key);
    }

    fn key(&self) -> &str {
        &self.value[..KEY_BYTES]
    }

    fn value(&self) -> &str {
        &self.value
    }
}

/// Which number is asked for next.
#[derive(Clone)]
enum Keys {
    Uniform(u64),
    Zipf(Arc<Zipf>),
    New(Arc<AtomicU64>),
}

impl Keys {
    fn new(load: &Load) -> Self {
        match load.pick {
            Pick::Uniform => Self::Uniform(load.keys),
            Pick::Zipf => Self::Zipf(Arc::new(Zipf::new(load.keys))),
            Pick::New => Self::New(Arc::new(AtomicU64::new(load.fill))),
        }
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Uniform(keys) => random.u64(..keys),
            Self::Zipf(zipf) => zipf.next(random),
            Self::New(next) => next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Zipf's distribution, as YCSB draws it (after Gray et al., "Quickly generating billion-record synthetic databases").
struct Zipf {
    keys: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    half: f64,
}

const THETA: f64 = 0.99;

/// No divisor of a power of ten has a factor with it: ranks go to numbers one to one.
const SPREAD: u64 = 15_485_863;

impl Zipf {
    fn new(keys: u64) -> Self {
        let zeta = |keys: u64| {
            (1..=keys)
                .map(|rank| (rank as f64).powf(-THETA))
                .sum::<f64>()
        };
        let (whole, two) = (zeta(keys), zeta(2));
        Self {
            keys,
            zeta: whole,
            alpha: 1.0 / (1.0 - THETA),
            eta: (1.0 - (2.0 / keys as f64).powf(1.0 - THETA)) / (1.0 - two / whole),
            half: 1.0 + 0.5_f64.powf(THETA),
        }
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        let chance = random.f64();
        let part = chance * self.zeta;
        let rank = if part < 1.0 {
            0
        } else if part < self.half {
            1
        } else {
            let rank = (self.eta * chance - self.eta + 1.0).powf(self.alpha);
            (self.keys as f64 * rank) as u64
        };
        rank.min(self.keys - 1) * SPREAD % self.keys
    }
}

/// How long calls took, in classes of 3 %.
struct Times {
    classes: Vec<u64>,
    calls: u64,
    missed: u64,
    max: u64,
}

const FINE: u32 = 5;

impl Times {
    fn new() -> Self {
        Self {
            classes: vec![0; 40 << FINE],
            calls: 0,
            missed: 0,
            max: 0,
        }
    }

    fn record(&mut self, took: Duration, is_found: IsFound) {
        let nanos = took.as_nanos() as u64;
        self.calls += 1;
        self.missed += u64::from(!is_found);
        self.max = self.max.max(nanos);
        let nanos = nanos.max(1 << FINE);
        let power = nanos.ilog2() - FINE;
        let class = (u64::from(power) << FINE) + (nanos >> power);
        let last = self.classes.len() - 1;
        self.classes[(class as usize).min(last)] += 1;
    }

    fn add(&mut self, other: &Self) {
        for (own, other) in self.classes.iter_mut().zip(&other.classes) {
            *own += other;
        }
        self.calls += other.calls;
        self.missed += other.missed;
        self.max = self.max.max(other.max);
    }

    /// What a part of the calls took no longer than, in µs.
    fn at(&self, part: f64) -> f64 {
        let mut left = (self.calls as f64 * part) as u64;
        for (class, calls) in self.classes.iter().enumerate() {
            if left < *calls {
                let power = (class >> FINE).saturating_sub(1);
                let nanos = ((class - (power << FINE)) as f64 + 0.5) * f64::powi(2.0, power as i32);
                return nanos / 1e3;
            }
            left -= calls;
        }
        self.max as f64 / 1e3
    }
}

/// What a run gave; times in µs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// What the process with the cache takes in memory, in MiB.
    pub(crate) rss: f64,
    /// Of the gets, in percent.
    pub(crate) missed: f64,
    /// Of the puts, those that were not kept because the disk did not keep up, in percent.
    pub(crate) dropped: f64,
    /// Of the hits, those that memory could not answer, in percent.
    pub(crate) from_file: f64,
}

impl Seen {
    pub(crate) fn print(&self) {
        let Self {
            rate,
            p50,
            p99,
            max,
            rss,
            missed,
            dropped,
            from_file,
        } = self;
        println!("{rate} {p50} {p99} {max} {rss} {missed} {dropped} {from_file}");
    }
}

/// What a process takes in memory, in bytes.
pub(crate) fn rss(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
