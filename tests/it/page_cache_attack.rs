//! What somebody may try with the page cache to harm others.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use houseboat::http::PageCache;

use crate::support::raw::Raw;
use crate::support::raw::RawAnswer;
use crate::support::served::Served;

const MINUTE: Duration = Duration::from_mins(1);

/// Shows everything that it sees of a request.
async fn mirror(request: Request) -> String {
    let mut seen = format!("{} {:?}\n", request.method(), request.uri());
    let mut headers: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.retain(|line| !line.starts_with("x-request-id"));
    headers.sort();
    seen.push_str(&headers.join("\n"));
    seen
}

async fn mirrored(layer: PageCache) -> Served {
    // This machine is no proxy here, whose word on the host would be taken.
    let nobody = ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]");
    let routes = Router::new().route("/page", get(mirror)).layer(layer);
    Served::with(routes, &[nobody]).await
}

#[tokio::test]
async fn a_header_that_is_not_in_the_key_is_not_on_the_page() {
    let site = mirrored(PageCache::new(MINUTE)).await;
    let evil = [
        "x-forwarded-host: evil.example",
        "x-forwarded-proto: http",
        "x-forwarded-for: 1.2.3.4",
        "forwarded: host=evil.example",
        "x-host: evil.example",
        "x-original-url: /admin",
        "x-rewrite-url: /admin",
        "x-http-method-override: DELETE",
        "referer: https://evil.example/",
        "x-whatever: 1",
        "te: trailers",
        "connection: keep-alive, host",
        "accept-encoding: gzip",
        "if-none-match: \"a\"",
        "expect: 100-continue-not",
        "traceparent: 1",
        "houseboat-key: guess",
        "content-type: text/evil",
    ];
    let first = site.ask("GET", "/page", &evil).await.text();
    assert_eq!(first, "GET /page\nhost: site.test");
    assert_eq!(site.get("/page").await.text(), first);
}

#[tokio::test]
async fn headers_that_a_site_needs_count_for_every_page() {
    let layer = PageCache::new(MINUTE).headers(&["hx-request", "x-forwarded-proto"]);
    let site = mirrored(layer).await;
    let plain = site.get("/page").await.text();
    let part = site.ask("GET", "/page", &["hx-request: true"]).await.text();
    assert_eq!(part, "GET /page\nhost: site.test\nhx-request: true");
    assert_eq!(site.get("/page").await.text(), plain);
    // Two values are not one, an empty one is not none, and nothing runs over from one header into the next.
    let mut seen = vec![plain, part];
    for headers in [
        &["hx-request: "] as &[&str],
        &["hx-request: a", "hx-request: b"],
        &["hx-request: a, b"],
        &["hx-request: a", "x-forwarded-proto: b"],
        &["x-forwarded-proto: a", "x-forwarded-proto: b"],
    ] {
        seen.push(site.ask("GET", "/page", headers).await.text());
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[tokio::test]
async fn another_host_is_another_page_and_two_hosts_are_none() {
    let site = mirrored(PageCache::new(MINUTE)).await;
    let ask = async |head: &str| {
        let mut visitor = Raw::connect(site.address).await;
        visitor.send(format!("GET {head}\r\n\r\n")).await;
        visitor.answer().await.text()
    };
    let hosts = [
        ("/page HTTP/1.1\r\nhost: a.test", "a.test"),
        ("/page HTTP/1.1\r\nhost: b.test", "b.test"),
        ("/page HTTP/1.1\r\nhost: a.test:81", "a.test:81"),
        // One host has one form.
        ("/page HTTP/1.1\r\nhost: a.test:80", "a.test"),
        ("/page HTTP/1.1\r\nhost: A.test.", "a.test"),
        ("http://a.test/page HTTP/1.1\r\nhost: a.test", "a.test"),
        ("https://b.test/page HTTP/1.1\r\nhost: b.test", "b.test"),
    ];
    for _ in 0..2 {
        for (asked, host) in hosts {
            let page = ask(asked).await;
            assert_eq!(page, format!("GET /page\nhost: {host}"), "{asked}");
        }
        let page = ask("http://b.test/page HTTP/1.1\r\nhost: a.test").await;
        assert!(page.contains("names a host that is none"), "{page}");
    }
    for _ in 0..2 {
        let two = ask("/page HTTP/1.1\r\nhost: a.test\r\nhost: evil.test\r\nx-seen: 1").await;
        // The handler is asked as it is, and nobody else gets that.
        assert!(two.is_empty() || two.contains("x-seen"), "{two}");
    }
    assert!(!ask(hosts[0].0).await.contains("evil"));
}

#[tokio::test]
async fn a_flood_of_variants_stays_within_its_limit() {
    let made = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&made);
    let handler = async move |headers: HeaderMap| {
        count.fetch_add(1, Ordering::SeqCst);
        let language = headers.get("accept-language").unwrap().clone();
        (
            [("vary", "accept-language")],
            language.to_str().unwrap().to_owned(),
        )
    };
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE).variants_max(4))).await;
    let ask = async |language: &str| {
        let header = format!("accept-language: {language}");
        let page = site.ask("GET", "/page", &[&header]).await.text();
        assert_eq!(page, language);
        made.load(Ordering::SeqCst)
    };
    let before = site.context.cache.stats().memory_entries;
    let long = "x".repeat(4_000);
    for index in 0..100 {
        ask(&format!("{long}{index}")).await;
    }
    let asked = ask(&format!("{long}99")).await;
    for index in 96..100 {
        assert_eq!(
            ask(&format!("{long}{index}")).await,
            asked,
            "{index} is kept"
        );
    }
    assert_eq!(ask(&format!("{long}95")).await, asked + 1, "{} is not", 95);
    // The path's mark, the address, and its variants; and the namespace's number.
    let kept = site.context.cache.stats().memory_entries - before;
    assert!(kept <= 7, "{kept} entries");
}

#[tokio::test]
async fn a_body_that_is_not_in_the_key_is_not_on_the_page() {
    let handler = async |body: Bytes| body;
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    let send = async |rest: &str| -> RawAnswer {
        let mut visitor = Raw::connect(site.address).await;
        visitor
            .send(format!("GET /page HTTP/1.1\r\nhost: site.test\r\n{rest}"))
            .await;
        visitor.answer().await
    };
    assert_eq!(send("content-length: 4\r\n\r\nevil").await.text(), "evil");
    let chunked = "transfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n";
    assert_eq!(send(chunked).await.text(), "evil");
    assert_eq!(send("\r\n").await.text(), "");
    assert_eq!(send("content-length: 4\r\n\r\nmine").await.text(), "mine");
    assert_eq!(site.get("/page").await.text(), "");
}

#[tokio::test]
async fn parts_conditions_and_methods_leave_nothing_but_whole_pages() {
    // A handler that does all of it by itself.
    let handler = async |request: Request| {
        let headers = request.headers();
        if headers.contains_key("if-none-match") {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        if headers.contains_key("range") {
            let range = [("content-range", "bytes 0-0/4")];
            return (StatusCode::PARTIAL_CONTENT, range, "t").into_response();
        }
        if request.method() != "GET" {
            return "".into_response();
        }
        "text".into_response()
    };
    let routes = Router::new().route("/page", axum::routing::any(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    assert_eq!(
        site.ask("HEAD", "/page", &[])
            .await
            .header("content-length"),
        "4"
    );
    let cold = ["cache-control: no-cache"];
    for headers in [
        &["range: bytes=0-0"] as &[&str],
        &["if-none-match: \"a\"", cold[0]],
        &["if-none-match: \"a\"", "range: bytes=0-0"],
        &["x-http-method-override: HEAD", cold[0]],
    ] {
        site.ask("GET", "/page", headers).await;
        let page = site.get("/page").await;
        assert_eq!(
            (page.status, page.text().as_str()),
            (200, "text"),
            "{headers:?}"
        );
        assert_eq!(
            page.header("age"),
            "0",
            "it is still kept after {headers:?}"
        );
    }
    assert_eq!(site.ask("OPTIONS", "/page", &[]).await.header("age"), "");
    assert_eq!(site.get("/page").await.text(), "text");
}

#[tokio::test]
async fn asking_for_new_pages_all_the_time_does_not_keep_others_from_theirs() {
    let site = mirrored(PageCache::new(MINUTE)).await;
    let page = site.get("/page").await.text();
    for _ in 0..5 {
        let again = ["cache-control: no-cache", "accept-language: evil"];
        site.ask("GET", "/page", &again).await;
    }
    // It is what the handler made of another's request: a handler that depends on a header says so by `Vary`.
    let kept = site
        .ask("GET", "/page", &["cache-control: only-if-cached"])
        .await;
    assert_eq!(kept.status, 200);
    assert!(kept.text().starts_with(page.lines().next().unwrap()));
}
