//! The pages of people: forms that work without JavaScript.

mod account;
mod first;
mod owner;
mod reset;
mod second;
pub(super) mod setting_up;
mod sign_in;

use std::sync::LazyLock;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use http_body_util::Limited;
use jiff::Timestamp;

use crate::auth::accounts::Accounts;
use crate::auth::client::Client;
use crate::auth::cookie::Cookie;
use crate::auth::next::encoded;
use crate::auth::next::or_home;
use crate::auth::sign_in::Entered;
use crate::http;
use crate::http::Assets;
use crate::http::Errors;

/// Longer ones are not looked at; a form has a few short fields.
const FORM_BYTES_MAX: usize = 16 << 10;

/// What every page needs.
#[derive(Clone, Debug)]
struct Frame {
    site: String,
    stylesheet: String,
    /// Whether whoever signs in here would not stay so.
    is_in_vain: bool,
}

impl Frame {
    fn of(accounts: &Accounts) -> Self {
        Self {
            site: accounts.site().to_owned(),
            stylesheet: assets().url("houseboat-auth.css"),
            is_in_vain: false,
        }
    }

    /// Of a page by which one signs in: without https the cookie would be for nothing, and nobody would know why.
    fn before(accounts: &Accounts, client: &Client) -> Self {
        Self {
            is_in_vain: client.is_open && accounts.cookies().is_secure(),
            ..Self::of(accounts)
        }
    }
}

/// One thing that is wrong, with the field that it stands beside.
fn wrong(field: &str, text: impl Into<String>) -> Errors {
    let mut errors = Errors::default();
    errors.add(field, text);
    errors
}

/// The files of these pages.
pub(crate) fn assets() -> &'static Assets {
    static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
        Assets::new(&[(
            "houseboat-auth.css",
            include_bytes!("../../../assets/houseboat/auth.css"),
        )])
    });
    &ASSETS
}

/// The routes under `/account`.
pub(super) fn routes(accounts: &Accounts) -> Router {
    let mut routes = Router::new()
        .route("/account", get(account::show))
        .route("/account/name", post(account::rename))
        .route("/account/password", post(account::change_password))
        .route("/account/sessions/{id}/revoke", post(account::revoke))
        .route("/account/sign-out", post(account::sign_out))
        .route(
            "/account/sign-out-everywhere",
            post(account::sign_out_everywhere),
        )
        .route(
            "/account/second-factor",
            get(second::set_up).post(second::confirm),
        )
        .route("/account/second-factor/off", post(second::turn_off))
        .route("/account/sign-in", get(sign_in::show).post(sign_in::enter))
        .route(
            "/account/sign-in/code",
            get(second::show).post(second::enter),
        )
        .route("/account/first", get(first::show).post(first::create))
        .route("/account/reset", get(reset::show).post(reset::set))
        .route("/account/people", get(owner::show).post(owner::invite))
        .route("/account/people/{id}/link", post(owner::link))
        .route("/account/people/{id}/disable", post(owner::disable))
        .route("/account/people/{id}/enable", post(owner::enable));
    if accounts.on_reset().is_some() {
        routes = routes.route("/account/reset/ask", get(reset::ask).post(reset::send));
    }
    routes
        .layer(axum::middleware::map_request(bounded))
        .layer(axum::middleware::map_response(private))
        .with_state(accounts.clone())
}

/// However a form is sent.
async fn bounded(request: Request) -> Request {
    request.map(|body| Body::new(Limited::new(body, FORM_BYTES_MAX)))
}

/// Nothing of these pages is kept by anybody, and nobody is told where they are: a link has its token in the query.
///
/// With `no-referrer` a browser would send its forms with `Origin: null`, which is not the site's own.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    let origin_alone = HeaderValue::from_static("strict-origin");
    headers.insert(header::REFERRER_POLICY, origin_alone);
    response
}

fn page(status: StatusCode, page: &impl Template) -> http::Result<Response> {
    Ok((status, Html(page.render()?)).into_response())
}

/// A page with a form, which is shown once more where something is wrong with what was sent.
fn form(errors: &Errors, shown: &impl Template) -> http::Result<Response> {
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    page(status, shown)
}

/// To where somebody goes who has entered a password, with the cookie for it; `None` where it was wrong.
fn entered(accounts: &Accounts, entered: &Entered, next: &str) -> Option<Response> {
    let (cookies, settings) = (accounts.cookies(), accounts.settings());
    match entered {
        Entered::Session(ticket) => {
            let cookie = cookies.set(Cookie::Session, ticket, settings.session_time());
            Some(with_cookie(to(or_home(next)), cookie))
        }
        Entered::Second(ticket) => {
            let cookie = cookies.set(Cookie::Second, ticket, second::COOKIE_TIME);
            let path = match or_home(next) {
                "/" => "/account/sign-in/code".to_owned(),
                next => format!("/account/sign-in/code?next={}", encoded(next)),
            };
            Some(with_cookie(to(&path), cookie))
        }
        Entered::Wrong => None,
    }
}

fn to(path: &str) -> Response {
    Redirect::to(path).into_response()
}

fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// A time for people, in UTC, to the minute.
fn shown(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
