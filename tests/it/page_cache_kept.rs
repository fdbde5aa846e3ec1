//! What is kept of a handler's answers, and what a request has to say about it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use futures_util::StreamExt;
use futures_util::stream;
use houseboat::http::PageCache;
use tokio::sync::Notify;

use crate::support::raw::Raw;
use crate::support::served::Served;

const MINUTE: Duration = Duration::from_mins(1);

/// What a handler answers, and whether it is kept.
type Case = (u16, &'static [(&'static str, &'static str)], bool);

const CASES: [Case; 31] = [
    (200, &[], true),
    (203, &[], true),
    (301, &[("location", "/")], true),
    (308, &[("location", "/")], true),
    (404, &[], true),
    (410, &[], true),
    (201, &[], false),
    (204, &[], false),
    (206, &[("content-range", "bytes 0-1/9")], false),
    (302, &[("location", "/")], false),
    (303, &[("location", "/")], false),
    (307, &[("location", "/")], false),
    (400, &[], false),
    (401, &[], false),
    (403, &[], false),
    (429, &[], false),
    (500, &[], false),
    (503, &[("retry-after", "1")], false),
    (200, &[("cache-control", "public, max-age=5")], true),
    (200, &[("cache-control", "no-store")], false),
    (200, &[("cache-control", "no-cache")], false),
    (200, &[("cache-control", "private")], false),
    (200, &[("cache-control", "max-age=0")], false),
    (200, &[("cache-control", "max-age=60, s-maxage=0")], false),
    (200, &[("set-cookie", "session=1")], false),
    (
        200,
        &[
            ("set-cookie", "a=1"),
            ("cache-control", "public, max-age=60"),
        ],
        false,
    ),
    (200, &[("vary", "*")], false),
    (200, &[("vary", "accept, *")], false),
    (200, &[("content-type", "text/event-stream")], false),
    (200, &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], false),
    (404, &[("cache-control", "no-store")], false),
];

#[tokio::test]
async fn what_may_be_kept_is_and_nothing_else() {
    let made = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&made);
    let handler = async move |Path(index): Path<usize>| {
        count.fetch_add(1, Ordering::SeqCst);
        let (status, headers, _) = CASES[index];
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = if status == 204 { "" } else { "text" };
        response.body(Body::from(body)).unwrap()
    };
    let routes = Router::new().route("/case/{index}", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    for (index, case) in CASES.iter().enumerate() {
        let before = made.load(Ordering::SeqCst);
        for _ in 0..3 {
            let answer = site.get(&format!("/case/{index}")).await;
            assert_eq!(answer.status, case.0, "{case:?}");
        }
        let times = made.load(Ordering::SeqCst) - before;
        assert_eq!(times, if case.2 { 1 } else { 3 }, "{case:?}");
    }
}

/// A site whose `/page` says how many times it was made.
async fn counting(layer: PageCache) -> Served {
    let made = AtomicUsize::new(0);
    let handler = move |headers: HeaderMap| {
        let count = made.fetch_add(1, Ordering::SeqCst) + 1;
        let cookie = headers
            .get("cookie")
            .map_or("", |value| value.to_str().unwrap());
        std::future::ready(format!("{count}{cookie}"))
    };
    let handler = Arc::new(handler);
    let page = async move |headers: HeaderMap| handler(headers).await;
    Served::start(Router::new().route("/page", get(page)).layer(layer)).await
}

#[tokio::test]
async fn a_visitor_may_ask_for_a_page_made_now_and_others_get_that_too() {
    let site = counting(PageCache::new(MINUTE)).await;
    assert_eq!(site.get("/page").await.text(), "1");
    for (header, expected) in [("cache-control: no-cache", "2"), ("pragma: no-cache", "3")] {
        let own = site.ask("GET", "/page", &[header]).await;
        assert_eq!((own.text().as_str(), own.header("age")), (expected, ""));
        assert_eq!(site.get("/page").await.text(), expected);
    }
    let none = site
        .ask(
            "GET",
            "/page",
            &["cache-control: max-age=60", "pragma: no-cache"],
        )
        .await;
    assert_eq!(
        none.text(),
        "3",
        "the older header does not count beside the newer"
    );
}

#[tokio::test]
async fn a_visitor_may_ask_that_nothing_is_kept_or_nothing_made() {
    let site = counting(PageCache::new(MINUTE)).await;
    let cached = ["cache-control: only-if-cached"];
    assert_eq!(site.ask("GET", "/page", &cached).await.status, 504);
    let private = ["cache-control: no-store"];
    assert_eq!(site.ask("GET", "/page", &private).await.text(), "1");
    assert_eq!(site.ask("GET", "/page", &cached).await.status, 504);
    assert_eq!(site.get("/page").await.text(), "2");
    assert_eq!(site.ask("GET", "/page", &cached).await.text(), "2");
    assert_eq!(site.ask("GET", "/page", &private).await.text(), "3");
    assert_eq!(site.get("/page").await.text(), "2");
}

#[tokio::test]
async fn who_is_somebody_gets_no_shared_page_and_leaves_none() {
    let site = counting(PageCache::new(MINUTE)).await;
    for own in [
        "authorization: Basic YTpi",
        "cookie: session=1",
        "cookie: _ga=1",
        "range: bytes=0-0",
        "if-match: \"a\"",
        "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT",
    ] {
        let before: usize = site
            .ask("GET", "/page", &["cache-control: no-cache"])
            .await
            .text()
            .parse()
            .unwrap();
        let mine = site.ask("GET", "/page", &[own]).await;
        assert!(
            mine.text().starts_with(&(before + 1).to_string()),
            "{own}: {}",
            mine.text()
        );
        assert_eq!((mine.header("age"), mine.header("etag")), ("", ""));
        assert_eq!(site.get("/page").await.text(), before.to_string(), "{own}");
    }
}

#[tokio::test]
async fn cookies_that_mean_nothing_do_not_count_and_are_not_seen() {
    let site = counting(PageCache::new(MINUTE).personal_cookies(&["session"])).await;
    let ask = async |cookies: &[&str]| site.ask("GET", "/page", cookies).await.text();
    assert_eq!(ask(&["cookie: _ga=1; theme=dark"]).await, "1");
    assert_eq!(ask(&["cookie: sessions=1; x=session"]).await, "1");
    assert_eq!(ask(&["cookie: a=1;session=7"]).await, "2a=1;session=7");
    assert_eq!(ask(&["cookie: a=1", "cookie: session=7"]).await, "3a=1");
    assert_eq!(ask(&["cookie: session"]).await, "4session");
    assert_eq!(ask(&[]).await, "1");
}

#[tokio::test]
async fn a_page_up_to_the_limit_is_kept_and_a_longer_one_is_whole() {
    let made = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&made);
    let handler = async move |Path(length): Path<usize>| {
        count.fetch_add(1, Ordering::SeqCst);
        let pieces = (0..length)
            .map(|index| Ok::<_, std::io::Error>(vec![u8::try_from(index % 251).unwrap()]));
        Body::from_stream(stream::iter(pieces))
    };
    let routes = Router::new().route("/page/{length}", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE).bytes_max(1_000))).await;
    for (length, times) in [(1_000, 1), (1_001, 2), (3_000, 2)] {
        let before = made.load(Ordering::SeqCst);
        for _ in 0..2 {
            let page = site.get(&format!("/page/{length}")).await;
            let expected: Vec<u8> = (0..length)
                .map(|index| u8::try_from(index % 251).unwrap())
                .collect();
            assert!(page.body == expected, "{length} bytes");
        }
        assert_eq!(
            made.load(Ordering::SeqCst) - before,
            times,
            "{length} bytes"
        );
    }
}

#[tokio::test]
async fn a_long_answer_comes_while_it_is_made() {
    let go_on = Arc::new(Notify::new());
    let gate = Arc::clone(&go_on);
    let handler = async move || {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 2_000]))]);
        let rest = stream::once(async move {
            gate.notified().await;
            Ok(Bytes::from_static(b"end"))
        });
        Body::from_stream(first.chain(rest))
    };
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE).bytes_max(1_000))).await;
    let mut visitor = Raw::connect(site.address).await;
    visitor.ask("GET", "/page", &[]).await;
    visitor.head().await;
    // The length of the chunk, and the chunk: here before the rest is made.
    assert_eq!(visitor.read_exactly(5).await, b"7D0\r\n");
    visitor.read_exactly(2_000).await;
    go_on.notify_one();
    assert_eq!(visitor.read_exactly(10).await, b"\r\n3\r\nend\r\n");
}
