//! `/account/reset`: the link that sets a password, and how to be sent one.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use garde::Validate;
use serde::Deserialize;

use crate::auth::accounts::Accounts;
use crate::auth::accounts::NAME_CHARS_MAX;
use crate::auth::accounts::clean_name;
use crate::auth::attempts::From;
use crate::auth::client::Client;
use crate::auth::email::Email;
use crate::auth::key::Key;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::password::Password;
use crate::auth::sign_in::Asking;
use crate::auth::store::users::Account;
use crate::auth::visit::Visit;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Query;

#[derive(Template)]
#[template(path = "houseboat/auth/reset.html")]
struct ResetPage {
    frame: Frame,
    token: String,
    email: String,
    /// Who is invited has no password yet, and is asked for a name.
    is_invited: bool,
    name: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "houseboat/auth/ask.html")]
struct AskPage {
    frame: Frame,
    is_sent: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub(super) token: String,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Set {
    token: String,
    name: String,
    password: http::Password,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Ask {
    email: String,
}

/// For a link that is used or over, and for one that never was.
pub(super) fn gone() -> http::Error {
    let text = "This link is not valid any more. It may have been used, or be too old, or replaced by a newer one.";
    http::Error::new(StatusCode::NOT_FOUND, text)
}

/// Opening it uses nothing: programs look at links, too.
pub(super) async fn show(
    State(accounts): State<Accounts>,
    client: Client,
    Query(Token { token }): Query<Token>,
) -> http::Result<Response> {
    let (_, account) = find(&accounts, &client, &token).await?;
    let name = account.user.name.clone();
    let entered = Set {
        token,
        name,
        password: http::Password::default(),
    };
    form(&accounts, &account, entered, Errors::default())
}

async fn find(accounts: &Accounts, client: &Client, token: &str) -> http::Result<(Key, Account)> {
    accounts.allow_from(client, From::Token).await?;
    let key = Key::of_ticket(token).ok_or_else(gone)?;
    let account = accounts.account_of_link(key).await?;
    Ok((key, account.ok_or_else(gone)?))
}

pub(super) async fn set(
    State(accounts): State<Accounts>,
    visit: Visit,
    client: Client,
    entered: Form<Set>,
) -> http::Result<Response> {
    let entered = entered.check()?;
    let (key, account) = find(&accounts, &client, &entered.token).await?;
    let is_invited = account.password_hash.is_none();
    let email = Email::parse(&account.user.email).map_err(http::Error::internal)?;
    let mut errors = Errors::default();
    let name = clean_name(&entered.name);
    if name.is_none() && is_invited {
        let text = format!("A name has at most {NAME_CHARS_MAX} characters.");
        errors.add("name", text);
    }
    let password = match Password::chosen(entered.password.expose(), Some(&email), accounts.site())
    {
        Ok(password) if errors.is_empty() => password,
        Ok(_) => return form(&accounts, &account, entered, errors),
        Err(reason) => {
            errors.add("password", reason);
            return form(&accounts, &account, entered, errors);
        }
    };
    let hash = accounts.hasher().hash(password).await?;
    let old = visit.key();
    let name = name.filter(|_| is_invited);
    let done = accounts
        .set_by_link(key, (name, hash), &Asking { client, old })
        .await?;
    let response = done.and_then(|done| pages::entered(&accounts, &done, ""));
    response.ok_or_else(gone)
}

fn form(
    accounts: &Accounts,
    account: &Account,
    entered: Set,
    errors: Errors,
) -> http::Result<Response> {
    let page = ResetPage {
        frame: Frame::of(accounts),
        token: entered.token,
        email: account.user.email.clone(),
        is_invited: account.password_hash.is_none(),
        name: entered.name,
        errors,
    };
    pages::form(&page.errors, &page)
}

pub(super) async fn ask(State(accounts): State<Accounts>) -> http::Result<Response> {
    let frame = Frame::of(&accounts);
    let is_sent = false;
    pages::page(StatusCode::OK, &AskPage { frame, is_sent })
}

/// The same answer after the same time, whether anybody has this address or not.
pub(super) async fn send(
    State(accounts): State<Accounts>,
    client: Client,
    asked: Form<Ask>,
) -> http::Result<Response> {
    let Ask { email } = asked.check()?;
    accounts.allow_from(&client, From::Token).await?;
    accounts.send_link(&email).await?;
    let frame = Frame::of(&accounts);
    let is_sent = true;
    pages::page(StatusCode::OK, &AskPage { frame, is_sent })
}
