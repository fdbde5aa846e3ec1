//! What the cache promises of namespaces and of clearing them, in each of its forms.

use std::convert::Infallible;

use houseboat::cache::Cache;

use crate::support::cache::MINUTE;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::fetch;
use crate::support::cache::in_each_form;

/// Names of namespaces that could be taken for one another: of one, or one in another.
const PATHS: [&[&str]; 24] = [
    &[],
    &[""],
    &["", ""],
    &["a"],
    &["a", ""],
    &["", "a"],
    &["a", "b"],
    &["ab"],
    &["a:b"],
    &["a/b"],
    &["a.b"],
    &["a\0b"],
    &["a", "b", "c"],
    &["ab", "c"],
    &["a", "bc"],
    &["a\0b", "c"],
    &["A"],
    &["a "],
    &["k"],
    &["\u{e9}"],
    &["e\u{301}"],
    &["\n"],
    &["'; DELETE FROM entries; --"],
    &["0"],
];

fn at(cache: &Cache, path: &[&str]) -> Cache {
    path.iter()
        .fold(cache.clone(), |cache, name| cache.namespace(name))
}

async fn is_there(stage: &Stage, path: &[&str]) -> bool {
    at(&stage.cache(), path).contains("k").await
}

#[tokio::test]
async fn a_key_is_another_one_in_each_namespace() {
    let long = "n".repeat(100_000);
    let long_too = format!("{long}n");
    in_each_form(async |stage| {
        let mut paths = PATHS.to_vec();
        let (long, long_too) = ([long.as_str()], [long_too.as_str()]);
        paths.extend([&long[..], &long_too[..]]);
        for (number, path) in paths.iter().enumerate() {
            at(&stage.cache(), path)
                .put("k", &number, NEVER)
                .await
                .unwrap();
        }
        stage.settle().await;
        for (number, path) in paths.iter().enumerate() {
            assert_eq!(
                at(&stage.cache(), path).get("k").await,
                Some(number),
                "{number}"
            );
        }
        at(&stage.cache(), &["a"]).delete("k").await;
        stage.settle().await;
        for path in paths {
            assert_eq!(is_there(stage, path).await, path != ["a"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_looks_like_a_namespace_is_none() {
    in_each_form(async |stage| {
        let keys: [&[u8]; 8] = [
            b"ab", b"a:b", b"a/b", b"a.b", b"a\0b", b"\x01ab", b"\0a\0b", b"a b",
        ];
        for key in keys {
            stage.cache().put(key, &7, NEVER).await.unwrap();
        }
        stage.settle().await;
        assert!(!stage.cache().namespace("a").contains("b").await);
        stage
            .cache()
            .namespace("a")
            .put("b", &8, NEVER)
            .await
            .unwrap();
        stage.settle().await;
        stage.cache().namespace("a").clear().await;
        stage.settle().await;
        for key in keys {
            assert_eq!(stage.cache().get(key).await, Some(7));
        }
    })
    .await;
}

#[tokio::test]
async fn clearing_a_namespace_clears_what_is_in_it_and_nothing_else() {
    in_each_form(async |stage| {
        for cleared in PATHS {
            for path in PATHS {
                at(&stage.cache(), path).put("k", &7, MINUTE).await.unwrap();
            }
            stage.settle().await;
            // Some in memory, where there are two tiers, and some not.
            for path in &PATHS[..PATHS.len() / 2] {
                assert!(is_there(stage, path).await);
            }
            at(&stage.cache(), cleared).clear().await;
            for _ in 0..2 {
                for path in PATHS {
                    let expected = !path.starts_with(cleared);
                    assert_eq!(
                        is_there(stage, path).await,
                        expected,
                        "{path:?} after {cleared:?}"
                    );
                }
                stage.settle().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn after_a_clear_things_are_kept_again() {
    in_each_form(async |stage| {
        let root = stage.cache();
        let page = root.namespace("page");
        for round in 0..5 {
            root.put("k", &round, MINUTE).await.unwrap();
            page.put("k", &round, MINUTE).await.unwrap();
            let cleared = if round % 2 == 0 { &root } else { &page };
            cleared.clear().await;
            cleared.clear().await;
            assert_eq!(page.get::<i32>("k").await, None);
            page.put("k", &(round + 100), MINUTE).await.unwrap();
            // A handle of before, and one of now.
            assert_eq!(page.get("k").await, Some(round + 100));
            assert_eq!(root.namespace("page").get("k").await, Some(round + 100));
            assert_eq!(root.get("k").await, (round % 2 == 1).then_some(round));
        }
        stage.settle().await;
        let page = stage.cache().namespace("page");
        assert_eq!(page.get("k").await, Some(104));
        page.clear().await;
        stage.settle().await;
        assert_eq!(stage.cache().namespace("page").get::<i32>("k").await, None);
    })
    .await;
}

#[tokio::test]
async fn every_verb_keeps_to_its_namespace() {
    in_each_form(async |stage| {
        let root = stage.cache();
        let page = root.namespace("page");
        for key in ["touched", "deleted", "absent"] {
            root.put(key, &1, MINUTE).await.unwrap();
        }
        assert_eq!(page.increment("count", 5, MINUTE).await.unwrap(), 5);
        assert_eq!(root.increment("count", 1, MINUTE).await.unwrap(), 1);
        assert!(!page.touch("touched", NEVER).await);
        page.delete("deleted").await;
        assert!(page.put_if_absent("absent", &2, MINUTE).await.unwrap());
        assert_eq!(fetch(&page, "touched", MINUTE, 3).await, (3, true));
        page.put_many([("many", &4)], MINUTE).await.unwrap();
        stage.settle().await;
        let root = stage.cache();
        let page = root.namespace("page");
        let keys = ["count", "touched", "deleted", "absent", "many"];
        let expected = [Some(1), Some(1), Some(1), Some(1), None];
        assert_eq!(root.get_many::<i32>(&keys).await, expected);
        let expected = [Some(5), Some(3), None, Some(2), Some(4)];
        assert_eq!(page.get_many::<i32>(&keys).await, expected);
    })
    .await;
}

#[tokio::test]
async fn what_was_begun_before_a_clear_is_not_kept_after_it() {
    in_each_form(async |stage| {
        // What is cleared, as seen from where it is computed, and whether that concerns it.
        let cases: [(&[&str], bool); 4] = [
            (&[], true),
            (&["a"], true),
            (&["a", "b"], true),
            (&["c"], false),
        ];
        for (cleared, concerns) in cases {
            let root = stage.cache();
            let inner = at(&root, &["a", "b"]);
            inner.delete("k").await;
            let clearing = at(&root, cleared);
            let compute = move || async move {
                clearing.clear().await;
                Ok::<_, Infallible>(7)
            };
            assert_eq!(inner.fetch("k", MINUTE, compute).await, Ok(7));
            assert_eq!(inner.contains("k").await, !concerns, "{cleared:?}");
        }
    })
    .await;
}
