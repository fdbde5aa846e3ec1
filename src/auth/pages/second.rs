//! `/account/sign-in/code`, and `/account/second-factor`.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::Response;
use garde::Validate;
use serde::Deserialize;

use crate::auth::User;
use crate::auth::accounts::Accounts;
use crate::auth::client::Client;
use crate::auth::cookie::Cookie;
use crate::auth::next::or_home;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::pages::account;
use crate::auth::pages::sign_in::Next;
use crate::auth::pages::to;
use crate::auth::pages::with_cookie;
use crate::auth::pages::wrong;
use crate::auth::sign_in::Asking;
use crate::auth::sign_in::Coded;
use crate::auth::totp;
use crate::auth::visit::Visit;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Query;

/// As long as the half session.
pub(super) const COOKIE_TIME: Duration = Duration::from_mins(10);

const WRONG: &str =
    "The code is not right, or was used before. Wait for the next one and try again.";

pub(super) const NOT_YOURS: &str = "This is not your password.";

#[derive(Template)]
#[template(path = "houseboat/auth/code.html")]
struct CodePage {
    frame: Frame,
    next: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "houseboat/auth/second_factor.html")]
struct SetUpPage {
    frame: Frame,
    email: String,
    secret: String,
    size: usize,
    path: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "houseboat/auth/recovery_codes.html")]
struct RecoveryPage {
    frame: Frame,
    codes: Vec<String>,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Code {
    code: String,
    next: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct SetUp {
    secret: http::Password,
    password: http::Password,
    code: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Confirmation {
    password: http::Password,
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    Query(Next { next }): Query<Next>,
    headers: HeaderMap,
) -> http::Result<Response> {
    if accounts.cookies().read(Cookie::Second, &headers).is_none() {
        return Ok(to("/account/sign-in"));
    }
    code_form(&accounts, &next, Errors::default())
}

pub(super) async fn enter(
    State(accounts): State<Accounts>,
    visit: Visit,
    client: Client,
    headers: HeaderMap,
    entered: Form<Code>,
) -> http::Result<Response> {
    let Code { code, next } = entered.check()?;
    let Some(half) = accounts.cookies().read(Cookie::Second, &headers) else {
        return Ok(to("/account/sign-in"));
    };
    let old = visit.key();
    let cookies = accounts.cookies();
    match accounts
        .second(half, &code, &Asking { client, old })
        .await?
    {
        Coded::Session(ticket) => {
            let time = accounts.settings().session_time();
            let response = with_cookie(
                to(or_home(&next)),
                cookies.set(Cookie::Session, &ticket, time),
            );
            Ok(with_cookie(response, cookies.clear(Cookie::Second)))
        }
        Coded::Wrong => code_form(&accounts, &next, wrong("code", WRONG)),
        Coded::Over => Ok(with_cookie(
            to("/account/sign-in"),
            cookies.clear(Cookie::Second),
        )),
    }
}

fn code_form(accounts: &Accounts, next: &str, errors: Errors) -> http::Result<Response> {
    let page = CodePage {
        frame: Frame::of(accounts),
        next: or_home(next).to_owned(),
        errors,
    };
    pages::form(&page.errors, &page)
}

/// Nothing is kept until the form comes back, with the secret in it: looking at the page changes nothing.
pub(super) async fn set_up(State(accounts): State<Accounts>, user: User) -> http::Result<Response> {
    set_up_form(&accounts, &user, &totp::secret(), Errors::default())
}

/// Asks for the password: who found a browser open must not shut its owner out.
pub(super) async fn confirm(
    State(accounts): State<Accounts>,
    user: User,
    visit: Visit,
    entered: Form<SetUp>,
) -> http::Result<Response> {
    let SetUp {
        secret,
        password,
        code,
    } = entered.check()?;
    let Some(current) = visit.current().await? else {
        return Ok(to("/account/sign-in"));
    };
    let Some(secret) = totp::read(secret.expose()) else {
        // It was not this page that sent it.
        let errors = wrong("code", WRONG);
        return set_up_form(&accounts, &user, &totp::secret(), errors);
    };
    if !accounts.confirms(&current, password.expose()).await? {
        return set_up_form(&accounts, &user, &secret, wrong("password", NOT_YOURS));
    }
    match accounts.confirm_totp(user.id, &secret, &code).await? {
        Some(codes) => {
            let frame = Frame::of(&accounts);
            pages::page(StatusCode::OK, &RecoveryPage { frame, codes })
        }
        None => set_up_form(&accounts, &user, &secret, wrong("code", WRONG)),
    }
}

fn set_up_form(
    accounts: &Accounts,
    user: &User,
    secret: &[u8],
    errors: Errors,
) -> http::Result<Response> {
    if user.has_second_factor {
        return Ok(to("/account"));
    }
    let (size, path) = totp::url(secret, &user.email, accounts.site())
        .and_then(|url| totp::picture(&url))
        .ok_or_else(|| http::Error::internal("the second factor cannot be drawn"))?;
    let page = SetUpPage {
        frame: Frame::of(accounts),
        email: user.email.clone(),
        secret: totp::typed(secret),
        size,
        path,
        errors,
    };
    pages::form(&page.errors, &page)
}

/// Asks for the password: a browser that was left open is not enough.
pub(super) async fn turn_off(
    State(accounts): State<Accounts>,
    user: User,
    visit: Visit,
    entered: Form<Confirmation>,
) -> http::Result<Response> {
    let Confirmation { password } = entered.check()?;
    let Some(current) = visit.current().await? else {
        return Ok(to("/account/sign-in"));
    };
    if !accounts.confirms(&current, password.expose()).await? {
        let errors = wrong("off_password", NOT_YOURS);
        return account::page(&accounts, &current, errors).await;
    }
    accounts.drop_totp(user.id).await?;
    Ok(to("/account"))
}
