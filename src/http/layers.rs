//! Every layer around the routes, in order.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::request_id::MakeRequestId;
use tower_http::request_id::PropagateRequestIdLayer;
use tower_http::request_id::RequestId;
use tower_http::request_id::SetRequestIdLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use crate::cache::Cache;
use crate::database::Database;
use crate::database::files;
use crate::digits::hex;
use crate::http::Assets;
use crate::http::Error;
use crate::http::ErrorPages;
use crate::http::Pages;
use crate::http::Settings;
use crate::http::arrival::Arrive;
use crate::http::arrival::Handles;
use crate::http::body_limit::BodyLimit;
use crate::http::client::address;
use crate::http::compress::Compress;
use crate::http::error::Explain;
use crate::http::error::Look;
use crate::http::error::REQUEST_ID;
use crate::http::error::text;
use crate::http::gate::Gate;
use crate::http::health;
use crate::http::nonce;
use crate::http::upload::Place;
use crate::http::upload::Room;
use crate::replication::Replica;

/// Puts the framework's routes beside a site's, and the layers around both.
///
/// The site's routes must have their state already (`with_state`). `errors` is the site's own page for errors.
pub fn router(
    routes: Router,
    assets: Assets,
    settings: &Settings,
    errors: ErrorPages,
    (database, cache, replica): (&Database, &Cache, &Replica),
) -> Router {
    let (own, look) = own(settings, errors);
    let site = Handles {
        place: Some(Place {
            folder: files::folder(database.path()).into(),
            room: Room::new(settings.uploads_bytes_max),
        }),
        cache: cache.clone(),
        pages: Pages::of(cache),
        clock: database.clock().clone(),
        time: settings.request_timeout(),
    };
    let routes = routes
        .merge(health::routes(database, replica))
        .merge(own.merge(assets).routes());
    layers(routes, look, settings, Some(Arc::new(site)))
}

/// Answers with the [`Error`] in a request's extensions, in the same layers and with the same look as a site's.
///
/// Also the stylesheet of those pages, at the path that is returned.
pub(super) fn pages(settings: &Settings) -> (Router, String) {
    let (own, look) = own(settings, ErrorPages::default());
    let stylesheet = look.stylesheet.clone();
    let routes = own
        .routes()
        .fallback(async |error: Option<Extension<Error>>| {
            error.map_or_else(Error::not_found, |Extension(error)| error)
        });
    (layers(routes, look, settings, None), stylesheet)
}

/// The framework's own files, and what its pages need of them.
fn own(settings: &Settings, pages: ErrorPages) -> (Assets, Look) {
    let own = Assets::own();
    let look = Look {
        stylesheet: own.url("houseboat.css"),
        is_development: settings.is_development,
        pages,
    };
    (own, look)
}

/// Every layer, in the order in which a request meets them.
///
/// They are one stack, and not a `Router::layer` each, which would cost an allocation a layer and request.
fn layers(routes: Router, look: Look, settings: &Settings, site: Option<Arc<Handles>>) -> Router {
    let body_bytes_max = settings.body_bytes_max;
    let stack = ServiceBuilder::new()
        .layer(Arrive::new(settings, site))
        .layer(SetRequestIdLayer::x_request_id(NewRequestId))
        // Sees everything below, and the id above.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_request(())
                .on_body_chunk(())
                .on_eos(())
                .on_failure(())
                .on_response(log_response),
        )
        .layer(PropagateRequestIdLayer::x_request_id())
        .map_response(security_headers)
        .layer(Compress)
        // Above all that can refuse, so that every refusal gets its page.
        .layer(Explain::new(look))
        // A handler that takes too long is dropped here; what it had begun to write is finished all the same.
        .layer(Gate::new(settings))
        .layer(CatchPanicLayer::custom(panicked))
        // Writes are taken from pages of this site only. By `Sec-Fetch-Site`, which every browser of today sends over
        // https: `same-origin`, and `none` for what the visitor began, go on; `same-site`, another subdomain, does not.
        // Without it, by `Origin`: what is not this host is refused, `null` too. A request with neither is no
        // browser's, so nobody else's cookies are in it; as Go's `CrossOriginProtection` and OWASP have it.
        .layer(CsrfLayer::new())
        // Bodies: by their stated length at once, by what really comes as it is read. A route may have its own limit.
        .map_request(move |request| BodyLimit::around(request, body_bytes_max))
        .layer(DefaultBodyLimit::max(settings.body_bytes_max));
    routes.layer(stack)
}

#[derive(Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _request: &axum::http::Request<B>) -> Option<RequestId> {
        let id = hex(&fastrand::u64(..).to_be_bytes());
        HeaderValue::from_str(&id).ok().map(RequestId::new)
    }
}

/// Without the query: it may hold what does not belong in a log.
fn request_span(request: &Request) -> Span {
    let id = text(request.headers(), &REQUEST_ID).unwrap_or_default();
    let client = address(request.extensions()).map(tracing::field::display);
    tracing::info_span!("request", request.id = id, client, method = %request.method(), path = request.uri().path())
}

fn log_response<B>(response: &axum::http::Response<B>, duration: Duration, span: &Span) {
    let status = response.status().as_u16();
    let duration_ms = (duration.as_secs_f64() * 10_000.0).round() / 10.0;
    tracing::info!(parent: span, status, duration_ms, "answered");
}

#[expect(clippy::needless_pass_by_value, reason = "the layer calls it so")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a text");
    Error::internal(format!("a handler panicked: {text}")).into_response()
}

/// What tells a browser to be careful, where the site has not said otherwise itself.
static SECURITY_HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(nonce::POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

fn security_headers<B>(mut response: axum::http::Response<B>) -> axum::http::Response<B> {
    let headers = response.headers_mut();
    // With room for these and the id, so that the map grows once.
    headers.reserve(SECURITY_HEADERS.len() + 1);
    for (name, value) in &SECURITY_HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    response
}
