//! Whole answers that are kept and given to everybody who asks the same: the layer [`PageCache`].
//!
//! It goes by RFC 9110 and 9111 as a shared cache. Where it leaves them: of a request's `Cache-Control` it follows
//! `no-cache`, `no-store` and `only-if-cached` alone (they are advice); it never asks the handler whether an old page
//! still holds, but makes it anew; it keeps no parts of a page; and dates are read in the one form that is in use.

mod asked;
mod condition;
mod directives;
mod kept;
mod making;
mod page;
mod place;
mod shelf;
mod visit;
mod whole;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderName;
use axum::response::Response;
use tower::Layer;
use tower::Service;

use crate::cache::Cache;
use crate::cache::Ttl;
use crate::database::Clock;
use crate::http::arrival::Handles;

pub(crate) use self::asked::SESSION_COOKIES;
pub use self::shelf::Pages;

/// A page up to this is kept, with its compressed copies: within the cache's own bound for a value.
const BYTES_MAX: usize = 256 << 10;

/// So many variants of one address are kept.
const VARIANTS_MAX: usize = 16;

/// How long a handler may take where no `server.request_timeout_ms` says so.
const TIME: Duration = Duration::from_secs(30);

/// A layer that keeps the answers of routes in the cache, for visitors who are nobody in particular.
///
/// ```
/// use houseboat::Context;
/// use houseboat::axum::{Router, routing::get};
/// use houseboat::http::PageCache;
/// use std::time::Duration;
///
/// # async fn news() -> &'static str { "news" }
/// let routes: Router<Context> = Router::new()
///     .route("/news", get(news))
///     .layer(PageCache::new(Duration::from_secs(60)).query(&["page"]));
/// ```
///
/// **What is kept**: answers to GET without `Authorization`, cookies, `Range` and a body, that have the status 200,
/// 203, 301, 308, 404 or 410, no `Set-Cookie`, no `Vary: *`, and no `no-store`, `private` or `no-cache` in their
/// `Cache-Control`, up to 256 KiB. All others are passed through as they are.
///
/// **For how long**: what the answer says (`s-maxage`, `max-age`, `Expires`; `stale-while-revalidate`), and else the
/// time of the layer. While a page is stale, visitors get it at once, and one new one is made behind them.
///
/// **For whom**: for those who ask for the same host, path and query, byte by byte, with the same values of the headers
/// that the answer's `Vary` names.
///
/// **What the handler sees**: the headers by which browsers negotiate (`Accept`, `Accept-Language`, `User-Agent`,
/// `Origin`, `Sec-…`, …), and those that [`headers`](Self::headers) names. Others, such as `X-Forwarded-Host`, it does
/// not see: what is not in the key of a page must not decide what is on it. `HEAD` is asked of it as `GET`.
///
/// A page is made once for all who wait for it, in a task of its own. It gets an `ETag` where it has none, 304 is
/// answered for it, and it is compressed once, when it is kept. [`Pages`] forgets them; a POST to
/// the same path that succeeds does so by itself, if the layer is around that as well.
#[derive(Clone, Debug)]
pub struct PageCache(Arc<Rules>);

/// What a site says of its pages.
#[derive(Clone, Debug)]
struct Rules {
    ttl: Ttl,
    /// `None`: all of it counts.
    query: Option<Vec<String>>,
    headers: Vec<HeaderName>,
    /// `None`: every one.
    personal_cookies: Option<Vec<String>>,
    bytes_max: usize,
    variants_max: usize,
    /// `None`: those that are found beside the request.
    handles: Option<Arc<Handles>>,
}

impl PageCache {
    /// Keeps pages for so long, where their `Cache-Control` does not say.
    #[must_use]
    pub fn new(ttl: impl Into<Ttl>) -> Self {
        Self(Arc::new(Rules {
            ttl: ttl.into(),
            query: None,
            headers: Vec::new(),
            personal_cookies: None,
            bytes_max: BYTES_MAX,
            variants_max: VARIANTS_MAX,
            handles: None,
        }))
    }

    /// Names the parameters of the query that count; the handler does not see the others. As they stand in the address,
    /// without decoding.
    #[must_use]
    pub fn query(mut self, names: &[&str]) -> Self {
        self.rules().query = Some(owned(names));
        self
    }

    /// Names headers that the handler needs to see and that count for every page, such as `hx-request`.
    ///
    /// # Panics
    ///
    /// When one is not the name of a header, in lower case.
    #[must_use]
    pub fn headers(mut self, names: &[&'static str]) -> Self {
        let names = names.iter().map(|name| HeaderName::from_static(name));
        self.rules().headers = names.collect();
        self
    }

    /// Names the cookies that make a visitor somebody; visitors with others only are given kept pages.
    ///
    /// Those by which people are signed in ([`auth`](crate::auth)) do so in any case.
    /// Without this call every cookie does. A handler that makes a page to be kept sees none.
    #[must_use]
    pub fn personal_cookies(mut self, names: &[&str]) -> Self {
        self.rules().personal_cookies = Some(owned(names));
        self
    }

    /// Sets the size up to which a page is kept, in bytes; 256 KiB by default.
    ///
    /// With its compressed copies it must fit into `cache.value_bytes_max`.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.rules().bytes_max = bytes;
        self
    }

    /// Sets how many variants of one address are kept, by the headers that `Vary` names; 16 by default, 1 at least.
    ///
    /// One more takes the place of the oldest.
    #[must_use]
    pub fn variants_max(mut self, count: usize) -> Self {
        self.rules().variants_max = count.max(1);
        self
    }

    /// Says which cache to use, for a router that [`App`](crate::App) does not serve.
    ///
    /// Its paths are then those that the layer sees: it belongs around a nested router, and not into it.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.rules().handles = Some(Arc::new(Handles {
            place: None,
            pages: Pages::of(&cache),
            cache,
            clock: Clock::system(),
            time: TIME,
        }));
        self
    }

    fn rules(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.0)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl<S> Layer<S> for PageCache {
    type Service = Cached<S>;

    fn layer(&self, handler: S) -> Cached<S> {
        Cached(Arc::new(Inner {
            rules: Arc::clone(&self.0),
            handler,
        }))
    }
}

/// What stands in front of a route whose answers are kept.
#[derive(Debug)]
pub struct Cached<S>(Arc<Inner<S>>);

/// What answers where nothing is kept.
trait Handler:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Handler for S
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
}

#[derive(Debug)]
struct Inner<S> {
    rules: Arc<Rules>,
    /// Cloned only where it is asked: most requests do not come so far.
    handler: S,
}

impl<S> Clone for Cached<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Service<Request> for Cached<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    /// A clone of the handler is made ready when it is asked.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(visit::answer(inner, request).await) })
    }
}
