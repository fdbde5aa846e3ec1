//! What the cache promises.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::database::Clock;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;

use crate::support::waiting::is_pending;

const MINUTE: Duration = Duration::from_mins(1);

fn settings(folder: &Path) -> Settings {
    Settings {
        path: folder.join("cache.sqlite3"),
        ..Settings::default()
    }
}

async fn cache() -> (TempDir, Cache, Clock) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap());
    let cache = Cache::open(&settings(folder.path()), clock.clone()).await;
    (folder, cache, clock)
}

async fn text(cache: &Cache, key: &str) -> Option<String> {
    cache.get(key).await
}

#[tokio::test]
async fn what_is_put_is_got_and_the_last_put_wins() {
    let (_folder, cache, _) = cache().await;
    assert_eq!(text(&cache, "k").await, None);
    cache.put("k", &"one", MINUTE).await.unwrap();
    cache.put("k", &"two", None).await.unwrap();
    assert_eq!(text(&cache, "k").await.as_deref(), Some("two"));
}

#[tokio::test]
async fn an_entry_expires_when_its_time_is_over_and_not_before() {
    let (_folder, cache, clock) = cache().await;
    cache.put("minute", &"m", MINUTE).await.unwrap();
    cache.put("ever", &"e", None).await.unwrap();
    clock.advance(MINUTE.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(text(&cache, "minute").await.is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(text(&cache, "minute").await, None);
    assert!(text(&cache, "ever").await.is_some());
}

#[tokio::test]
async fn deleted_and_cleared_entries_are_gone() {
    let (_folder, cache, _) = cache().await;
    for key in ["a", "b", "c"] {
        cache.put(key, &key, None).await.unwrap();
    }
    cache.delete("a").await;
    assert_eq!(text(&cache, "a").await, None);
    assert!(text(&cache, "b").await.is_some());
    cache.clear().await;
    assert_eq!(text(&cache, "b").await, None);
}

#[tokio::test]
async fn fetch_computes_once_and_not_again_until_it_expires() {
    let (_folder, cache, clock) = cache().await;
    for (advance, expected) in [(0, 1), (30, 1), (30, 2)] {
        clock.advance(Duration::from_secs(advance));
        let compute = async move || Ok::<_, Infallible>(if advance == 0 { 1 } else { 2 });
        let value: i32 = cache.fetch("k", MINUTE, compute).await.unwrap();
        assert_eq!(value, expected);
    }
}

#[tokio::test]
async fn a_computation_that_fails_is_passed_on_and_not_kept() {
    let (_folder, cache, _) = cache().await;
    let failed: Result<i32, &str> = cache.fetch("k", MINUTE, async || Err("no")).await;
    assert_eq!(failed, Err("no"));
    let worked: Result<i32, &str> = cache.fetch("k", MINUTE, async || Ok(7)).await;
    assert_eq!(worked, Ok(7));
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Before {
    name: String,
    age: u32,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct After {
    name: String,
    born: u32,
}

#[tokio::test]
async fn a_value_whose_type_has_changed_is_a_miss() {
    let (_folder, cache, _) = cache().await;
    let before = Before {
        name: "Ada".to_owned(),
        age: 36,
    };
    cache.put("k", &before, None).await.unwrap();
    assert_eq!(cache.get::<After>("k").await, None);
    assert_eq!(cache.get::<Before>("k").await, Some(before));
}

#[tokio::test]
async fn entries_survive_a_restart() {
    let (folder, cache, clock) = cache().await;
    cache.put("k", &"kept", MINUTE).await.unwrap();
    cache.close().await;
    assert_eq!(text(&cache, "k").await, None, "a closed cache has nothing");
    let cache = Cache::open(&settings(folder.path()), clock).await;
    assert_eq!(text(&cache, "k").await.as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::write(&settings.path, "no database at all ".repeat(500)).unwrap();
    let cache = Cache::open(&settings, Clock::system()).await;
    cache.put("k", &"v", None).await.unwrap();
    assert_eq!(text(&cache, "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_file_damaged_under_the_running_cache_is_made_anew() {
    let (folder, cache, _) = cache().await;
    for number in 0..400 {
        cache
            .put(&format!("k{number}"), &"x".repeat(1_000), None)
            .await
            .unwrap();
    }
    let path = settings(folder.path()).path;
    cache.close().await;
    // The first pages stay, so that the file opens and its damage shows later.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4 * 4_096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    for number in 0..400 {
        // Each is a hit, or a miss; none fails.
        text(&cache, &format!("k{number}")).await;
    }
    cache.put("after", &"v", None).await.unwrap();
    assert_eq!(text(&cache, "after").await.as_deref(), Some("v"));
    cache.close().await;
    assert!(
        Cache::check(&settings(folder.path()))
            .await
            .unwrap()
            .is_ok()
    );
}

#[tokio::test]
async fn a_file_deleted_under_the_running_cache_costs_nothing() {
    let (folder, cache, _) = cache().await;
    cache.put("k", &"v", None).await.unwrap();
    for name in ["cache.sqlite3", "cache.sqlite3-wal", "cache.sqlite3-shm"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    text(&cache, "k").await;
    cache.put("after", &"v", None).await.unwrap();
    cache.close().await;
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    cache.put("again", &"v", None).await.unwrap();
    assert!(text(&cache, "again").await.is_some());
}

#[tokio::test]
async fn without_a_place_for_its_file_everything_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let nowhere = Settings {
        path: folder.path().join("file").join("cache.sqlite3"),
        ..Settings::default()
    };
    let cache = Cache::open(&nowhere, Clock::system()).await;
    cache.put("k", &"v", None).await.unwrap();
    assert_eq!(text(&cache, "k").await, None);
    let value: Result<i32, Infallible> = cache.fetch("k", None, async || Ok(7)).await;
    assert_eq!(value, Ok(7));
}

#[tokio::test]
async fn a_value_over_the_bound_is_returned_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let small = Settings {
        value_bytes_max: 2_000,
        ..settings(folder.path())
    };
    let cache = Cache::open(&small, Clock::system()).await;
    let large = "x".repeat(3_000);
    let value: Result<String, Infallible> = cache
        .fetch("k", None, {
            let large = large.clone();
            async move || Ok(large)
        })
        .await;
    assert_eq!(value.unwrap(), large);
    assert_eq!(text(&cache, "k").await, None);
}

#[tokio::test]
async fn a_full_cache_forgets_what_was_put_first() {
    let folder = tempfile::tempdir().unwrap();
    let small = Settings {
        bytes_max: 1 << 20,
        ..settings(folder.path())
    };
    let cache = Cache::open(&small, Clock::system()).await;
    let value = "x".repeat(10_000);
    for number in 0..400 {
        cache
            .put(&format!("k{number}"), &value, None)
            .await
            .unwrap();
    }
    assert_eq!(text(&cache, "k0").await, None);
    assert!(text(&cache, "k399").await.is_some());
    cache.close().await;
    let bytes = std::fs::metadata(&small.path).unwrap().len();
    assert!(bytes < (1 << 20) * 5 / 4, "{bytes} bytes");
}

#[tokio::test]
async fn odd_keys_are_keys() {
    let (_folder, cache, _) = cache().await;
    for key in [
        "",
        " ",
        "'; DROP TABLE entries; --",
        "ключ",
        "\0",
        &"long".repeat(5_000),
    ] {
        cache.put(key, &key.len(), None).await.unwrap();
        assert_eq!(cache.get(key).await, Some(key.len()), "{key:.20}");
    }
}

#[tokio::test]
async fn a_database_that_is_no_cache_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = settings(folder.path()).path;
    #[expect(
        clippy::disallowed_methods,
        reason = "it makes the file of another program"
    )]
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE precious (x); INSERT INTO precious VALUES (7)")
        .unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    cache.put("k", &"v", None).await.unwrap();
    assert_eq!(text(&cache, "k").await, None);
    cache.close().await;
    assert!(Cache::check(&settings(folder.path())).await.is_err());
    assert_eq!(
        std::fs::read(&path).unwrap(),
        before,
        "not a byte is changed"
    );
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file of another program"
    )]
    let other = rusqlite::Connection::open(&path).unwrap();
    let kept: i64 = other
        .query_row("SELECT x FROM precious", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 7);
}

#[tokio::test]
async fn a_file_of_another_kind_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = settings(folder.path()).path;
    std::fs::write(&path, "a text that somebody wrote").unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    cache.put("k", &"v", None).await.unwrap();
    assert!(text(&cache, "k").await.is_some());
    let aside = folder.path().join("cache.sqlite3.damaged");
    assert_eq!(
        std::fs::read_to_string(&aside).unwrap(),
        "a text that somebody wrote"
    );
    // What was set aside is not overwritten by the next such file.
    cache.close().await;
    std::fs::write(&path, "a second text").unwrap();
    let cache = Cache::open(&settings(folder.path()), Clock::system()).await;
    assert_eq!(text(&cache, "k").await, None);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a second text");
    assert_eq!(
        std::fs::read_to_string(&aside).unwrap(),
        "a text that somebody wrote"
    );
}

#[tokio::test]
async fn a_value_computed_before_a_deletion_is_not_kept_after_it() {
    let (_folder, cache, _) = cache().await;
    let value: Result<&str, Infallible> = Ok("old");
    let fetched: Result<String, Infallible> = cache
        .fetch("k", None, {
            let cache = cache.clone();
            async move || {
                // Meanwhile somebody changes what it was computed from.
                cache.delete("k").await;
                value.map(str::to_owned)
            }
        })
        .await;
    assert_eq!(fetched.unwrap(), "old");
    assert_eq!(text(&cache, "k").await, None);
}

#[tokio::test]
async fn a_caller_that_leaves_during_a_repair_leaves_no_broken_cache() {
    let (folder, cache, clock) = cache().await;
    cache.put("k", &"x".repeat(50_000), None).await.unwrap();
    cache.close().await;
    let path = settings(folder.path()).path;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let cache = Cache::open(&settings(folder.path()), clock).await;
    for number in 0..20 {
        let mut leaving = Box::pin(text(&cache, "k"));
        // The first polls are before the repair, in it, or behind it.
        for _ in 0..number {
            if !is_pending(&mut leaving).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    cache.put("after", &"v", None).await.unwrap();
    assert!(text(&cache, "after").await.is_some());
}
