//! Whatever happens to the cache file, everything is answered, and nothing is served that was not put.

use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::database::Clock;
use tempfile::TempDir;

use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::settings;
use crate::support::cache::text;
use crate::support::tmpfs::Tmpfs;
use crate::support::traffic::Seen;
use crate::support::traffic::Traffic;
use crate::support::traffic::value_of;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const SEED: u64 = 20_261_121;
const ROUNDS: u64 = 200;
const ROUNDS_SHORT: u64 = 20;
/// When no file could be made, it is tried again after 30 s.
const RETRIED: Duration = Duration::from_secs(45);

/// A cache in a folder of its own. Memory holds little, so that the file is asked.
async fn open(folder: &Path) -> (Settings, Cache) {
    let settings = Settings {
        memory_bytes_max: 100_000,
        ..settings(folder)
    };
    let cache = Cache::open(&settings, Clock::system()).await;
    (settings, cache)
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn report(what: &str, seen: &Seen) {
    #[expect(clippy::print_stderr, reason = "it says how good it is")]
    {
        eprintln!("{what}: {seen}");
    }
}

/// Waits until the cache has a file again, and a new value gets to it, as another who opens it then sees.
async fn is_kept_again(what: &str, settings: &Settings, cache: &Cache) {
    // Who opens a file that is in pieces takes part in what becomes of it; here it is the cache alone.
    wait_for(&format!("file, {what}"), RETRIED, async || {
        cache.put("again", &0_u64, NEVER).await.unwrap();
        let is_there = fs::metadata(&settings.path).is_ok_and(|file| file.len() > 0);
        (is_there && cache.stats().has_file).then_some(())
    })
    .await;
    let mut number = 0_u64;
    wait_for(&format!("value in the file, {what}"), RETRIED, async || {
        number += 1;
        cache.put("again", &number, NEVER).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !settings.path.is_file() {
            return None;
        }
        let other = Cache::open(settings, Clock::system()).await;
        let found = other.get::<u64>("again").await;
        other.close().await;
        found.filter(|&found| found == number).map(drop)
    })
    .await;
}

/// Changes the files while all is going on, and looks how that goes. That they were deleted is noticed; what was cut
/// off may stay unseen until it is read, or until the cache is closed.
async fn under_way(what: String, number: u64, change: impl Fn(&Settings)) -> Seen {
    let folder = TempDir::new().unwrap();
    let (settings, cache) = open(folder.path()).await;
    let traffic = Traffic::start(&cache, number);
    traffic.goes_on(1_000).await;
    change(&settings);
    traffic.goes_on(1_000).await;
    let seen = traffic.end().await;
    if what.starts_with("without") {
        is_kept_again(&what, &settings, &cache).await;
    }
    cache.close().await;
    let (_, cache) = open(folder.path()).await;
    cache.put("after", &number, NEVER).await.unwrap();
    cache.close().await;
    let (_, cache) = open(folder.path()).await;
    assert_eq!(cache.get("after").await, Some(number), "{what}");
    cache.close().await;
    let found = Cache::check(&settings).await.unwrap();
    assert!(found.is_ok(), "{what}: {found:?}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_deleted_under_the_running_cache_is_made_anew() {
    let cases: [&[&str]; 3] = [&["", "-wal", "-shm"], &[""], &["-wal"]];
    let mut all = Seen::default();
    for (number, suffixes) in (0..).zip(cases) {
        let seen = under_way(format!("without {suffixes:?}"), number, |settings| {
            for suffix in suffixes {
                fs::remove_file(with(&settings.path, suffix)).unwrap();
            }
        });
        all = all.and(seen.await);
    }
    report("deleted", &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_off_under_the_running_cache_is_made_anew() {
    let mut all = Seen::default();
    let cases = [
        ("", 0),
        ("", 50),
        ("", 4_096),
        ("", 10_000),
        ("-wal", 0),
        ("-wal", 5_000),
    ];
    for (number, (suffix, bytes)) in (0..).zip(cases) {
        let seen = under_way(format!("{suffix:?} cut to {bytes}"), number, |settings| {
            let file = OpenOptions::new()
                .write(true)
                .open(with(&settings.path, suffix));
            file.unwrap().set_len(bytes).unwrap();
        });
        all = all.and(seen.await);
    }
    report("cut off", &all);
}

/// Overwrites some bytes of a file; `most` is how many at the utmost.
fn flip(path: &Path, random: &mut Rng, most: usize) {
    let Ok(file) = OpenOptions::new().write(true).open(path) else {
        return;
    };
    let bytes = file.metadata().unwrap().len();
    for _ in 0..random.usize(1..=most) {
        // As a rule anywhere, and now and then where the file says what it is.
        let end = if random.u8(..4) == 0 {
            bytes.min(4_096)
        } else {
            bytes
        };
        if end > 0 {
            let place = random.u64(..end);
            file.write_all_at(&[random.u8(..)], place).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_are_misses_and_never_served() {
    let all = slow("180 of 200 rounds of flipped bytes");
    let folder = TempDir::new().unwrap();
    let template = TempDir::new().unwrap();
    let (settings, cache) = open(template.path()).await;
    for key in 0..200 {
        cache
            .put(format!("k{key}"), &value_of(9, key), NEVER)
            .await
            .unwrap();
    }
    cache.close().await;
    let sound = fs::read(&settings.path).unwrap();
    let (mut hits, mut misses) = (0, 0);
    for round in 0..if all { ROUNDS } else { ROUNDS_SHORT } {
        let folder = folder.path().join(round.to_string());
        fs::create_dir(&folder).unwrap();
        let mut random = Rng::with_seed(SEED + round);
        let path = folder.join("cache.sqlite3");
        fs::write(&path, &sound).unwrap();
        let most = 1 << random.u32(..10);
        flip(&path, &mut random, most);
        let (settings, cache) = open(&folder).await;
        for key in 0..200 {
            match text(&cache, format!("k{key}")).await {
                Some(found) => {
                    assert!(
                        found == value_of(9, key),
                        "round {round} of seed {SEED}: {key}"
                    );
                    hits += 1;
                }
                None => misses += 1,
            }
            let (key, value) = (
                format!("k{}", (key + 100) % 200),
                value_of(9, (key + 100) % 200),
            );
            cache.put(key, &value, NEVER).await.unwrap();
        }
        cache.put("after", &round, NEVER).await.unwrap();
        cache.close().await;
        let cache = Cache::open(&settings, Clock::system()).await;
        for key in 0..200 {
            let found = text(&cache, format!("k{key}")).await;
            assert!(
                found.is_none_or(|found| found == value_of(9, key)),
                "round {round}"
            );
        }
        cache.put("again", &round, NEVER).await.unwrap();
        assert_eq!(cache.get("again").await, Some(round));
        cache.close().await;
    }
    assert!(
        hits > misses / 100 && misses > 0,
        "{hits} hits and {misses} misses"
    );
    #[expect(clippy::print_stderr, reason = "it says how much was at stake")]
    {
        eprintln!("flipped: {hits} hits and {misses} misses");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_flipped_under_the_running_cache_are_never_served() {
    let rounds = if slow("18 of 20 rounds of bytes flipped under way") {
        20
    } else {
        2
    };
    let mut all = Seen::default();
    for round in 0..rounds {
        let folder = TempDir::new().unwrap();
        let (settings, cache) = open(folder.path()).await;
        let traffic = Traffic::start(&cache, SEED + round);
        let mut random = Rng::with_seed(SEED + round);
        for _ in 0..5 {
            traffic.goes_on(300).await;
            let suffix = if random.bool() { "" } else { "-wal" };
            flip(&with(&settings.path, suffix), &mut random, 200);
        }
        traffic.goes_on(300).await;
        all = all.and(traffic.end().await);
        cache.close().await;
        let cache = Cache::open(&settings, Clock::system()).await;
        cache.put("after", &round, NEVER).await.unwrap();
        assert_eq!(cache.get("after").await, Some(round));
        cache.close().await;
    }
    report("flipped under way", &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_of_a_folder_there_is_memory_alone() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("cache.sqlite3")).unwrap();
    fs::write(folder.path().join("cache.sqlite3/precious"), "7").unwrap();
    let (settings, cache) = open(folder.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(1_000).await;
    report("a folder", &traffic.end().await);
    cache.put("k", &7, MINUTE).await.unwrap();
    assert_eq!(cache.get("k").await, Some(7));
    cache.close().await;
    assert_eq!(
        fs::read_to_string(settings.path.join("precious")).unwrap(),
        "7"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_comes_in_the_place_of_the_file_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let (settings, cache) = open(folder.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(500).await;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(with(&settings.path, suffix)).unwrap();
    }
    fs::create_dir(&settings.path).unwrap();
    traffic.goes_on(2_000).await;
    report("a folder in its place", &traffic.end().await);
    assert!(settings.path.is_dir());
    if slow("a folder that goes away again") {
        fs::remove_dir(&settings.path).unwrap();
        is_kept_again("again", &settings, &cache).await;
    }
    cache.close().await;
}

/// A database of another program, and its bytes.
fn foreign(path: &Path) -> Vec<u8> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it makes the file of another program"
    )]
    let other = rusqlite::Connection::open(path).unwrap();
    other
        .execute_batch("CREATE TABLE precious (x); INSERT INTO precious VALUES (7)")
        .unwrap();
    drop(other);
    fs::read(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_another_program_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let before = foreign(&settings(folder.path()).path);
    let (settings, cache) = open(folder.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(1_000).await;
    report("another's file", &traffic.end().await);
    cache.put("k", &7, MINUTE).await.unwrap();
    assert_eq!(cache.get("k").await, Some(7), "memory goes on alone");
    cache.close().await;
    assert!(Cache::check(&settings).await.is_err());
    assert!(
        fs::read(&settings.path).unwrap() == before,
        "not a byte is changed"
    );
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["cache.sqlite3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_another_program_that_comes_in_its_place_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("other.sqlite3");
    let before = foreign(&other);
    let (settings, cache) = open(folder.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(500).await;
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(with(&settings.path, suffix)).unwrap();
    }
    fs::rename(other, &settings.path).unwrap();
    traffic.goes_on(2_000).await;
    report("another's file in its place", &traffic.end().await);
    cache.close().await;
    assert!(
        fs::read(&settings.path).unwrap() == before,
        "not a byte is changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_kind_is_set_aside() {
    let folder = TempDir::new().unwrap();
    let path = settings(folder.path()).path;
    fs::write(&path, "a text that somebody wrote").unwrap();
    let (settings, cache) = open(folder.path()).await;
    is_kept_again("again", &settings, &cache).await;
    let aside = with(&path, ".damaged");
    assert_eq!(
        fs::read_to_string(&aside).unwrap(),
        "a text that somebody wrote"
    );
    // What was set aside is not overwritten by the next such file.
    cache.close().await;
    fs::write(&path, "a second text").unwrap();
    let (_, cache) = open(folder.path()).await;
    cache.put("k", &7, MINUTE).await.unwrap();
    assert_eq!(cache.get("k").await, Some(7), "memory goes on alone");
    cache.close().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "a second text");
    assert_eq!(
        fs::read_to_string(&aside).unwrap(),
        "a text that somebody wrote"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_place_for_its_file_there_is_memory_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let (_, cache) = open(&folder.path().join("file")).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(1_000).await;
    report("nowhere", &traffic.end().await);
    cache.close().await;
}

fn remount(disk: &Tmpfs, how: &str) {
    // For a moment something may still have a file open there.
    for _ in 0..100 {
        let mut mount = Command::new("mount");
        mount
            .args(["-o", &format!("remount,{how}")])
            .arg(disk.path());
        if mount.output().unwrap().status.success() {
            return;
        }
    }
    panic!("mount: cannot remount {how}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_cannot_be_written_to_there_is_memory_alone() {
    let Some(disk) = Tmpfs::mount("16m") else {
        return;
    };
    // Once before there is a file, and once with one.
    for is_there in [false, true] {
        if is_there {
            let (_, cache) = open(disk.path()).await;
            cache.put("old", &7, NEVER).await.unwrap();
            cache.close().await;
        }
        remount(&disk, "ro");
        let (settings, cache) = open(disk.path()).await;
        let traffic = Traffic::start(&cache, SEED);
        traffic.goes_on(1_000).await;
        report("read-only", &traffic.end().await);
        cache.put("k", &7, MINUTE).await.unwrap();
        assert_eq!(cache.get("k").await, Some(7));
        // What is deleted now is not back when the file is.
        cache.delete("old").await;
        remount(&disk, "rw");
        if slow("a disk that can be written to again") {
            is_kept_again("again", &settings, &cache).await;
            assert_eq!(cache.get::<i32>("old").await, None);
        }
        cache.close().await;
    }
}

/// Takes all the room that is left.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let file = fs::File::create(&path).unwrap();
    let (mut at, mut size) = (0, 1 << 20);
    while size > 0 {
        match file.write_at(&vec![7; size], at) {
            Ok(written) if written > 0 => at += written as u64,
            _ => size /= 2,
        }
    }
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_in_nobodys_way_and_over_when_there_is_room() {
    let Some(disk) = Tmpfs::mount("16m") else {
        return;
    };
    let (settings, cache) = open(disk.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(1_000).await;
    let filler = fill(disk.path());
    traffic.goes_on(1_000).await;
    // More than ever gets there.
    let large = "x".repeat(500_000);
    for number in 0..64 {
        cache
            .put(format!("large {number}"), &large, NEVER)
            .await
            .unwrap();
    }
    traffic.goes_on(1_000).await;
    cache.delete("large 63").await;
    assert_eq!(text(&cache, "large 63").await, None);
    fs::remove_file(filler).unwrap();
    traffic.goes_on(500).await;
    report("full", &traffic.end().await);
    if slow("a disk with room again") {
        is_kept_again("again", &settings, &cache).await;
    }
    assert_eq!(text(&cache, "large 63").await, None);
    cache.close().await;
    let (_, cache) = open(disk.path()).await;
    assert_eq!(text(&cache, "large 63").await, None);
    cache.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_full_from_the_start_is_in_nobodys_way() {
    let Some(disk) = Tmpfs::mount("1m") else {
        return;
    };
    let filler = fill(disk.path());
    let (settings, cache) = open(disk.path()).await;
    let traffic = Traffic::start(&cache, SEED);
    traffic.goes_on(2_000).await;
    report("full from the start", &traffic.end().await);
    fs::remove_file(filler).unwrap();
    if slow("a disk with room at last") {
        is_kept_again("again", &settings, &cache).await;
    }
    cache.close().await;
}
