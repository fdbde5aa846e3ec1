//! A thousand who want the same at once: it is computed once, or not at all while the old value is good enough.

use std::convert::Infallible;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::support::cache::FORMS;
use crate::support::cache::Form;
use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
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
/// How long one waits for another's computation.
const WAIT_MAX: Duration = Duration::from_secs(10);

async fn computes_once(form: Form, tasks: usize) {
    let stage = Stage::new(form).await;
    for round in 1..=3 {
        let work = Work::new();
        let visitors = visitors(tasks, &stage.cache(), MINUTE, computing(&work));
        work.has_begun(1).await;
        work.let_go(tasks);
        let answers = answers(visitors).await;
        let others = answers.iter().filter(|answer| **answer != Ok(1)).count();
        let what = format!("{form:?}, round {round}, {:?}", stage.cache().stats());
        assert_eq!((work.begun(), others), (1, 0), "{what}");
        assert_eq!(stage.cache().get("k").await, Some(1_usize));
        // Cold in another way each time.
        match round {
            1 => stage.cache().delete("k").await,
            _ => stage.clock.advance(MINUTE),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_on_a_cold_key_compute_once() {
    for form in FORMS {
        computes_once(form, TASKS).await;
    }
}

#[tokio::test]
async fn a_thousand_on_one_thread_compute_once() {
    for form in FORMS {
        computes_once(form, TASKS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_keys_are_computed_at_the_same_time() {
    let stage = Stage::new(Form::Both).await;
    let cache = stage.cache();
    let work = Work::new();
    let mut tasks = JoinSet::new();
    let root = [cache.clone(), cache.namespace("a"), cache.namespace("b")];
    for cache in root {
        for key in ["k", "l"] {
            let (cache, compute) = (cache.clone(), computing(&work));
            tasks.spawn(async move { cache.fetch(key, NEVER, compute).await });
        }
    }
    work.has_begun(6).await;
    work.let_go(6);
    answers(tasks).await;
    assert_eq!(work.peak(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failure_the_others_compute_and_not_all_at_once() {
    for form in [Form::Both, Form::Memory, Form::File] {
        let stage = Stage::new(form).await;
        let work = Work::new();
        let fails = {
            let work = work.clone();
            move || {
                let work = work.clone();
                async move { Err::<usize, _>(work.run().await.to_string()) }
            }
        };
        let visitors = visitors(100, &stage.cache(), MINUTE, fails);
        work.has_begun(1).await;
        work.let_go(1);
        work.has_begun(10).await;
        work.let_go(100);
        let mut errors: Vec<usize> = answers(visitors)
            .await
            .into_iter()
            .map(|answer| answer.unwrap_err().parse().unwrap())
            .collect();
        // To each its own.
        errors.sort_unstable();
        assert!(errors.into_iter().eq(1..=100), "{form:?}");
        // Who came after the failure is not among those who waited for it.
        assert!(work.peak() <= 2 * 16, "{} at once, {form:?}", work.peak());
        assert!(!stage.cache().contains("k").await);
        assert_eq!(fetch(&stage.cache(), "k", MINUTE, 7_usize).await, (7, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_that_works_is_for_all_who_still_wait() {
    let stage = Stage::new(Form::Both).await;
    let work = Work::new();
    let fails_at_first = {
        let work = work.clone();
        move || {
            let work = work.clone();
            async move {
                match work.run().await {
                    1 => Err("no".to_owned()),
                    number => Ok(number),
                }
            }
        }
    };
    let visitors = visitors(TASKS, &stage.cache(), MINUTE, fails_at_first);
    work.has_begun(1).await;
    work.let_go(TASKS);
    let failed = answers(visitors)
        .await
        .into_iter()
        .filter(Result::is_err)
        .count();
    assert_eq!(failed, 1);
    assert!(work.begun() <= 1 + 2 * 16, "{} computed", work.begun());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_computation_that_panics_frees_the_key() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let work = Work::new();
        let panics_at_first = {
            let work = work.clone();
            move || {
                let work = work.clone();
                async move {
                    let number = work.run().await;
                    assert!(number > 1, "on purpose");
                    Ok(number)
                }
            }
        };
        let mut visitors = visitors(100, &stage.cache(), MINUTE, panics_at_first);
        work.has_begun(1).await;
        work.let_go(100);
        let mut panicked = 0;
        while let Some(answer) = tokio::time::timeout(SOON, visitors.join_next())
            .await
            .unwrap()
        {
            match answer {
                Ok(answer) => assert!(answer.unwrap() > 1),
                Err(_) => panicked += 1,
            }
        }
        assert_eq!(panicked, 1, "{form:?}");
        assert!(stage.cache().get::<usize>("k").await > Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_who_leaves_stops_nothing() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        // Who waits for it has it all the same.
        let work = Work::new();
        let mut first = visitors(1, &cache, MINUTE, computing(&work));
        work.has_begun(1).await;
        let others = visitors(100, &cache, MINUTE, computing(&work));
        first.shutdown().await;
        work.let_go(100);
        assert!(
            answers(others)
                .await
                .into_iter()
                .all(|answer| answer == Ok(1)),
            "{form:?}"
        );
        assert_eq!(work.begun(), 1, "{form:?}");
        // And if nobody waits, it is kept for who comes next.
        cache.delete("k").await;
        let work = Work::new();
        let mut first = visitors(1, &cache, MINUTE, computing(&work));
        work.has_begun(1).await;
        first.shutdown().await;
        work.let_go(1);
        wait_for("the value", SOON, async || cache.get::<usize>("k").await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_ever_for_one_that_hangs() {
    if !slow("10 s of waiting for a computation that hangs") {
        return;
    }
    let stage = Stage::new(Form::Both).await;
    let (hung, work) = (Work::new(), Work::new());
    work.let_go(1_000);
    let mut first = visitors(1, &stage.cache(), MINUTE, computing(&hung));
    hung.has_begun(1).await;
    let start = Instant::now();
    let others = visitors(100, &stage.cache(), MINUTE, computing(&work));
    let all = tokio::time::timeout(WAIT_MAX + SOON, others.join_all())
        .await
        .unwrap();
    assert!(all.into_iter().all(|answer| answer.is_ok()));
    assert!(start.elapsed() >= WAIT_MAX, "{:?}", start.elapsed());
    assert!(stage.cache().contains("k").await);
    first.shutdown().await;
}

#[tokio::test]
async fn one_that_hangs_is_in_nobodys_way() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let hung = Work::new();
        let _first = visitors(1, &cache, MINUTE, computing(&hung));
        hung.has_begun(1).await;
        cache.put("k", &5_usize, MINUTE).await.unwrap();
        let fetched = tokio::time::timeout(SOON, fetch(&cache, "k", MINUTE, 6_usize)).await;
        assert_eq!(fetched.unwrap(), (5, false), "{form:?}");
        // What was deleted is computed from what is there now, and by nobody who began before.
        cache.delete("k").await;
        let fetched = tokio::time::timeout(SOON, fetch(&cache, "k", MINUTE, 7_usize)).await;
        assert_eq!(fetched.unwrap(), (7, true), "{form:?}");
        cache.clear().await;
        let fetched = tokio::time::timeout(SOON, fetch(&cache, "k", MINUTE, 8_usize)).await;
        assert_eq!(fetched.unwrap(), (8, true), "{form:?}");
        // It ends at last, and is not believed.
        hung.let_go(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(cache.get("k").await, Some(8_usize), "{form:?}");
    }
}

#[tokio::test]
async fn what_is_deleted_while_it_is_computed_is_returned_and_not_kept() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        for is_cleared in [false, true] {
            for was_there in [false, true] {
                let cache = stage.cache();
                cache.delete("k").await;
                if was_there {
                    cache.put("k", &0, MINUTE).await.unwrap();
                    stage.clock.advance(MINUTE);
                }
                let inside = cache.clone();
                let compute = move || async move {
                    if is_cleared {
                        inside.clear().await;
                    } else {
                        inside.delete("k").await;
                    }
                    Ok::<_, Infallible>(7)
                };
                assert_eq!(cache.fetch("k", MINUTE, compute).await, Ok(7));
                assert_eq!(cache.get::<i32>("k").await, None, "{form:?}");
                assert_eq!(fetch(&cache, "k", MINUTE, 8).await, (8, true), "{form:?}");
            }
        }
    }
}

#[tokio::test]
async fn who_comes_after_a_deletion_does_not_wait_for_who_came_before() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let cache = stage.cache();
        let (old, new) = (Work::new(), Work::new());
        let before = visitors(10, &cache, MINUTE, computing(&old));
        old.has_begun(1).await;
        cache.delete("k").await;
        let after = visitors(10, &cache, MINUTE, computing(&new));
        new.has_begun(1).await;
        // The old one ends between the beginning and the end of the new one.
        old.let_go(10);
        answers(before).await;
        assert_eq!(cache.get::<usize>("k").await, None, "{form:?}");
        new.let_go(10);
        assert!(
            answers(after)
                .await
                .into_iter()
                .all(|answer| answer == Ok(1))
        );
        assert_eq!((old.begun(), new.begun()), (1, 1), "{form:?}");
        assert_eq!(cache.get("k").await, Some(1_usize), "{form:?}");
    }
}

#[tokio::test]
async fn a_value_over_the_bound_is_for_all_who_wait_and_is_not_kept() {
    for form in FORMS {
        let stage = Stage::with(form, |settings| settings.value_bytes_max = 2_000).await;
        let work = Work::new();
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let (cache, work) = (stage.cache(), work.clone());
            let compute = move || async move {
                work.run().await;
                Ok::<_, Infallible>("x".repeat(3_000))
            };
            tasks.spawn(async move { cache.fetch("k", MINUTE, compute).await });
        }
        work.has_begun(1).await;
        tokio::task::yield_now().await;
        work.let_go(100);
        let all = tokio::time::timeout(SOON, tasks.join_all()).await.unwrap();
        assert!(
            all.into_iter()
                .all(|answer| answer == Ok("x".repeat(3_000))),
            "{form:?}"
        );
        assert!(!stage.cache().contains("k").await);
        assert_eq!(work.begun(), 1, "{form:?}");
    }
}

#[tokio::test]
async fn who_wants_another_type_computes_it() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let (cache, work) = (stage.cache(), Work::new());
        let numbers = visitors(1, &cache, MINUTE, computing(&work));
        work.has_begun(1).await;
        let other = cache.clone();
        let texts =
            tokio::spawn(async move { fetch(&other, "k", MINUTE, "text".to_owned()).await });
        tokio::task::yield_now().await;
        work.let_go(1);
        assert_eq!(answers(numbers).await, [Ok(1)]);
        let (text, is_computed) = tokio::time::timeout(SOON, texts).await.unwrap().unwrap();
        assert!(text == "text" && is_computed, "{form:?}");
    }
}

#[tokio::test]
async fn a_computation_may_fetch_what_it_needs() {
    for form in FORMS {
        let stage = Stage::new(form).await;
        let inside = stage.cache();
        let compute = move || async move {
            let (one, _) = fetch(&inside, "one", MINUTE, 1).await;
            let (two, _) = fetch(&inside.namespace("k"), "k", MINUTE, 2).await;
            Ok::<_, Infallible>(one + two)
        };
        let fetched = tokio::time::timeout(SOON, stage.cache().fetch("k", MINUTE, compute)).await;
        assert_eq!(fetched.unwrap(), Ok(3), "{form:?}");
    }
}
