//! `/account/people`: who may sign in, for the owner.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use garde::Validate;
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
use crate::auth::store::users::Part;
use crate::http;
use crate::http::Errors;
use crate::http::Form;
use crate::http::OnceKey;
use crate::http::Path;
use crate::http::Query;

#[derive(Template)]
#[template(path = "houseboat/auth/people.html")]
struct PeoplePage {
    frame: Frame,
    people: Vec<Person>,
    /// The query of this page, with its mark; empty for the first one.
    here: String,
    /// Of the pages around it.
    before: Option<String>,
    after: Option<String>,
    key: OnceKey,
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

#[derive(Default, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(super) struct Invite {
    email: String,
}

/// Which page of the list: the one after or before a user.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Around {
    after: Option<i64>,
    before: Option<i64>,
}

impl Around {
    fn part(self) -> Part {
        match (self.after, self.before) {
            (Some(id), _) => Part::After(id),
            (None, Some(id)) => Part::Before(id),
            (None, None) => Part::First,
        }
    }
}

/// The query of a page.
fn query(part: Part) -> String {
    match part {
        Part::First => String::new(),
        Part::After(id) => format!("?after={id}"),
        Part::Before(id) => format!("?before={id}"),
    }
}

pub(super) async fn show(
    State(accounts): State<Accounts>,
    Owner(owner): Owner,
    key: OnceKey,
    Query(around): Query<Around>,
) -> http::Result<Response> {
    let asked = (around.part(), key);
    list(&accounts, &owner, asked, (String::new(), Errors::default())).await
}

async fn list(
    accounts: &Accounts,
    owner: &User,
    (part, key): (Part, OnceKey),
    (email, errors): (String, Errors),
) -> http::Result<Response> {
    let found = accounts.page(part).await?;
    let id = |account: Option<&Account>| account.map(|account| account.user.id);
    let (first, last) = (id(found.people.first()), id(found.people.last()));
    let people = found.people.into_iter().map(|account| Person {
        is_self: account.user.id == owner.id,
        is_invited: account.password_hash.is_none(),
        is_disabled: !account.is_enabled(),
        since: shown(account.created_at),
        user: account.user,
    });
    let page = PeoplePage {
        frame: Frame::of(accounts),
        people: people.collect(),
        here: query(part),
        before: first
            .filter(|_| found.has_before)
            .map(|id| query(Part::Before(id))),
        after: last
            .filter(|_| found.has_after)
            .map(|id| query(Part::After(id))),
        key,
        email,
        errors,
    };
    pages::form(&page.errors, &page)
}

/// Sent twice, it is one invitation: the second answer has a link as well, which takes the place of the first.
pub(super) async fn invite(
    State(accounts): State<Accounts>,
    Owner(owner): Owner,
    key: OnceKey,
    Query(around): Query<Around>,
    form: Form<Invite>,
) -> http::Result<Response> {
    let Invite { email } = form.check()?;
    match accounts.invite(form.once()?, &email).await {
        Ok(id) => show_link(&accounts, id).await,
        Err(Refusal::Database(error)) => Err(error.into()),
        Err(reason) => {
            let errors = wrong("email", reason.to_string());
            list(&accounts, &owner, (around.part(), key), (email, errors)).await
        }
    }
}

/// A new link, which takes the place of an older one.
pub(super) async fn link(
    State(accounts): State<Accounts>,
    Owner(_): Owner,
    Path(id): Path<i64>,
) -> http::Result<Response> {
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
    Path(id): Path<i64>,
    Query(around): Query<Around>,
) -> http::Result<Response> {
    if id == owner.id {
        let text = "You cannot disable yourself. Another owner can, or the command line.";
        return Err(http::Error::new(StatusCode::CONFLICT, text));
    }
    switch(&accounts, (id, false), around.part()).await
}

pub(super) async fn enable(
    State(accounts): State<Accounts>,
    Owner(_): Owner,
    Path(id): Path<i64>,
    Query(around): Query<Around>,
) -> http::Result<Response> {
    switch(&accounts, (id, true), around.part()).await
}

/// And back to the page on which the button was.
async fn switch(
    accounts: &Accounts,
    (id, is_enabled): (i64, bool),
    part: Part,
) -> http::Result<Response> {
    match accounts.switch(id, is_enabled).await? {
        Switched::Done | Switched::Already => Ok(to(&format!("/account/people{}", query(part)))),
        Switched::LastOwner => {
            let text = "This is the last owner: nobody could enable anybody again.";
            Err(http::Error::new(StatusCode::CONFLICT, text))
        }
        Switched::Missing => Err(http::Error::not_found()),
    }
}
