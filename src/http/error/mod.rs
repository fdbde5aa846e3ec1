//! What a handler may fail with, and the page a visitor then sees.

mod cause;
mod explain;
mod page;
mod words;

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::cache;
use crate::database;
use crate::database::BoxError;
use crate::http::once;
use crate::replication;

pub use self::cause::Cause;
pub use self::page::ErrorPage;
pub use self::page::ErrorPages;
pub use self::page::FieldError;

pub(super) use self::explain::Explain;
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
        // `Explain`, a layer, makes the page: only there is it known what the visitor asked for.
        response.extensions_mut().insert(self);
        response
    }
}

/// A header's value, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
