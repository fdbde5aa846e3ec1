//! `/account`: one's name, password and sessions.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use garde::Validate;
use serde::Deserialize;

use crate::auth::User;
use crate::auth::accounts::Accounts;
use crate::auth::accounts::Current;
use crate::auth::accounts::NAME_CHARS_MAX;
use crate::auth::accounts::clean_name;
use crate::auth::client::Client;
use crate::auth::cookie::Cookie;
use crate::auth::email::Email;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::pages::second::NOT_YOURS;
use crate::auth::pages::shown;
use crate::auth::pages::to;
use crate::auth::pages::with_cookie;
use crate::auth::pages::wrong;
use crate::auth::password::Password;
use crate::auth::visit::Visit;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Path;

#[derive(Template)]
#[template(path = "houseboat/auth/account.html")]
struct AccountPage {
    frame: Frame,
    user: User,
    codes_left: i64,
    sessions: Vec<Shown>,
    errors: Errors,
}

/// A session as it is listed.
struct Shown {
    id: i64,
    is_this: bool,
    agent: String,
    address: String,
    since: String,
    seen: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Name {
    name: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Change {
    password: http::Password,
    new_password: http::Password,
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    _user: User,
    visit: Visit,
) -> http::Result<Response> {
    let current = signed_in(&visit).await?;
    page(&accounts, &current, Errors::default()).await
}

/// After the extractor of the user there is one, whose session is not read again.
async fn signed_in(visit: &Visit) -> http::Result<Arc<Current>> {
    let current = visit.current().await?;
    current.ok_or_else(|| http::Error::new(StatusCode::UNAUTHORIZED, "You are not signed in."))
}

pub(super) async fn page(
    accounts: &Accounts,
    current: &Current,
    errors: Errors,
) -> http::Result<Response> {
    let user = current.account.user.clone();
    let sessions = accounts.sessions(user.id).await?;
    let sessions = sessions.into_iter().map(|session| Shown {
        id: session.id,
        is_this: session.id == current.session.id,
        agent: session
            .agent
            .unwrap_or_else(|| "Unknown browser".to_owned()),
        address: session.address.unwrap_or_default(),
        since: shown(session.created_at),
        seen: shown(session.seen_at),
    });
    let page = AccountPage {
        frame: Frame::of(accounts),
        codes_left: accounts.recovery_codes_left(user.id).await?,
        sessions: sessions.collect(),
        user,
        errors,
    };
    pages::form(&page.errors, &page)
}

pub(super) async fn rename(
    State(accounts): State<Accounts>,
    user: User,
    visit: Visit,
    entered: Form<Name>,
) -> http::Result<Response> {
    let Name { name } = entered.check()?;
    let Some(name) = clean_name(&name) else {
        let text = format!("A name has at most {NAME_CHARS_MAX} characters.");
        let current = signed_in(&visit).await?;
        return page(&accounts, &current, wrong("name", text)).await;
    };
    accounts.rename(user.id, name).await?;
    Ok(to("/account"))
}

/// Every other session ends.
pub(super) async fn change_password(
    State(accounts): State<Accounts>,
    user: User,
    visit: Visit,
    client: Client,
    entered: Form<Change>,
) -> http::Result<Response> {
    let Change {
        password: now,
        new_password: new,
    } = entered.check()?;
    let current = signed_in(&visit).await?;
    let email = Email::parse(&user.email).map_err(http::Error::internal)?;
    let password = match Password::chosen(new.expose(), Some(&email), accounts.site()) {
        Ok(password) => password,
        Err(reason) => {
            return page(&accounts, &current, wrong("new_password", reason)).await;
        }
    };
    if !accounts.confirms(&current, now.expose()).await? {
        let errors = wrong("password", NOT_YOURS);
        return page(&accounts, &current, errors).await;
    }
    let hash = accounts.hasher().hash(password).await?;
    let ticket = accounts.change_password(&current, hash, &client).await?;
    let Some(ticket) = ticket else {
        let text = "The password was changed by somebody else in this moment.";
        return Err(http::Error::new(StatusCode::CONFLICT, text));
    };
    let time = accounts.settings().session_time();
    let cookie = accounts.cookies().set(Cookie::Session, &ticket, time);
    Ok(with_cookie(to("/account"), cookie))
}

/// Ends one session of one's own; one that is not there, or another's, is none.
pub(super) async fn revoke(
    State(accounts): State<Accounts>,
    user: User,
    Path(id): Path<i64>,
) -> http::Result<Response> {
    if !accounts.revoke(user.id, id).await? {
        return Err(http::Error::not_found());
    }
    Ok(to("/account"))
}

/// Also where there is no session any more: what counts is that there is none afterwards.
pub(super) async fn sign_out(
    State(accounts): State<Accounts>,
    visit: Visit,
) -> http::Result<Response> {
    if let Some(current) = visit.current().await? {
        accounts
            .revoke(current.account.user.id, current.session.id)
            .await?;
    }
    Ok(signed_out(&accounts))
}

pub(super) async fn sign_out_everywhere(
    State(accounts): State<Accounts>,
    user: User,
) -> http::Result<Response> {
    accounts.revoke_all(user.id).await?;
    Ok(signed_out(&accounts))
}

fn signed_out(accounts: &Accounts) -> Response {
    let cookie = accounts.cookies().clear(Cookie::Session);
    with_cookie(to("/account/sign-in"), cookie)
}
