//! Many requests on one connection, of which some are stuck and others are not.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::http::Request;
use axum::routing::get;
use futures_util::Stream;
use futures_util::StreamExt;
use houseboat::Context;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::support::raw::Raw;
use crate::support::served::Served;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a stall and until somebody looks.
const LONG: Duration = Duration::from_millis(1_200);
const STALL_MS: (&str, &str) = ("HOUSEBOAT_SERVER__WRITE_TIMEOUT_MS", "300");
const NO_PROXY: (&str, &str) = ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]");

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;

fn routes() -> Router<Context> {
    let events = || {
        let events = futures_util::stream::repeat(()).take(1).then(async |()| {
            tokio::time::sleep(LONG).await;
            Ok::<_, std::io::Error>("tick")
        });
        Body::from_stream(Box::pin(events))
    };
    let late = async || {
        tokio::time::sleep(LONG).await;
        "late"
    };
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/large", get(async || Body::from_stream(large())))
        .route("/late", get(late))
        .route("/events", get(async move || events()))
}

/// A large piece, of which nobody knows that it is the last.
fn large() -> impl Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::iter([Ok(Bytes::from(vec![b'x'; 1 << 20]))])
}

async fn visit(site: &Served) -> SendRequest<Body> {
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(32 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &SendRequest<Body>, path: &str) -> Option<Incoming> {
    let request = Request::get(format!("http://site.test{path}"));
    let request = request.body(Body::empty()).unwrap();
    let answer = sender.clone().send_request(request).await;
    Some(answer.ok()?.into_body())
}

/// Reads a body piece by piece, if it comes whole.
async fn read(mut body: Incoming, pause: Duration) -> Option<usize> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.ok()?.into_data().ok()?.len();
        tokio::time::sleep(pause).await;
    }
    Some(bytes)
}

#[tokio::test]
async fn an_answer_that_the_site_makes_slowly_is_nobodys_delay() {
    let check = async |settings: &[(&str, &str)]| {
        let site = Served::with(routes(), settings).await;
        let sender = visit(&site).await;
        let body = ask(&sender, "/events").await.unwrap();
        assert_eq!(read(body, Duration::ZERO).await, Some(4), "{settings:?}");
        // What was answered long ago is nothing that is not read.
        tokio::time::sleep(LONG).await;
        let body = ask(&sender, "/hello").await.unwrap();
        assert_eq!(read(body, Duration::ZERO).await, Some(5), "{settings:?}");
    };
    tokio::join!(check(&[STALL_MS]), check(&[STALL_MS, NO_PROXY]));
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_the_others_only_where_all_are_one_visitors() {
    let check = async |settings: &[(&str, &str)], path: &str, length: usize| {
        let site = Served::with(routes(), settings).await;
        let sender = visit(&site).await;
        let stuck = ask(&sender, "/large").await.unwrap();
        let other = match ask(&sender, path).await {
            // Piece by piece, for much longer than what is stuck may take.
            Some(body) => read(body, Duration::from_millis(30)).await,
            None => None,
        };
        drop(stuck);
        let is_shared = !settings.contains(&NO_PROXY);
        assert_eq!(other, is_shared.then_some(length), "{path}, {settings:?}");
    };
    tokio::join!(
        check(&[STALL_MS], "/large", 1 << 20),
        check(&[STALL_MS], "/late", 4),
        check(&[STALL_MS, NO_PROXY], "/large", 1 << 20),
        check(&[STALL_MS, NO_PROXY], "/late", 4),
    );
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `:method: GET`, `:scheme: http`, `:path`, `:authority: a`, and that nothing follows.
fn request(stream: u32, path: &str, more: &[u8]) -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    head.extend(path.as_bytes());
    head.extend(b"\x01\x01a");
    head.extend(more);
    frame(HEADERS, 0x05, stream, &head)
}

/// The next frame: its kind and what is in it.
async fn next(visitor: &mut Raw) -> (u8, Vec<u8>) {
    let head = visitor.read_exactly(9).await;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    (head[3], visitor.read_exactly(length as usize).await)
}

async fn begin(site: &Served) -> Raw {
    let mut visitor = Raw::connect(site.address).await;
    visitor.send(PREFACE).await;
    visitor.send(frame(SETTINGS, 0, 0, &[])).await;
    visitor
}

#[tokio::test]
async fn a_connection_has_a_hundred_requests_at_once() {
    let site = Served::start(routes()).await;
    let (kind, settings) = next(&mut begin(&site).await).await;
    assert_eq!(kind, SETTINGS);
    let max = settings.chunks(6).find(|it| it[..2] == [0, 3]);
    assert_eq!(max.unwrap()[2..], [0, 0, 0, 100]);
}

#[tokio::test]
async fn who_takes_requests_back_or_sends_none_that_are_right_is_left() {
    let site = Served::start(routes()).await;
    let taken_back = |stream| {
        let mut frames = request(stream, "/hello", b"");
        frames.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
        frames
    };
    // A header that HTTP/2 does not have.
    let wrong = |stream| request(stream, "/hello", b"\x00\x0aconnection\x01x");
    for (frames, count) in [(&taken_back as &dyn Fn(u32) -> Vec<u8>, 100), (&wrong, 300)] {
        let mut visitor = begin(&site).await;
        let all: Vec<u8> = (0..count).flat_map(|n| frames(2 * n + 1)).collect();
        visitor.send(all).await;
        let reason = loop {
            if let (GO_AWAY, reason) = next(&mut visitor).await {
                break reason;
            }
        };
        // "Calm down".
        assert_eq!(reason[4..8], [0, 0, 0, 11]);
        visitor.rest().await;
    }
}

#[tokio::test]
async fn little_is_made_ready_for_who_does_not_read() {
    let made = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&made);
    let endless = get(async move || {
        Body::from_stream(futures_util::stream::repeat_with(move || {
            counts.fetch_add(16 << 10, SeqCst);
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 << 10]))
        }))
    });
    let site = Served::start(routes().route("/endless", endless)).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut visitor = Raw::over(socket.connect(site.address).await.unwrap());
    // It says that it takes 2 GB, of each answer and of all.
    visitor.send(PREFACE).await;
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    visitor.send(window).await;
    visitor.send(frame(WINDOW, 0, 0, &[0x7f, 0xfe, 0, 0])).await;
    visitor.send(request(1, "/endless", b"")).await;
    let mut before = 0;
    let stands_still = async || {
        let now = made.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let is_over = now > 0 && now == before;
        before = now;
        is_over.then_some(now)
    };
    let made = crate::support::waiting::wait_for("end of it", PATIENCE, stands_still).await;
    assert!(made < 1 << 20, "{made}");
}
