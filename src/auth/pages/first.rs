//! `/account/first`: the first owner's link.

use askama::Template;
use axum::extract::State;
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
use crate::auth::links::First;
use crate::auth::links::Founded;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::pages::reset::Token;
use crate::auth::pages::reset::gone;
use crate::auth::pages::wrong;
use crate::auth::password::Password;
use crate::auth::sign_in::Asking;
use crate::auth::sign_in::Entered;
use crate::auth::visit::Visit;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Query;

#[derive(Template)]
#[template(path = "houseboat/auth/first.html")]
struct FirstPage {
    frame: Frame,
    token: String,
    email: String,
    name: String,
    errors: Errors,
}

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Create {
    token: String,
    email: String,
    name: String,
    password: http::Password,
}

/// Opening it uses nothing: programs look at links, too.
pub(super) async fn show(
    State(accounts): State<Accounts>,
    client: Client,
    Query(Token { token }): Query<Token>,
) -> http::Result<Response> {
    holds(&accounts, &client, &token).await?;
    let entered = Create {
        token,
        ..Create::default()
    };
    form((&accounts, &client), entered, Errors::default())
}

async fn holds(accounts: &Accounts, client: &Client, token: &str) -> http::Result<Key> {
    accounts.allow_from(client, From::Token).await?;
    let key = Key::of_ticket(token).ok_or_else(gone)?;
    if accounts.is_first_link(key).await? {
        Ok(key)
    } else {
        Err(gone())
    }
}

pub(super) async fn create(
    State(accounts): State<Accounts>,
    visit: Visit,
    client: Client,
    entered: Form<Create>,
) -> http::Result<Response> {
    let entered = entered.check()?;
    let key = holds(&accounts, &client, &entered.token).await?;
    let (email, name, password) = match check(&entered, accounts.site()) {
        Ok(checked) => checked,
        Err(errors) => return form((&accounts, &client), entered, errors),
    };
    let hash = accounts.hasher().hash(password).await?;
    let first = First { email, name, hash };
    let old = visit.key();
    match accounts
        .found(
            key,
            first,
            &Asking {
                client: client.clone(),
                old,
            },
        )
        .await?
    {
        Founded::Session(ticket) => {
            let response = pages::entered(&accounts, &Entered::Session(ticket), "");
            response.ok_or_else(gone)
        }
        Founded::Taken => {
            let errors = wrong("email", "Somebody has an account with this address.");
            form((&accounts, &client), entered, errors)
        }
        Founded::Gone => Err(gone()),
    }
}

fn check(entered: &Create, site: &str) -> Result<(Email, String, Password), Errors> {
    let mut errors = Errors::default();
    let name = clean_name(&entered.name);
    if name.is_none() {
        let text = format!("A name has at most {NAME_CHARS_MAX} characters.");
        errors.add("name", text);
    }
    let email = Email::parse(&entered.email);
    if let Err(reason) = &email {
        errors.add("email", *reason);
    }
    let password = Password::chosen(entered.password.expose(), email.as_ref().ok(), site);
    if let Err(reason) = &password {
        errors.add("password", reason);
    }
    match (email, name, password) {
        (Ok(email), Some(name), Ok(password)) => Ok((email, name, password)),
        _ => Err(errors),
    }
}

fn form(
    (accounts, client): (&Accounts, &Client),
    entered: Create,
    errors: Errors,
) -> http::Result<Response> {
    let page = FirstPage {
        frame: Frame::before(accounts, client),
        token: entered.token,
        email: entered.email,
        name: entered.name,
        errors,
    };
    pages::form(&page.errors, &page)
}
