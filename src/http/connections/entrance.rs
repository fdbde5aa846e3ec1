//! From a connection to the site, and back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Version;
use axum::http::header;
use axum::response::Response;
use hyper::body::Incoming;
use tower::Service;

use crate::http::connections::body::Answer;
use crate::http::connections::body::RequestBody;
use crate::http::connections::pulse::InHand;
use crate::http::connections::pulse::Offer;
use crate::http::connections::pulse::Pulse;

/// What answers the requests of one connection: a clone of `service` for each, with the client's address beside it.
///
/// The service is called without being asked whether it is ready; those that come here always are.
#[derive(Debug)]
pub(super) struct Entrance<S> {
    pub(super) service: S,
    pub(super) peer: SocketAddr,
    pub(super) pulse: Arc<Pulse>,
}

impl<S> hyper::service::Service<hyper::Request<Incoming>> for Entrance<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone,
    S::Future: Unpin,
{
    type Response = hyper::Response<Answer>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let in_hand = InHand::new(&self.pulse);
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(RequestBody::new(body, &self.pulse))
            }
        });
        let is_http2 = request.version() == Version::HTTP_2;
        let is_tunnel = *request.method() == Method::CONNECT;
        let asks = is_tunnel || request.headers().contains_key(header::UPGRADE);
        if is_http2 {
            join_cookies(request.headers_mut());
        }
        request.extensions_mut().insert(ConnectInfo(self.peer));
        Answering {
            future: self.service.clone().call(request),
            in_hand: Some(in_hand),
            upgrade: (asks, is_tunnel),
            is_http2,
            pulse: Arc::clone(&self.pulse),
        }
    }
}

/// HTTP/2 may send each cookie in a header of its own; whoever reads them expects one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    let Some(first) = all.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    let mut is_split = false;
    for cookie in all {
        is_split = true;
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if is_split && let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(header::COOKIE, joined);
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answering<F> {
    future: F,
    in_hand: Option<InHand>,
    /// Whether the request asks for an upgrade, and whether by `CONNECT`.
    upgrade: (bool, bool),
    is_http2: bool,
    pulse: Arc<Pulse>,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response, Infallible>> + Unpin,
{
    type Output = Result<hyper::Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.future).poll(context));
        let (asks, is_tunnel) = self.upgrade;
        if asks {
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || is_tunnel && status.is_success() {
                self.pulse.upgrade();
            } else {
                // Nobody has followed what came after such a request.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
        }
        let in_hand = self.in_hand.take();
        let offer = self.is_http2.then(|| Offer::new(&self.pulse));
        Poll::Ready(Ok(response.map(|body| Answer::new(body, in_hand, offer))))
    }
}
