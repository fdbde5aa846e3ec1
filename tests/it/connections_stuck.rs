//! Connections whose requests are in hand, and whose clients do nothing for them.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::http::Request;
use axum::routing::get;
use axum::routing::post;
use futures_util::Stream;
use houseboat::Context;
use http_body_util::BodyExt;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::support::raw::Raw;
use crate::support::served::Served;

const PATIENCE: Duration = Duration::from_secs(20);

/// HTTP/2's first words, and settings that open a window of no byte for any answer.
const NO_WINDOW: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00";

fn routes() -> Router<Context> {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/large", get(async || vec![b'x'; 1 << 20]))
        .route("/whole", get(async || Body::from_stream(whole())))
        .route("/echo", post(async |body: Bytes| body))
}

/// A large piece, of which nobody knows that it is the last.
fn whole() -> impl Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::iter([Ok(Bytes::from(vec![b'x'; 1 << 20]))])
}

/// A request for `path` over HTTP/2 as the first of a connection: `:method`, `:scheme`, `:path`, `:authority`.
fn ask(method: &str, path: &str, has_body: bool) -> Vec<u8> {
    let mut head = vec![if method == "GET" { 0x82 } else { 0x83 }, 0x86];
    for (name, value) in [(0x04, path), (0x01, "a")] {
        head.extend([name, u8::try_from(value.len()).unwrap()]);
        head.extend(value.as_bytes());
    }
    let length = u8::try_from(head.len()).unwrap();
    let flags = if has_body { 0x04 } else { 0x05 };
    let mut frame = vec![0, 0, length, 0x01, flags, 0, 0, 0, 1];
    frame.extend(head);
    frame
}

async fn stuck(site: &Served, path: &str) -> Raw {
    let mut visitor = Raw::connect(site.address).await;
    visitor.send(NO_WINDOW).await;
    visitor.send(ask("GET", path, false)).await;
    visitor
}

#[tokio::test]
async fn an_answer_that_http_2_has_no_window_for_is_not_waited_for() {
    let proxies = ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]");
    let time = ("HOUSEBOAT_SERVER__WRITE_TIMEOUT_MS", "500");
    for settings in [vec![time, proxies], vec![time]] {
        let site = Served::with(routes(), &settings).await;
        for path in ["/hello", "/large"] {
            let rest = stuck(&site, path).await.rest().await;
            // Its settings, that it has seen ours, and the head of the answer.
            assert!(rest.len() > 9 + 9 + 9, "{path}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_read_piece_by_piece_is_waited_for() {
    let time = ("HOUSEBOAT_SERVER__WRITE_TIMEOUT_MS", "1000");
    let proxies = ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]");
    let site = Served::with(routes(), &[time, proxies]).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(32 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://site.test/whole");
    let answer = sender.send_request(request.body(Body::empty()).unwrap());
    let mut body = answer.await.unwrap().into_body();
    let mut bytes = 0;
    // For longer than the site waits for a piece.
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(bytes, 1 << 20);
}

#[tokio::test]
async fn answers_without_a_window_make_room_for_a_visitor() {
    let site = Served::with(routes(), &[("HOUSEBOAT_SERVER__CONNECTIONS_MAX", "2")]).await;
    let mut stuck = [stuck(&site, "/hello").await, stuck(&site, "/large").await];
    let answered = async || {
        let mut visitor = Raw::connect(site.address).await;
        visitor.try_get("/hello").await.map(|_| ())
    };
    crate::support::waiting::wait_for("an answer", PATIENCE, answered).await;
    stuck[0].rest().await;
}

#[tokio::test]
async fn bodies_that_are_waited_for_make_room_however_they_are_sent() {
    let mut over_http2 = NO_WINDOW.to_vec();
    over_http2.extend(ask("POST", "/echo", true));
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n";
    let beginnings = [
        format!("{head}\r\n").into_bytes(),
        format!("{head}upgrade: x\r\n\r\n").into_bytes(),
        over_http2,
    ];
    for beginning in beginnings {
        let site = Served::with(routes(), &[("HOUSEBOAT_SERVER__CONNECTIONS_MAX", "3")]).await;
        let mut slow = Vec::new();
        for _ in 0..3 {
            let mut one = Raw::connect(site.address).await;
            one.send(&beginning).await;
            slow.push(one);
        }
        // They may not have been looked at.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut visitor = Raw::connect(site.address).await;
        let answer = visitor.try_get("/hello").await;
        let answer = answer.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&beginning)));
        assert_eq!(answer.status, 200);
        drop(slow);
    }
}

#[tokio::test]
async fn heads_go_before_bodies_and_bodies_that_go_on_last() {
    let site = Served::with(routes(), &[("HOUSEBOAT_SERVER__CONNECTIONS_MAX", "3")]).await;
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10000\r\n\r\n";
    let pause = || tokio::time::sleep(Duration::from_millis(100));
    let mut honest = Raw::connect(site.address).await;
    honest.send(post).await;
    honest.send([b'x'; 4000]).await;
    pause().await;
    let mut drips = Raw::connect(site.address).await;
    drips.send(post).await;
    pause().await;
    let mut half = Raw::connect(site.address).await;
    half.send("GET /hello HTTP/1.1\r\n").await;
    honest.send([b'x'; 4000]).await;
    drips.send("x").await;
    pause().await;
    let mut one = Raw::connect(site.address).await;
    one.send(post).await;
    assert!(half.rest().await.is_empty());
    pause().await;
    honest.send([b'x'; 1500]).await;
    // A byte now and then is no going on.
    drips.send("x").await;
    pause().await;
    let mut other = Raw::connect(site.address).await;
    other.send("GET /hello HTTP/1.1\r\n").await;
    assert!(drips.rest().await.is_empty());
    honest.send([b'x'; 500]).await;
    assert_eq!(honest.answer().await.body.len(), 10_000);
}

#[tokio::test]
async fn the_time_of_a_request_does_not_count_while_its_body_comes() {
    let slow = post(async |body: Bytes| {
        if body.len() == 3 {
            tokio::time::sleep(PATIENCE).await;
        }
        body
    });
    let time = ("HOUSEBOAT_SERVER__REQUEST_TIMEOUT_MS", "700");
    // Nor does a body stall that comes for longer than this.
    let stall = ("HOUSEBOAT_SERVER__BODY_TIMEOUT_MS", "1500");
    let site = Served::with(routes().route("/slow", slow), &[time, stall]).await;
    let head = "POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length:";
    let mut visitor = Raw::connect(site.address).await;
    visitor.send(format!("{head} 8\r\n\r\n")).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        visitor.send("x").await;
    }
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "xxxxxxxx"));
    // What the handler does then has its time, and no more.
    let mut visitor = Raw::connect(site.address).await;
    visitor.send(format!("{head} 3\r\n\r\n")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    visitor.send("xxx").await;
    assert_eq!(visitor.answer().await.status, 503);
}
