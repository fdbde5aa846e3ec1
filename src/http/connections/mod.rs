//! The loop that takes connections, and what each may cost.
//!
//! HTTP/1.1, and HTTP/2 for who begins with it. [`framing`] follows the bytes that a client sends, [`pulse`] has what a
//! connection is doing, [`table`] looks at all of them: twice a second for those that take too long, and for who has
//! to go when another one comes and there is no room. There is no timer of a request's or a connection's own.

mod body;
mod entrance;
mod framing;
mod limits;
mod pulse;
mod stream;
mod table;
mod taking;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::http::connections::entrance::Entrance;
pub(super) use crate::http::connections::limits::Limits;
use crate::http::connections::pulse::Order;
use crate::http::connections::stream::Stream;
use crate::http::connections::table::Table;

/// How often all connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);

/// How long no connection is accepted after the system had no room for one.
const NO_ROOM: Duration = Duration::from_millis(50);

/// How often the log says that there is no room.
const AGAIN: Duration = Duration::from_secs(10);

/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 100;
/// Streams that a client opened and took back before anybody looked at them; hers is closed above so many.
const RESETS_MAX: usize = 20;
/// Streams that were reset for a client's mistakes.
const MISTAKES_MAX: usize = 100;
/// What is made ready for a client of HTTP/2 that does not read, for each stream.
const UNSENT_BYTES_MAX: usize = 64 << 10;
/// What the system holds of a connection's answers beyond what it may send at once; below half of it, it takes more.
#[cfg(target_os = "linux")]
const HELD_BYTES: u32 = 32 << 10;
/// After so long without a byte, a connection of HTTP/2 is asked whether it is there,
const PING: Duration = Duration::from_secs(20);
/// and has so long to say so.
const PONG: Duration = Duration::from_secs(20);

/// Answers on all connections until `stop`, then finishes the requests in hand.
///
/// An error of one connection, and a system that has no room for another, end nothing.
pub(super) async fn serve<S>(
    listener: TcpListener,
    service: S,
    mut limits: Limits,
    stop: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Unpin + Send + 'static,
{
    limits.fit();
    let builder = builder(&limits);
    let (needs_host, bytes_per_s_min) = (limits.needs_host(), limits.bytes_per_s_min);
    let table = Table::new(limits);
    let (running, mut ended) = mpsc::channel::<()>(1);
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut full = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sweep.tick() => {
                table.sweep(None);
                continue;
            }
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => match table.enter(peer.ip().to_canonical()) {
                Some(place) => {
                    // What comes in pieces is not to wait for the next piece; without, it is only slower.
                    let _ = stream.set_nodelay(true);
                    hold_little(&stream);
                    let service = service.clone();
                    let (builder, running) = (builder.clone(), running.clone());
                    tokio::spawn(async move {
                        let stream = Stream::new(stream, place, needs_host, bytes_per_s_min);
                        connection(stream, peer, service, &builder).await;
                        drop(running);
                    });
                }
                None => full.say("every connection there may be is busy: one more was closed"),
            },
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                full.say(&format!("no connection can be accepted: {error}"));
                table.shed();
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
    // Who comes now is refused at once, and may come again to another process.
    drop(listener);
    drop(running);
    let stopped = Instant::now();
    table.finish();
    loop {
        tokio::select! {
            _ = ended.recv() => return,
            _ = sweep.tick() => table.sweep(Some(stopped.elapsed())),
        }
    }
}

fn builder(limits: &Limits) -> Arc<Builder<TokioExecutor>> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The sweep does it.
        .header_read_timeout(None)
        // For a head and for what is read or written of a body at a time; more of a head is answered with 431.
        .max_buf_size(limits.head_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(MISTAKES_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buf_size(UNSENT_BYTES_MAX)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    Arc::new(builder)
}

/// Has the system hold little of what cannot be sent yet, so that it shows soon that a client takes more.
///
/// Otherwise it holds up to 4 MB for each, and takes more when a third of that is gone: a slow line takes minutes for
/// that, in which its client seems to take nothing.
#[cfg(target_os = "linux")]
fn hold_little(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(HELD_BYTES) {
        tracing::trace!(%error, "the system holds what it likes of an answer");
    }
}

#[cfg(not(target_os = "linux"))]
fn hold_little(_: &TcpStream) {}

/// Answers on one connection until it ends, or is told to.
async fn connection<S>(
    stream: Stream,
    peer: SocketAddr,
    service: S,
    builder: &Builder<TokioExecutor>,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Unpin + Send + 'static,
{
    let pulse = Arc::clone(stream.pulse());
    let entrance = Entrance {
        service,
        peer,
        pulse: Arc::clone(&pulse),
    };
    let stream = TokioIo::new(stream);
    let mut connection = pin!(builder.serve_connection_with_upgrades(stream, entrance));
    let mut is_told = false;
    poll_fn(|context| {
        match pulse.order(context.waker()) {
            Order::Close => return Poll::Ready(()),
            Order::Finish if !is_told => {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            Order::Finish | Order::GoOn => {}
        }
        connection.as_mut().poll(context).map(|result| {
            if let Err(error) = result {
                tracing::trace!(error, "a connection broke");
            }
        })
    })
    .await;
}

/// Whether the connection broke before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// What the log is told now and then.
#[derive(Debug, Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    fn say(&mut self, text: &str) {
        if self.0.is_none_or(|last| last.elapsed() > AGAIN) {
            self.0 = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }
}
