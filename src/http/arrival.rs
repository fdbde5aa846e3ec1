//! How a request arrives: who sends it, and what the layers of single routes need to know of it and of the site.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::Response;
use axum::http::Uri;
use axum::http::header;
use jiff::Timestamp;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::Service;

use crate::cache::Cache;
use crate::database::Clock;
use crate::http::Client;
use crate::http::Pages;
use crate::http::Settings;
use crate::http::error::REQUEST_ID;
use crate::http::proxies::Proxies;
use crate::http::upload::Place;

/// In a request's extensions: how it came, before any router took a part of its path away, and the site's cache.
///
/// A layer of a route is made before the cache is open, so it finds it here.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) uri: Uri,
    pub(super) client: Client,
    /// `None` before there is a site.
    pub(super) site: Option<Arc<Handles>>,
}

/// What of a site such layers use.
#[derive(Clone, Debug)]
pub(super) struct Handles {
    /// Where uploads wait, in the folder of the database; `None` where only a cache is known.
    pub(super) place: Option<Place>,
    pub(super) cache: Cache,
    pub(super) pages: Pages,
    pub(super) clock: Clock,
    /// How long a request may take.
    pub(super) time: Duration,
}

impl Handles {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The first layer, which puts an [`Arrival`] beside each request.
#[derive(Clone, Debug)]
pub(super) struct Arrive(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    proxies: Proxies,
    site: Option<Arc<Handles>>,
    /// For those who came by https.
    transport: Option<HeaderValue>,
}

impl Arrive {
    pub(super) fn new(settings: &Settings, site: Option<Arc<Handles>>) -> Self {
        let is_wanted = settings.hsts_s > 0 && !settings.is_development;
        let transport = is_wanted.then(|| format!("max-age={}", settings.hsts_s));
        Self(Arc::new(Rules {
            proxies: settings.proxies(),
            site,
            transport: transport.and_then(|value| HeaderValue::try_from(value).ok()),
        }))
    }
}

impl Rules {
    /// Says who sends the request; its host is in `Host` from here on, whichever way it came.
    fn arrive(&self, request: &mut Request) -> bool {
        // An id from outside is not trusted: it could be another's, or a kilobyte long.
        request.headers_mut().remove(REQUEST_ID);
        let client = Client::of(request, &self.proxies);
        let named = request.headers().get(header::HOST);
        let is_same = named.is_some_and(|named| named.as_bytes() == client.host.as_bytes());
        let has_host = !client.host.is_empty();
        if has_host
            && !is_same
            && let Ok(host) = HeaderValue::try_from(&client.host)
        {
            request.headers_mut().insert(header::HOST, host);
        }
        if has_host
            && request.uri().authority().is_some()
            && let Some(path) = request.uri().path_and_query()
        {
            *request.uri_mut() = Uri::from(path.clone());
        }
        let is_https = client.is_https;
        let arrival = Arrival {
            uri: request.uri().clone(),
            client,
            site: self.site.clone(),
        };
        request.extensions_mut().insert(arrival);
        is_https
    }
}

impl<S> Layer<S> for Arrive {
    type Service = Arriving<S>;

    fn layer(&self, inner: S) -> Arriving<S> {
        Arriving {
            inner,
            rules: Arc::clone(&self.0),
        }
    }
}

/// What requests arrive at.
#[derive(Clone, Debug)]
pub(super) struct Arriving<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S, B> Service<Request> for Arriving<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Leaving<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let is_https = self.rules.arrive(&mut request);
        let transport = self.rules.transport.clone().filter(|_| is_https);
        Leaving {
            future: self.inner.call(request),
            transport,
        }
    }
}

pin_project! {
    /// The answer, which says to come by https again if it came so.
    pub(super) struct Leaving<F> {
        #[pin]
        future: F,
        transport: Option<HeaderValue>,
    }
}

impl<F, B> Future for Leaving<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.future.poll(context));
        if let Some(transport) = this.transport.take() {
            let headers = response.headers_mut();
            headers
                .entry(header::STRICT_TRANSPORT_SECURITY)
                .or_insert(transport);
        }
        Poll::Ready(Ok(response))
    }
}
