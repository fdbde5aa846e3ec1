//! Pages that are kept: what visitors get, and when they are made anew.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::routing::post;
use flate2::read::GzDecoder;
use houseboat::Context;
use houseboat::http;
use houseboat::http::PageCache;
use houseboat::http::Pages;

use crate::support::served::Served;

const MINUTE: Duration = Duration::from_mins(1);

/// Pages that say which time it is that they are made.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn made(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) -> String {
        let count = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        format!("page {count}")
    }

    /// One page, at `/page`, and whatever comes after that in its path.
    async fn serve(&self, layer: PageCache) -> Served {
        let (one, any) = (self.clone(), self.clone());
        let routes = Router::new()
            .route("/page", get(async move || one.next()))
            .route("/page/{*rest}", get(async move || any.next()))
            .layer(layer);
        Served::start(routes).await
    }
}

#[tokio::test]
async fn a_page_is_made_once_and_given_to_all() {
    let made = Counted::default();
    let site = made.serve(PageCache::new(MINUTE)).await;
    let first = site.get("/page").await;
    assert_eq!((first.status, first.text().as_str()), (200, "page 1"));
    assert_eq!(first.header("age"), "", "it was made for this request");
    site.advance(7);
    let second = site.get("/page").await;
    assert_eq!((second.status, second.text().as_str()), (200, "page 1"));
    assert_eq!(second.header("age"), "7");
    assert_eq!(second.header("content-type"), first.header("content-type"));
    assert_eq!(second.header("content-length"), "6");
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(made.made(), 1);
}

#[tokio::test]
async fn a_page_whose_time_is_over_is_made_anew() {
    let made = Counted::default();
    let site = made.serve(PageCache::new(MINUTE)).await;
    site.get("/page").await;
    site.advance(50);
    assert_eq!(site.get("/page").await.text(), "page 1");
    site.advance(11);
    assert_eq!(site.get("/page").await.text(), "page 2");
}

#[tokio::test]
async fn host_path_and_query_are_told_apart_byte_by_byte() {
    let made = Counted::default();
    let site = made.serve(PageCache::new(MINUTE)).await;
    let paths = [
        "/page",
        "/page?",
        "/page?a=1&b=2",
        "/page?b=2&a=1",
        "/page?A=1&b=2",
        "/page/a%2Fb",
        "/page/a%2fb",
        "/page/a/b",
        "/page/a//b",
        "/page/a/b/",
        "/page/%61/b",
    ];
    for round in 0..2 {
        for (index, path) in paths.iter().enumerate() {
            let page = site.get(path).await.text();
            assert_eq!(page, format!("page {}", index + 1), "{path}, round {round}");
        }
    }
}

#[tokio::test]
async fn parameters_that_do_not_count_are_not_seen() {
    let query = async |RawQuery(query): RawQuery| format!("{query:?}");
    let layer = PageCache::new(MINUTE).query(&["page", "sort"]);
    let routes = Router::new().route("/list", get(query)).layer(layer);
    let site = Served::start(routes).await;
    let seen = async |path| site.get(path).await.text();
    assert_eq!(
        seen("/list?utm=mail&page=2&sort=a").await,
        r#"Some("page=2&sort=a")"#
    );
    assert_eq!(
        seen("/list?page=2&utm=ad&sort=a").await,
        r#"Some("page=2&sort=a")"#
    );
    assert_eq!(
        seen("/list?sort=a&page=2").await,
        r#"Some("sort=a&page=2")"#
    );
    assert_eq!(seen("/list?utm=mail").await, "None");
    assert_eq!(site.get("/list?utm=ad").await.header("age"), "0");
}

#[tokio::test]
async fn a_page_depends_on_the_headers_that_its_vary_names() {
    let made = Counted::default();
    let page = made.clone();
    let handler = async move |headers: HeaderMap| {
        let language = headers.get("accept-language").cloned();
        let language = language.map_or("none".to_owned(), |value| {
            value.to_str().unwrap().to_owned()
        });
        let vary = [("vary", "Accept-Language, Accept-Encoding")];
        (vary, format!("{language}: {}", page.next()))
    };
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    for _ in 0..2 {
        let german = site.ask("GET", "/page", &["accept-language: de"]).await;
        assert_eq!(german.text(), "de: page 1");
        let english = site.ask("GET", "/page", &["accept-language: en"]).await;
        assert_eq!(english.text(), "en: page 2");
        assert_eq!(site.get("/page").await.text(), "none: page 3");
        // What is compressed here is not the handler's affair.
        let packed = ["accept-language: de", "accept-encoding: gzip"];
        let packed = site.ask("GET", "/page", &packed).await;
        assert_eq!(packed.header("content-encoding"), "");
        assert_eq!(packed.text(), "de: page 1", "it is too short");
    }
    assert_eq!(made.made(), 3);
}

#[tokio::test]
async fn a_variant_may_name_more_headers_than_those_before() {
    let made = Counted::default();
    let page = made.clone();
    let handler = async move |headers: HeaderMap| {
        let is_german = headers
            .get("accept-language")
            .is_some_and(|value| value == "de");
        let vary = if is_german {
            "accept-language, accept"
        } else {
            "accept-language"
        };
        ([("vary", vary)], page.next())
    };
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    let ask = async |headers: &[&str]| site.ask("GET", "/page", headers).await.text();
    ask(&["accept-language: en"]).await;
    let html = ["accept-language: de", "accept: text/html"];
    let json = ["accept-language: de", "accept: application/json"];
    ask(&html).await;
    let (one, other) = (ask(&html).await, ask(&json).await);
    assert_ne!(one, other);
    assert_eq!((ask(&html).await, ask(&json).await), (one, other));
}

#[tokio::test]
async fn who_has_the_page_gets_304() {
    let handler = async || ([("cache-control", "max-age=60"), ("x-mine", "1")], "text");
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    let tag = site.get("/page").await.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    for (asked, status) in [
        (format!("if-none-match: {tag}"), 304),
        (format!("if-none-match: \"a\", W/{tag}"), 304),
        ("if-none-match: *".to_owned(), 304),
        ("if-none-match: \"a\"".to_owned(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = site.ask(method, "/page", &[&asked]).await;
            assert_eq!(answer.status, status, "{method} {asked}");
            assert_eq!(answer.header("etag"), tag);
            assert_eq!(answer.header("age"), "0");
            assert_eq!(answer.header("cache-control"), "max-age=60");
            assert_eq!(answer.header("x-mine").is_empty(), status == 304);
            assert_eq!(answer.header("content-type").is_empty(), status == 304);
        }
    }
    // Also who was the first to ask: the page is made whole all the same.
    Pages::of(&site.context.cache).clear().await;
    let known = format!("if-none-match: {tag}");
    assert_eq!(site.ask("GET", "/page", &[&known]).await.status, 304);
    assert_eq!(site.get("/page").await.text(), "text");
}

#[tokio::test]
async fn the_handlers_own_tag_and_date_stand() {
    const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let handler = async || ([("etag", "W/\"mine\""), ("last-modified", DAY)], "text");
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    assert_eq!(site.get("/page").await.header("etag"), "W/\"mine\"");
    let since = format!("if-modified-since: {DAY}");
    assert_eq!(site.ask("GET", "/page", &[&since]).await.status, 304);
    let before = "if-modified-since: Sun, 06 Nov 1994 08:49:36 GMT";
    assert_eq!(site.ask("GET", "/page", &[before]).await.status, 200);
    let tag = "if-none-match: \"mine\"";
    assert_eq!(site.ask("GET", "/page", &[tag, before]).await.status, 304);
}

#[tokio::test]
async fn head_and_get_share_a_page() {
    let made = Counted::default();
    let site = made.serve(PageCache::new(MINUTE)).await;
    let head = site.ask("HEAD", "/page", &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "6"));
    let page = site.get("/page").await;
    assert_eq!(page.text(), "page 1");
    let head = site.ask("HEAD", "/page", &[]).await;
    for name in ["etag", "content-length", "content-type", "age"] {
        assert_eq!(head.header(name), page.header(name), "{name}");
    }
    assert_eq!(made.made(), 1);
}

#[tokio::test]
async fn a_page_is_compressed_once_for_all() {
    let made = Counted::default();
    let page = made.clone();
    let handler = async move || page.next() + &" and more of it".repeat(100);
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    let plain = site.get("/page").await;
    let zipped = site.ask("GET", "/page", &["accept-encoding: gzip"]).await;
    let packed = site
        .ask("GET", "/page", &["accept-encoding: gzip, deflate, br"])
        .await;
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(zipped.header("content-encoding"), "gzip");
    assert_eq!(packed.header("content-encoding"), "br");
    let mut unzipped = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(&*zipped.body), &mut unzipped).unwrap();
    assert!(unzipped == plain.body, "what comes out is what went in");
    assert!(packed.body.len() < plain.body.len() / 10);
    let answers = [plain, zipped, packed];
    for (index, answer) in answers.iter().enumerate() {
        let vary = answer.headers.iter().filter(|(name, _)| name == "vary");
        assert_eq!(vary.count(), 1);
        assert_eq!(answer.header("vary"), "accept-encoding");
        // A tag is of the bytes as they were sent.
        let others = answers[..index].iter();
        assert!(
            !others
                .clone()
                .any(|other| other.header("etag") == answer.header("etag"))
        );
        let known = format!("if-none-match: {}", answer.header("etag"));
        let coding = format!("accept-encoding: {}", answer.header("content-encoding"));
        assert_eq!(
            site.ask("GET", "/page", &[&known, &coding]).await.status,
            304
        );
    }
    assert_eq!(made.made(), 1);
}

#[tokio::test]
async fn an_error_that_is_kept_is_explained_to_each_in_their_own_way() {
    let made = Counted::default();
    let page = made.clone();
    let handler = async move || -> http::Result<String> {
        let text = format!("{} is not there.", page.next());
        Err(http::Error::new(StatusCode::NOT_FOUND, text))
    };
    let routes = Router::new().route("/page", get(handler));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    for _ in 0..2 {
        let html = site.get("/page").await;
        assert_eq!(
            (html.status, html.header("content-type")),
            (404, "text/html; charset=utf-8")
        );
        assert!(
            html.text().contains("<p>page 1 is not there.</p>"),
            "{}",
            html.text()
        );
        assert!(html.text().contains(html.header("x-request-id")));
        let json = site
            .ask("GET", "/page", &["accept: application/json"])
            .await;
        assert_eq!(
            (json.status, json.header("content-type")),
            (404, "application/problem+json")
        );
        assert!(json.text().contains("page 1 is not there."));
    }
}

#[tokio::test]
async fn pages_are_forgotten_by_path_or_all_at_once() {
    let made = Counted::default();
    let site = made.serve(PageCache::new(MINUTE)).await;
    let pages = Pages::of(&site.context.cache);
    let all = ["/page", "/page?a=1", "/page/b"];
    for path in all {
        site.get(path).await;
    }
    pages.delete("/page").await;
    assert_eq!(site.get("/page/b").await.text(), "page 3", "another path");
    assert_eq!(site.get("/page").await.text(), "page 4");
    assert_eq!(
        site.get("/page?a=1").await.text(),
        "page 5",
        "all of its queries"
    );
    pages.clear().await;
    for (index, path) in all.iter().enumerate() {
        assert_eq!(site.get(path).await.text(), format!("page {}", index + 6));
    }
}

#[tokio::test]
async fn a_post_to_the_path_that_succeeds_ends_its_pages() {
    let made = Counted::default();
    let page = made.clone();
    let change = async |request: Request| match request.uri().query() {
        Some("wrong") => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        Some("see") => axum::response::Redirect::to("/page").into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    };
    let routes = Router::new().route("/page", get(async move || page.next()).post(change));
    let routes = routes.route("/other", post(async || "done"));
    let site = Served::start(routes.layer(PageCache::new(MINUTE))).await;
    let own = ["sec-fetch-site: same-origin", "content-length: 0"];
    for (path, expected) in [
        ("/page?wrong", "page 1"),
        ("/other", "page 1"),
        ("/page?see", "page 2"),
        ("/page", "page 3"),
    ] {
        site.get("/page").await;
        site.ask("POST", path, &own).await;
        assert_eq!(site.get("/page").await.text(), expected, "{path}");
    }
}

#[tokio::test]
async fn routers_inside_one_another_do_not_share_pages() {
    let made = Counted::default();
    let nest = |name: &'static str| {
        let page = made.clone();
        let handler = async move |request: Request| {
            format!("{name} {} {}", request.uri().path(), page.next())
        };
        let inside: Router<Context> = Router::new().route("/page", get(handler));
        inside.layer(PageCache::new(MINUTE))
    };
    let site = Served::start(Router::new().nest("/a", nest("a")).nest("/b", nest("b"))).await;
    for _ in 0..2 {
        assert_eq!(site.get("/a/page").await.text(), "a /page page 1");
        assert_eq!(site.get("/b/page").await.text(), "b /page page 2");
    }
    Pages::of(&site.context.cache).delete("/a/page").await;
    assert_eq!(site.get("/a/page").await.text(), "a /page page 3");
    assert_eq!(site.get("/b/page").await.text(), "b /page page 2");
}
