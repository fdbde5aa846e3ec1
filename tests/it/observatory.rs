//! The headers of every answer, by the rules of Mozilla's HTTP Observatory.

use axum::Router;
use axum::response::Html;
use axum::response::Redirect;
use axum::routing::get;
use houseboat::Context;
use houseboat::http;
use houseboat::http::Assets;

use crate::support::asked::Asked;
use crate::support::asked::Told;

const PROXY: &str = "10.0.0.1";
const BY_HTTPS: [(&str, &str); 2] = [("host", "site.example"), ("x-forwarded-proto", "https")];

/// Half a year, less than which costs points.
const TRANSPORT_S_MIN: u64 = 15_768_000;

fn routes() -> Router<Context> {
    Router::new()
        .route("/page", get(async || Html("<p>page</p>")))
        .route("/moved", get(async || Redirect::to("/page")))
        .route(
            "/broken",
            get(async || -> http::Result<()> { Err(http::Error::internal("broken")) }),
        )
        .route("/same", get(async || axum::http::StatusCode::NOT_MODIFIED))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
}

async fn site(settings: &[(&str, &str)]) -> Asked {
    let mut all = vec![
        ("HOUSEBOAT_ENV", "production"),
        ("APP_URL", "https://site.example"),
    ];
    all.extend(settings);
    Asked::new(routes(), &all).await
}

/// The points of an answer; 100 is where all begin, and bonuses count for who has not lost any.
fn score(told: &Told) -> i32 {
    let has = |name: &str, values: &[&str]| values.contains(&told.header(name));
    let private = [
        "no-referrer",
        "same-origin",
        "strict-origin",
        "strict-origin-when-cross-origin",
    ];
    let own = ["same-origin", "same-site"];
    let points = [
        sources(told),
        frames(told),
        transport(told),
        if has("referrer-policy", &private) {
            5
        } else {
            -5
        },
        if has("x-content-type-options", &["nosniff"]) {
            0
        } else {
            -5
        },
        if has("cross-origin-resource-policy", &own) {
            10
        } else {
            0
        },
        if has("access-control-allow-origin", &["*"]) {
            -50
        } else {
            0
        },
    ];
    let lost: i32 = points.iter().filter(|it| **it < 0).sum();
    let bonus: i32 = points.iter().filter(|it| **it > 0).sum();
    100 + lost + if lost == 0 { bonus } else { 0 }
}

fn policy<'a>(told: &'a Told, name: &str) -> Option<&'a str> {
    let mut all = told.header("content-security-policy").split(';');
    all.find_map(|it| it.trim().strip_prefix(name))
        .map(str::trim)
}

/// A policy without `unsafe-inline`, `unsafe-eval`, `data:`, or a whole scheme.
fn sources(told: &Told) -> i32 {
    let default = policy(told, "default-src");
    let scripts = policy(told, "script-src").or(default);
    let objects = policy(told, "object-src").or(default);
    let (Some(scripts), Some(objects)) = (scripts, objects) else {
        return -25;
    };
    let loose = ["data:", "https:", "http:", "*"];
    let is_loose = |sources: &str| sources.split(' ').any(|it| loose.contains(&it));
    if scripts.contains("unsafe") || is_loose(scripts) || is_loose(objects) {
        -20
    } else if told.header("content-security-policy").contains("unsafe") {
        0
    } else if default == Some("'none'") {
        10
    } else {
        5
    }
}

/// By the policy is better than by the older header.
fn frames(told: &Told) -> i32 {
    match policy(told, "frame-ancestors") {
        Some("'none'" | "'self'") => 5,
        _ if ["DENY", "SAMEORIGIN"].contains(&told.header("x-frame-options")) => 0,
        _ => -20,
    }
}

fn transport(told: &Told) -> i32 {
    let age = told
        .header("strict-transport-security")
        .strip_prefix("max-age=");
    match age.and_then(|it| it.split(';').next()?.parse::<u64>().ok()) {
        None => -20,
        Some(age) if age < TRANSPORT_S_MIN => -10,
        Some(_) => 0,
    }
}

#[tokio::test]
async fn every_kind_of_answer_has_full_marks() {
    let site = site(&[]).await;
    let asset = Assets::new(&[("site.css", b"body { margin: 0 }")]).url("site.css");
    let cases = [
        ("GET", "/page", 200),
        ("HEAD", "/page", 200),
        ("GET", "/moved", 303),
        ("GET", "/same", 304),
        ("GET", "/nowhere", 404),
        ("POST", "/page", 405),
        ("GET", "/broken", 500),
        ("GET", "/panic", 500),
        ("GET", &asset, 200),
        ("GET", "/up", 200),
        ("GET", "/ready", 200),
    ];
    for (method, path, status) in cases {
        let told = site.ask(PROXY, (method, path), &BY_HTTPS).await;
        assert_eq!(told.status.as_u16(), status, "{path}");
        assert!(
            score(&told) >= 125,
            "{path}: {}: {:?}",
            score(&told),
            told.headers
        );
        for name in ["server", "x-powered-by", "x-aspnet-version"] {
            assert_eq!(told.header(name), "", "{path}");
        }
    }
    let refused = [&BY_HTTPS[..], &[("sec-fetch-site", "cross-site")]].concat();
    let told = site.ask(PROXY, ("POST", "/page"), &refused).await;
    assert_eq!((told.status.as_u16(), score(&told) >= 125), (403, true));
    let other = [("host", "evil.example"), ("x-forwarded-proto", "https")];
    let told = site.ask(PROXY, ("GET", "/page"), &other).await;
    assert_eq!((told.status.as_u16(), score(&told) >= 125), (421, true));
}

#[tokio::test]
async fn only_who_came_by_https_is_told_to_come_by_https() {
    let header = async |site: &Asked, peer: &str, scheme: &str| {
        let said = [("host", "site.example"), ("x-forwarded-proto", scheme)];
        let told = site.ask(peer, ("GET", "/page"), &said).await;
        told.header("strict-transport-security").to_owned()
    };
    let site_ = site(&[]).await;
    assert_eq!(header(&site_, PROXY, "https").await, "max-age=31536000");
    assert_eq!(header(&site_, PROXY, "http").await, "");
    assert_eq!(header(&site_, "203.0.113.7", "https").await, "");
    let off = site(&[("HOUSEBOAT_SERVER__HSTS_S", "0")]).await;
    assert_eq!(header(&off, PROXY, "https").await, "");
    let development = site(&[("HOUSEBOAT_ENV", "development")]).await;
    assert_eq!(header(&development, PROXY, "https").await, "");
}
