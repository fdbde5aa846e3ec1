//! Requests that two servers may read in two ways.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::any;
use http_body_util::BodyExt;
use http_body_util::Collected;

use crate::support::raw::Raw;
use crate::support::served::Served;

/// The request that must never be seen.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// A site that notes the path of each request it sees, and its body.
async fn site() -> (Served, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let note = any(async move |request: Request| {
        let path = request.uri().path().to_owned();
        notes.lock().unwrap().push(path);
        let body = request.into_body().collect().await;
        body.map(Collected::to_bytes)
            .map_err(|_| StatusCode::BAD_REQUEST)
    });
    let routes = Router::new()
        .route("/{*path}", note.clone())
        .route("/", note);
    (Served::start(routes).await, seen)
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_400_and_the_end() {
    let (site, seen) = site().await;
    let post = "POST /a HTTP/1.1\r\nhost: a\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let length = SMUGGLED.len();
    let refused = [
        // A length and chunks: one server goes by the one, the next by the other.
        format!("{post}content-length: 4\r\n{chunked}\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}content-length: 4\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length: 0\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length: {length}\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length: 0, {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length: +0\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length: -1\r\n\r\n{SMUGGLED}"),
        // Lines that end too early, or not at all.
        format!("GET /a HTTP/1.1\nhost: a\n\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a\r\nx: y\nz: w\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a\r\nx: y\rz: w\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n{SMUGGLED}"),
        // Names that some take for others.
        format!("{post}content-length : {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}content-length\t: {length}\r\n\r\n{SMUGGLED}"),
        format!("{post} content-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}x: y\r\n content-length: {length}\r\n\r\n{SMUGGLED}"),
        format!("{post}x: y\r\n\tfolded\r\n\r\n{SMUGGLED}"),
        format!("{post}no colon\r\n\r\n{SMUGGLED}"),
        // Codings that are none, or not the last.
        format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}{chunked}\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("POST /a HTTP/1.0\r\nhost: a\r\n{chunked}\r\n0\r\n\r\n{SMUGGLED}"),
        // Chunks that are none.
        format!("{post}{chunked}\r\n0x0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}\r\n-0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}\r\n1\r\nab\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}\r\n1\nab\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}\r\n0;a=\nb\r\n\r\n{SMUGGLED}"),
        format!("{post}{chunked}\r\nfffffffffffffffff\r\n\r\n{SMUGGLED}"),
        // Hosts.
        format!("GET /a HTTP/1.1\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a, b\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: user@a\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1\r\nhost: a/b\r\n\r\n{SMUGGLED}"),
        format!("GET http://b/a HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"),
        format!("GET http://user@a/a HTTP/1.1\r\nhost: user@a\r\n\r\n{SMUGGLED}"),
        // Request lines.
        format!("GET /a b HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"),
        format!("GET  /a HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/1.1 \r\nhost: a\r\n\r\n{SMUGGLED}"),
        format!("GET /a HTTP/3.0\r\nhost: a\r\n\r\n{SMUGGLED}"),
        format!("GET /a\r\n\r\n{SMUGGLED}"),
        format!("G@T /a HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"),
    ];
    for request in &refused {
        for pieces in [1, 2, 7] {
            let mut visitor = Raw::connect(site.address).await;
            let bytes = request.as_bytes();
            for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                visitor.send(piece).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let answer = visitor.answer().await;
            assert_eq!(answer.status, 400, "{request:?}");
            let rest = visitor.rest().await;
            assert!(
                rest.is_empty(),
                "{request:?}: {}",
                String::from_utf8_lossy(&rest)
            );
        }
    }
    let seen = seen.lock().unwrap();
    assert!(!seen.contains(&"/smuggled".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn what_can_be_read_in_one_way_only_is_answered() {
    let (site, seen) = site().await;
    let taken = [
        "GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHOST:a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a:8080\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n",
        "GET http://a/a HTTP/1.1\r\nhost: A\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length:  3 \r\n\r\nabc",
        "POST /a HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n003;x=\"y\"\r\nabc\r\n0\r\nt: 1\r\n\r\n",
    ];
    let mut visitor = Raw::connect(site.address).await;
    for request in taken {
        visitor.send(request).await;
        assert_eq!(visitor.answer().await.status, 200, "{request:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), taken.len());
    visitor.send("GET /a HTTP/1.0\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 200);
    assert!(visitor.rest().await.is_empty());
}

#[tokio::test]
async fn after_an_upgrade_that_nobody_agreed_to_the_connection_ends() {
    let (site, seen) = site().await;
    let mut visitor = Raw::connect(site.address).await;
    let request = "POST /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\
                   content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n";
    visitor.send(request).await;
    assert_eq!(visitor.answer().await.status, 400);
    let mut visitor = Raw::connect(site.address).await;
    let request = "GET /b HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    visitor.send(format!("{request}{SMUGGLED}")).await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert!(visitor.rest().await.is_empty());
    assert_eq!(*seen.lock().unwrap(), ["/b"]);
}
