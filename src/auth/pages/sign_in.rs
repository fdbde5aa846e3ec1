//! `/account/sign-in`.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use garde::Validate;
use serde::Deserialize;

use crate::auth::accounts::Accounts;
use crate::auth::client::Client;
use crate::auth::next::or_home;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::pages::setting_up;
use crate::auth::pages::to;
use crate::auth::pages::wrong;
use crate::auth::sign_in::Asking;
use crate::auth::visit::Visit;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Query;

/// The same for whoever cannot come in, and why ever not.
const WRONG: &str = "The address or the password is not right.";

#[derive(Template)]
#[template(path = "houseboat/auth/sign_in.html")]
struct SignInPage {
    frame: Frame,
    email: String,
    next: String,
    /// Whether a link may be asked for.
    has_links: bool,
    errors: Errors,
}

/// Where to go afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Next {
    pub(super) next: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct SignIn {
    email: String,
    password: http::Password,
    next: String,
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    visit: Visit,
    client: Client,
    Query(Next { next }): Query<Next>,
) -> http::Result<Response> {
    if visit.current().await?.is_some() {
        return Ok(to(or_home(&next)));
    }
    if !accounts.has_owner().await? {
        return setting_up::page(&accounts);
    }
    form(
        (&accounts, &client),
        SignIn {
            next,
            ..SignIn::default()
        },
        Errors::default(),
    )
}

pub(super) async fn enter(
    State(accounts): State<Accounts>,
    visit: Visit,
    client: Client,
    entered: Form<SignIn>,
) -> http::Result<Response> {
    let entered = entered.check()?;
    if !accounts.has_owner().await? {
        return setting_up::page(&accounts);
    }
    let old = visit.key();
    let asking = Asking {
        client: client.clone(),
        old,
    };
    let by = (entered.email.as_str(), entered.password.expose());
    let done = accounts.sign_in(by, &asking).await?;
    match pages::entered(&accounts, &done, &entered.next) {
        Some(response) => Ok(response),
        None => form((&accounts, &client), entered, wrong("password", WRONG)),
    }
}

fn form(
    (accounts, client): (&Accounts, &Client),
    entered: SignIn,
    errors: Errors,
) -> http::Result<Response> {
    let page = SignInPage {
        frame: Frame::before(accounts, client),
        email: entered.email,
        next: or_home(&entered.next).to_owned(),
        has_links: accounts.on_reset().is_some(),
        errors,
    };
    pages::form(&page.errors, &page)
}
