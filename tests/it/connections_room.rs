//! Who goes where there is no room for another connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use axum::routing::post;
use houseboat::Context;
use http_body_util::BodyExt;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;

use crate::support::process::TestProcess;
use crate::support::raw::Raw;
use crate::support::served::Served;
use crate::support::waiting::is_pending;
use crate::support::waiting::wait_for;
use crate::support::websocket;

const PATIENCE: Duration = Duration::from_secs(20);

fn routes() -> Router<Context> {
    Router::new().route("/hello", get(async || "hello"))
}

fn room(connections: &'static str) -> (&'static str, &'static str) {
    ("HOUSEBOAT_SERVER__CONNECTIONS_MAX", connections)
}

/// A connection from an address of this machine.
async fn from(address: &str, to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{address}:0").parse().unwrap())
        .unwrap();
    Raw::over(socket.connect(to).await.unwrap())
}

async fn is_open(visitor: &mut Raw) -> bool {
    visitor
        .try_get("/hello")
        .await
        .is_some_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn the_oldest_idle_connection_goes_first() {
    let site = Served::with(routes(), &[room("4")]).await;
    let mut half = Raw::connect(site.address).await;
    half.send("GET /hello HTTP/1.1\r\n").await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut visitor = Raw::connect(site.address).await;
        assert_eq!(visitor.get("/hello").await.status, 200);
        idle.push(visitor);
    }
    let mut last = Raw::connect(site.address).await;
    assert_eq!(last.get("/hello").await.status, 200);
    assert!(idle[0].rest().await.is_empty());
    assert!(is_open(&mut idle[1]).await && is_open(&mut idle[2]).await);
    // The half-open one was older than all of them, and is there.
    half.send("host: a\r\n\r\n").await;
    assert_eq!(half.answer().await.status, 200);
}

#[tokio::test]
async fn half_open_connections_make_room_for_a_visitor() {
    let site = Served::with(routes(), &[room("50")]).await;
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut one = Raw::connect(site.address).await;
        one.send("GET /hello HTTP/1.1\r\n").await;
        half.push(one);
    }
    for _ in 0..100 {
        let mut visitor = Raw::connect(site.address).await;
        assert_eq!(visitor.get("/hello").await.status, 200);
    }
}

#[tokio::test]
async fn busy_connections_stay_and_one_more_is_closed() {
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = get(async move || {
        tells.add_permits(1);
        waits.acquire().await.unwrap().forget();
        "done"
    });
    let site = Served::with(routes().route("/slow", slow), &[room("3")]).await;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut visitor = Raw::connect(site.address).await;
        visitor.ask("GET", "/slow", &[]).await;
        begun.acquire().await.unwrap().forget();
        busy.push(visitor);
    }
    let mut more = Raw::connect(site.address).await;
    assert!(more.rest().await.is_empty());
    go.add_permits(3);
    for visitor in &mut busy {
        assert_eq!(visitor.answer().await.text(), "done");
    }
    let answered = async || {
        let mut visitor = Raw::connect(site.address).await;
        is_open(&mut visitor).await.then_some(())
    };
    wait_for("an answer", PATIENCE, answered).await;
}

#[tokio::test]
async fn answers_on_their_way_and_upgraded_connections_stay() {
    let events = get(async || {
        let events = futures_util::StreamExt::then(futures_util::stream::repeat(()), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, std::io::Error>("tick")
        });
        Body::from_stream(Box::pin(events))
    });
    // It has seen enough of the body, which is not there.
    let has_left = Arc::new(Semaphore::new(0));
    let tells = Arc::clone(&has_left);
    let leaves = post(async move |request: Request| {
        let mut body = request.into_body();
        let begun = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
        assert!(begun.is_err());
        drop(body);
        tells.add_permits(1);
        std::future::pending::<()>().await;
    });
    let routes = routes()
        .route("/events", events)
        .route("/leaves", leaves)
        .route("/socket", get(websocket::echo));
    let site = Served::with(routes, &[room("3")]).await;
    let mut waits = Raw::connect(site.address).await;
    waits.ask("POST", "/leaves", &["content-length: 9"]).await;
    has_left.acquire().await.unwrap().forget();
    let mut reads = Raw::connect(site.address).await;
    reads.ask("GET", "/events", &[]).await;
    assert_eq!(reads.head().await.status, 200);
    let mut talks = Raw::connect(site.address).await;
    let asks = [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: a",
    ];
    talks.ask("GET", "/socket", &asks).await;
    assert_eq!(talks.head().await.status, 101);
    for _ in 0..3 {
        let mut more = Raw::connect(site.address).await;
        assert!(more.rest().await.is_empty());
        reads.read_exactly(9 * 2).await;
        talks.send(b"\x81\x81\0\0\0\0x").await;
        assert_eq!(talks.read_exactly(3).await, b"\x81\x01x");
    }
    assert!(is_pending(&mut Box::pin(waits.rest())).await);
}

#[tokio::test]
async fn one_network_has_half_of_the_room_and_proxies_all() {
    let untrusted = ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[]");
    for (settings, stay) in [(vec![room("8"), untrusted], 4), (vec![room("8")], 8)] {
        let site = Served::with(routes(), &settings).await;
        let mut greedy = Vec::new();
        for _ in 0..8 {
            let mut visitor = from("127.0.0.2", site.address).await;
            assert_eq!(visitor.get("/hello").await.status, 200);
            greedy.push(visitor);
        }
        let mut open = 0;
        for visitor in &mut greedy {
            open += usize::from(is_open(visitor).await);
        }
        assert_eq!(open, stay, "{settings:?}");
    }
}

/// So many more files may the process open, which is less than there are connections.
const FILES_LEFT: usize = 10;

#[tokio::test]
async fn a_system_without_room_for_files_stops_nobody() {
    let site = TestProcess::builder().start().await;
    let files = std::fs::read_dir(format!("/proc/{}/fd", site.id()))
        .unwrap()
        .count();
    let limit = files + FILES_LEFT;
    let limited = std::process::Command::new("prlimit")
        .args([
            "--pid",
            &site.id().to_string(),
            &format!("--nofile={limit}:{limit}"),
        ])
        .status();
    assert!(limited.unwrap().success());
    let address = site.address().parse().unwrap();
    let mut half = Vec::new();
    for _ in 0..3 * FILES_LEFT {
        let mut one = Raw::connect(address).await;
        one.send("GET /up HTTP/1.1\r\n").await;
        half.push(one);
    }
    for _ in 0..5 {
        let mut visitor = Raw::connect(address).await;
        assert_eq!(visitor.get("/up").await.text(), "up\n", "{}", site.log());
    }
    assert!(
        site.log().contains("no connection can be accepted"),
        "{}",
        site.log()
    );
    drop(half);
    let mut visitor = Raw::connect(address).await;
    assert_eq!(visitor.get("/up").await.text(), "up\n");
}
