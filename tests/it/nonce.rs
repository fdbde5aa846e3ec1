//! The content security policy, and pages with a script of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::routing::get;
use houseboat::Context;
use houseboat::http::Nonce;
use houseboat::http::OnceKey;
use houseboat::http::PageCache;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

const CSP: &str = "content-security-policy";

fn routes() -> Router<Context> {
    let cached = PageCache::new(Duration::from_mins(1));
    let tagged = async |nonce: Nonce| {
        let headers = [
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("cache-control", "max-age=60"),
        ];
        (headers, format!("{nonce}"))
    };
    Router::new()
        .route("/plain", get(async || "plain"))
        .route(
            "/page",
            get(async |nonce: Nonce, again: Nonce| {
                assert_eq!(nonce, again, "one for a request");
                Html(format!("<script nonce=\"{nonce}\">1</script>"))
            }),
        )
        .route("/tagged", get(tagged).layer(cached.clone()))
        .route(
            "/key",
            get(async |key: OnceKey| key.to_string()).layer(cached.clone()),
        )
        .route("/cached", get(async || "kept").layer(cached))
        .route(
            "/own",
            get(async |_: Nonce| ([(CSP, "default-src 'self'")], "own")),
        )
        .route("/same", get(async |_: Nonce| StatusCode::NOT_MODIFIED))
        .route(
            "/error",
            get(async |_: Nonce| StatusCode::NOT_FOUND.into_response()),
        )
}

/// The directives of a policy.
fn policy(answer: &Answer) -> BTreeMap<String, String> {
    let directives = answer.header(CSP).split(';').map(|directive| {
        let directive = directive.trim();
        let (name, sources) = directive.split_once(' ').unwrap();
        (name.to_owned(), sources.to_owned())
    });
    directives.collect()
}

#[tokio::test]
async fn what_is_not_named_is_forbidden() {
    let site = InProcess::new(routes()).await;
    for path in ["/plain", "/nowhere", "/up"] {
        let policy = policy(&site.get(path).await);
        // What Mozilla's Observatory looks at.
        assert_eq!(policy["default-src"], "'none'", "{path}");
        for name in ["base-uri", "frame-ancestors", "object-src"] {
            assert_eq!(policy[name], "'none'", "{path}: {name}");
        }
        for name in [
            "script-src",
            "style-src",
            "form-action",
            "connect-src",
            "font-src",
        ] {
            assert_eq!(policy[name], "'self'", "{path}: {name}");
        }
        let all: String = policy.values().cloned().collect();
        assert!(
            !all.contains("unsafe") && !all.contains('*') && !all.contains("http"),
            "{all}"
        );
    }
}

#[tokio::test]
async fn a_page_with_a_nonce_has_it_in_its_policy() {
    let site = InProcess::new(routes()).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = site.get("/page").await;
        let text = answer.text();
        let nonce = text.split('"').nth(1).unwrap();
        assert!(
            nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{nonce}"
        );
        let policy = policy(&answer);
        for name in ["script-src", "style-src"] {
            assert_eq!(policy[name], format!("'self' 'nonce-{nonce}'"));
        }
        assert_eq!(policy["default-src"], "'none'");
        assert!(!answer.header(CSP).contains("unsafe"));
        seen.push(nonce.to_owned());
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
    assert!(!site.get("/plain").await.header(CSP).contains("nonce"));
    assert_eq!(
        site.get("/own").await.header(CSP),
        "default-src 'self'",
        "the site's own stands"
    );
}

#[tokio::test]
async fn nobody_keeps_a_page_with_a_nonce() {
    let site = InProcess::new(routes()).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = site.get("/tagged").await;
        assert_eq!(answer.header("cache-control"), "no-store");
        for name in ["etag", "last-modified", "expires", "age"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
        assert_eq!(
            policy(&answer)["script-src"],
            format!("'self' 'nonce-{}'", answer.text())
        );
        seen.push(answer.text());
    }
    // Who has it from before is given a new one, and no 304 under which the old one would run.
    let answer = site
        .ask("GET", "/tagged", &["if-none-match: \"a\""], "")
        .await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, "no-store")
    );
    seen.push(answer.text());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4);
    let answer = site.get("/same").await;
    assert_eq!(answer.status, 304);
    assert!(
        !answer.header(CSP).contains("nonce"),
        "{}",
        answer.header(CSP)
    );
    let keys = (site.get("/key").await, site.get("/key").await);
    assert_ne!(keys.0.text(), keys.1.text());
    assert_eq!(keys.0.header("cache-control"), "no-store");
    // And the layer keeps what has none.
    site.get("/cached").await;
    site.clock.advance(Duration::from_secs(5));
    assert_eq!(site.get("/cached").await.header("age"), "5");
}

#[tokio::test]
async fn an_error_after_a_nonce_is_a_page_as_any() {
    let site = InProcess::new(routes()).await;
    let answer = site.get("/error").await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (404, "no-store")
    );
    assert!(answer.text().contains("<h1>Not found</h1>"));
}
