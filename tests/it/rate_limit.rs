//! Who asks too often is told so, and when to come back.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::routing::get;
use houseboat::Context;
use houseboat::http::PageCache;
use houseboat::http::RateLimit;

use crate::support::containers::Container;
use crate::support::raw::Raw;
use crate::support::served::Served;

const MINUTE: Duration = Duration::from_mins(1);

fn route(path: &str) -> Router<Context> {
    Router::new().route(path, get(async || "let in"))
}

#[tokio::test]
async fn one_too_many_is_told_when_to_come_back() {
    let routes = route("/a").merge(route("/b"));
    let site = Served::start(routes.layer(RateLimit::per_address(3, MINUTE))).await;
    for path in ["/a", "/b", "/a"] {
        assert_eq!(site.get(path).await.text(), "let in");
    }
    let refused = site.get("/b").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "20"));
    assert!(
        refused.text().contains("<h1>Too many requests</h1>"),
        "{}",
        refused.text()
    );
    let json = site.ask("GET", "/a", &["accept: application/json"]).await;
    assert_eq!(
        (json.status, json.header("content-type")),
        (429, "application/problem+json")
    );
    assert_eq!(json.header("retry-after"), "20");
    // The time is rounded up, so that who comes back then is let in.
    site.clock.advance(Duration::from_millis(500));
    assert_eq!(site.get("/a").await.header("retry-after"), "20");
    site.clock.advance(Duration::from_millis(19_499));
    assert_eq!(site.get("/a").await.header("retry-after"), "1");
    site.clock.advance(Duration::from_millis(1));
    assert_eq!(site.get("/a").await.status, 200);
    assert_eq!(site.get("/a").await.status, 429);
    site.advance(60);
    for _ in 0..3 {
        assert_eq!(site.get("/a").await.status, 200);
    }
}

#[tokio::test]
async fn layers_count_for_themselves_unless_they_have_one_name() {
    let a = route("/a").layer(RateLimit::per_address(1, MINUTE));
    let b = route("/b").layer(RateLimit::per_address(1, MINUTE));
    let c = route("/c").layer(RateLimit::per_address(1, MINUTE).named("cd"));
    let d = route("/d").layer(RateLimit::per_address(1, MINUTE).named("cd"));
    let site = Served::start(a.merge(b).merge(c).merge(d)).await;
    let mut statuses = Vec::new();
    for path in ["/a", "/b", "/a", "/b", "/c", "/d"] {
        statuses.push(site.get(path).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429, 200, 429]);
}

#[tokio::test]
async fn who_it_is_may_be_said_by_the_site() {
    let user = |request: &Request| {
        let user = request.headers().get("user")?;
        Some(user.to_str().ok()?.to_owned())
    };
    let site = Served::start(route("/a").layer(RateLimit::by(1, MINUTE, user))).await;
    let ask = async |headers: &[&str]| site.ask("GET", "/a", headers).await.status;
    assert_eq!(ask(&["user: a"]).await, 200);
    assert_eq!(ask(&["user: a"]).await, 429);
    assert_eq!(ask(&["user: b"]).await, 200);
    assert_eq!(
        (ask(&[]).await, ask(&[]).await),
        (200, 200),
        "nobody in particular"
    );
}

#[tokio::test]
async fn of_many_at_once_as_many_as_are_allowed_are_let_in() {
    let site = Served::start(route("/a").layer(RateLimit::per_address(20, MINUTE))).await;
    let asked = futures_util::future::join_all((0..100).map(|_| site.get("/a"))).await;
    let let_in = asked.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(let_in, 20);
}

#[tokio::test]
async fn a_limit_around_kept_pages_counts_those_too() {
    let routes = route("/a").layer(PageCache::new(MINUTE));
    let site = Served::start(routes.layer(RateLimit::per_address(2, MINUTE))).await;
    assert_eq!(site.get("/a").await.header("age"), "");
    assert_eq!(site.get("/a").await.header("age"), "0");
    assert_eq!(site.get("/a").await.status, 429);
    // And a refusal is not what is kept.
    site.advance(30);
    assert_eq!(site.get("/a").await.text(), "let in");
}

#[tokio::test]
async fn a_request_that_another_container_passes_on_is_its_visitors() {
    let address = async |ConnectInfo(address): ConnectInfo<SocketAddr>| address.to_string();
    let (a, b) = (Container::start().await, Container::start().await);
    b.front.serve(Router::new().route("/address", get(address)));
    a.front.pass(b.peer());
    for container in [&a, &b] {
        let stream = tokio::net::TcpStream::connect(container.visitors)
            .await
            .unwrap();
        let own = stream.local_addr().unwrap();
        let mut visitor = Raw::over(stream);
        let spoofed = ["houseboat-address: 192.0.2.1:1"];
        visitor.ask("GET", "/address", &spoofed).await;
        assert_eq!(visitor.answer().await.text(), own.to_string());
    }
}
