//! The answer that a visitor gets for an error: a page, or JSON.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use askama::Template;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;

use crate::database::BoxError;
use crate::database::panic_text;
use crate::http::error::Cause;

/// What is known of an error when its page is made: what [`App::errors`](crate::App::errors) is given.
///
/// Nothing in it is of the site's inside, so all of it may be shown. It is not escaped: templates do that.
#[derive(Debug)]
pub struct ErrorPage {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    pub(super) request_id: String,
    pub(super) path: String,
}

/// What is wrong with one field of what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name; in JSON a pointer to the part (RFC 6901, as a fragment), such as `#/owner/name`.
    pub field: String,
    /// A sentence for people.
    pub detail: String,
}

impl ErrorPage {
    /// The status, from 400 on.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A title in a few words, such as “Not found”.
    #[must_use]
    pub fn title(&self) -> &str {
        self.title
    }

    /// What happened and what to do, in a sentence or two.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong with single fields, where it is a form or JSON that was not accepted.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// By what the log knows the request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The path that was asked for, as it came, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

type Make = dyn Fn(&ErrorPage) -> Result<String, BoxError> + Send + Sync;

/// The site's own page for errors, if it has one.
#[derive(Clone, Default)]
pub struct ErrorPages(Option<Arc<Make>>);

impl ErrorPages {
    pub(crate) fn new<F, E>(make: F) -> Self
    where
        F: Fn(&ErrorPage) -> Result<String, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self(Some(Arc::new(move |page| make(page).map_err(Into::into))))
    }

    /// The site's page; `None` where it has none, or could not make it: ours is shown then.
    fn make(&self, page: &ErrorPage) -> Option<String> {
        let make = self.0.as_ref()?;
        match catch_unwind(AssertUnwindSafe(|| make(page))) {
            Ok(Ok(html)) => return Some(html),
            Ok(Err(error)) => tracing::error!(%error, "the site's page for errors failed"),
            Err(panic) => {
                let error = panic_text(panic.as_ref());
                tracing::error!(error, "the site's page for errors panicked");
            }
        }
        None
    }
}

impl fmt::Debug for ErrorPages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("ErrorPages")
            .field(&self.0.is_some())
            .finish()
    }
}

/// What every error page needs.
#[derive(Clone, Debug)]
pub(in crate::http) struct Look {
    pub(in crate::http) stylesheet: String,
    /// Whether causes are shown.
    pub(in crate::http) is_development: bool,
    pub(in crate::http) pages: ErrorPages,
}

/// Our page.
#[derive(Template)]
#[template(path = "houseboat/error.html")]
struct Own<'a> {
    page: &'a ErrorPage,
    cause: Option<&'a Cause>,
    stylesheet: &'a str,
}

/// RFC 9457; `request_id`, `errors` and `cause` are extensions.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Inside<'a>>,
}

/// What is shown in development alone.
#[derive(Serialize)]
struct Inside<'a> {
    chain: &'a [String],
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<&'a str>,
}

impl Look {
    /// Puts the page, or the JSON, in the place of a response's body.
    pub(super) fn answer(
        &self,
        page: &ErrorPage,
        cause: Option<&Cause>,
        wants_json: bool,
        response: Response,
    ) -> Response {
        let (mut parts, _) = response.into_parts();
        for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
            parts.headers.remove(name);
        }
        let cause = cause.filter(|_| self.is_development);
        if wants_json {
            let media = [(header::CONTENT_TYPE, "application/problem+json")];
            return (parts, media, Json(page.problem(cause))).into_response();
        }
        (parts, Html(self.html(page, cause))).into_response()
    }

    /// Whoever builds the site sees the cause, on our page; everybody else gets the site's.
    fn html(&self, page: &ErrorPage, cause: Option<&Cause>) -> String {
        let site = if cause.is_none() {
            self.pages.make(page)
        } else {
            None
        };
        site.unwrap_or_else(|| {
            let own = Own {
                page,
                cause,
                stylesheet: &self.stylesheet,
            };
            own.render().unwrap_or_else(|_| page.title.to_owned())
        })
    }
}

impl ErrorPage {
    fn problem<'a>(&'a self, cause: Option<&'a Cause>) -> Problem<'a> {
        Problem {
            r#type: "about:blank",
            title: self.title,
            status: self.status(),
            detail: &self.detail,
            instance: &self.path,
            request_id: &self.request_id,
            errors: &self.errors,
            cause: cause.map(|cause| Inside {
                chain: cause.chain(),
                place: cause.place(),
                sql: cause.sql(),
            }),
        }
    }
}
