//! What the cache promises of time, in each of its forms, and of a restart.

use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::cache::Ttl;

use crate::support::cache::Form;
use crate::support::cache::MILLISECOND;
use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::before;
use crate::support::cache::fetch;
use crate::support::cache::in_each_form;
use crate::support::cache::text;

/// A hundred years, near enough.
const AGES: Duration = Duration::from_hours(24 * 365 * 100);

const LONGER: Duration = Duration::from_mins(3);

/// A time to live, the one given later, and whether the entry is there two minutes on.
const CHANGES: [(&str, Option<Duration>, Option<Duration>, bool); 4] = [
    ("longer", Some(MINUTE), Some(LONGER), true),
    ("shorter", Some(LONGER), Some(MINUTE), false),
    ("now never", Some(MINUTE), None, true),
    ("no more never", None, Some(MINUTE), false),
];

#[tokio::test]
async fn an_entry_expires_when_its_time_is_over_and_not_before() {
    in_each_form(async |stage| {
        for key in ["k", "touched", "absent", "counted", "fetched"] {
            stage.cache().put(key, &7, MINUTE).await.unwrap();
        }
        stage.settle().await;
        let cache = stage.cache();
        stage.clock.advance(before(MINUTE));
        assert_eq!(cache.get("k").await, Some(7));
        assert!(cache.contains("k").await);
        assert!(!cache.put_if_absent("absent", &8, MINUTE).await.unwrap());
        stage.clock.advance(MILLISECOND);
        for _ in 0..2 {
            assert_eq!(cache.get::<i32>("k").await, None);
            assert!(!cache.contains("k").await);
            assert_eq!(cache.get_many::<i32>(&["k"]).await, [None]);
        }
        assert!(!cache.touch("touched", MINUTE).await);
        assert_eq!(cache.get::<i32>("touched").await, None);
        assert!(cache.put_if_absent("absent", &8, MINUTE).await.unwrap());
        assert_eq!(cache.increment("counted", 1, MINUTE).await.unwrap(), 1);
        assert_eq!(fetch(&cache, "fetched", MINUTE, 8).await, (8, true));
        stage.settle().await;
        assert_eq!(stage.cache().get::<i32>("k").await, None);
    })
    .await;
}

#[tokio::test]
async fn an_entry_expires_while_the_cache_is_closed() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("soon", &7, MINUTE).await.unwrap();
        cache.put("late", &7, MINUTE * 2).await.unwrap();
        cache.close().await;
        stage.clock.advance(MINUTE);
        stage.restart().await;
        let cache = stage.cache();
        assert_eq!(cache.get::<i32>("soon").await, None);
        assert_eq!(cache.get("late").await, stage.has_file().then_some(7));
    })
    .await;
}

#[tokio::test]
async fn without_a_time_an_entry_stays() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("never", &7, NEVER).await.unwrap();
        cache.put("ages", &7, AGES * 2).await.unwrap();
        cache.put("longest", &7, Duration::MAX).await.unwrap();
        cache
            .put("both", &7, Ttl::fresh(Duration::MAX).stale(Duration::MAX))
            .await
            .unwrap();
        stage.settle().await;
        stage.clock.advance(AGES);
        let cache = stage.cache();
        for key in ["never", "ages", "longest", "both"] {
            assert_eq!(cache.get(key).await, Some(7), "{key}");
            assert_eq!(fetch(&cache, key, MINUTE, 8).await, (7, false), "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_time_of_zero_keeps_nothing_and_removes_what_was_there() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        let keys = ["put", "many", "touched", "fetched"];
        for key in keys {
            cache.put(key, &7, NEVER).await.unwrap();
        }
        stage.settle().await;
        let cache = stage.cache();
        cache.put("put", &8, Duration::ZERO).await.unwrap();
        cache
            .put_many([("many", &8)], Duration::ZERO)
            .await
            .unwrap();
        cache.touch("touched", Duration::ZERO).await;
        cache.delete("fetched").await;
        assert_eq!(fetch(&cache, "fetched", Duration::ZERO, 8).await, (8, true));
        assert_eq!(fetch(&cache, "fetched", Duration::ZERO, 9).await, (9, true));
        cache
            .put_if_absent("absent", &8, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(
            cache.increment("counted", 3, Duration::ZERO).await.unwrap(),
            3
        );
        for _ in 0..2 {
            for key in keys.into_iter().chain(["absent", "counted"]) {
                assert_eq!(stage.cache().get::<i32>(key).await, None, "{key}");
                assert!(!stage.cache().contains(key).await, "{key}");
            }
            stage.settle().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_shortest_time_is_over_at_the_next_millisecond() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("one", &7, MILLISECOND).await.unwrap();
        cache
            .put("less", &7, Duration::from_nanos(1))
            .await
            .unwrap();
        assert_eq!(cache.get("one").await, Some(7));
        stage.settle().await;
        stage.clock.advance(MILLISECOND);
        assert_eq!(stage.cache().get::<i32>("one").await, None);
        assert_eq!(stage.cache().get::<i32>("less").await, None);
    })
    .await;
}

#[tokio::test]
async fn an_overwritten_entry_has_the_time_of_the_last_put() {
    in_each_form(async |stage| {
        for (key, first, second, _) in CHANGES {
            stage.cache().put(key, &1, first).await.unwrap();
            stage.settle().await;
            stage.cache().put(key, &2, second).await.unwrap();
        }
        stage.settle().await;
        stage.clock.advance(MINUTE * 2);
        for (key, _, _, is_there) in CHANGES {
            assert_eq!(stage.cache().get(key).await, is_there.then_some(2), "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_put_counts_from_its_own_moment() {
    in_each_form(async |stage| {
        for _ in 0..3 {
            stage.cache().put("k", &7, MINUTE).await.unwrap();
            stage.settle().await;
            stage.clock.advance(MINUTE * 2 / 3);
            assert_eq!(stage.cache().get("k").await, Some(7));
        }
        stage.clock.advance(MINUTE / 3);
        assert_eq!(stage.cache().get::<i32>("k").await, None);
    })
    .await;
}

#[tokio::test]
async fn touch_sets_the_time_anew_and_leaves_the_value() {
    in_each_form(async |stage| {
        for (key, first, second, _) in CHANGES {
            stage.cache().put(key, &key, first).await.unwrap();
            stage.settle().await;
            assert!(stage.cache().touch(key, second).await, "{key}");
        }
        stage.settle().await;
        for (key, ..) in CHANGES {
            assert_eq!(text(&stage.cache(), key).await.as_deref(), Some(key));
        }
        stage.clock.advance(MINUTE);
        for (key, .., is_there) in CHANGES {
            let found = text(&stage.cache(), key).await;
            assert_eq!(found.as_deref(), is_there.then_some(key));
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_stale_is_for_fetch_alone() {
    in_each_form(async |stage| {
        let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
        stage.cache().put("k", &7, ttl).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        stage.clock.advance(before(MINUTE));
        assert_eq!(cache.get("k").await, Some(7));
        stage.clock.advance(MILLISECOND);
        assert_eq!(cache.get::<i32>("k").await, None);
        assert!(!cache.contains("k").await);
        assert_eq!(cache.get_many::<i32>(&["k"]).await, [None]);
        stage.settle().await;
        let cache = stage.cache();
        let refused = async || Err::<i32, _>("no");
        // A refresh that fails leaves it as it is.
        stage.clock.advance(before(MINUTE * 10));
        assert_eq!(cache.fetch("k", ttl, refused).await, Ok(7));
        stage.clock.advance(MILLISECOND);
        assert_eq!(fetch(&cache, "k", ttl, 8).await, (8, true));
        assert_eq!(cache.get("k").await, Some(8));
    })
    .await;
}

#[tokio::test]
async fn what_is_stale_makes_room_for_a_put_if_absent() {
    in_each_form(async |stage| {
        let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
        stage.cache().put("k", &7, ttl).await.unwrap();
        stage.settle().await;
        stage.clock.advance(MINUTE);
        assert!(stage.cache().put_if_absent("k", &8, MINUTE).await.unwrap());
        stage.settle().await;
        assert_eq!(stage.cache().get("k").await, Some(8));
        assert_eq!(fetch(&stage.cache(), "k", MINUTE, 9).await, (8, false));
    })
    .await;
}

#[tokio::test]
async fn only_fetch_shortens_the_time_and_by_a_tenth_at_most() {
    in_each_form(async |stage| {
        let keys: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
        let cache = stage.cache();
        for key in &keys {
            assert_eq!(fetch(&cache, key, MINUTE * 10, 7).await, (7, true));
            cache
                .put(format!("put {key}"), &7, MINUTE * 10)
                .await
                .unwrap();
        }
        let there = async |beginning: &str| {
            let keys: Vec<String> = keys.iter().map(|key| format!("{beginning}{key}")).collect();
            let found = stage.cache().get_many::<i32>(&keys).await;
            found.into_iter().flatten().count()
        };
        stage.settle().await;
        stage.clock.advance(before(MINUTE * 9));
        assert_eq!(there("").await, 200);
        stage.clock.advance(MINUTE / 2);
        let some = there("").await;
        assert!((50..150).contains(&some), "{some} of 200");
        assert_eq!(there("put ").await, 200);
        stage.clock.advance(MINUTE / 2);
        // One millisecond before the end: hardly any is left.
        assert!(there("").await < 20);
        stage.clock.advance(MILLISECOND);
        assert_eq!(there("").await, 0);
        assert_eq!(there("put ").await, 0);
    })
    .await;
}

/// What a restart must bring back, and what it must not.
async fn fill(cache: &Cache) {
    let page = cache.namespace("page");
    for number in 0..500 {
        let value = "v".repeat(number * 20);
        cache
            .put(format!("k{number}"), &value, MINUTE)
            .await
            .unwrap();
        page.put(format!("k{number}"), &value, MINUTE)
            .await
            .unwrap();
    }
    cache.put("deleted", &7, MINUTE).await.unwrap();
    cache.delete("deleted").await;
    cache
        .namespace("cleared")
        .put("k", &7, MINUTE)
        .await
        .unwrap();
    cache.namespace("cleared").clear().await;
    for _ in 0..10 {
        cache.increment("count", 1, MINUTE).await.unwrap();
    }
    cache.put("touched", &7, MINUTE / 2).await.unwrap();
    cache.touch("touched", MINUTE).await;
}

#[tokio::test]
async fn a_restart_keeps_all_that_the_file_is_for() {
    for form in [Form::Both, Form::File] {
        let stage = Stage::new(form).await;
        fill(&stage.cache()).await;
        // Once with what was just put, and once with what was only read since.
        for _ in 0..2 {
            stage.restart().await;
            let cache = stage.cache();
            let page = cache.namespace("page");
            for number in 0..500 {
                let (key, value) = (format!("k{number}"), "v".repeat(number * 20));
                let found = text(&cache, &key).await;
                assert!(found.as_ref() == Some(&value), "{key}");
                assert!(text(&page, &key).await == Some(value), "{key}");
            }
            assert!(!cache.contains("deleted").await);
            assert!(!cache.namespace("cleared").contains("k").await);
            assert_eq!(cache.get("count").await, Some(10));
        }
        stage.clock.advance(before(MINUTE));
        assert_eq!(stage.cache().get("touched").await, Some(7));
        stage.restart().await;
        assert_eq!(stage.cache().get("k0").await, Some(String::new()));
        stage.clock.advance(MILLISECOND);
        for key in ["k0", "k499", "count", "touched"] {
            assert!(!stage.cache().contains(key).await, "{key}");
        }
    }
}

#[tokio::test]
async fn memory_alone_is_empty_after_a_restart() {
    let stage = Stage::new(Form::Memory).await;
    fill(&stage.cache()).await;
    stage.restart().await;
    assert_eq!(text(&stage.cache(), "k1").await, None);
    assert_eq!(stage.cache().get::<i32>("count").await, None);
}

#[tokio::test]
async fn a_closed_cache_goes_on_in_memory_and_leaves_the_file_alone() {
    in_each_form(async |stage| {
        let has_memory = stage.form != Form::File;
        let cache = stage.cache();
        cache.put("k", &7, NEVER).await.unwrap();
        cache.close().await;
        cache.close().await;
        assert_eq!(cache.get("k").await, has_memory.then_some(7));
        cache.put("k", &8, NEVER).await.unwrap();
        assert_eq!(cache.get("k").await, has_memory.then_some(8));
        assert_eq!(fetch(&cache, "new", NEVER, 9).await, (9, true));
        cache.delete("k").await;
        assert_eq!(cache.get::<i32>("k").await, None);
        cache.clear().await;
        assert_eq!(cache.get_many::<i32>(&["k", "new"]).await, [None; 2]);
        stage.restart().await;
        assert_eq!(stage.cache().get("k").await, stage.has_file().then_some(7));
    })
    .await;
}
