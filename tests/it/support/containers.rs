//! Fronts as two containers have them, in one process, with real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::routing::any;
use axum::routing::get;
use axum::routing::post;
use houseboat::http::Control;
use houseboat::http::Front;
use houseboat::http::HandoverSettings;
use houseboat::http::Peer;
use houseboat::http::Role;
use houseboat::http::Settings;
use houseboat::http::Status;
use houseboat::jiff::Timestamp;
use houseboat::settings::Secret;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::raw::Raw;
use crate::support::waiting::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);

/// One container's front, with both of its listeners.
pub(crate) struct Container {
    pub(crate) front: Front,
    pub(crate) visitors: SocketAddr,
    pub(crate) peers: SocketAddr,
    pub(crate) key: String,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) stop: CancellationToken,
    doors: Vec<JoinHandle<()>>,
}

impl Container {
    /// A front that holds.
    pub(crate) async fn start() -> Self {
        Self::with(&HandoverSettings::default()).await
    }

    pub(crate) async fn with(settings: &HandoverSettings) -> Self {
        let (status, watched) = watch::channel(Status::new(Role::Starting, Timestamp::UNIX_EPOCH));
        let (sender, control) = mpsc::channel(16);
        let key = format!("{:032x}", fastrand::u128(..));
        let front = Front::new(settings, &Settings::default(), watched);
        let stop = CancellationToken::new();
        let [visitors, peers] = [listener().await, listener().await];
        let addresses = [&visitors, &peers].map(|listener| listener.local_addr().unwrap());
        let doors = {
            let (one, other, secret) = (front.clone(), front.clone(), Secret::from(key.clone()));
            let (first, second) = (stop.clone(), stop.clone());
            vec![
                tokio::spawn(async move { one.run(visitors, first).await }),
                tokio::spawn(async move { other.run_peers(peers, secret, sender, second).await }),
            ]
        };
        Self {
            front,
            visitors: addresses[0],
            peers: addresses[1],
            key,
            status,
            control,
            stop,
            doors,
        }
    }

    /// This container, as others know it.
    pub(crate) fn peer(&self) -> Peer {
        Peer::new(vec![self.peers.to_string()], &self.key)
    }

    /// A connection of a visitor.
    pub(crate) async fn visit(&self) -> Raw {
        Raw::connect(self.visitors).await
    }

    pub(crate) fn role(&self, role: Role) {
        let status = Status::new(role, Timestamp::UNIX_EPOCH);
        self.status.send_replace(status);
    }

    pub(crate) async fn wait_for_held(&self, count: usize) {
        let held = async || (self.front.held() == count).then_some(());
        wait_for("as many held", PATIENCE, held).await;
    }

    pub(crate) async fn wait_for_begun(&self, count: usize) {
        let begun = async || (self.front.begun() == count).then_some(());
        wait_for("as many begun", PATIENCE, begun).await;
    }

    /// Stops as a container does at its end, and waits until both doors are shut.
    pub(crate) async fn shut(self) {
        self.stop.cancel();
        for door in self.doors {
            let shut = tokio::time::timeout(PATIENCE, door).await;
            shut.unwrap().unwrap();
        }
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A site that says who it is, gives back what it gets, and tells what headers it saw.
pub(crate) fn site(name: &'static str) -> Router {
    Router::new()
        .route("/name", any(async move || name))
        .route(
            "/echo",
            post(async |request: Request| Body::new(request.into_body())),
        )
        .route("/headers", any(seen))
        .route("/never", any(async || std::future::pending::<()>().await))
        .route("/ready", get(async || "the site's own"))
}

async fn seen(headers: HeaderMap) -> String {
    let lines = headers.iter();
    let lines = lines.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    lines.collect()
}
