//! `/account/people`: who may sign in, for the owner.

use askama::Template;
use axum::Form;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::auth::Owner;
use crate::auth::User;
use crate::auth::accounts::Accounts;
use crate::auth::accounts::Refusal;
use crate::auth::pages;
use crate::auth::pages::Frame;
use crate::auth::pages::shown;
use crate::auth::pages::to;
use crate::auth::pages::wrong;
use crate::auth::people::Switched;
use crate::auth::store::users::Account;
use crate::auth::user::Role;
use crate::http;
use crate::http::Errors;

#[derive(Template)]
#[template(path = "houseboat/auth/people.html")]
struct PeoplePage {
    frame: Frame,
    people: Vec<Person>,
    email: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "houseboat/auth/link.html")]
struct LinkPage {
    frame: Frame,
    shown: String,
    link: String,
    is_invitation: bool,
    hours: u32,
}

/// A user as listed.
struct Person {
    user: User,
    is_self: bool,
    is_invited: bool,
    is_disabled: bool,
    since: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Invite {
    email: String,
}

type Id = Result<Path<i64>, PathRejection>;

pub(super) async fn show(
    State(accounts): State<Accounts>,
    Owner(owner): Owner,
) -> http::Result<Response> {
    list(&accounts, &owner, (String::new(), Errors::default())).await
}

async fn list(
    accounts: &Accounts,
    owner: &User,
    (email, errors): (String, Errors),
) -> http::Result<Response> {
    let people = accounts.list().await?;
    let people = people.into_iter().map(|account| Person {
        is_self: account.user.id == owner.id,
        is_invited: account.password_hash.is_none(),
        is_disabled: !account.is_enabled(),
        since: shown(account.created_at),
        user: account.user,
    });
    let page = PeoplePage {
        frame: Frame::of(accounts),
        people: people.collect(),
        email,
        errors,
    };
    pages::form(&page.errors, &page)
}

pub(super) async fn invite(
    State(accounts): State<Accounts>,
    Owner(owner): Owner,
    Form(Invite { email }): Form<Invite>,
) -> http::Result<Response> {
    let added = accounts.add_without_password(&email, ("", Role::Member));
    match added.await {
        Ok(id) => show_link(&accounts, id).await,
        Err(Refusal::Database(error)) => Err(error.into()),
        Err(reason) => {
            let errors = wrong("email", reason.to_string());
            list(&accounts, &owner, (email, errors)).await
        }
    }
}

/// A new link, which takes the place of an older one.
pub(super) async fn link(
    State(accounts): State<Accounts>,
    Owner(_): Owner,
    id: Id,
) -> http::Result<Response> {
    let Ok(Path(id)) = id else {
        return Err(http::Error::not_found());
    };
    show_link(&accounts, id).await
}

async fn show_link(accounts: &Accounts, id: i64) -> http::Result<Response> {
    let account = accounts.find(id).await?.filter(Account::is_enabled);
    let account = account.ok_or_else(http::Error::not_found)?;
    let link = accounts.password_link(id).await?;
    let (is_invitation, settings) = (account.password_hash.is_none(), accounts.settings());
    let hours = if is_invitation {
        settings.invitation_days * 24
    } else {
        settings.link_hours
    };
    let page = LinkPage {
        frame: Frame::of(accounts),
        shown: account.user.shown().to_owned(),
        link: link.ok_or_else(http::Error::not_found)?,
        is_invitation,
        hours,
    };
    pages::page(StatusCode::OK, &page)
}

/// An owner does not lock oneself out by a slip.
pub(super) async fn disable(
    State(accounts): State<Accounts>,
    Owner(owner): Owner,
    id: Id,
) -> http::Result<Response> {
    match id {
        Ok(Path(id)) if id == owner.id => {
            let text = "You cannot disable yourself. Another owner can, or the command line.";
            Err(http::Error::new(StatusCode::CONFLICT, text))
        }
        id => switch(&accounts, id, false).await,
    }
}

pub(super) async fn enable(
    State(accounts): State<Accounts>,
    Owner(_): Owner,
    id: Id,
) -> http::Result<Response> {
    switch(&accounts, id, true).await
}

async fn switch(accounts: &Accounts, id: Id, is_enabled: bool) -> http::Result<Response> {
    let Ok(Path(id)) = id else {
        return Err(http::Error::not_found());
    };
    match accounts.switch(id, is_enabled).await? {
        Switched::Done | Switched::Already => Ok(to("/account/people")),
        Switched::LastOwner => {
            let text = "This is the last owner: nobody could enable anybody again.";
            Err(http::Error::new(StatusCode::CONFLICT, text))
        }
        Switched::Missing => Err(http::Error::not_found()),
    }
}
