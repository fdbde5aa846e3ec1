//! What the cache does in a second, beside Redis and moka.
//!
//! `cargo bench --bench cache` measures everything; names of [`PARTS`] as arguments (`-- memory file`) measure these
//! alone, `rounds=1` and `seconds=2` more shortly, and `only=houseboat,redis` without the others. Each row runs in a
//! process of its own, in turn, round after round; what is printed are medians of the rounds, and beside each row how
//! many times of its calls the first row of its group makes, in the same round.
//!
//! `-- row FOLDER WORDS…` is one run, `-- serve MODE PORT FOLDER` a server for the part `page`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "it prints tables, starts programs, and counts what is far below 2^52"
)]

#[path = "peers/cache/load.rs"]
mod load;

use std::convert::Infallible;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::cache::Ttl;
use houseboat::database::Clock;

use load::IsFound;
use load::Load;
use load::Seen;
use load::Store;
use load::Work;

const PARTS: [&str; 8] = [
    "memory", "file", "put", "mix", "size", "fetch", "count", "page",
];

/// How long a row of the part `put` lasts, in seconds, where nothing is said; another part's.
const PUT_SECONDS: f64 = 60.0;
const SECONDS: f64 = 5.0;

const ROUNDS: usize = 3;

/// The largest value, in bytes, as by default.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// What an entry of a value of 1 KiB takes in the file, in bytes: three fill a page of 4,096.
const ENTRY_BYTES: u64 = 1_440;

#[derive(Clone)]
struct Houseboat {
    cache: Cache,
    ttl: Ttl,
}

impl Houseboat {
    async fn open(folder: &Path, load: &Load) -> Self {
        let value_bytes_max = VALUE_BYTES_MAX.min(load.bytes_max / 8);
        let settings = Settings {
            path: folder.join("cache.sqlite3"),
            bytes_max: load.bytes_max,
            memory_bytes_max: load.memory_bytes_max,
            value_bytes_max: usize::try_from(value_bytes_max).expect("it is small"),
        };
        let ttl = if load.has_ttl { Some(load::TTL) } else { None };
        Self {
            cache: Cache::open(&settings, Clock::system()).await,
            ttl: ttl.into(),
        }
    }

    async fn run(&self, load: &Load) -> Seen {
        load.fill(self).await;
        while self.cache.stats().waiting_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = self.cache.stats();
        assert_eq!(before.dropped, 0, "the disk keeps up with the fill");
        let mut after = before;
        let seen = load.run(self, || {
            after = self.cache.stats();
            load::rss("self")
        });
        let seen = seen.await;
        assert!(after.has_file, "there is a file all the while");
        let part = |of: u64, rest: u64| of as f64 / (of + rest).max(1) as f64 * 100.0;
        let puts = after.puts - before.puts;
        let dropped = part(after.dropped, puts);
        // What was not kept was no put.
        let kept = match load.work {
            Work::Put => 1.0 - dropped / 100.0,
            _ => 1.0,
        };
        let from_memory = after.memory_hits - before.memory_hits;
        Seen {
            rate: seen.rate * kept,
            dropped,
            from_file: part(after.file_hits - before.file_hits, from_memory),
            ..seen
        }
    }
}

impl Store for Houseboat {
    async fn get(&self, key: &str) -> Option<String> {
        self.cache.get(key).await
    }

    async fn share(&self, key: &str) -> IsFound {
        self.cache.contains(key).await
    }

    async fn put(&self, key: &str, value: &str) {
        let put = self.cache.put(key, value, self.ttl).await;
        put.expect("it is not too large");
    }

    async fn fetch(&self, key: &str) -> Option<String> {
        let fetched = self.cache.fetch(key, self.ttl, missing);
        fetched.await.ok()
    }

    async fn increment(&self, key: &str) {
        let sum = self.cache.increment(key, 1, self.ttl).await;
        std::hint::black_box(sum.expect("it is a number"));
    }

    async fn allow(&self, key: &str) {
        let allowed = self.cache.allow(key, 1_000_000_000, Duration::from_mins(1));
        allowed.await.expect("it is far from the limit");
    }

    async fn pace(&self) {
        while self.cache.stats().waiting_bytes > 4 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn settle(&self) {
        self.cache.close().await;
    }
}

async fn missing() -> Result<String, Infallible> {
    unreachable!("all that is asked for is there")
}

/// One row of a group: who does it, and what the words of [`Load::parse`] say.
struct Row {
    name: &'static str,
    who: &'static str,
    words: String,
}

/// What is measured in turn; the first row is the one that the others are held against.
struct Group {
    title: String,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// What the first row of a group should reach beside another.
struct Goal {
    beside: &'static str,
    of: Of,
}

#[derive(Clone, Copy)]
enum Of {
    /// At least so many times its calls.
    Calls(f64),
    /// A median that is so many times shorter.
    Median(f64),
    /// A shorter p99.
    P99,
    /// At most so many times its calls.
    CallsAtMost(f64),
}

impl Group {
    fn new(
        title: &str,
        rows: &[(&'static str, &'static str, &str)],
        goals: &[(&'static str, Of)],
    ) -> Self {
        let rows = rows.iter().map(|&(name, who, words)| Row {
            name,
            who,
            words: words.to_owned(),
        });
        let goals = goals.iter().map(|&(beside, of)| Goal { beside, of });
        Self {
            title: title.to_owned(),
            rows: rows.collect(),
            goals: goals.collect(),
        }
    }

    /// Houseboat beside Redis, both with the same words.
    fn beside_redis(title: &str, words: &str, goals: &[Of]) -> Self {
        let goals: Vec<_> = goals.iter().map(|&of| ("Redis", of)).collect();
        let rows = [("Houseboat", "houseboat", words), ("Redis", "redis", words)];
        Self::new(title, &rows, &goals)
    }

    /// The same in files of several sizes; each row says of how many entries.
    fn by_size(title: &str, words: &str, bytes: impl Fn(u64) -> u64) -> Self {
        let sizes = [
            ("1,000 entries", 1_000),
            ("100,000 entries", 100_000),
            ("1,000,000 entries", 1_000_000),
        ];
        let rows = sizes.map(|(name, entries)| Row {
            name,
            who: "houseboat",
            words: format!(
                "{words} keys={entries} fill={entries} bytes_max={}",
                bytes(entries)
            ),
        });
        Self {
            title: title.to_owned(),
            rows: rows.into(),
            goals: vec![Goal {
                beside: "1,000,000 entries",
                of: Of::CallsAtMost(1.5),
            }],
        }
    }
}

#[expect(clippy::too_many_lines, reason = "it is a list of what is measured")]
fn groups(part: &str) -> Vec<Group> {
    let in_memory = |title: &str, words: &str, goals: &[(&'static str, Of)]| {
        let shared = words.replace("get", "share");
        let rows = [
            ("Houseboat", "houseboat", words),
            ("moka, an Arc of the String", "moka", &shared),
            ("moka, the String cloned", "moka", words),
            ("Redis", "redis", words),
        ];
        Group::new(title, &rows, goals)
    };
    match part {
        "memory" => vec![
            in_memory(
                "get from memory, 64 tasks",
                "work=get",
                &[
                    ("moka, an Arc of the String", Of::Calls(0.7)),
                    ("moka, the String cloned", Of::Calls(0.7)),
                    ("Redis", Of::Calls(10.0)),
                    ("Redis", Of::Median(100.0)),
                ],
            ),
            in_memory("get from memory, one task", "work=get tasks=1", &[]),
        ],
        "file" => {
            let words = "work=get memory_bytes_max=0 keys=100000 fill=100000";
            vec![
                Group::beside_redis(
                    "get from the file, 64 tasks",
                    words,
                    &[Of::Calls(1.0), Of::Median(20.0)],
                ),
                Group::beside_redis(
                    "get from the file, one task",
                    &format!("{words} tasks=1"),
                    &[Of::Calls(10.0)],
                ),
            ]
        }
        "put" => {
            let (uniform, zipf) = (
                "work=put fill=0 keys=100000",
                "work=put fill=0 keys=1000000 pick=zipf",
            );
            let median = Of::Median(10.0);
            vec![
                Group::beside_redis(
                    "put, 64 tasks, uniform keys of 100,000",
                    uniform,
                    &[Of::Calls(0.7), median],
                ),
                Group::beside_redis(
                    "put, 64 tasks, Zipf keys of 1,000,000",
                    zipf,
                    &[Of::Calls(1.0), median],
                ),
                Group::beside_redis(
                    "put, one task, uniform keys",
                    &format!("{uniform} tasks=1"),
                    &[Of::Calls(4.0)],
                ),
                Group::beside_redis(
                    "put, one task, Zipf keys",
                    &format!("{zipf} tasks=1"),
                    &[Of::Calls(4.0)],
                ),
                Group::beside_redis(
                    "put without a TTL, 64 tasks, uniform keys",
                    &format!("{uniform} has_ttl=false"),
                    &[],
                ),
            ]
        }
        "mix" => vec![Group::beside_redis(
            "9 gets and a put, Zipf keys of 300,000, 64 tasks",
            "work=mix pick=zipf keys=300000 fill=300000 bytes_max=536870912",
            &[Of::Calls(3.0), Of::P99],
        )],
        "size" => {
            let roomy = |_| 4 << 30;
            // The WAL takes a sixteenth of it, up to 16 MiB.
            let full = |entries: u64| (entries * ENTRY_BYTES).max(1 << 20);
            vec![
                Group::by_size(
                    "get from the file, 64 tasks",
                    "work=get memory_bytes_max=0",
                    roomy,
                ),
                Group::by_size("put in place of what is there, 64 tasks", "work=put", roomy),
                Group::by_size(
                    "put what is not there, 64 tasks",
                    "work=put pick=new",
                    roomy,
                ),
                Group::by_size(
                    "put what is not there, a full file",
                    "work=put pick=new",
                    full,
                ),
            ]
        }
        "fetch" => {
            let hit = |title: &str, words: &str| {
                let rows = [
                    ("Houseboat", "houseboat", words),
                    ("moka, the String cloned", "moka", words),
                    ("Redis, a get", "redis", words),
                ];
                Group::new(title, &rows, &[])
            };
            vec![
                hit("fetch of what is there, 64 tasks", "work=fetch"),
                hit("fetch of what is there, one task", "work=fetch tasks=1"),
            ]
        }
        "count" => {
            let both = |what: &str| {
                let words = format!("work={what} fill=0");
                [
                    Group::beside_redis(&format!("{what}, 64 tasks"), &words, &[]),
                    Group::beside_redis(
                        &format!("{what}, one task"),
                        &format!("{words} tasks=1"),
                        &[],
                    ),
                ]
            };
            both("increment").into_iter().chain(both("allow")).collect()
        }
        _ => vec![Group::new(
            "a page through HTTP, 64 connections",
            &[
                ("got from the cache by its handler", "fetched", ""),
                ("bare axum, hello", "hello", ""),
            ],
            &[("bare axum, hello", Of::Calls(0.8))],
        )],
    }
}

/// What was asked of the bench.
struct Options {
    parts: Vec<String>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    only: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let value = |name: &str| arguments.iter().find_map(|word| word.strip_prefix(name));
        let parts = arguments.iter().filter(|word| !word.contains('='));
        Self {
            parts: parts.cloned().collect(),
            rounds: value("rounds=").map(|rounds| rounds.parse().expect("a number of rounds")),
            seconds: value("seconds=").map(|seconds| seconds.parse().expect("a number of seconds")),
            only: value("only=").map(str::to_owned),
        }
    }

    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|name| name == part)
    }

    fn is_run(&self, who: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| only.split(',').any(|name| name == who))
    }
}

/// Builds the peers, and gives the program.
fn build_peer() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peer-cache");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/cache");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
        .arg(&target)
        .current_dir(package)
        .status();
    assert!(
        built.is_ok_and(|built| built.success()),
        "the peers cannot be built"
    );
    target.join("release/peer-cache")
}

/// One run of a row, in a process and a folder of its own.
fn measure(row: &Row, peer: Option<&Path>, seconds: f64) -> Seen {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
    if row.words.is_empty() {
        return measure_http(row.who, folder.path(), seconds);
    }
    let own = std::env::current_exe().expect("Linux knows it");
    let mut command = match row.who {
        "houseboat" => Command::new(own),
        _ => Command::new(peer.expect("it was built")),
    };
    command.arg(if row.who == "houseboat" {
        "row"
    } else {
        row.who
    });
    command.arg(folder.path()).args(row.words.split(' '));
    command.arg(format!("seconds={seconds}"));
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.expect("it can be started");
    assert!(output.status.success(), "{command:?} failed");
    let line = String::from_utf8_lossy(&output.stdout);
    parse(&line).expect("a line of numbers")
}

/// What [`Seen::print`] wrote.
fn parse(line: &str) -> Option<Seen> {
    let words = line.split_whitespace();
    let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok()).collect();
    let [rate, p50, p99, max, rss, missed, dropped, from_file] = numbers?.try_into().ok()?;
    Some(Seen {
        rate,
        p50,
        p99,
        max,
        rss,
        missed,
        dropped,
        from_file,
    })
}

/// One run of wrk on a server of this program's.
fn measure_http(mode: &str, folder: &Path, seconds: f64) -> Seen {
    let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let own = std::env::current_exe().expect("Linux knows it");
    let mut server = Command::new(own)
        .args(["serve", mode, &address.port().to_string()])
        .arg(folder)
        .spawn()
        .expect("it can be started");
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = Command::new("wrk")
        .args([
            "-t2",
            "-c64",
            "--latency",
            &format!("-d{}s", seconds.ceil()),
        ])
        .arg(format!("http://{address}/"))
        .output()
        .expect("wrk is installed (Debian: wrk)");
    let rss = load::rss(&server.id().to_string());
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = text
        .lines()
        .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    assert!(errors.is_none(), "no request fails: {errors:?}");
    let after = |name: &str| {
        let found = text
            .split_once(name)
            .and_then(|(_, rest)| rest.split_whitespace().next());
        found.expect("wrk says it").to_owned()
    };
    let micros = |name: &str| {
        let word = after(name);
        let number = |unit: &str| {
            word.strip_suffix(unit)
                .and_then(|word| word.parse::<f64>().ok())
        };
        let value = number("us").or(number("ms").map(|ms| ms * 1e3));
        value.or(number("s").map(|s| s * 1e6)).expect("a time")
    };
    let latency: Vec<&str> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("Latency  "))
        .collect();
    assert_eq!(latency.len(), 1, "wrk says it once");
    Seen {
        rate: after("Requests/sec:").parse().expect("a number"),
        p50: micros("50%"),
        p99: micros("99%"),
        rss: rss as f64 / f64::from(1 << 20),
        ..Seen::default()
    }
}

#[expect(clippy::too_many_lines, reason = "it is one table")]
/// Runs a group's rows in turn, prints its table, and says which goals were reached.
fn run(group: &Group, options: &Options, peer: Option<&Path>, seconds: f64, rounds: usize) {
    let rows: Vec<&Row> = group
        .rows
        .iter()
        .filter(|row| match row.who {
            "moka" | "redis" => options.is_run(row.who),
            _ => true,
        })
        .collect();
    let mut seen: Vec<Vec<Seen>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (row, seen) in rows.iter().zip(&mut seen) {
            seen.push(measure(row, peer, seconds));
        }
    }
    println!(
        "\n| {} | calls/s | p50 µs | p99 µs | max ms | RSS MiB | missed % | dropped % | of hits, from the file % | first / it: calls | it / first: p50 |",
        group.title
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let ratio = |at: usize, value: fn(&Seen) -> f64| {
        let pairs = seen[0].iter().zip(&seen[at]);
        median(pairs.map(|(first, it)| value(first) / value(it)).collect())
    };
    for (at, row) in rows.iter().enumerate() {
        let middle = |value: fn(&Seen) -> f64| median(seen[at].iter().map(value).collect());
        let cells = [
            number(middle(|seen| seen.rate)),
            number(middle(|seen| seen.p50)),
            number(middle(|seen| seen.p99)),
            number(middle(|seen| seen.max / 1e3)),
            number(middle(|seen| seen.rss)),
            number(middle(|seen| seen.missed)),
            number(middle(|seen| seen.dropped)),
            number(middle(|seen| seen.from_file)),
        ];
        print!("| {} | {} |", row.name, cells.join(" | "));
        if at == 0 {
            println!(" | |");
        } else {
            println!(
                " {:.2} | {:.1} |",
                ratio(at, |seen| seen.rate),
                1.0 / ratio(at, |seen| seen.p50)
            );
        }
    }
    println!();
    for goal in &group.goals {
        let Some(at) = rows.iter().position(|row| row.name == goal.beside) else {
            continue;
        };
        let (what, value, bound, is_reached) = match goal.of {
            Of::Calls(bound) => {
                let value = ratio(at, |seen| seen.rate);
                ("× the calls", value, format!("≥ {bound}"), value >= bound)
            }
            Of::CallsAtMost(bound) => {
                let value = ratio(at, |seen| seen.rate);
                ("× the calls", value, format!("≤ {bound}"), value <= bound)
            }
            Of::Median(bound) => {
                let value = 1.0 / ratio(at, |seen| seen.p50);
                (
                    "× shorter a median",
                    value,
                    format!("≥ {bound}"),
                    value >= bound,
                )
            }
            Of::P99 => {
                let value = ratio(at, |seen| seen.p99);
                ("× the p99", value, "< 1".to_owned(), value < 1.0)
            }
        };
        let word = if is_reached { "reached" } else { "NOT reached" };
        println!(
            "- {word}: {}, {} has {value:.2} {what} of {} (goal: {bound})",
            group.title, rows[0].name, goal.beside
        );
    }
}

fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(",")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Answers with a greeting, or with a page of 1 KiB that the handler gets from the cache.
async fn serve(mode: &str, port: &str, folder: &Path) {
    let router = if mode == "hello" {
        Router::new().route("/", get(async || "hello"))
    } else {
        let houseboat = Houseboat::open(folder, &Load::DEFAULT).await;
        Router::new().route("/", get(page)).with_state(houseboat)
    };
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await;
    let served = axum::serve(listener.expect("the port is free"), router).await;
    served.expect("it serves until it is killed");
}

async fn page(State(houseboat): State<Houseboat>) -> Html<String> {
    let make = async || Ok::<_, Infallible>("x".repeat(load::VALUE_BYTES));
    let page = houseboat.cache.fetch("page", houseboat.ttl, make).await;
    Html(page.unwrap_or_else(|never| match never {}))
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    match &arguments[..] {
        [word, folder, words @ ..] if word == "row" => {
            let load = Load::parse(words);
            let houseboat = Houseboat::open(Path::new(folder), &load).await;
            houseboat.run(&load).await.print();
            return;
        }
        [word, mode, port, folder] if word == "serve" => {
            return serve(mode, port, Path::new(folder)).await;
        }
        _ => {}
    }
    let options = Options::parse(&arguments);
    let has_peers = options.is_run("redis") || options.is_run("moka");
    let peer = has_peers.then(build_peer);
    for part in PARTS.into_iter().filter(|part| options.has(part)) {
        let (seconds, rounds) = match part {
            "put" => (PUT_SECONDS, 1),
            _ => (SECONDS, ROUNDS),
        };
        let (seconds, rounds) = (
            options.seconds.unwrap_or(seconds),
            options.rounds.unwrap_or(rounds),
        );
        for group in groups(part) {
            run(&group, &options, peer.as_deref(), seconds, rounds);
        }
    }
}
