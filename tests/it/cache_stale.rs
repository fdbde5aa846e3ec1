//! While an old value is good enough nobody waits, and what was deleted is no such value.

use std::time::Duration;
use std::time::Instant;

use houseboat::cache::Ttl;
use houseboat::database::Database;

use crate::support::cache::FORMS;
use crate::support::cache::Form;
use crate::support::cache::MILLISECOND;
use crate::support::cache::MINUTE;
use crate::support::cache::Stage;
use crate::support::cache::fetch;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;
use crate::support::work::SOON;
use crate::support::work::Work;
use crate::support::work::answers;
use crate::support::work::computing;
use crate::support::work::visitors;

const TASKS: usize = 1_000;
/// So long a refresh that failed rests.
const REST: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_an_expired_key_with_stale_allowed_nobody_waits() {
    let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
    for form in FORMS {
        let stage = Stage::new(form).await;
        stage.cache().put("k", &0_usize, ttl).await.unwrap();
        stage.settle().await;
        let cache = stage.cache();
        stage.clock.advance(MINUTE);
        let work = Work::new();
        // The computation ends when all of them have their answer, and not before.
        let all = answers(visitors(TASKS, &cache, ttl, computing(&work))).await;
        assert!(all.into_iter().all(|answer| answer == Ok(0)), "{form:?}");
        work.has_begun(1).await;
        assert_eq!(work.begun(), 1, "{form:?}");
        work.let_go(TASKS);
        wait_for("the new value", SOON, async || {
            cache.get::<usize>("k").await
        })
        .await;
        let all = answers(visitors(TASKS, &cache, ttl, computing(&work))).await;
        assert!(all.into_iter().all(|answer| answer == Ok(1)), "{form:?}");
        assert_eq!(work.begun(), 1, "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_that_fails_or_panics_rests_and_is_tried_again() {
    let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
    let all = slow("a refresh that panics");
    for is_panic in [false, true].into_iter().take(if all { 2 } else { 1 }) {
        let stage = Stage::new(Form::Both).await;
        let cache = stage.cache();
        cache.put("k", &0_usize, ttl).await.unwrap();
        stage.clock.advance(MINUTE);
        let work = Work::new();
        work.let_go(1_000);
        let compute = {
            let work = work.clone();
            move || {
                let work = work.clone();
                async move {
                    let number = work.run().await;
                    assert!(!is_panic, "on purpose");
                    Err::<usize, _>(format!("no {number}"))
                }
            }
        };
        let start = Instant::now();
        wait_for("third try", SOON, async || {
            let all = answers(visitors(10, &cache, ttl, compute.clone())).await;
            assert!(all.into_iter().all(|answer| answer == Ok(0)));
            (work.begun() == 3).then_some(())
        })
        .await;
        // Between them it rested twice.
        assert!(start.elapsed() >= REST * 2, "{:?}", start.elapsed());
        // When the stale time is over, there is nothing else to be had.
        stage.clock.advance(MINUTE * 10);
        let refused = cache
            .fetch("k", ttl, || async { Err::<usize, _>("no") })
            .await;
        assert_eq!(refused, Err("no"));
    }
}

#[tokio::test]
async fn a_value_is_stale_also_while_a_failed_refresh_rests() {
    let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        cache.put("k", &7, ttl).await.unwrap();
        stage.clock.advance(MINUTE);
        let fails = || async { Err::<i32, _>("no") };
        assert_eq!(cache.fetch("k", ttl, fails).await, Ok(7));
        // The refresh is a task, which has its turn now.
        for _ in 0..50 {
            tokio::time::sleep(MILLISECOND).await;
            assert_eq!(cache.get::<i32>("k").await, None, "{form:?}");
            assert!(!cache.contains("k").await, "{form:?}");
        }
        assert!(
            cache.put_if_absent("k", &8, MINUTE).await.unwrap(),
            "{form:?}"
        );
        assert_eq!(cache.get("k").await, Some(8), "{form:?}");
    }
}

/// How the value goes away while its refresh is on the way.
#[derive(Clone, Copy, Debug)]
enum Gone {
    Deleted,
    Cleared,
    Forgotten,
}

#[tokio::test]
async fn a_refresh_that_fails_does_not_bring_back_what_was_deleted() {
    let ttl = Ttl::fresh(MINUTE).stale(MINUTE * 10);
    let database = Database::open_temporary(&[]).await.unwrap();
    for form in FORMS {
        for how in [Gone::Deleted, Gone::Cleared, Gone::Forgotten] {
            for has_begun in [false, true] {
                let stage = Stage::new(form).await;
                let cache = stage.cache();
                cache.put("k", &0_usize, ttl).await.unwrap();
                stage.clock.advance(MINUTE);
                let work = Work::new();
                let fails = {
                    let work = work.clone();
                    move || async move {
                        work.run().await;
                        Err::<usize, _>("no")
                    }
                };
                assert_eq!(cache.fetch("k", ttl, fails).await, Ok(0));
                // The refresh is a task, which nobody has polled if nobody waits here.
                if has_begun {
                    work.has_begun(1).await;
                }
                match how {
                    Gone::Deleted => cache.delete("k").await,
                    Gone::Cleared => cache.clear().await,
                    Gone::Forgotten => {
                        let inside = cache.clone();
                        let write = database.write(move |tx| {
                            inside.forget(tx, "k");
                            Ok(())
                        });
                        write.await.unwrap();
                    }
                }
                work.let_go(1);
                work.has_begun(1).await;
                let what = format!("{form:?}, {how:?}, {has_begun}");
                for _ in 0..20 {
                    tokio::time::sleep(MILLISECOND).await;
                    assert_eq!(cache.get::<usize>("k").await, None, "{what}");
                }
                let fetched = fetch(&cache, "k", ttl, 1_usize).await;
                assert_eq!(fetched, (1, true), "{what}");
            }
        }
    }
}
