//! What who may not come in is told.

use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;

use crate::auth::accounts::Accounts;
use crate::auth::next::sign_in_path;
use crate::auth::pages::setting_up;
use crate::auth::visit::Visit;
use crate::database;
use crate::http;

/// Why somebody may not come in; it becomes the answer.
#[derive(Debug)]
pub struct Refused(Reason);

#[derive(Debug)]
enum Reason {
    /// To this address, to sign in.
    SignIn(String),
    /// The site has no owner yet.
    SettingUp(Accounts),
    Told(http::Error),
}

impl Refused {
    /// For who is not signed in.
    pub(super) async fn nobody(visit: &Visit, parts: &Parts) -> Self {
        match visit.accounts().has_owner().await {
            Err(error) => return error.into(),
            Ok(false) if !wants_json(&parts.headers) => {
                return Self(Reason::SettingUp(visit.accounts().clone()));
            }
            Ok(false) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self::told(status, "This site is being set up.");
            }
            Ok(true) => {}
        }
        let is_page = matches!(parts.method, Method::GET | Method::HEAD);
        if is_page && !wants_json(&parts.headers) {
            return Self(Reason::SignIn(sign_in_path(visit.target())));
        }
        let text = "You are not signed in, or no longer. Open the page again and sign in.";
        Self::told(StatusCode::UNAUTHORIZED, text)
    }

    /// For a user who is not the owner.
    pub(super) fn not_owner() -> Self {
        Self::told(
            StatusCode::FORBIDDEN,
            "This is for the owner of the site alone.",
        )
    }

    fn told(status: StatusCode, text: &str) -> Self {
        Self(Reason::Told(http::Error::new(status, text)))
    }
}

impl From<http::Error> for Refused {
    fn from(error: http::Error) -> Self {
        Self(Reason::Told(error))
    }
}

impl From<database::Error> for Refused {
    fn from(error: database::Error) -> Self {
        Self(Reason::Told(error.into()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self.0 {
            Reason::SignIn(path) => Redirect::to(&path).into_response(),
            Reason::SettingUp(accounts) => setting_up::page(&accounts).into_response(),
            Reason::Told(error) => error.into_response(),
        }
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("json") && !accept.contains("text/html"))
}
