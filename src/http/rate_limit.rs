//! So many requests in so much time: the layer [`RateLimit`].

use std::convert::Infallible;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::response::Response;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;

use crate::cache::Cache;
use crate::http::Error;
use crate::http::address::network;
use crate::http::arrival::Arrival;
use crate::http::client::address;

/// The namespace of all limits.
const LIMITS: &str = "rate_limit";

/// A layer that answers 429 to who asks too often, with `Retry-After`.
///
/// ```
/// use houseboat::Context;
/// use houseboat::axum::{Router, routing::post};
/// use houseboat::http::RateLimit;
/// use std::time::Duration;
///
/// # async fn login() {}
/// let routes: Router<Context> = Router::new()
///     .route("/login", post(login))
///     .layer(RateLimit::per_address(10, Duration::from_secs(60)));
/// ```
///
/// So many may come at once, and then one each `per / at_most`. All routes of one layer count together; another layer,
/// made at another place in the code, counts for itself. What was counted is in the cache, so it outlives a restart,
/// and is gone with the cache; two processes on one cache file may each let some through.
///
/// There are no `RateLimit` headers: they are no standard yet.
#[derive(Clone)]
pub struct RateLimit(Arc<Rules>);

type Who = dyn Fn(&Request) -> Option<String> + Send + Sync;

#[derive(Clone)]
struct Rules {
    name: String,
    at_most: u32,
    per: Duration,
    who: Arc<Who>,
    /// `None`: the one that is found beside the request.
    cache: Option<Cache>,
}

impl RateLimit {
    /// At most so many requests, in so much time, from one address; for IPv6, from one network of 64 bits.
    ///
    /// The address is that of the [`Client`](crate::http::Client), also behind a proxy. What comes over no connection, in a test that asks
    /// the router, is let through.
    ///
    /// # Panics
    ///
    /// When `at_most` or `per` is zero.
    #[must_use]
    #[track_caller]
    pub fn per_address(at_most: u32, per: Duration) -> Self {
        Self::by(at_most, per, |request| {
            let address = address(request.extensions())?;
            Some(network(address).to_string())
        })
    }

    /// At most so many requests, in so much time, from each whom `who` names; whom it does not name is let through.
    ///
    /// # Panics
    ///
    /// When `at_most` or `per` is zero.
    #[must_use]
    #[track_caller]
    pub fn by(
        at_most: u32,
        per: Duration,
        who: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        assert!(
            at_most > 0,
            "a rate limit lets at least one request through"
        );
        assert!(!per.is_zero(), "a rate limit is for some time");
        Self(Arc::new(Rules {
            name: Location::caller().to_string(),
            at_most,
            per,
            who: Arc::new(who),
            cache: None,
        }))
    }

    /// Names the limit: layers of one name count together, and what was counted outlives a new build of the program.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.rules().name);
        self
    }

    /// Says which cache to use, for a router that [`App`](crate::App) does not serve.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.rules().cache = Some(cache);
        self
    }

    fn rules(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.0)
    }
}

impl Rules {
    /// What to tell somebody who has to wait.
    async fn refusal(&self, cache: &Cache, who: &str) -> Option<Error> {
        let key = format!("{}\n{who}", self.name);
        let limits = cache.namespace(LIMITS);
        let refused = limits.allow(key, self.at_most, self.per).await.err()?;
        Some(Error::too_many(refused.retry_after))
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RateLimit")
            .field("name", &self.0.name)
            .field("at_most", &self.0.at_most)
            .field("per", &self.0.per)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = Limited<S>;

    fn layer(&self, handler: S) -> Limited<S> {
        Limited {
            rules: Arc::clone(&self.0),
            handler,
        }
    }
}

/// What stands in front of a route that is limited.
#[derive(Clone)]
pub struct Limited<S> {
    rules: Arc<Rules>,
    handler: S,
}

impl<S: fmt::Debug> fmt::Debug for Limited<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Limited")
            .field("name", &self.rules.name)
            .field("handler", &self.handler)
            .finish_non_exhaustive()
    }
}

impl<S> Service<Request> for Limited<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
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
        let (rules, handler) = (Arc::clone(&self.rules), self.handler.clone());
        let who = (rules.who)(&request);
        let arrival = request.extensions().get::<Arrival>();
        let cache = rules
            .cache
            .clone()
            .or_else(|| Some(arrival?.site.as_ref()?.cache.clone()));
        Box::pin(async move {
            if let (Some(who), Some(cache)) = (who, cache)
                && let Some(error) = rules.refusal(&cache, &who).await
            {
                return Ok(error.into_response());
            }
            handler.oneshot(request).await
        })
    }
}
