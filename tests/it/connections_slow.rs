//! Thousands of connections that only take their time.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::routing::get;
use axum::routing::post;
use futures_util::Stream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use crate::support::raw::Raw;
use crate::support::served::Served;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const ATTACKERS: usize = 2_000;
const DURATION: Duration = Duration::from_secs(5);

/// What half of the visitors wait at most. The goal, 100 ms, is for a bench, where attackers have other threads.
const MEDIAN_MAX: Duration = Duration::from_secs(1);

/// How many connections were made.
static CONNECTED: AtomicUsize = AtomicUsize::new(0);

const BEGINNINGS: [&str; 4] = [
    // Nothing, a head, a body, and an answer that is not read.
    "",
    "GET /hello HTTP/1.1\r\nhost: a\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n",
    "GET /endless HTTP/1.1\r\nhost: a\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_do_not_keep_a_visitor_waiting() {
    if !slow("half_open_connections_do_not_keep_a_visitor_waiting") {
        return;
    }
    let routes = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/echo", post(async |body: Bytes| body))
        .route("/endless", get(async || Body::from_stream(endless())));
    for connections_max in ["10000", "1000"] {
        CONNECTED.store(0, Ordering::SeqCst);
        let settings = [("HOUSEBOAT_SERVER__CONNECTIONS_MAX", connections_max)];
        let site = Served::with(routes.clone(), &settings).await;
        let attackers = std::iter::repeat_with(|| ());
        let attacks: Vec<_> = attackers
            .take(ATTACKERS)
            .enumerate()
            .map(|(n, ())| tokio::spawn(attack(site.address, BEGINNINGS[n % 4], n)))
            .collect();
        // The kernel's queue of those who come all at once is not what is looked at here.
        let open = async || (CONNECTED.load(Ordering::SeqCst) >= ATTACKERS).then_some(());
        wait_for("so many connections", 10 * DURATION, open).await;
        let began = Instant::now();
        let (mut waits, mut put_out) = (Vec::new(), 0);
        while began.elapsed() < DURATION {
            let asked = Instant::now();
            put_out += greeted(site.address).await;
            waits.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        attacks.iter().for_each(tokio::task::JoinHandle::abort);
        waits.sort_unstable();
        let median = waits[waits.len() / 2];
        let late = waits[waits.len() * 99 / 100];
        let worst = waits[waits.len() - 1];
        #[expect(clippy::print_stderr, reason = "a figure that somebody wants to know")]
        {
            eprintln!(
                "{connections_max} connections at most: {} visitors waited {median:?}, one of a hundred {late:?}, the longest {worst:?}; {put_out} were put out",
                waits.len()
            );
        }
        assert!(median < MEDIAN_MAX, "{median:?}, {late:?}");
        // Where there is no room, a visitor may be put out in the moment before the head is there: seldom.
        let put_out_max = if connections_max == "1000" {
            waits.len() / 20
        } else {
            0
        };
        assert!(put_out <= put_out_max, "{put_out} of {}", waits.len());
    }
}

/// Asks until there is an answer, as a browser does; gives how often the visitor was put out before.
async fn greeted(site: SocketAddr) -> usize {
    let mut put_out = 0;
    loop {
        let mut visitor = Raw::connect(site).await;
        if let Some(answer) = visitor.try_get("/hello").await {
            assert_eq!(answer.text(), "hello");
            return put_out;
        }
        put_out += 1;
    }
}

fn endless() -> impl Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 16 << 10])))
}

/// Keeps one connection half open for as long as it is let, and begins anew.
async fn attack(address: SocketAddr, beginning: &str, n: usize) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel takes for who does not read is not what is looked at here.
        socket.set_recv_buffer_size(4096).unwrap();
        if let Ok(mut stream) = socket.connect(address).await {
            CONNECTED.fetch_add(1, Ordering::SeqCst);
            let mut sent = stream.write_all(beginning.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(1_000 + n as u64 % 500)).await;
                // Nothing goes on sending nothing, and the reader goes on reading nothing.
                let drip: &[u8] = match beginning {
                    "" => b"",
                    text if text.contains("content-length") => b"x",
                    text if text.ends_with("\r\n\r\n") => b"",
                    _ => b"x: y\r\n",
                };
                sent = stream.write_all(drip).await;
                if drip.is_empty() && is_closed(&stream, beginning) {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the server has closed it, as far as that shows without reading what there is to read.
fn is_closed(stream: &TcpStream, beginning: &str) -> bool {
    beginning.is_empty() && matches!(stream.try_read(&mut [0]), Ok(0))
}

#[tokio::test]
async fn a_body_that_drips_is_answered_with_408() {
    if !slow("a_body_that_drips_is_answered_with_408") {
        return;
    }
    let routes = Router::new().route("/echo", post(async |body: Bytes| body));
    let site = Served::start(routes).await;
    let mut visitor = Raw::connect(site.address).await;
    visitor
        .send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
        .await;
    let began = Instant::now();
    let status = visitor.drip("x", Duration::from_millis(200)).await;
    let time = began.elapsed();
    assert_eq!(status, 408);
    assert!(
        time > Duration::from_secs(4) && time < Duration::from_secs(9),
        "{time:?}"
    );
}
