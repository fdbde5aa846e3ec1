//! What everybody sees of private pages while the site has no owner.

use askama::Template;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::auth::accounts::Accounts;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::http;

/// How soon somebody may look again, in seconds.
const SOON: HeaderValue = HeaderValue::from_static("60");

#[derive(Template)]
#[template(path = "houseboat/auth/setting_up.html")]
struct SettingUpPage {
    frame: Frame,
}

pub(in crate::auth) fn page(accounts: &Accounts) -> http::Result<Response> {
    let page = SettingUpPage {
        frame: Frame::of(accounts),
    };
    let mut response = pages::page(StatusCode::SERVICE_UNAVAILABLE, &page)?;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, SOON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response.into_response())
}
