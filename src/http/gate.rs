//! What is refused before any handler sees it.

use std::convert::Infallible;
use std::future::ready as ready_at_once;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use futures_util::FutureExt;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio::time::Sleep;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::service_fn;
use tower_http::csrf::CsrfLayer;

use crate::database::BoxError;
use crate::http::Error;
use crate::http::Settings;
use crate::http::arrival::Arrival;
use crate::http::hosts::Hosts;
use crate::http::pace::Coming;
use crate::http::pace::Pace;
use crate::http::pace::Paced;

/// The layer: an address that is too long is answered with 414, a host that is not the site's with 421, one that is
/// none with 400, a WebSocket that another site begins with 403, a body that comes too slowly with 408, and a handler
/// that takes too long is dropped, with 503.
///
/// The time does not count in which a handler waits for the client to send the body.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    hosts: Hosts,
    uri_bytes_max: usize,
    pace: Pace,
    time: Duration,
}

impl Gate {
    pub(super) fn new(settings: &Settings) -> Self {
        Self(Arc::new(Rules {
            hosts: Hosts::new(settings),
            uri_bytes_max: settings.uri_bytes_max,
            pace: Pace::new(settings),
            time: settings.request_timeout(),
        }))
    }
}

impl Rules {
    fn refusal(&self, request: &Request) -> Option<Error> {
        let uri = request.uri();
        let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
        if length > self.uri_bytes_max {
            let detail = "The address is too long.";
            return Some(Error::new(StatusCode::URI_TOO_LONG, detail));
        }
        // Who asks whether the site is well knows it by its address.
        if matches!(uri.path(), "/up" | "/ready") {
            return None;
        }
        let host = request
            .extensions()
            .get::<Arrival>()
            .map(|it| &it.client.host)?;
        let is_named = request.headers().contains_key(header::HOST) || uri.authority().is_some();
        if host.is_empty() && is_named {
            let detail = "The request names a host that is none.";
            return Some(Error::new(StatusCode::BAD_REQUEST, detail));
        }
        if !self.hosts.has(host) {
            let detail = "This site has another name. Please look at the address.";
            return Some(Error::new(StatusCode::MISDIRECTED_REQUEST, detail));
        }
        if is_handshake_of_others(request) {
            let detail = "This connection was begun by a page of another site.";
            return Some(Error::new(StatusCode::FORBIDDEN, detail));
        }
        None
    }
}

/// Whether a page of another site begins a WebSocket: that is a GET, and a browser sends a sibling's cookies along.
///
/// By the rules for writes.
fn is_handshake_of_others(request: &Request) -> bool {
    if !request.headers().contains_key(header::UPGRADE) {
        return false;
    }
    let mut write = axum::http::Request::new(());
    *write.method_mut() = Method::POST;
    write.uri_mut().clone_from(request.uri());
    write.headers_mut().clone_from(request.headers());
    let own = service_fn(|_: axum::http::Request<()>| {
        ready_at_once(Ok::<_, Infallible>(axum::http::Response::new(())))
    });
    let answer = CsrfLayer::new().layer(own).oneshot(write).now_or_never();
    answer.is_none_or(|Ok(answer)| answer.status() != StatusCode::OK)
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            rules: Arc::clone(&self.0),
        }
    }
}

/// What stands behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S, B> Service<Request> for Gated<S>
where
    S: Service<Request, Response = axum::http::Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Passing<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(error) = self.rules.refusal(&request) {
            return Passing::Refused {
                response: Some(leave(error)),
            };
        }
        let mut coming = None;
        let request = if request.body().is_end_stream() {
            request
        } else {
            let shared = Arc::new(Coming::new());
            coming = Some(Arc::clone(&shared));
            request.map(|body| Body::new(Paced::new(body, self.rules.pace, shared)))
        };
        Passing::Let {
            timer: tokio::time::sleep(self.rules.time),
            time: self.rules.time,
            began: Instant::now(),
            future: self.inner.call(request),
            coming,
        }
    }
}

/// An answer after which the connection is closed.
fn leave(error: Error) -> Response {
    let mut response = error.into_response();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

pin_project! {
    /// The answer of the gate, or of what is behind it.
    #[project = PassingProjected]
    pub(super) enum Passing<F> {
        Refused {
            response: Option<Response>,
        },
        Let {
            #[pin]
            future: F,
            #[pin]
            timer: Sleep,
            time: Duration,
            began: Instant,
            coming: Option<Arc<Coming>>,
        },
    }
}

impl<F, B> Future for Passing<F>
where
    F: Future<Output = Result<axum::http::Response<B>, Infallible>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            PassingProjected::Refused { response } => {
                let response = response.take();
                Poll::Ready(Ok(response.expect("a future is not asked after its end")))
            }
            PassingProjected::Let {
                future,
                mut timer,
                time,
                began,
                coming,
            } => {
                let Poll::Ready(Ok(response)) = future.poll(context) else {
                    loop {
                        ready!(timer.as_mut().poll(context));
                        let waited = coming.as_ref().map(|it| it.waited()).unwrap_or_default();
                        let left = (*time + waited).saturating_sub(began.elapsed());
                        if left.is_zero() {
                            return Poll::Ready(
                                Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
                            );
                        }
                        timer.as_mut().reset(Instant::now() + left);
                    }
                };
                // Whatever the handler made of a body that did not come.
                let is_late = coming.as_ref().is_some_and(|it| it.is_late());
                Poll::Ready(Ok(if is_late {
                    let detail = "What was sent came too slowly. Please try again.";
                    leave(Error::new(StatusCode::REQUEST_TIMEOUT, detail))
                } else {
                    response.map(Body::new)
                }))
            }
        }
    }
}
