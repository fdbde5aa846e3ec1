//! Clients that take an answer slowly: too slowly, and not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::routing::get;
use futures_util::stream::repeat_with;
use houseboat::Context;
use tokio::net::TcpSocket;

use crate::support::raw::Raw;
use crate::support::served::Served;
use crate::support::waiting::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_secs(1);
const STALL_MS: (&str, &str) = ("HOUSEBOAT_SERVER__WRITE_TIMEOUT_MS", "1000");

/// Tells when the site gives an answer up.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// An answer without an end, and whether the site has given it up.
fn endless(event: &'static [u8], pause: Duration) -> (Router<Context>, Arc<AtomicBool>) {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let answer = get(async move || {
        let told = Told(Arc::clone(&told));
        let events = repeat_with(move || {
            let _ = &told;
            Ok::<_, std::io::Error>(Bytes::from_static(event))
        });
        if pause.is_zero() {
            Body::from_stream(events)
        } else {
            Body::from_stream(futures_util::StreamExt::then(
                events,
                move |event| async move {
                    tokio::time::sleep(pause).await;
                    event
                },
            ))
        }
    });
    (Router::new().route("/endless", answer), ended)
}

/// Asks on a connection whose client has little room of its own, and reads the head.
async fn ask(address: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut visitor = Raw::over(socket.connect(address).await.unwrap());
    visitor.ask("GET", "/endless", &[]).await;
    assert_eq!(visitor.head().await.status, 200);
    visitor
}

/// Takes `bytes` every 20 ms for `time`, or until the answer is given up, and says how long that was.
async fn take(visitor: &mut Raw, bytes: usize, time: Duration, ended: &AtomicBool) -> Duration {
    let began = Instant::now();
    while began.elapsed() < time && !ended.load(SeqCst) {
        visitor.read_exactly(bytes).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn an_answer_is_not_kept_for_who_takes_a_little_now_and_then() {
    let (routes, ended) = endless(&[b'x'; 16 << 10], Duration::ZERO);
    let rate = ("HOUSEBOAT_SERVER__BODY_BYTES_PER_S_MIN", "1000000");
    let site = Served::with(routes, &[STALL_MS, rate]).await;
    let mut visitor = ask(site.address).await;
    // 100 KB/s at most. The system takes more of the answer several times in the time of a stall.
    let time = take(&mut visitor, 2_000, PATIENCE, &ended).await;
    assert!(time > STALL && time < PATIENCE, "{time:?}");
}

#[tokio::test]
async fn an_answer_is_kept_for_who_takes_it_as_fast_as_a_slow_line_lets_it() {
    let (routes, ended) = endless(&[b'x'; 16 << 10], Duration::ZERO);
    let site = Served::with(routes, &[STALL_MS]).await;
    let mut visitor = ask(site.address).await;
    let time = take(&mut visitor, 2_000, 3 * STALL, &ended).await;
    assert!(time >= 3 * STALL, "given up after {time:?}");
    // Who takes nothing any more is known soon: the system holds little of what is not sent.
    let given_up = async || ended.load(SeqCst).then_some(());
    wait_for("end of the answer", PATIENCE, given_up).await;
}

#[tokio::test]
async fn events_that_come_seldom_are_nobodys_delay() {
    let (routes, ended) = endless(b"data: tick\n\n", Duration::from_millis(300));
    let rate = ("HOUSEBOAT_SERVER__BODY_BYTES_PER_S_MIN", "1000000");
    let site = Served::with(routes, &[STALL_MS, rate]).await;
    let mut visitor = ask(site.address).await;
    let time = take(&mut visitor, 12, 3 * STALL, &ended).await;
    assert!(time >= 3 * STALL, "given up after {time:?}");
}
