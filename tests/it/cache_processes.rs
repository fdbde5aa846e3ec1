//! Several processes and one cache file: what one of them learns of another.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use houseboat::cache::Cache;
use houseboat::database::Clock;
use tempfile::TempDir;

use crate::support::cache::Form;
use crate::support::cache::NEVER;
use crate::support::cache::settings;
use crate::support::twin::Twin;
use crate::support::twin::orders;
use crate::support::twin::voice;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SEED: u64 = 20_261_121;
/// How long memory may be behind what another process has written.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Within this a put is in the file, on a machine that does something else as well.
const WRITTEN: Duration = Duration::from_secs(1);
const MANY: usize = 40;

/// What one may be given who asks after a moment.
#[derive(Clone, Copy, Debug)]
struct Expected {
    after: Instant,
    value: Option<usize>,
}

/// A process that does what it is told with the cache in a folder.
async fn another(folder: &Path, form: Form) -> Twin {
    let orders = format!("{form:?} {}", folder.display());
    let mut twin = Twin::start("cache_processes::the_twin_that_is_asked", &orders);
    assert_eq!(twin.says().await, "open");
    twin
}

/// Nothing, unless this is the program that was started to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_twin_that_is_asked() {
    let Some(orders) = orders() else {
        return;
    };
    let (form, folder) = orders.split_once(' ').unwrap();
    let form = if form == "File" {
        Form::File
    } else {
        Form::Both
    };
    let cache = Cache::open(&form.settings(Path::new(folder)), Clock::system()).await;
    let say = voice();
    say("open");
    let answers = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        for line in std::io::stdin().lines().map_while(Result::ok) {
            say(&runtime.block_on(answer(&cache, &line)));
        }
    });
    answers.await.unwrap();
}

async fn answer(root: &Cache, line: &str) -> String {
    let mut words = line.split(' ');
    let (verb, space) = (words.next().unwrap(), words.next().unwrap());
    let cache = if space == "root" {
        root.clone()
    } else {
        root.namespace(space)
    };
    let key = words.next().unwrap_or_default();
    match verb {
        "put" => {
            let value: usize = words.next().unwrap().parse().unwrap();
            cache.put(key, &value, NEVER).await.unwrap();
        }
        "get" => return format!("{:?}", cache.get::<usize>(key).await),
        "delete" => cache.delete(key).await,
        "clear" => cache.clear().await,
        _ => panic!("{line}"),
    }
    "done".to_owned()
}

/// Waits until what one process has put is there for another.
async fn is_seen(twin: &mut Twin, line: &str, value: usize) {
    let expected = format!("{:?}", Some(value));
    let start = Instant::now();
    while twin.ask(line).await != expected {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{line} is not {value}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cache of this process, and what it should have of each key, by namespace.
#[derive(Debug)]
struct Known {
    form: Form,
    cache: Cache,
    expected: HashMap<(&'static str, usize), Expected>,
    /// The latest that something old was served.
    behind: Duration,
}

impl Known {
    fn at(&self, space: &str) -> Cache {
        match space {
            "root" => self.cache.clone(),
            _ => self.cache.namespace(space),
        }
    }

    /// From now on a key has this value.
    fn has(&mut self, space: &'static str, key: usize, value: Option<usize>) {
        let after = Instant::now();
        self.expected
            .insert((space, key), Expected { after, value });
    }

    /// Asks for all of them.
    async fn look(&mut self) {
        for ((space, key), expected) in &self.expected {
            let asked = Instant::now();
            let found = self.at(space).get::<usize>(key.to_string()).await;
            if found == expected.value {
                continue;
            }
            let late = asked - expected.after;
            self.behind = self.behind.max(late);
            // What is put is written behind, and read from the file; nothing is to be missing for long.
            let bound = BEHIND_MAX + expected.value.map_or(Duration::ZERO, |_| WRITTEN);
            let what = format!("{:?}: {space} {key} was {found:?}", self.form);
            assert!(late <= bound, "{what} {late:?} after {expected:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_changed_is_not_served_for_long() {
    let all = slow("what another process changed, with a file alone");
    let forms = [Form::Both, Form::File];
    for form in forms.into_iter().take(if all { 2 } else { 1 }) {
        let folder = TempDir::new().unwrap();
        let mut known = Known {
            form,
            cache: Cache::open(&form.settings(folder.path()), Clock::system()).await,
            expected: HashMap::new(),
            behind: Duration::ZERO,
        };
        let mut twin = another(folder.path(), form).await;
        for space in ["root", "page", "cleared"] {
            for key in 0..MANY {
                let put = known.at(space);
                put.put(key.to_string(), &key, NEVER).await.unwrap();
                known.has(space, key, Some(key));
            }
            is_seen(&mut twin, &format!("get {space} {}", MANY - 1), MANY - 1).await;
            is_seen(&mut twin, &format!("get {space} 0"), 0).await;
        }
        let mut random = Rng::with_seed(SEED);
        for step in 0..MANY {
            // One change by the other process, and then all is asked for here.
            let (space, key) = (["root", "page"][random.usize(..2)], random.usize(..MANY));
            if step == MANY / 2 {
                assert_eq!(twin.ask("clear cleared").await, "done");
                for key in 0..MANY {
                    known.has("cleared", key, None);
                }
            } else if random.bool() {
                assert_eq!(twin.ask(&format!("delete {space} {key}")).await, "done");
                known.has(space, key, None);
            } else {
                let line = format!("put {space} {key} {}", step + 1_000);
                assert_eq!(twin.ask(&line).await, "done");
                known.has(space, key, Some(step + 1_000));
            }
            known.look().await;
        }
        let over = Instant::now() + BEHIND_MAX + WRITTEN;
        while Instant::now() < over {
            known.look().await;
        }
        known.look().await;
        #[expect(clippy::print_stderr, reason = "it says how good it is")]
        {
            eprintln!(
                "{form:?}: behind another process by {:?} at most",
                known.behind
            );
        }
    }
}

/// Fetches a key while another process does something, which this one gets to know meanwhile; then gets it.
async fn fetched_during(line: &'static str) -> Option<usize> {
    let folder = TempDir::new().unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    let mut twin = another(folder.path(), Form::Both).await;
    cache.put("other", &1_usize, NEVER).await.unwrap();
    let inside = cache.clone();
    let compute = move || async move {
        assert_eq!(twin.ask(line).await, "done");
        // Whoever asks for anything meanwhile sees that another process has written.
        let start = Instant::now();
        while start.elapsed() < BEHIND_MAX + BEHIND_MAX / 2 {
            inside.get::<usize>("other").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<_, Infallible>(7_usize)
    };
    assert_eq!(cache.fetch("k", NEVER, compute).await, Ok(7));
    tokio::time::sleep(BEHIND_MAX).await;
    cache.get("k").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_deleted_is_not_kept_by_who_computed_it_before() {
    let all = slow("a clear by another process while one computes");
    let lines = ["delete root k", "clear root"];
    for line in lines.into_iter().take(if all { 2 } else { 1 }) {
        assert_eq!(fetched_during(line).await, None, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_does_with_other_keys_is_no_reason_not_to_keep() {
    let all = slow("what another process does with other keys while one computes");
    let lines = ["delete root l", "put root l 1", "clear page"];
    for line in lines.into_iter().take(if all { 3 } else { 1 }) {
        assert_eq!(fetched_during(line).await, Some(7), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_that_another_process_holds_up_is_a_clear() {
    if !slow("a clear that another process holds up") {
        return;
    }
    for form in [Form::Both, Form::File] {
        let folder = TempDir::new().unwrap();
        let settings = form.settings(folder.path());
        let cache = Cache::open(&settings, Clock::system()).await;
        cache.put("k", &1_usize, NEVER).await.unwrap();
        tokio::time::sleep(WRITTEN).await;
        #[expect(clippy::disallowed_methods, reason = "as another process would")]
        let other = rusqlite::Connection::open(&settings.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        cache.clear().await;
        cache.put("new", &2_usize, NEVER).await.unwrap();
        assert_eq!(cache.get::<usize>("k").await, None);
        // Longer than anybody waits for a lock.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cache.get::<usize>("k").await, None);
        other
            .execute_batch("UPDATE state SET evicted = evicted; COMMIT")
            .unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            assert_eq!(cache.get::<usize>("k").await, None, "{form:?}");
            cache.put("more", &3_usize, NEVER).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cache.close().await;
        let cache = Cache::open(&settings, Clock::system()).await;
        assert_eq!(cache.get::<usize>("k").await, None, "{form:?}");
        assert_eq!(cache.get("more").await, Some(3_usize), "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_whose_file_is_deleted_share_one_again() {
    if !slow("two processes whose file is deleted") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let settings = settings(folder.path());
    let cache = Cache::open(&settings, Clock::system()).await;
    let mut twin = another(folder.path(), Form::Both).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", settings.path.display())).unwrap();
    }
    let start = Instant::now();
    let mut number = 0_usize;
    loop {
        number += 1;
        assert_eq!(twin.ask(&format!("put root theirs {number}")).await, "done");
        cache.put("ours", &number, NEVER).await.unwrap();
        tokio::time::sleep(BEHIND_MAX + Duration::from_millis(500)).await;
        let ours = twin.ask("get root ours").await;
        if cache.get("theirs").await == Some(number) && ours == format!("{:?}", Some(number)) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "each has its own"
        );
    }
    #[expect(clippy::print_stderr, reason = "it says how good it is")]
    {
        eprintln!("one file again after {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_idle_does_not_serve_what_another_process_deleted_meanwhile() {
    let folder = TempDir::new().unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    let page = cache.namespace("page");
    let mut twin = another(folder.path(), Form::Both).await;
    for key in ["a", "b"] {
        cache.put(key, &1_usize, NEVER).await.unwrap();
        page.put(key, &1_usize, NEVER).await.unwrap();
    }
    is_seen(&mut twin, "get page b", 1).await;
    assert_eq!(twin.ask("delete root a").await, "done");
    assert_eq!(twin.ask("put root b 2").await, "done");
    assert_eq!(twin.ask("clear page").await, "done");
    tokio::time::sleep(BEHIND_MAX + WRITTEN).await;
    assert_eq!(cache.get::<usize>("a").await, None);
    assert_eq!(cache.get("b").await, Some(2_usize));
    assert_eq!(page.get::<usize>("a").await, None);
    // What is computed now is kept, in both.
    page.put("a", &3_usize, NEVER).await.unwrap();
    is_seen(&mut twin, "get page a", 3).await;
    wait_for("the value itself", WRITTEN, async || {
        page.get::<usize>("a").await
    })
    .await;
}
