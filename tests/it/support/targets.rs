//! Real servers on the loopback: sites to check, and a receiver of webhooks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::routing::any;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server that runs until it is stopped or dropped, and may be started again on its port.
#[derive(Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    behaviour: Behaviour,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// What becomes of a connection.
#[derive(Clone, Debug)]
enum Behaviour {
    Answers(Router),
    Hangs,
    Closes,
}

impl Target {
    /// Answers 200 with `body` to every request.
    pub(crate) async fn answers(body: &'static str) -> Self {
        Self::bind(Behaviour::Answers(site(StatusCode::OK, body))).await
    }

    /// Answers 500 to every request.
    pub(crate) async fn fails() -> Self {
        Self::bind(Behaviour::Answers(site(
            StatusCode::INTERNAL_SERVER_ERROR,
            "broken",
        )))
        .await
    }

    /// Accepts and never answers.
    pub(crate) async fn hangs() -> Self {
        Self::bind(Behaviour::Hangs).await
    }

    /// Accepts and closes at once.
    pub(crate) async fn closes() -> Self {
        Self::bind(Behaviour::Closes).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Closes the port and waits for its connections to end.
    pub(crate) async fn switch_off(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    /// Listens again where it did before.
    pub(crate) async fn switch_on(&mut self) {
        assert!(self.running.is_none(), "it is on already");
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.run(listener);
    }

    async fn bind(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut target = Self {
            address,
            behaviour,
            stop: CancellationToken::new(),
            running: None,
        };
        target.run(listener);
        target
    }

    fn run(&mut self, listener: TcpListener) {
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.running = Some(match self.behaviour.clone() {
            Behaviour::Answers(router) => tokio::spawn(answer(listener, router, stop)),
            Behaviour::Hangs => tokio::spawn(accept(listener, usize::MAX, stop)),
            Behaviour::Closes => tokio::spawn(accept(listener, 0, stop)),
        });
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A receiver of webhooks that keeps what it was sent.
#[derive(Debug)]
pub(crate) struct Webhook {
    target: Target,
    received: Arc<Received>,
}

#[derive(Debug, Default)]
struct Received {
    posts: Mutex<Vec<Value>>,
    refused: AtomicUsize,
    to_refuse: AtomicUsize,
}

impl Webhook {
    pub(crate) async fn listen() -> Self {
        let received = Arc::new(Received::default());
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(Arc::clone(&received));
        Self {
            target: Target::bind(Behaviour::Answers(router)).await,
            received,
        }
    }

    /// Answers 500 to the next `count` posts.
    pub(crate) fn refuse(&self, count: usize) {
        self.received.to_refuse.store(count, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        self.target.url("/hook")
    }

    /// How many posts were answered with 500.
    pub(crate) fn refused(&self) -> usize {
        self.received.refused.load(Ordering::SeqCst)
    }

    /// The posts that were taken, in order.
    pub(crate) fn posts(&self) -> Vec<Value> {
        self.received.posts.lock().unwrap().clone()
    }
}

async fn receive(State(received): State<Arc<Received>>, Json(post): Json<Value>) -> StatusCode {
    let one_less = |left: usize| left.checked_sub(1);
    if received
        .to_refuse
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        .is_ok()
    {
        received.refused.fetch_add(1, Ordering::SeqCst);
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    received.posts.lock().unwrap().push(post);
    StatusCode::NO_CONTENT
}

fn site(status: StatusCode, body: &'static str) -> Router {
    // A kept connection would answer after the port is closed.
    Router::new().fallback(any(move || async move {
        (status, [(CONNECTION, "close")], body)
    }))
}

async fn answer(listener: TcpListener, router: Router, stop: CancellationToken) {
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .unwrap();
}

/// Accepts and says nothing; holds at most `held_max` connections open.
async fn accept(listener: TcpListener, held_max: usize, stop: CancellationToken) {
    let mut held = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => held.push(accepted.unwrap()),
            () = stop.cancelled() => return,
        }
        held.truncate(held_max);
    }
}
