//! A request that the site does not answer at once: its way until somebody does.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::HttpBody;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::http::Error;
use crate::http::handover::Front;
use crate::http::handover::Peer;
use crate::http::handover::PeerError;
use crate::http::handover::Role;
use crate::http::handover::begun::Begun;
use crate::http::handover::begun::until_sent;
use crate::http::handover::front::Entered;
use crate::http::handover::headers;
use crate::http::handover::hold::Over;
use crate::http::handover::hold::Refusal;
use crate::http::handover::hold::Wait;
use crate::http::handover::loan::lend;
use crate::http::handover::peer::Unanswered;
use crate::http::handover::tunnel;

/// How often a peer that is not reached is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// How often a request is passed on before it has to wait. From a new container to the old one and back is twice.
const HOPS: u16 = 3;

/// What asks no more than to read is asked elsewhere, when a peer that is no longer passed to is silent for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// What takes one request to whoever answers it.
pub(super) struct Flow {
    front: Front,
    stop: CancellationToken,
}

/// How an attempt to pass a request on ended.
enum Passed {
    Answered(Response),
    /// Nobody has seen it, or it does no harm to ask twice.
    Back(Request),
    /// It may have been done.
    Lost(Request, StatusCode, String),
}

impl Flow {
    pub(super) fn new(front: Front, stop: CancellationToken) -> Self {
        Self { front, stop }
    }

    /// Takes the request to whoever answers it.
    ///
    /// A container that ends takes leave of each connection with its answer: a proxy that kept it for later would
    /// send into the void.
    pub(super) async fn run(self, request: Request, hops: u16) -> Response {
        let mut response = self.answered(request, hops).await;
        let is_ending = self.front.inner().status.borrow().role == Role::Draining;
        if is_ending && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// Holds the request, passes it on, or has the site answer, as the front is turned, until there is an answer.
    async fn answered(&self, mut request: Request, hops: u16) -> Response {
        if self.is_own(&request) {
            return self.page(request).await;
        }
        let mut wait = Wait::default();
        let mut changed = self.front.changes();
        let mut over = Over::Changed;
        loop {
            // Before the look at the mode, so that no change between is missed.
            changed.mark_unchanged();
            let again = match self.front.enter() {
                Entered::Site(router, begun) => {
                    drop(wait);
                    return site(router, begun, request).await;
                }
                // Two containers that each take the other for the one that serves: one of them learns better soon.
                // It need not be this one, so the request goes on when it has waited; not without end.
                Entered::Peer(_) if hops >= self.hops_max() => None,
                Entered::Peer(_) if hops >= HOPS && over == Over::Changed => Some(AGAIN),
                Entered::Peer(peer) => {
                    // One that is tried once more has waited, and goes on waiting if it must.
                    if over == Over::Changed {
                        wait.leave();
                    }
                    match self.pass(&peer, request, hops, &changed).await {
                        Passed::Answered(response) => return response,
                        Passed::Lost(request, status, cause) => {
                            return self.refuse(request, lost(status, cause)).await;
                        }
                        Passed::Back(back) => {
                            request = back;
                            Some(AGAIN)
                        }
                    }
                }
                Entered::Nobody => None,
            };
            let places = &self.front.inner().places;
            let waited = places.hold(&mut wait, &mut changed, again, &self.stop);
            over = match waited.await {
                Ok(over) => over,
                Err(refusal) => return self.refuse(request, words(refusal)).await,
            };
        }
    }

    /// How often a request is passed on at all: as often as it can wait in the time that it may be held.
    fn hops_max(&self) -> u16 {
        let waits = self.front.inner().places.time().as_millis() / AGAIN.as_millis();
        HOPS.saturating_add(u16::try_from(waits).unwrap_or(u16::MAX))
    }

    /// Whether it is the stylesheet of the front's own pages.
    fn is_own(&self, request: &Request) -> bool {
        request.uri().path() == self.front.inner().stylesheet
    }

    async fn refuse(&self, mut request: Request, error: Error) -> Response {
        request.extensions_mut().insert(error);
        self.page(request).await
    }

    async fn page(&self, request: Request) -> Response {
        let mut pages = self.front.inner().pages.clone();
        let Ok(response) = pages.call(request).await;
        response
    }

    async fn pass(
        &self,
        peer: &Peer,
        request: Request,
        hops: u16,
        changed: &watch::Receiver<()>,
    ) -> Passed {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            let request = Request::from_parts(parts, body);
            let error = Error::new(StatusCode::METHOD_NOT_ALLOWED, "This site is no proxy.");
            return Passed::Answered(self.refuse(request, error).await);
        }
        let only_reads = parts.method.is_safe() && body.is_end_stream();
        let (loan, lent) = lend(body);
        let path = parts.uri.path_and_query().cloned();
        let time = self.front.inner().answer_time;
        let answer = tokio::select! {
            biased;
            answer = timeout(time, peer.pass(path, || outgoing(&parts, lent, hops))) => answer,
            unanswered = self.left_behind(peer, changed.clone()), if only_reads => Ok(Err(unanswered)),
        };
        let unanswered = match answer {
            Ok(Ok(response)) => return Passed::Answered(self.answer(&parts, response)),
            Ok(Err(unanswered)) => unanswered,
            Err(_) => {
                let request = Request::from_parts(parts, Body::empty());
                let cause = PeerError::Silent(time).to_string();
                return Passed::Lost(request, StatusCode::GATEWAY_TIMEOUT, cause);
            }
        };
        let is_harmless = unanswered.unseen || only_reads;
        if let Some(body) = loan.take_back().filter(|_| is_harmless) {
            tracing::debug!(error = %unanswered.error, "a request is tried again");
            return Passed::Back(Request::from_parts(parts, body));
        }
        let request = Request::from_parts(parts, Body::empty());
        let cause = unanswered.error.to_string();
        Passed::Lost(request, StatusCode::BAD_GATEWAY, cause)
    }

    /// Waits until requests have gone elsewhere for a while: the peer may have been left because it hangs.
    async fn left_behind(&self, peer: &Peer, mut changed: watch::Receiver<()>) -> Unanswered {
        while self.front.is_passing_to(peer) {
            _ = changed.changed().await;
        }
        tokio::time::sleep(LEFT_BEHIND).await;
        Unanswered {
            error: PeerError::Silent(LEFT_BEHIND),
            unseen: false,
        }
    }

    /// Makes a peer's answer the visitor's, untouched but for what is of one connection only.
    fn answer(&self, asked: &Parts, mut response: hyper::Response<Incoming>) -> Response {
        let protocol = headers::drop_hop_by_hop(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(protocol) = protocol
        {
            headers::upgrade(response.headers_mut(), protocol);
            let site = hyper::upgrade::on(&mut response);
            if let Some(visitor) = asked.extensions.get::<OnUpgrade>() {
                tunnel::join(visitor.clone(), site, self.stop.clone());
            }
        }
        response.map(Body::new)
    }
}

/// The request as another container gets it.
fn outgoing(parts: &Parts, body: Body, hops: u16) -> Request {
    let mut request = Request::new(body);
    request.method_mut().clone_from(&parts.method);
    request.headers_mut().clone_from(&parts.headers);
    if let Some(protocol) = headers::drop_hop_by_hop(request.headers_mut()) {
        headers::upgrade(request.headers_mut(), protocol);
    }
    // A request of HTTP/2 names its host in its address, which is the other container's from here on.
    if let Some(authority) = parts.uri.authority()
        && !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    request
        .headers_mut()
        .insert(headers::HOPS, HeaderValue::from(hops + 1));
    if let Some(ConnectInfo(address)) = parts.extensions.get::<ConnectInfo<SocketAddr>>()
        && let Ok(address) = HeaderValue::try_from(address.to_string())
    {
        request.headers_mut().insert(headers::ADDRESS, address);
    }
    request
}

async fn site(mut router: Router, begun: Begun, request: Request) -> Response {
    let Ok(response) = router.call(request).await;
    until_sent(response, begun)
}

fn words(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Full => Error::later(
            "The site is starting, and many are waiting for it. Please try again in a moment.",
            1,
        ),
        Refusal::Late => Error::later(
            "The site is starting, which takes longer than usual. Please try again in a few seconds.",
            5,
        ),
        Refusal::Stopping => {
            Error::later("The site is restarting. Please try again in a moment.", 1)
        }
    }
}

fn lost(status: StatusCode, cause: String) -> Error {
    Error::broken(
        status,
        "The site did not answer, and it is not known whether it did what you asked for. \
         Please look before you send it again.",
        cause,
    )
}
