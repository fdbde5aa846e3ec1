//! What a handler may fail with, and the page a visitor then sees.

mod cause;
mod page;
mod words;

use std::time::Duration;

use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::cache;
use crate::database;
use crate::database::BoxError;
use crate::http::once;
use crate::http::personal::Personal;
use crate::replication;

pub use self::cause::Cause;
pub use self::page::ErrorPage;
pub use self::page::ErrorPages;
pub use self::page::FieldError;

pub(super) use self::page::Look;
use self::words::words;

/// A result of a handler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a handler may fail with: a status, a sentence for the visitor, and the cause.
///
/// Becomes a page, or JSON (RFC 9457) for who asks for it. The cause goes to the log; in the environment `development`
/// it stands on the page as well, with the place in the code, and in every other one nowhere but in the log.
#[derive(Clone, Debug)]
pub struct Error {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    cause: Option<Box<Cause>>,
    retry_after: Option<HeaderValue>,
}

/// Where a request carries its id, from the layer that gives it one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How the texts of axum's own extractors begin: they speak to programmers, and go to the log.
const AXUMS: [&str; 7] = [
    "Cannot parse",
    "Expected request with",
    "Failed to",
    "Form requests must",
    "Invalid URL",
    "Wrong number of path",
    "length limit exceeded",
];

/// A longer text of a handler is not put on the page.
const TEXT_BYTES_MAX: usize = 1_000;

/// What a visitor is told when the site is too busy: come back in a second.
const SOON: HeaderValue = HeaderValue::from_static("1");

impl Error {
    /// An answer with this status and this sentence, which the visitor sees.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            cause: None,
            retry_after: None,
        }
    }

    /// 404: there is nothing at this address.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, words(StatusCode::NOT_FOUND).1)
    }

    /// 500: something is wrong with the site; `cause` goes to the log, and not to the visitor.
    #[must_use]
    #[track_caller]
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let mut error = Self::new(status, words(status).1);
        error.cause = Some(Box::new(Cause::new(cause.into().as_ref())));
        error
    }

    /// 422: what was sent is not as it must be, and what of it.
    #[must_use]
    pub fn refused(errors: Vec<FieldError>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut error = Self::new(status, words(status).1);
        error.errors = errors;
        error
    }

    /// Says why, for the log and for whoever develops the site.
    #[must_use]
    #[track_caller]
    pub(super) fn because(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(Box::new(Cause::new(cause.into().as_ref())));
        self
    }

    /// Says which parts are wrong.
    #[must_use]
    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// 503: not now; the visitor's program may ask again in so many seconds.
    pub(crate) fn later(detail: &str, seconds: u16) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        error.retry_after = Some(HeaderValue::from(seconds));
        error
    }

    /// 429: not so often; the visitor's program may ask again after this.
    pub(crate) fn too_many(retry_after: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut error = Self::new(status, words(status).1);
        // Rounded up: who comes back then is let in.
        let seconds = retry_after.as_millis().div_ceil(1_000).max(1);
        error.retry_after = HeaderValue::try_from(seconds.to_string()).ok();
        error
    }

    /// The sentence for the visitor.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What another container was to answer, and did not; `cause` goes to the log.
    #[track_caller]
    pub(super) fn broken(status: StatusCode, detail: &str, cause: String) -> Self {
        let mut error = Self::new(status, detail);
        error.cause = Some(Box::new(Cause::of(cause)));
        error
    }

    /// The database cannot do it now, and may later.
    #[track_caller]
    fn not_now(status: StatusCode, cause: &database::Error) -> Self {
        let mut error = Self::new(status, words(status).1);
        error.cause = Some(Box::new(Cause::new(cause)));
        let takes_longer = matches!(cause, database::Error::Damaged | database::Error::DiskFull);
        error.retry_after = (!takes_longer).then_some(SOON);
        error
    }
}

impl From<database::Error> for Error {
    #[track_caller]
    fn from(error: database::Error) -> Self {
        if let Some(refused) = once::refused(&error) {
            return refused;
        }
        match error {
            database::Error::Overloaded { .. }
            | database::Error::Busy
            | database::Error::Timeout { .. }
            | database::Error::RolledBack(_)
            | database::Error::Damaged
            | database::Error::Fenced
            | database::Error::Closed => Self::not_now(StatusCode::SERVICE_UNAVAILABLE, &error),
            database::Error::DiskFull => Self::not_now(StatusCode::INSUFFICIENT_STORAGE, &error),
            error => Self::internal(error),
        }
    }
}

/// The bucket does not answer: what the handler has stored is stored, and not copied yet.
impl From<replication::Error> for Error {
    #[track_caller]
    fn from(error: replication::Error) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, words(status).1).because(error)
    }
}

impl From<cache::Error> for Error {
    #[track_caller]
    fn from(error: cache::Error) -> Self {
        Self::internal(error)
    }
}

impl From<askama::Error> for Error {
    #[track_caller]
    fn from(error: askama::Error) -> Self {
        Self::internal(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = &self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.clone());
        }
        // `explain`, the layer below, makes the page: only there is it known what the visitor asked for.
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error answer a body that says what happened, a page or JSON, and every answer what its request asks for.
///
/// What the site's handlers made themselves as HTML or JSON stays as it is; a short plain text goes on the page.
pub(super) async fn explain(
    State(look): State<Look>,
    mut request: Request,
    next: Next,
) -> Response {
    let wants_json = wants_json(request.headers());
    let request_id = text(request.headers(), &REQUEST_ID)
        .unwrap_or_default()
        .to_owned();
    let path = request.uri().path().to_owned();
    let personal = Personal::begin(&mut request, look.is_development);
    let response = next.run(request).await;
    let response = match failed(response).await {
        Ok(response) => response,
        Err((error, response)) => {
            log(&error);
            let page = ErrorPage {
                status: error.status,
                title: words(error.status).0,
                detail: error.detail,
                errors: error.errors,
                request_id,
                path,
            };
            look.answer(&page, error.cause.as_deref(), wants_json, response)
        }
    };
    personal.finish(response)
}

/// Whether an answer is an error that is to be explained, and which.
async fn failed(response: Response) -> Result<Response, (Error, Response)> {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return Ok(response);
    }
    match response.extensions().get::<Error>().cloned() {
        Some(error) => Err((error, response)),
        None if has_body_of_its_own(response.headers()) => Ok(response),
        None => Err(plain(response).await),
    }
}

/// What a handler or an extractor said as plain text goes on the page, if it is short.
async fn plain(response: Response) -> (Error, Response) {
    let status = response.status();
    let own_words = words(status).1;
    if !status.is_client_error()
        || media(response.headers()).is_none_or(|media| !media.starts_with("text/plain"))
    {
        return (Error::new(status, own_words), response);
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, TEXT_BYTES_MAX)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let is_axums = AXUMS.iter().any(|start| text.starts_with(start));
    if is_axums {
        tracing::debug!(text, "an extractor refused the request");
    }
    let detail = if text.is_empty() || is_axums {
        own_words.to_owned()
    } else {
        text
    };
    (
        Error::new(status, detail),
        Response::from_parts(parts, axum::body::Body::empty()),
    )
}

fn log(error: &Error) {
    let status = error.status.as_u16();
    match &error.cause {
        Some(cause) if error.status.is_server_error() => {
            tracing::error!(status, place = cause.place(), error = cause.line());
        }
        Some(cause) => tracing::debug!(status, place = cause.place(), error = cause.line()),
        None => {}
    }
}

/// Who says so, and who sends JSON and says nothing of pages.
fn wants_json(headers: &HeaderMap) -> bool {
    let accept = text(headers, &header::ACCEPT).unwrap_or_default();
    let sends_json = media(headers).is_some_and(|media| media.contains("json"));
    !accept.contains("text/html") && (sends_json || accept.contains("json"))
}

fn has_body_of_its_own(headers: &HeaderMap) -> bool {
    media(headers).is_some_and(|media| media.starts_with("text/html") || media.contains("json"))
}

fn media(headers: &HeaderMap) -> Option<&str> {
    text(headers, &header::CONTENT_TYPE)
}

/// A header's value, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
