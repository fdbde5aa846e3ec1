//! One connection: what it may ask, and what it may cost.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::Version;
use axum::routing::get;
use axum::routing::post;
use houseboat::Context;
use http_body_util::BodyExt;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::raw::Raw;
use crate::support::served::Served;

const SOON: Duration = Duration::from_secs(5);

/// A body that comes slowly is let come for longer than this.
const GRACE: Duration = Duration::from_secs(4);

fn routes() -> Router<Context> {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/echo", post(async |body: Bytes| body))
        .route("/unread", post(async || "not read"))
}

#[tokio::test]
async fn requests_follow_one_another_on_one_connection() {
    let site = Served::start(routes()).await;
    let mut visitor = Raw::connect(site.address).await;
    for _ in 0..3 {
        assert_eq!(visitor.get("/hello").await.text(), "hello");
    }
    // And all at once, with and without bodies, answered in their order.
    visitor
        .send(
            "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n\
             POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none\
             POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
             GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
    for expected in ["hello", "one", "two"] {
        assert_eq!(visitor.answer().await.text(), expected);
    }
    assert_eq!(visitor.answer().await.status, 404);
    assert!(visitor.rest().await.is_empty());
}

#[tokio::test]
async fn methods_that_a_route_does_not_know_are_told_those_it_does() {
    let site = Served::start(routes()).await;
    let head = site.ask("HEAD", "/hello", &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    for method in ["OPTIONS", "PUT", "DELETE", "BREW"] {
        let answer = site
            .ask(method, "/hello", &["sec-fetch-site: same-origin"])
            .await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET,HEAD"),
            "{method}"
        );
    }
    let mut visitor = Raw::connect(site.address).await;
    visitor.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 404);
    visitor
        .send("CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\n\r\n")
        .await;
    let answer = visitor.answer().await;
    assert!(answer.status >= 400, "{}", answer.status);
    assert!(visitor.rest().await.is_empty());
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_answer_arrives() {
    let site = Served::start(routes()).await;
    let line = |length: usize| format!("x: {}", "y".repeat(length));
    let long_path = format!("/{}", "p".repeat(8 << 10));
    let many: Vec<String> = (0..101).map(|n| format!("x-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases: [(&str, Vec<&str>, u16); 4] = [
        (&long_path, vec![], 414),
        ("/hello", vec![&line(40 << 10).leak()[..]], 431),
        ("/hello", many, 431),
        ("/hello", vec![&line(20 << 10).leak()[..]], 200),
    ];
    for (path, headers, status) in cases {
        let mut visitor = Raw::connect(site.address).await;
        visitor.ask("GET", path, &headers).await;
        let answer = visitor.answer().await;
        assert_eq!(answer.status, status);
        if status != 200 {
            assert_eq!(answer.header("connection"), "close");
            assert!(visitor.rest().await.is_empty());
        }
    }
    // A body that is still on its way when the answer is there: who closes at once cuts the answer off.
    for _ in 0..10 {
        let mut visitor = Raw::connect(site.address).await;
        let mut request =
            b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n".to_vec();
        request.resize(request.len() + 800_000, b'x');
        assert_eq!(visitor.exchange(&request).await.status, 413);
    }
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_not_waited_for() {
    let settings = [("HOUSEBOAT_SERVER__HEADER_TIMEOUT_MS", "300")];
    let site = Served::with(routes(), &settings).await;
    let began = Instant::now();
    for begun in ["", "GET /hello HT", "GET /hello HTTP/1.1\r\nhost: a\r\nx: "] {
        let mut visitor = Raw::connect(site.address).await;
        visitor.send(begun).await;
        assert!(visitor.rest().await.is_empty());
    }
    // The second request of a connection has as long, and no more.
    let mut visitor = Raw::connect(site.address).await;
    assert_eq!(visitor.get("/hello").await.status, 200);
    visitor.send("GET /hello HTTP/1.1\r\n").await;
    assert!(visitor.rest().await.is_empty());
    assert!(began.elapsed() < 4 * SOON);
    // Who sends nothing after a request is idle, which has a time of its own.
    let mut idle = Raw::connect(site.address).await;
    assert_eq!(idle.get("/hello").await.status, 200);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(idle.get("/hello").await.status, 200);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered_with_408() {
    let settings = [("HOUSEBOAT_SERVER__BODY_TIMEOUT_MS", "300")];
    let site = Served::with(routes(), &settings).await;
    for begun in [
        "content-length: 100\r\n\r\nabc",
        "content-length: 100\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nab",
        "transfer-encoding: chunked\r\n\r\n",
    ] {
        let began = Instant::now();
        let mut visitor = Raw::connect(site.address).await;
        visitor
            .send(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{begun}"))
            .await;
        let answer = visitor.answer().await;
        // Nor for as long as one may be slow that comes.
        assert!(began.elapsed() < GRACE, "{begun}: {:?}", began.elapsed());
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, "close"),
            "{begun}"
        );
        assert!(answer.text().contains("too slowly"), "{}", answer.text());
        assert!(visitor.rest().await.is_empty());
    }
    // One that nobody waits for is not slow.
    let mut visitor = Raw::connect(site.address).await;
    visitor
        .send("POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        .await;
    assert_eq!(visitor.answer().await.text(), "not read");
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_unless_it_is_a_proxys() {
    let idle = ("HOUSEBOAT_SERVER__IDLE_TIMEOUT_MS", "300");
    let site = Served::with(
        routes(),
        &[idle, ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]")],
    )
    .await;
    let mut visitor = Raw::connect(site.address).await;
    assert_eq!(visitor.get("/hello").await.status, 200);
    assert!(visitor.rest().await.is_empty());
    let site = Served::with(routes(), &[idle]).await;
    let mut proxy = Raw::connect(site.address).await;
    assert_eq!(proxy.get("/hello").await.status, 200);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(proxy.get("/hello").await.status, 200);
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_not_waited_for() {
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    let endless = get(async move || {
        let guard = Told(Arc::clone(&told));
        let chunks = futures_util::stream::repeat_with(move || {
            let _ = &guard;
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 << 10]))
        });
        Body::from_stream(chunks)
    });
    let settings = [("HOUSEBOAT_SERVER__WRITE_TIMEOUT_MS", "500")];
    let site = Served::with(Router::new().route("/endless", endless), &settings).await;
    let mut visitor = Raw::connect(site.address).await;
    visitor.ask("GET", "/endless", &[]).await;
    assert_eq!(visitor.head().await.status, 200);
    // Who reads may go on.
    for _ in 0..15 {
        visitor.read_exactly(1 << 20).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::timeout(4 * SOON, dropped.notified())
        .await
        .unwrap();
}

struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn http_2_is_spoken_with_who_begins_with_it() {
    let who = get(
        async |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>,
               request: axum::extract::Request| {
            let cookies = request.headers().get_all("cookie").iter().count();
            let cookie = request.headers()["cookie"].to_str().unwrap().to_owned();
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            format!(
                "{:?} {} {host} {cookies} {cookie}",
                request.version(),
                peer.ip()
            )
        },
    );
    let site = Served::start(routes().route("/who", who)).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://site.test/who")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Body::empty())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "HTTP/2.0 127.0.0.1 site.test 1 a=1; b=2");
    // Many at once, on the one connection.
    let asked = (0..200).map(|n| {
        let body = Body::from(n.to_string());
        let mut request = Request::post("http://site.test/echo").body(body).unwrap();
        *request.version_mut() = Version::HTTP_2;
        let answer = sender.send_request(request);
        async move {
            let body = answer.await.unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), n.to_string());
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_hand_and_nothing_else() {
    let go = Arc::new(Notify::new());
    let (begun, waits) = (Arc::new(Notify::new()), Arc::clone(&go));
    let told = Arc::clone(&begun);
    let slow = get(async move || {
        told.notify_one();
        waits.notified().await;
        "done"
    });
    let router = Router::new()
        .route("/slow", slow)
        .route("/hello", get(async || "hello"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let settings = houseboat::http::Settings::default();
    let served = tokio::spawn(async move {
        houseboat::http::serve(listener, router, &settings, token).await;
    });
    let mut busy = Raw::connect(address).await;
    busy.ask("GET", "/slow", &[]).await;
    begun.notified().await;
    let mut idle = Raw::connect(address).await;
    assert_eq!(idle.get("/hello").await.status, 200);
    let mut silent = Raw::connect(address).await;
    let mut half = Raw::connect(address).await;
    half.send("GET /hello HTTP/1.1\r\nhost:").await;
    let mut preface = Raw::connect(address).await;
    preface.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // It says its settings, so it is known to be HTTP/2.
    preface.read_exactly(9).await;

    let stopped = Instant::now();
    stop.cancel();
    for open in [&mut idle, &mut silent, &mut half] {
        assert!(open.rest().await.is_empty());
    }
    preface.rest().await;
    assert!(stopped.elapsed() < SOON, "{:?}", stopped.elapsed());
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!served.is_finished());
    go.notify_one();
    assert_eq!(busy.answer().await.text(), "done");
    tokio::time::timeout(SOON, served).await.unwrap().unwrap();
}
