//! What the cache holds at most, what goes when it is full, and what a slow disk may cost.

use std::fs;
use std::time::Duration;

use houseboat::cache::Settings;

use crate::support::cache::Form;
use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::text;
use crate::support::waiting::wait_for;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

fn small(settings: &mut Settings) {
    settings.bytes_max = settings.bytes_max.min(4 * MIB);
    settings.memory_bytes_max = settings.memory_bytes_max.min(MIB);
    settings.value_bytes_max = 256 << 10;
}

/// What the file and its WAL take.
fn bytes(settings: &Settings) -> u64 {
    let of = |suffix: &str| {
        let mut path = settings.path.as_os_str().to_owned();
        path.push(suffix);
        fs::metadata(path).map_or(0, |data| data.len())
    };
    of("") + of("-wal")
}

#[tokio::test]
async fn the_file_keeps_to_its_bound_and_the_first_go_first() {
    for form in [Form::Both, Form::File] {
        let stage = Stage::with(form, small).await;
        let mut most = 0;
        for number in 0..1_500 {
            // Many small ones, and now and then one as large as may be.
            let bytes_of = if number % 50 == 0 { 200_000 } else { 5_000 };
            let value = "v".repeat(bytes_of);
            stage
                .cache()
                .put(format!("k{number}"), &value, NEVER)
                .await
                .unwrap();
            most = most.max(bytes(&stage.settings));
            if number % 100 == 0 {
                stage.restart().await;
            }
        }
        stage.restart().await;
        most = most.max(bytes(&stage.settings));
        let bound = stage.settings.bytes_max;
        assert!(most <= bound * 11 / 10, "{form:?}: {most} bytes");
        assert!(most >= bound / 2, "{form:?}: {most} bytes");
        let mut there = Vec::new();
        for number in 0..1_500 {
            there.push(stage.cache().contains(format!("k{number}")).await);
        }
        assert!(!there[..500].contains(&true), "{form:?}");
        assert!(!there[1_450..].contains(&false), "{form:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_stays() {
    for form in [Form::Both, Form::File] {
        let stage = Stage::with(form, small).await;
        let cache = stage.cache();
        let value = "v".repeat(5_000);
        for key in ["hot", "cold"] {
            cache.put(key, &value, NEVER).await.unwrap();
        }
        for number in 0..1_500 {
            cache
                .put(format!("k{number}"), &value, NEVER)
                .await
                .unwrap();
            assert!(cache.contains("hot").await, "{form:?}: after {number}");
            if number % 200 == 0 {
                // Of what is written at once, more than the file holds, nothing can be asked for in between.
                cache.delete("nothing").await;
                wait_for("end of the writing", SOON, async || {
                    (cache.stats().waiting_bytes == 0).then_some(())
                })
                .await;
            }
        }
        stage.restart().await;
        assert!(text(&stage.cache(), "hot").await == Some(value), "{form:?}");
        assert!(!stage.cache().contains("cold").await, "{form:?}");
    }
}

#[tokio::test]
async fn memory_keeps_to_its_bound() {
    for form in [Form::Both, Form::Memory] {
        let stage = Stage::with(form, small).await;
        let cache = stage.cache();
        if form == Form::Memory {
            assert!(!cache.stats().has_file);
        }
        for number in 0..2_000 {
            let value = "v".repeat(1_000 + number);
            cache
                .put(format!("k{number}"), &value, NEVER)
                .await
                .unwrap();
            let bytes = cache.stats().memory_bytes;
            assert!(
                bytes <= stage.settings.memory_bytes_max,
                "{form:?}: {bytes} bytes"
            );
        }
        let stats = cache.stats();
        assert!(
            stats.memory_bytes > stage.settings.memory_bytes_max / 2,
            "{form:?}: {stats:?}"
        );
        let mut bytes = 0;
        for number in 0..2_000 {
            bytes += text(&cache, format!("k{number}"))
                .await
                .map_or(0, |value| value.len());
        }
        // Of memory alone, what there is.
        assert!(bytes > 500_000, "{form:?}: {bytes} bytes");
    }
}

#[tokio::test]
async fn a_value_that_memory_is_too_small_for_replaces_the_one_before_it() {
    for form in [Form::Both, Form::Memory, Form::File, Form::Reopened] {
        let change = |settings: &mut Settings| {
            settings.memory_bytes_max = settings.memory_bytes_max.min(100_000);
        };
        let stage = Stage::with(form, change).await;
        let cache = stage.cache();
        for bytes in [10, 50_000, 99_000, 101_000, 1_000_000, 20] {
            let value = "v".repeat(bytes);
            cache.put("k", &"before", NEVER).await.unwrap();
            cache.put("k", &value, NEVER).await.unwrap();
            let found = text(&cache, "k").await;
            assert!(
                found.is_none() && form == Form::Memory || found == Some(value),
                "{form:?}: {bytes} bytes"
            );
        }
    }
}

#[tokio::test]
async fn what_is_expired_goes_and_the_file_shrinks() {
    for form in [Form::Both, Form::File] {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let value = "v".repeat(10_000);
        for number in 0..1_000 {
            cache
                .put(format!("k{number}"), &value, MINUTE)
                .await
                .unwrap();
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        stage.restart().await;
        let cache = stage.cache();
        let peak = bytes(&stage.settings);
        assert!(peak > 9 * MIB, "{form:?}: {peak} bytes");
        stage.clock.advance(MINUTE);
        let mut number = 0;
        // Nobody asks for them; a little is put now and then, as on any site.
        wait_for("an end of the expired", SOON, async || {
            number += 1;
            cache.put("other", &number, NEVER).await.unwrap();
            let stats = cache.stats();
            (stats.expired == 1_000 && stats.file_entries == 1).then_some(())
        })
        .await;
        wait_for("a small file", SOON, async || {
            number += 1;
            cache.put("other", &number, NEVER).await.unwrap();
            let file = fs::metadata(&stage.settings.path).unwrap().len();
            (file < peak / 2).then_some(())
        })
        .await;
    }
}

/// A value whose read takes so long that the disk is taken for slow.
const HUGE: usize = 30 << 20;

#[tokio::test]
async fn a_slow_disk_loses_no_deletion_and_no_count() {
    for form in [Form::Both, Form::File] {
        let change = |settings: &mut Settings| {
            settings.value_bytes_max = 2 * HUGE;
            settings.memory_bytes_max = settings.memory_bytes_max.min(8 * MIB);
            settings.bytes_max = 1 << 30;
        };
        let stage = Stage::with(form, change).await;
        let page = stage.cache().namespace("page");
        for key in ["deleted", "other", "locked"] {
            page.put(key, &7, NEVER).await.unwrap();
        }
        assert_eq!(page.increment("count", 5, NEVER).await.unwrap(), 5);
        stage
            .cache()
            .put("huge", &"v".repeat(HUGE), NEVER)
            .await
            .unwrap();
        stage.restart().await;
        let cache = stage.cache();
        let page = cache.namespace("page");
        // It may be too slow, and is slow in any case.
        let _ = text(&cache, "huge").await;
        page.delete("deleted").await;
        assert!(
            !page.put_if_absent("locked", &8, NEVER).await.unwrap(),
            "{form:?}"
        );
        assert_eq!(
            page.increment("count", 1, NEVER).await.unwrap(),
            6,
            "{form:?}"
        );
        page.put("new", &9, NEVER).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let keys = ["deleted", "other", "locked", "count", "new"];
        let expected = [None, Some(7), Some(7), Some(6), Some(9)];
        assert_eq!(page.get_many::<i32>(&keys).await, expected, "{form:?}");
    }
}
