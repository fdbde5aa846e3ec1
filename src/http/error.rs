//! What a handler may fail with, and the page a visitor then sees.

use std::time::Duration;

use askama::Template;
use axum::Json;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;

use crate::cache;
use crate::database;
use crate::database::BoxError;
use crate::replication;

/// A result of a handler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a handler may fail with: a status, a sentence for the visitor, and the cause, which only the log sees.
///
/// Becomes a page, or JSON (RFC 9457) for who asks for it.
#[derive(Clone, Debug)]
pub struct Error {
    status: StatusCode,
    detail: String,
    /// Why, for the log.
    cause: Option<String>,
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
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let mut error = Self::new(status, words(status).1);
        error.cause = Some(database::chain(cause.into().as_ref()));
        error
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
    pub(super) fn broken(status: StatusCode, detail: &str, cause: String) -> Self {
        let mut error = Self::new(status, detail);
        error.cause = Some(cause);
        error
    }

    /// The database cannot do it now, and may later.
    fn refused(status: StatusCode, cause: &database::Error) -> Self {
        let mut error = Self::new(status, words(status).1);
        error.cause = Some(cause.to_string());
        let takes_longer = matches!(cause, database::Error::Damaged | database::Error::DiskFull);
        error.retry_after = (!takes_longer).then_some(SOON);
        error
    }
}

impl From<database::Error> for Error {
    fn from(error: database::Error) -> Self {
        match error {
            database::Error::Overloaded { .. }
            | database::Error::Busy
            | database::Error::Timeout { .. }
            | database::Error::RolledBack(_)
            | database::Error::Damaged
            | database::Error::Fenced
            | database::Error::Closed => Self::refused(StatusCode::SERVICE_UNAVAILABLE, &error),
            database::Error::DiskFull => Self::refused(StatusCode::INSUFFICIENT_STORAGE, &error),
            error => Self::internal(error),
        }
    }
}

/// The bucket does not answer: what the handler has stored is stored, and not copied yet.
impl From<replication::Error> for Error {
    fn from(error: replication::Error) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut answer = Self::new(status, words(status).1);
        answer.cause = Some(error.to_string());
        answer
    }
}

impl From<cache::Error> for Error {
    fn from(error: cache::Error) -> Self {
        Self::internal(error)
    }
}

impl From<askama::Error> for Error {
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

/// What every error page needs.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) stylesheet: String,
}

/// Gives every error answer a body that says what happened: a page, or JSON.
///
/// What the site's handlers made themselves as HTML or JSON stays as it is; a short plain text goes on the page.
pub(super) async fn explain(State(look): State<Look>, request: Request, next: Next) -> Response {
    let wants_json = wants_json(request.headers());
    let request_id = text(request.headers(), &REQUEST_ID)
        .unwrap_or_default()
        .to_owned();
    let response = next.run(request).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let error = response.extensions().get::<Error>().cloned();
    if error.is_none() && has_body_of_its_own(response.headers()) {
        return response;
    }
    let (error, response) = match error {
        Some(error) => (error, response),
        None => plain(response).await,
    };
    log(&error);
    let page = Page {
        status: error.status.as_u16(),
        title: words(error.status).0,
        detail: &error.detail,
        request_id: &request_id,
        stylesheet: &look.stylesheet,
    };
    page.answer(wants_json, response)
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

/// The page, and the fields of the JSON.
#[derive(Serialize, Template)]
#[template(path = "houseboat/error.html")]
struct Page<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip)]
    stylesheet: &'a str,
}

impl Page<'_> {
    fn answer(&self, json: bool, response: Response) -> Response {
        let (mut parts, _) = response.into_parts();
        for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
            parts.headers.remove(name);
        }
        if json {
            let media = [(header::CONTENT_TYPE, "application/problem+json")];
            return (parts, media, Json(self)).into_response();
        }
        let html = self.render().unwrap_or_else(|_| self.title.to_owned());
        (parts, Html(html)).into_response()
    }
}

fn log(error: &Error) {
    let status = error.status.as_u16();
    match &error.cause {
        Some(cause) if error.status.is_server_error() => tracing::error!(status, error = cause),
        Some(cause) => tracing::debug!(status, error = cause),
        None => {}
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    text(headers, &header::ACCEPT)
        .is_some_and(|accept| accept.contains("json") && !accept.contains("text/html"))
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

/// A title and a sentence for a status: what happened, and what to do.
fn words(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        400 => ("Bad request", "The request could not be understood."),
        403 => (
            "Forbidden",
            "This request is not allowed. If you sent a form, open its page again and send it from there.",
        ),
        404 => (
            "Not found",
            "There is nothing at this address. It may have been moved or deleted.",
        ),
        405 => (
            "Method not allowed",
            "This address does not answer this kind of request.",
        ),
        413 => (
            "Too large",
            "What was sent is larger than this site accepts.",
        ),
        415 => (
            "Unsupported media type",
            "What was sent is not in a form that this address understands.",
        ),
        422 => ("Not accepted", "What was sent is incomplete or not valid."),
        429 => ("Too many requests", "Please wait a moment and try again."),
        500 => (
            "Something went wrong",
            "The site made a mistake, and it is in its log. Trying again may help.",
        ),
        503 => (
            "Busy",
            "The site cannot answer just now. Please try again in a moment.",
        ),
        507 => (
            "No room",
            "The site cannot store anything just now. Please try again later.",
        ),
        _ if status.is_server_error() => (
            "Something went wrong",
            "The site could not answer. Please try again later.",
        ),
        _ => ("Request refused", "The request could not be answered."),
    }
}
