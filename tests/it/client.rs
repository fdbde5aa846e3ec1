//! Who asks, by which name, and from where a write may come.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use axum::routing::post;
use houseboat::Context;
use houseboat::http::Client;
use houseboat::http::RateLimit;
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::support::asked::Asked;
use crate::support::containers::Container;

const PRODUCTION: (&str, &str) = ("HOUSEBOAT_ENV", "production");
const URL: (&str, &str) = ("APP_URL", "https://site.example");
const VISITOR: &str = "203.0.113.7";
const PROXY: &str = "10.0.0.1";

/// Names and values, of variables or headers.
type Lines<'a> = &'a [(&'a str, &'a str)];

fn routes() -> Router<Context> {
    let who = get(async |client: Client, request: Request| {
        let host = request.headers().get("host");
        let host = host.map_or("-", |host| host.to_str().unwrap()).to_owned();
        let Client {
            address, is_https, ..
        } = &client;
        format!(
            "{address} {is_https} {} {host} {}",
            client.host,
            request.uri()
        )
    });
    Router::new().route("/who", who).route(
        "/limited",
        get(async || "let in").layer(RateLimit::per_address(1, Duration::from_mins(1))),
    )
}

#[tokio::test]
async fn a_proxy_is_believed_and_nobody_else() {
    let site = Asked::new(routes(), &[]).await;
    let said = [
        ("host", "Inside:8000"),
        ("x-forwarded-for", "198.51.100.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "Site.Example:443"),
    ];
    let who = site.ask(PROXY, ("GET", "/who"), &said).await.text;
    assert_eq!(who, "198.51.100.9 true site.example site.example /who");
    let who = site.ask(VISITOR, ("GET", "/who"), &said).await.text;
    assert_eq!(who, "203.0.113.7 false inside:8000 inside:8000 /who");
    // Absolute, as HTTP/2 has it.
    let who = site
        .ask(VISITOR, ("GET", "http://a.example/who?x"), &[])
        .await
        .text;
    assert_eq!(who, "203.0.113.7 false a.example a.example /who?x");
    let named = [("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[\"203.0.113.0/24\"]")];
    let site = Asked::new(routes(), &named).await;
    let who = site.ask(VISITOR, ("GET", "/who"), &said).await.text;
    assert!(who.starts_with("198.51.100.9 true"), "{who}");
    let who = site.ask(PROXY, ("GET", "/who"), &said).await.text;
    assert!(who.starts_with("10.0.0.1 false"), "{who}");
}

#[tokio::test]
async fn a_limit_counts_visitors_and_not_their_proxy() {
    let site = Asked::new(routes(), &[]).await;
    let ask = async |address: &str| {
        let said = [("host", "a"), ("x-forwarded-for", address)];
        site.ask(PROXY, ("GET", "/limited"), &said)
            .await
            .status
            .as_u16()
    };
    assert_eq!(
        (ask("198.51.100.1").await, ask("198.51.100.2").await),
        (200, 200)
    );
    assert_eq!(ask("198.51.100.1").await, 429);
    // What a visitor makes up before what the proxy adds is nobody's.
    assert_eq!(ask("192.0.2.1, 198.51.100.1").await, 429);
}

#[tokio::test]
async fn another_sites_host_is_421_in_production() {
    let site = Asked::new(routes(), &[PRODUCTION, URL]).await;
    let by = async |lines: &[(&str, &str)], uri: &str| {
        site.ask(VISITOR, ("GET", uri), lines).await.status.as_u16()
    };
    let cases = [
        ("site.example", 200),
        ("SITE.example.", 200),
        ("site.example:8443", 200),
        ("evil.example", 421),
        ("www.site.example", 421),
        ("site.example.evil.example", 421),
        ("203.0.113.1", 421),
        ("[::1]", 421),
        ("localhost", 421),
        ("site.example@evil.example", 400),
        ("evil.example/site.example", 400),
        ("site.example, evil.example", 400),
        ("", 400),
    ];
    for (host, status) in cases {
        assert_eq!(by(&[("host", host)], "/who").await, status, "{host}");
        let expected = if status == 400 { 400 } else { status };
        if !host.is_empty() && status != 400 {
            let uri = format!("http://{host}/who");
            assert_eq!(by(&[], &uri).await, expected, "{uri}");
        }
    }
    assert_eq!(by(&[], "/who").await, 421);
    let two = [("host", "site.example"), ("host", "site.example")];
    assert_eq!(by(&two, "/who").await, 400);
    let differing = [("host", "evil.example")];
    assert_eq!(by(&differing, "http://site.example/who").await, 400);
    for path in ["/up", "/ready"] {
        assert_eq!(by(&[("host", "10.1.2.3:8000")], path).await, 200);
    }
    // What a visitor says of itself is no host; what a proxy says is.
    let forged = [
        ("host", "evil.example"),
        ("x-forwarded-host", "site.example"),
    ];
    assert_eq!(by(&forged, "/who").await, 421);
    let told = site.ask(PROXY, ("GET", "/who"), &forged).await;
    assert_eq!(told.status.as_u16(), 200);
    let forged = [
        ("host", "site.example"),
        ("x-forwarded-host", "evil.example"),
    ];
    let told = site.ask(PROXY, ("GET", "/who"), &forged).await;
    assert_eq!(
        (told.status.as_u16(), told.header("connection")),
        (421, "close")
    );
    assert!(
        told.text.contains("This site has another name"),
        "{}",
        told.text
    );
    assert!(!told.text.contains("evil.example"), "{}", told.text);
}

#[tokio::test]
async fn every_name_that_is_set_is_the_sites() {
    let hosts = (
        "HOUSEBOAT_SERVER__HOSTS",
        "[\"*.example.org\", \"other.example\"]",
    );
    let coolify = (
        "COOLIFY_URL",
        "https://one.example,https://two.example:8443/",
    );
    let cases: [(Lines<'_>, &[&str], &[&str]); 5] = [
        (
            &[PRODUCTION, URL, hosts],
            &["site.example", "a.example.org", "other.example"],
            &["example.org", "x.example"],
        ),
        (
            &[PRODUCTION, URL, coolify],
            &["site.example", "one.example", "two.example"],
            &["three.example"],
        ),
        (
            &[PRODUCTION, coolify],
            &["one.example", "two.example"],
            &["three.example"],
        ),
        (&[PRODUCTION], &["anything.example"], &[]),
        (&[URL], &["anything.example"], &[]),
    ];
    for (settings, own, others) in cases {
        let site = Asked::new(routes(), settings).await;
        for (hosts, status) in [(own, 200), (others, 421)] {
            for host in hosts {
                let told = site.ask(VISITOR, ("GET", "/who"), &[("host", host)]).await;
                assert_eq!(told.status.as_u16(), status, "{settings:?} {host}");
            }
        }
    }
}

const COOKIE: (&str, &str) = ("cookie", "session=1");

/// What a write comes with, and its answer.
fn writes() -> [(Lines<'static>, u16); 19] {
    [
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[("sec-fetch-site", "none"), COOKIE], 200),
        (&[("sec-fetch-site", "same-site")], 403),
        (
            &[
                ("sec-fetch-site", "same-site"),
                ("origin", "https://www.site.example"),
                COOKIE,
            ],
            403,
        ),
        (&[("sec-fetch-site", "cross-site")], 403),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://site.example"),
            ],
            403,
        ),
        (&[("sec-fetch-site", "Same-Origin")], 403),
        (&[("sec-fetch-site", "same-origin, cross-site")], 403),
        (&[("origin", "https://site.example")], 200),
        (&[("origin", "https://site.example"), COOKIE], 200),
        (&[("origin", "https://evil.example"), COOKIE], 403),
        (&[("origin", "https://www.site.example")], 403),
        (&[("origin", "https://site.example.evil.example")], 403),
        (&[("origin", "https://site.example:8443")], 403),
        (&[("origin", "null"), COOKIE], 403),
        (&[("origin", "site.example")], 403),
        // Neither: no browser, so nobody's cookies but its own.
        (&[], 200),
        (&[COOKIE], 200),
    ]
}

#[tokio::test]
async fn a_write_comes_from_the_sites_own_pages() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let write = post(async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        "written"
    });
    let routes = Router::new().route("/write", write.get(async || "read"));
    let site = Asked::new(routes, &[PRODUCTION, URL]).await;
    for (headers, status) in writes() {
        // By the proxy, which asks by another name.
        let by_proxy = [
            ("host", "10.0.0.9:8000"),
            ("x-forwarded-host", "site.example"),
            ("x-forwarded-proto", "https"),
        ];
        for (peer, own) in [
            (VISITOR, &[("host", "site.example")][..]),
            (PROXY, &by_proxy),
        ] {
            let all = [own, headers].concat();
            for method in ["POST", "PUT", "PATCH", "DELETE", "FROBNICATE"] {
                let before = written.load(Ordering::SeqCst);
                let told = site.ask(peer, (method, "/write"), &all).await;
                let expected = if status == 200 && method != "POST" {
                    405
                } else {
                    status
                };
                assert_eq!(
                    told.status.as_u16(),
                    expected,
                    "{method} {headers:?} {peer}"
                );
                let is_written = written.load(Ordering::SeqCst) > before;
                assert_eq!(is_written, expected == 200, "{method} {headers:?}");
            }
            let told = site.ask(peer, ("GET", "/write"), &all).await;
            assert_eq!(told.text, "read");
        }
    }
    // Who says by itself by which name it asks is not believed.
    let forged = [
        ("host", "site.example"),
        ("x-forwarded-host", "evil.example"),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(
        site.ask(VISITOR, ("POST", "/write"), &forged)
            .await
            .status
            .as_u16(),
        403
    );
}

#[tokio::test]
async fn the_client_is_the_same_where_another_container_passes_it_on() {
    let site = Asked::new(routes(), &[]).await;
    let (a, b) = (Container::start().await, Container::start().await);
    b.front.serve(site.router());
    a.front.pass(b.peer());
    let said = [
        "x-forwarded-for: 203.0.113.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: site.example",
        "connection: x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded",
    ];
    for container in [&a, &b] {
        let mut proxy = container.visit().await;
        proxy.ask("GET", "/who", &said).await;
        let who = proxy.answer().await.text();
        assert_eq!(who, "203.0.113.7 true site.example site.example /who");
        // HTTP/2 names the host in its address.
        let stream = TcpStream::connect(container.visitors).await.unwrap();
        let spoken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = spoken.unwrap();
        tokio::spawn(connection);
        let request = axum::http::Request::get("http://two.example/who");
        let answer = sender
            .send_request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let who = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(who, "127.0.0.1 false two.example two.example /who");
    }
}
