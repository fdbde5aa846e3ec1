//! Requests that are passed on to another container: both ways, untouched, and what happens when it breaks.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;
use houseboat::http::HandoverSettings;
use houseboat::http::Peer;
use houseboat::http::Role;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::support::containers::Container;
use crate::support::containers::site;
use crate::support::fake::Act;
use crate::support::fake::Fake;
use crate::support::waiting::wait_for;

const LENGTH: usize = 10 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A container that passes on, and the one that serves.
async fn pair(router: Router) -> (Container, Container) {
    let (a, b) = (Container::start().await, Container::start().await);
    b.front.serve(router);
    a.front.pass(b.peer());
    (a, b)
}

#[tokio::test]
async fn ten_megabytes_go_both_ways() {
    let (a, _b) = pair(site("b")).await;
    let mut visitor = a.visit().await;
    let body: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();

    let mut request =
        format!("POST /echo HTTP/1.1\r\nhost: s\r\ncontent-length: {LENGTH}\r\n\r\n").into_bytes();
    request.extend_from_slice(&body);
    assert!(visitor.exchange(&request).await.body == body);

    let mut request =
        b"POST /echo HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(10_000) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = visitor.exchange(&request).await;
    assert_eq!(answer.header("transfer-encoding"), "chunked");
    assert!(answer.body == body);
}

#[tokio::test]
async fn headers_that_go_to_the_end_do_and_others_do_not() {
    let (a, b) = pair(site("b")).await;
    let spoofed = [
        "cookie: a=1",
        "accept-encoding: br",
        "x-forwarded-for: 1.2.3.4",
        "x-many: one",
        "x-many: two",
        "connection: keep-alive, X-Mine",
        "x-mine: 1",
        "keep-alive: timeout=5",
        "te: trailers",
        "houseboat-hops: 99",
        "houseboat-key: guess",
        "houseboat-control: knock",
        "houseboat-else: 1",
    ];
    for container in [&a, &b] {
        let mut visitor = container.visit().await;
        visitor.ask("GET", "/headers?q=%20x", &spoofed).await;
        let answer = visitor.answer().await;
        let mut seen: Vec<String> = answer.text().lines().map(str::to_owned).collect();
        seen.sort();
        let mut expected = vec![
            "accept-encoding: br",
            "cookie: a=1",
            "host: site.test",
            "x-forwarded-for: 1.2.3.4",
            "x-many: one",
            "x-many: two",
        ];
        if container.visitors == b.visitors {
            // What is of the connection stays in the hands of who serves it.
            expected.extend([
                "connection: keep-alive, X-Mine",
                "keep-alive: timeout=5",
                "te: trailers",
                "x-mine: 1",
            ]);
            expected.sort_unstable();
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn an_answer_comes_as_it_was_made() {
    let answer = async |request: Request| -> Response {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let headers = [
            ("x-request-id", "its-own"),
            ("etag", "\"1\""),
            ("keep-alive", "timeout=9"),
            ("set-cookie", "a=1"),
        ];
        (StatusCode::IM_A_TEAPOT, headers, query).into_response()
    };
    let router = Router::new()
        .route("/tea", any(answer))
        .route("/same", get(async || StatusCode::NOT_MODIFIED));
    let (a, _b) = pair(router).await;
    let mut visitor = a.visit().await;
    let answer = visitor.get("/tea?a=1&b=%2F").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "a=1&b=%2F"));
    let names: Vec<&str> = answer
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "content-length",
            "content-type",
            "date",
            "etag",
            "set-cookie",
            "x-request-id"
        ]
    );

    visitor.ask("HEAD", "/tea?12345", &[]).await;
    let answer = visitor.head().await;
    assert_eq!((answer.status, answer.header("content-length")), (418, "5"));
    assert_eq!(visitor.get("/same").await.status, 304);
    assert_eq!(visitor.get("/nothing").await.status, 404);
    visitor.ask("OPTIONS", "*", &[]).await;
    assert_eq!(visitor.answer().await.status, 404);
    visitor.ask("CONNECT", "other.test:443", &[]).await;
    assert_eq!(visitor.answer().await.status, 405);
}

#[tokio::test]
async fn an_upgraded_connection_goes_through() {
    let upgrade = async |mut request: Request| -> Response {
        let visitor = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(visitor.await.unwrap());
            let (mut reads, mut writes) = tokio::io::split(stream);
            tokio::io::copy(&mut reads, &mut writes).await
        });
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", "echo"),
            ("x-agreed", "yes"),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    };
    let (a, b) = pair(Router::new().route("/socket", get(upgrade))).await;
    for container in [&a, &b] {
        let mut visitor = container.visit().await;
        visitor
            .ask("GET", "/socket", &["connection: Upgrade", "upgrade: echo"])
            .await;
        let answer = visitor.head().await;
        assert_eq!((answer.status, answer.header("upgrade")), (101, "echo"));
        assert_eq!(answer.header("connection"), "upgrade");
        assert_eq!(answer.header("x-agreed"), "yes");
        for text in ["hello", "world"] {
            visitor.send(text).await;
            assert_eq!(visitor.read_exactly(5).await, text.as_bytes());
        }
    }
    // What never ends by itself ends with the container.
    let mut visitor = a.visit().await;
    visitor
        .ask("GET", "/socket", &["connection: Upgrade", "upgrade: echo"])
        .await;
    assert_eq!(visitor.head().await.status, 101);
    a.shut().await;
    assert!(visitor.rest().await.is_empty());
}

#[tokio::test]
async fn a_request_that_goes_in_circles_waits_for_who_serves_and_no_longer_than_others() {
    let settings = HandoverSettings {
        hold_ms: 300,
        ..HandoverSettings::default()
    };
    let (a, b) = (
        Container::with(&settings).await,
        Container::with(&settings).await,
    );
    a.front.pass(b.peer());
    b.front.pass(a.peer());
    let mut visitor = a.visit().await;
    let answer = visitor.get("/name").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));

    let (a, b) = (Container::start().await, Container::start().await);
    a.front.pass(b.peer());
    b.front.pass(a.peer());
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/name", &[]).await;
    // From a to b, back to a, and to b again, where it rests.
    b.wait_for_held(1).await;
    b.front.serve(site("b"));
    assert_eq!(visitor.answer().await.text(), "b");

    // It is not the one where it rests that changes, but the other: it is passed on again, with its body.
    let (a, b) = (Container::start().await, Container::start().await);
    a.front.pass(b.peer());
    b.front.pass(a.peer());
    let mut visitor = a.visit().await;
    visitor
        .send("POST /echo HTTP/1.1\r\nhost: s\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    b.wait_for_held(1).await;
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "hello");
}

#[tokio::test]
async fn what_does_not_reach_the_other_container_is_held_and_tried_again() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let a = Container::start().await;
    a.front.pass(Peer::new(vec![address.to_string()], "key"));
    let mut reader = a.visit().await;
    reader.ask("GET", "/name", &[]).await;
    let mut writer = a.visit().await;
    writer
        .send("POST /echo HTTP/1.1\r\nhost: s\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    a.wait_for_held(2).await;

    // It comes up at last, and nobody says so.
    let b = Container::start().await;
    b.front.serve(site("b"));
    let (stop, control) = (b.stop.clone(), tokio::sync::mpsc::channel(1).0);
    let door = TcpListener::bind(address).await.unwrap();
    let front = b.front.clone();
    let run = tokio::spawn(async move {
        front
            .run_peers(door, "key".to_owned().into(), control, stop)
            .await;
    });
    assert_eq!(reader.answer().await.text(), "b");
    assert_eq!(writer.answer().await.text(), "hello");
    b.shut().await;
    run.await.unwrap();
}

const POST: &str = "POST /x HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let fake = Fake::start(Act::HangUp).await;
    let a = Container::start().await;
    a.front
        .pass(Peer::new(vec![fake.address.to_string()], "key"));
    let with_body = "POST /x HTTP/1.1\r\nhost: s\r\ncontent-length: 5\r\n\r\nhello";
    for (count, request) in [POST, with_body].into_iter().enumerate() {
        let mut visitor = a.visit().await;
        visitor.send(request).await;
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.header("retry-after")), (502, ""));
        assert!(answer.text().contains("it is not known whether it did"));
        assert!(answer.header("content-type").starts_with("text/html"));
        assert_eq!(fake.asked(), count + 1);
    }
}

#[tokio::test]
async fn what_only_reads_is_asked_again() {
    let fake = Fake::start(Act::HangUp).await;
    let a = Container::start().await;
    a.front
        .pass(Peer::new(vec![fake.address.to_string()], "key"));
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/name", &[]).await;
    wait_for("a second try", PATIENCE, async || {
        (fake.asked() > 1).then_some(())
    })
    .await;
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "a");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let fake = Fake::start(Act::Send(
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun",
    ))
    .await;
    let a = Container::start().await;
    a.front
        .pass(Peer::new(vec![fake.address.to_string()], "key"));
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/name", &[]).await;
    let answer = visitor.head().await;
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, "100")
    );
    assert_eq!(visitor.rest().await, b"begun");
}

#[tokio::test]
async fn a_visitor_who_goes_away_is_gone_at_the_other_container_too() {
    let (a, b) = pair(site("b")).await;
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/never", &[]).await;
    b.wait_for_begun(1).await;
    drop(visitor);
    b.front.ended().await;
}

#[tokio::test]
async fn trailers_of_a_visitor_are_no_trouble() {
    let (a, _b) = pair(Router::new().route(
        "/length",
        any(async |body: Body| {
            axum::body::to_bytes(body, 1 << 20)
                .await
                .unwrap()
                .len()
                .to_string()
        }),
    ))
    .await;
    let mut visitor = a.visit().await;
    let head =
        "POST /length HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    visitor
        .send(format!("{head}5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"))
        .await;
    assert_eq!(visitor.answer().await.text(), "5");
    assert_eq!(visitor.get("/length").await.text(), "0");
}

#[tokio::test]
async fn who_waits_for_a_go_ahead_gets_it() {
    let (a, _b) = pair(site("b")).await;
    let mut visitor = a.visit().await;
    visitor
        .send("POST /echo HTTP/1.1\r\nhost: s\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    assert_eq!(visitor.head().await.status, 100);
    visitor.send("hello").await;
    assert_eq!(visitor.answer().await.text(), "hello");
}

#[tokio::test]
async fn a_container_that_ends_takes_leave_of_its_connections() {
    let (a, _b) = pair(site("b")).await;
    let mut visitor = a.visit().await;
    assert_eq!(visitor.get("/name").await.header("connection"), "");
    a.role(Role::Draining);
    let answer = visitor.get("/name").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("connection")),
        ("b", "close")
    );
    assert!(visitor.rest().await.is_empty());
}

#[tokio::test]
async fn what_only_reads_is_not_left_behind_at_a_container_that_hangs() {
    let fake = Fake::start(Act::Stay("")).await;
    let a = Container::start().await;
    a.front
        .pass(Peer::new(vec![fake.address.to_string()], "key"));
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/name", &[]).await;
    wait_for("the request there", PATIENCE, async || {
        (fake.asked() == 1).then_some(())
    })
    .await;
    a.front.hold();
    a.wait_for_held(1).await;
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "a");
}

#[tokio::test]
async fn a_visitor_of_long_ago_is_answered() {
    let (a, b) = pair(site("b")).await;
    for container in [&a, &b] {
        let mut visitor = container.visit().await;
        visitor
            .send("POST /echo HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello")
            .await;
        let answer = visitor.head().await;
        assert_eq!(
            (answer.status, answer.header("transfer-encoding")),
            (200, "")
        );
        assert_eq!(visitor.rest().await, b"hello");
    }
}

#[tokio::test]
async fn an_answer_has_one_length() {
    let fake = Fake::start(Act::Send(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ))
    .await;
    let a = Container::start().await;
    a.front
        .pass(Peer::new(vec![fake.address.to_string()], "key"));
    let mut visitor = a.visit().await;
    let answer = visitor.get("/name").await;
    assert_eq!(
        (answer.header("content-length"), answer.text().as_str()),
        ("", "hello")
    );
}
