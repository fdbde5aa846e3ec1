//! The service behind each connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::http::handover::Control;
use crate::http::handover::Front;
use crate::http::handover::Role;
use crate::http::handover::begun::Begun;
use crate::http::handover::begun::until_sent;
use crate::http::handover::control;
use crate::http::handover::flow::Flow;
use crate::http::handover::front::Entered;
use crate::http::handover::headers;
use crate::http::health;
use crate::settings::Secret;

/// A way into the front, and until when it is open.
#[derive(Clone)]
pub(super) struct Door(Arc<Inner>);

struct Inner {
    front: Front,
    way: Way,
    stop: CancellationToken,
}

/// Who comes this way.
pub(super) enum Way {
    Visitors,
    Peers {
        key: Secret,
        control: mpsc::Sender<Control>,
    },
}

/// The answer to a request, on its way.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and a box would be an allocation for each"
)]
pub(super) enum Answering {
    /// The way of nearly all requests, and the one without detours.
    Site(RouteFuture<Infallible>, Option<Begun>),
    Other(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Door {
    pub(super) fn new(front: Front, way: Way, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { front, way, stop }))
    }

    fn flow(&self) -> Flow {
        Flow::new(self.0.front.clone(), self.0.stop.clone())
    }

    fn visitor(&self, mut request: Request) -> Answering {
        headers::drop_own(request.headers_mut());
        if let Some(response) = self.own(&request) {
            return Answering::now(response);
        }
        match self.0.front.enter() {
            Entered::Site(mut router, begun) => Answering::Site(router.call(request), Some(begun)),
            Entered::Peer(_) | Entered::Nobody => {
                let flow = self.flow();
                Answering::Other(Box::pin(flow.run(request, 0)))
            }
        }
    }

    /// What each container answers for itself.
    fn own(&self, request: &Request) -> Option<Response> {
        let status = &self.0.front.inner().status;
        match request.uri().path() {
            "/up" => Some(health::up(request.method(), *status.borrow())),
            "/ready" => {
                let status = *status.borrow();
                // The site knows how its database is.
                let asks_site = status.role == Role::Serving && self.0.front.is_serving();
                (!asks_site).then(|| health::role(request.method(), status))
            }
            _ => None,
        }
    }

    fn peer(
        &self,
        mut request: Request,
        key: &Secret,
        control: &mpsc::Sender<Control>,
    ) -> Answering {
        if !headers::shows_key(request.headers(), key.expose()) {
            let mut marked = HeaderMap::new();
            marked.insert(headers::REFUSED, HeaderValue::from_static("key"));
            return Answering::now((StatusCode::FORBIDDEN, marked).into_response());
        }
        let what = request.headers().get(headers::CONTROL).cloned();
        let hops = headers::hops(request.headers());
        // The other end of this connection is a container, and no visitor.
        request.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
        if let Some(address) = headers::address(request.headers()) {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        headers::drop_own(request.headers_mut());
        if let Some(what) = what {
            let (control, stop) = (control.clone(), self.0.stop.clone());
            return Answering::Other(Box::pin(async move {
                control::answer(&what, request, &control, &stop).await
            }));
        }
        Answering::Other(Box::pin(self.flow().run(request, hops)))
    }
}

impl Service<Request> for Door {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        match &self.0.way {
            Way::Visitors => self.visitor(request),
            Way::Peers { key, control } => self.peer(request, key, control),
        }
    }
}

impl Answering {
    fn now(response: Response) -> Self {
        Self::Other(Box::pin(std::future::ready(response)))
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Site(future, begun) => {
                let response = ready!(Pin::new(future).poll(context))?;
                let begun = begun.take();
                Poll::Ready(Ok(match begun {
                    Some(begun) => until_sent(response, begun),
                    None => response,
                }))
            }
            Self::Other(future) => future.as_mut().poll(context).map(Ok),
        }
    }
}
