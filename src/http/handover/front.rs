//! Where visitors' requests arrive, and where they go from there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::http::HandoverSettings;
use crate::http::connections;
use crate::http::connections::Limits;
use crate::http::handover::Control;
use crate::http::handover::Peer;
use crate::http::handover::Status;
use crate::http::handover::begun::Begun;
use crate::http::handover::begun::Count;
use crate::http::handover::door::Door;
use crate::http::handover::door::Way;
use crate::http::handover::hold::Places;
use crate::http::layers;
use crate::settings::Secret;

/// What a peer may need beyond its own limits, to connect and to send.
const SPARE: Duration = Duration::from_secs(5);

/// Where requests arrive: it holds them, has the site answer them, or passes them on. Clones are cheap, and one front.
///
/// It begins by holding. `/up` and `/ready` it answers itself, whatever it does with other requests.
///
/// A request that is held costs its headers and what its connection had read already, some 16 KiB; its body is left
/// in the network. A visitor who goes away gives the place back at once, unless what was sent of a body is more than
/// that: then at the end of the wait.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

pub(super) struct Inner {
    mode: ArcSwap<Mode>,
    /// Told after each change of `mode`.
    changed: watch::Sender<()>,
    count: Arc<Count>,
    pub(super) places: Places,
    pub(super) status: watch::Receiver<Status>,
    /// Answers what neither the site nor a peer does, in the look of the site's error pages.
    pub(super) pages: Router,
    /// The stylesheet of these pages.
    pub(super) stylesheet: String,
    /// How long a peer may take to begin its answer.
    pub(super) answer_time: Duration,
    visitors: Limits,
    peers: Limits,
}

/// What happens to a request.
#[derive(Debug)]
pub(super) enum Mode {
    Hold,
    Serve(Router),
    Pass(Peer),
}

impl Front {
    /// A front that holds; `status` is what it says of itself.
    #[must_use]
    pub fn new(
        settings: &HandoverSettings,
        server: &http::Settings,
        status: watch::Receiver<Status>,
    ) -> Self {
        server.warn();
        let (pages, stylesheet) = layers::pages(server);
        Self(Arc::new(Inner {
            mode: ArcSwap::from_pointee(Mode::Hold),
            changed: watch::Sender::new(()),
            count: Arc::default(),
            places: Places::new(settings),
            status,
            pages,
            stylesheet,
            answer_time: settings.hold() + server.request_timeout() + SPARE,
            visitors: Limits::visitors(server),
            peers: Limits::peers(server),
        }))
    }

    /// Holds requests from now on, up to `handover.hold_max` of them, each for `handover.hold_ms` at most.
    pub fn hold(&self) {
        self.turn(Mode::Hold);
    }

    /// Has the site answer from now on, the requests first that were held.
    pub fn serve(&self, router: Router) {
        self.turn(Mode::Serve(router.with_state(())));
    }

    /// Passes requests on to another container from now on.
    ///
    /// One that does not reach it is held, and tried again four times a second.
    pub fn pass(&self, peer: Peer) {
        self.turn(Mode::Pass(peer));
    }

    fn turn(&self, mode: Mode) {
        self.0.mode.store(Arc::new(mode));
        self.0.changed.send_replace(());
    }

    /// How many requests the site has in hand: each from its arrival there until its answer is sent.
    ///
    /// After [`hold`](Self::hold) and [`pass`](Self::pass) none is added. A connection that has become a `WebSocket` is
    /// the site's own affair.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.0.count.get()
    }

    /// Waits until the site has no request in hand.
    pub async fn ended(&self) {
        self.0.count.zero().await;
    }

    /// How many requests wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.places.held()
    }

    /// Takes visitors' requests until `stop`, then finishes those in hand; those held are answered with 503.
    pub async fn run(&self, listener: TcpListener, stop: CancellationToken) {
        self.open(listener, Way::Visitors, stop).await;
    }

    /// Takes what other containers pass on, and their questions, until `stop`. Who does not show `key` gets a 403.
    pub async fn run_peers(
        &self,
        listener: TcpListener,
        key: Secret,
        control: mpsc::Sender<Control>,
        stop: CancellationToken,
    ) {
        self.open(listener, Way::Peers { key, control }, stop).await;
    }

    async fn open(&self, listener: TcpListener, way: Way, stop: CancellationToken) {
        let limits = match way {
            Way::Visitors => self.0.visitors.clone(),
            Way::Peers { .. } => self.0.peers.clone(),
        };
        let door = Door::new(self.clone(), way, stop.clone());
        connections::serve(listener, door, limits, stop).await;
    }

    /// What to do with a request, and the count of it if the site is to answer.
    pub(super) fn enter(&self) -> Entered {
        // Counted first: whoever changes the mode and then looks at the count sees this one, or it sees the change.
        let begun = self.0.count.begin();
        let mode = self.0.mode.load();
        match &**mode {
            Mode::Serve(router) => Entered::Site(router.clone(), begun),
            Mode::Pass(peer) => Entered::Peer(peer.clone()),
            Mode::Hold => Entered::Nobody,
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(**self.0.mode.load(), Mode::Serve(_))
    }

    /// Whether it passes requests on to another container.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(**self.0.mode.load(), Mode::Pass(_))
    }

    pub(super) fn is_passing_to(&self, peer: &Peer) -> bool {
        matches!(&**self.0.mode.load(), Mode::Pass(now) if now.is(peer))
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

/// Who is to answer a request.
pub(super) enum Entered {
    Site(Router, Begun),
    Peer(Peer),
    Nobody,
}

impl fmt::Debug for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Front")
            .field("mode", &self.0.mode.load())
            .field("begun", &self.begun())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
