//! What the cache promises of what changes an entry in place, and of many at once, in each of its forms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use houseboat::cache::Error;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::cache::FORMS;
use crate::support::cache::MILLISECOND;
use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::before;
use crate::support::cache::in_each_form;
use crate::support::cache::text;

const TASKS: usize = 1_000;

#[tokio::test]
async fn increment_begins_at_nothing_and_adds() {
    in_each_form(async |stage| {
        let steps = [(1, 1), (10, 11), (-12, -1), (0, -1), (1, 0)];
        for (by, expected) in steps {
            let value = stage.cache().increment("k", by, MINUTE).await.unwrap();
            assert_eq!(value, expected);
            stage.settle().await;
            assert_eq!(stage.cache().get("k").await, Some(expected));
        }
        assert_eq!(
            stage.cache().increment("down", -5, MINUTE).await.unwrap(),
            -5
        );
        assert_eq!(
            stage.cache().increment("still", 0, MINUTE).await.unwrap(),
            0
        );
        assert_eq!(stage.cache().get("still").await, Some(0));
    })
    .await;
}

#[tokio::test]
async fn increment_goes_on_from_what_was_put() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("small", &41_u8, MINUTE).await.unwrap();
        cache.put("negative", &-41_i64, MINUTE).await.unwrap();
        cache.put("large", &(i64::MAX - 1), MINUTE).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        assert_eq!(cache.increment("small", 1, MINUTE).await.unwrap(), 42);
        assert_eq!(cache.get("small").await, Some(42_u8));
        assert_eq!(
            cache.increment("small", 1_000, MINUTE).await.unwrap(),
            1_042
        );
        assert_eq!(cache.increment("negative", 41, MINUTE).await.unwrap(), 0);
        assert_eq!(cache.increment("large", 1, MINUTE).await.unwrap(), i64::MAX);
        cache.put("small", &5, MINUTE).await.unwrap();
        assert_eq!(cache.increment("small", 1, MINUTE).await.unwrap(), 6);
        cache.delete("small").await;
        assert_eq!(cache.increment("small", 1, MINUTE).await.unwrap(), 1);
        cache.clear().await;
        assert_eq!(cache.increment("large", 1, MINUTE).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn increment_leaves_the_time_as_it_was() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.increment("counted", 1, MINUTE).await.unwrap();
        cache.put("put", &1, MINUTE).await.unwrap();
        cache.put("never", &1, NEVER).await.unwrap();
        stage.clock.advance(MINUTE / 2);
        for key in ["counted", "put", "never"] {
            stage.settle().await;
            let value = stage.cache().increment(key, 1, MINUTE * 9).await.unwrap();
            assert_eq!(value, 2, "{key}");
        }
        stage.settle().await;
        let cache = stage.cache();
        stage.clock.advance(before(MINUTE / 2));
        assert_eq!(cache.get("counted").await, Some(2));
        stage.clock.advance(MILLISECOND);
        assert!(!cache.contains("counted").await);
        assert!(!cache.contains("put").await);
        assert_eq!(cache.increment("counted", 1, MINUTE).await.unwrap(), 1);
        stage.clock.advance(MINUTE * 99);
        assert_eq!(cache.get("never").await, Some(2));
    })
    .await;
}

#[tokio::test]
async fn an_increment_over_the_ends_changes_nothing() {
    in_each_form(async |stage| {
        let cases = [(i64::MAX, 1), (i64::MIN, -1), (1, i64::MAX), (-2, i64::MIN)];
        for (value, by) in cases {
            stage.cache().put("k", &value, MINUTE).await.unwrap();
            stage.settle().await;
            let cache = stage.cache();
            let error = cache.increment("k", by, MINUTE).await.unwrap_err();
            assert!(matches!(error, Error::Overflow { .. }), "{error:?}");
            assert_eq!(cache.get("k").await, Some(value));
            stage.settle().await;
            assert_eq!(stage.cache().get("k").await, Some(value));
        }
        let cache = stage.cache();
        for end in [i64::MIN, i64::MAX] {
            cache.delete("k").await;
            assert_eq!(cache.increment("k", end, MINUTE).await.unwrap(), end);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_number_is_not_incremented() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("text", &"41", MINUTE).await.unwrap();
        cache.put("none", &None::<i64>, MINUTE).await.unwrap();
        cache.put("unit", &(), MINUTE).await.unwrap();
        cache.put("truth", &true, MINUTE).await.unwrap();
        cache.put("float", &4.5, MINUTE).await.unwrap();
        cache.put("list", &vec![4], MINUTE).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        for key in ["text", "none", "unit", "truth", "float", "list"] {
            let error = cache.increment(key, 1, MINUTE).await.unwrap_err();
            assert!(matches!(error, Error::NotANumber), "{key}: {error:?}");
            assert!(cache.contains(key).await, "{key}");
        }
        assert_eq!(text(&cache, "text").await.as_deref(), Some("41"));
        assert_eq!(cache.get("float").await, Some(4.5));
    })
    .await;
}

/// Runs as many at once as they can be, and gives what they gave.
async fn at_once<T, F>(work: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let gate = Arc::new(Barrier::new(TASKS));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (gate, work) = (Arc::clone(&gate), work(number));
        tasks.spawn(async move {
            gate.wait().await;
            work.await
        });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_increments_at_once_are_all_counted() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let values = at_once(|_| {
            let cache = cache.clone();
            async move { cache.increment("k", 1, MINUTE).await.unwrap() }
        })
        .await;
        let values: BTreeSet<i64> = values.into_iter().collect();
        assert!(values.into_iter().eq(1..=1_000));
        stage.settle().await;
        assert_eq!(stage.cache().get("k").await, Some(1_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_puts_if_absent_one_wins() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        // A key that never was, one that was deleted, one that has expired.
        stage
            .cache()
            .put("expired", &0_usize, MINUTE)
            .await
            .unwrap();
        stage.cache().put("deleted", &0_usize, NEVER).await.unwrap();
        stage.clock.advance(MINUTE);
        stage.settle().await;
        stage.cache().delete("deleted").await;
        for key in ["new", "deleted", "expired"] {
            let cache = stage.cache();
            let won = at_once(|number| {
                let cache = cache.clone();
                async move {
                    cache
                        .put_if_absent(key, &number, NEVER)
                        .await
                        .unwrap()
                        .then_some(number)
                }
            })
            .await;
            let winners: Vec<usize> = won.into_iter().flatten().collect();
            assert_eq!(winners.len(), 1, "{key}");
            stage.settle().await;
            assert_eq!(stage.cache().get(key).await, Some(winners[0]), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn put_if_absent_and_delete_are_a_lock() {
    for form in [FORMS[0], FORMS[1], FORMS[2]] {
        let stage = Stage::new(form).await;
        let (inside, entered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let (cache, inside, entered) =
                (stage.cache(), Arc::clone(&inside), Arc::clone(&entered));
            tasks.spawn(async move {
                while entered.load(Ordering::SeqCst) < 200 {
                    if !cache.put_if_absent("lock", &(), NEVER).await.unwrap() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{form:?}");
                    tokio::task::yield_now().await;
                    entered.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    cache.delete("lock").await;
                }
            });
        }
        tasks.join_all().await;
    }
}

#[tokio::test]
async fn put_if_absent_leaves_what_is_there() {
    in_each_form(async |stage| {
        assert!(stage.cache().put_if_absent("k", &1, MINUTE).await.unwrap());
        stage.settle().await;
        stage.clock.advance(MINUTE / 2);
        // Neither the value nor its time, whatever type the other has.
        assert!(!stage.cache().put_if_absent("k", &2, MINUTE).await.unwrap());
        assert!(
            !stage
                .cache()
                .put_if_absent("k", &"two", NEVER)
                .await
                .unwrap()
        );
        assert_eq!(stage.cache().get("k").await, Some(1));
        stage.settle().await;
        stage.clock.advance(MINUTE / 2);
        assert!(stage.cache().put_if_absent("k", &3, MINUTE).await.unwrap());
        stage.cache().delete("k").await;
        assert!(stage.cache().put_if_absent("k", &4, MINUTE).await.unwrap());
        stage.settle().await;
        stage.cache().clear().await;
        assert!(stage.cache().put_if_absent("k", &5, MINUTE).await.unwrap());
        stage.settle().await;
        assert_eq!(stage.cache().get("k").await, Some(5));
    })
    .await;
}

#[tokio::test]
async fn many_are_got_in_the_order_they_are_asked_for() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("a", &1, NEVER).await.unwrap();
        cache.put("gone", &2, MINUTE).await.unwrap();
        cache.put("other", &"text", NEVER).await.unwrap();
        cache.put("b", &3, NEVER).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        // Some of them in memory by now, where there are two tiers.
        cache.get::<i32>("b").await;
        stage.clock.advance(MINUTE);
        assert_eq!(cache.get_many::<i32>(&[] as &[&str]).await, []);
        let keys = ["b", "missing", "a", "gone", "b", "other", "", "a"];
        let expected = [Some(3), None, Some(1), None, Some(3), None, None, Some(1)];
        assert_eq!(cache.get_many::<i32>(&keys).await, expected);
        cache.put("", &0, NEVER).await.unwrap();
        assert_eq!(cache.get_many::<i32>(&["", "a"]).await, [Some(0), Some(1)]);
    })
    .await;
}

#[tokio::test]
async fn many_are_put_and_of_doubled_keys_the_last() {
    in_each_form(async |stage| {
        let cache = stage.cache();
        cache.put("was", &0, NEVER).await.unwrap();
        cache
            .put_many(<[(&str, &i32); 0]>::default(), MINUTE)
            .await
            .unwrap();
        let entries = [("a", &1), ("b", &2), ("a", &3), ("was", &4)];
        cache.put_many(entries, MINUTE).await.unwrap();
        stage.settle().await;
        let expected = [Some(3), Some(2), Some(4)];
        let keys = ["a", "b", "was"];
        assert_eq!(stage.cache().get_many::<i32>(&keys).await, expected);
        stage.clock.advance(MINUTE);
        assert_eq!(stage.cache().get_many::<i32>(&keys).await, [None; 3]);
        // More than one statement or one batch would take.
        let entries: Vec<(String, usize)> = (0..5_000)
            .map(|number| (format!("k{number}"), number))
            .collect();
        let references = entries.iter().map(|(key, number)| (key, number));
        stage.cache().put_many(references, MINUTE).await.unwrap();
        stage.settle().await;
        let keys: Vec<&String> = entries.iter().map(|(key, _)| key).collect();
        let found = stage.cache().get_many::<usize>(&keys).await;
        assert!(found.into_iter().eq((0..5_000).map(Some)));
    })
    .await;
}

#[tokio::test]
async fn allow_lets_so_many_through_and_then_one_at_a_time() {
    in_each_form(async |stage| {
        let (at_most, per) = (5, Duration::from_secs(10));
        let refused = async |key: &str| {
            let refused = stage.cache().allow(key, at_most, per).await;
            refused.err().map(|refused| refused.retry_after)
        };
        for _ in 0..at_most {
            assert_eq!(refused("k").await, None);
        }
        stage.settle().await;
        // One more every two seconds, and to be refused costs nothing.
        for _ in 0..20 {
            assert_eq!(refused("k").await, Some(per / at_most));
        }
        assert_eq!(refused("other").await, None);
        stage.clock.advance(before(per / at_most));
        assert_eq!(refused("k").await, Some(MILLISECOND));
        stage.clock.advance(MILLISECOND);
        assert_eq!(refused("k").await, None);
        assert_eq!(refused("k").await, Some(per / at_most));
        // Who waits long has no more than all of it again.
        stage.settle().await;
        stage.clock.advance(per * 100);
        for _ in 0..at_most {
            assert_eq!(refused("k").await, None);
        }
        assert!(refused("k").await.is_some());
        stage
            .cache()
            .namespace("page")
            .allow("k", at_most, per)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn allow_counts_all_who_come_at_once() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let allowed = at_once(|_| {
            let cache = cache.clone();
            async move { cache.allow("k", 100, MINUTE).await.is_ok() }
        })
        .await;
        assert_eq!(
            allowed.into_iter().filter(|&is_allowed| is_allowed).count(),
            100
        );
    }
}
