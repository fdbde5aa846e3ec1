//! Puts at full speed: the file keeps to its bound, and nothing gets slower or larger.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::database::Clock;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::cache::NEVER;
use crate::support::cache::settings;
use crate::support::twin::Twin;
use crate::support::twin::orders;
use crate::support::twin::voice;
use crate::support::waiting::slow;

const BYTES_MAX: u64 = 64 << 20;
const SECONDS: u64 = 20;
const TASKS: usize = 8;
/// Far more than fit.
const KEYS: usize = 1_000_000;
/// A put that finds no room waits so long, in nanoseconds.
const WAIT_NS: u64 = 50_000_000;
const LOOK: Duration = Duration::from_millis(100);

/// What the process and its files took, at one look.
#[derive(Clone, Copy, Debug)]
struct Look {
    files: u64,
    memory: u64,
}

fn soak_settings(folder: &Path) -> Settings {
    Settings {
        bytes_max: BYTES_MAX,
        memory_bytes_max: 16 << 20,
        ..settings(folder)
    }
}

fn look(folder: &Path, process: u32) -> Look {
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |data| data.len());
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Look {
        files: size("cache.sqlite3") + size("cache.sqlite3-wal"),
        memory: kilobytes << 10,
    }
}

fn most(looks: &[Look], of: impl Fn(&Look) -> u64) -> u64 {
    looks.iter().map(of).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_at_full_speed_stay_within_the_bound_and_as_fast_as_they_were() {
    if !slow("a minute of puts at full speed") {
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the test that is configured, not the site"
    )]
    let seconds = std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let orders = format!("{seconds} {}", folder.path().display());
    let mut twin = Twin::start("cache_soak::the_twin_that_puts", &orders);
    assert_eq!(twin.says().await, "open");
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut looks = Vec::new();
    while start.elapsed() < length {
        looks.push(look(folder.path(), twin.id()));
        tokio::time::sleep(LOOK).await;
    }
    let said = twin.says().await;
    let numbers: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
    let [puts, p99_first, p99_last, hits] = numbers[..] else {
        panic!("{said}")
    };
    assert_eq!(twin.says().await, "closed");
    let closed = look(folder.path(), twin.id());

    let (second, last) = (looks.len() / 4, looks.len() * 3 / 4);
    let memory = |looks: &[Look]| most(looks, |look| look.memory);
    let files = most(&looks, |look| look.files);
    let (early, late) = (memory(&looks[second..second * 2]), memory(&looks[last..]));
    #[expect(clippy::print_stderr, reason = "it says how good it is")]
    {
        eprintln!(
            "{seconds} s, {} looks: {puts} puts ({}/s), p99 {p99_first} ns in the first quarter and {p99_last} ns in the \
             last; the files took {files} bytes at most, {} % of the bound, and {} when closed; memory {early} in the \
             second quarter, {late} in the last; {hits} of 1000 hits",
            looks.len(),
            puts / seconds,
            files * 100 / BYTES_MAX,
            closed.files,
        );
    }
    assert!(files <= BYTES_MAX * 11 / 10, "{files} bytes");
    assert!(
        files >= BYTES_MAX / 2,
        "{files} bytes: the bound was not met"
    );
    // With other tests beside it, a minute's times say nothing.
    assert!(
        seconds <= SECONDS || p99_last <= p99_first.max(WAIT_NS) * 2,
        "p99 was {p99_first} ns and is {p99_last} ns"
    );
    assert!(
        late <= early + early / 10 + (8 << 20),
        "memory was {early} and is {late}"
    );
}

/// Nothing, unless this is the program that was started to put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_twin_that_puts() {
    let Some(orders) = orders() else {
        return;
    };
    let (seconds, folder) = orders.split_once(' ').unwrap();
    let length = Duration::from_secs(seconds.parse().unwrap());
    let say = voice();
    let cache = Cache::open(&soak_settings(Path::new(folder)), Clock::system()).await;
    say("open");
    let start = Instant::now();
    // By quarter.
    let took = Arc::new(Mutex::new([const { Vec::<u32>::new() }; 4]));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (cache, took) = (cache.clone(), Arc::clone(&took));
        tasks.spawn(async move {
            let mut random = Rng::with_seed(task as u64);
            let mut own = [const { Vec::new() }; 4];
            let value = "v".repeat(1_024);
            while start.elapsed() < length {
                let key = random.usize(..KEYS);
                let begun = Instant::now();
                cache
                    .put(format!("key {key}"), &value, NEVER)
                    .await
                    .unwrap();
                let nanos = u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX);
                let quarter = (start.elapsed().as_millis() * 4 / length.as_millis()).min(3);
                // A sample of them: what is remembered of all would be what grows.
                if random.u8(..64) == 0 {
                    own[usize::try_from(quarter).unwrap()].push(nanos);
                }
                if random.u8(..64) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for (all, own) in took.lock().unwrap().iter_mut().zip(own) {
                all.extend(own);
            }
        });
    }
    tasks.join_all().await;
    let took = took.lock().unwrap().clone();
    let puts: usize = took.iter().map(|quarter| quarter.len() * 64).sum();
    let [first, _, _, last] = took.map(|mut quarter| {
        quarter.sort_unstable();
        quarter[quarter.len() * 99 / 100]
    });
    let mut hits = 0;
    for key in 0..1_000 {
        hits += usize::from(cache.contains(format!("key {}", key * 7)).await);
    }
    say(&format!("{puts} {first} {last} {hits}"));
    cache.close().await;
    say("closed");
    // Until it has been looked at.
    tokio::time::sleep(Duration::from_secs(30)).await;
}
