//! Who is signed in, for handlers.

use axum::extract::FromRequestParts;
use axum::extract::OptionalFromRequestParts;
use axum::http::request::Parts;

use crate::auth::refused::Refused;
use crate::auth::visit::Visit;

/// What a user may do beyond what everybody may who is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything; invites and disables others.
    Owner,
    /// What the site says.
    Member,
}

impl Role {
    /// The word that the table and the command line have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }

    /// The table holds no other word.
    pub(super) fn of(word: &str) -> Self {
        if word == "owner" {
            Self::Owner
        } else {
            Self::Member
        }
    }
}

/// Somebody who is signed in: as an argument of a handler it lets nobody else in.
///
/// ```
/// use houseboat::auth::User;
///
/// async fn greet(user: User) -> String {
///     format!("Hello, {}", user.shown())
/// }
///
/// async fn page(user: Option<User>) -> &'static str {
///     if user.is_some() { "signed in" } else { "not signed in" }
/// }
/// ```
///
/// Who is not signed in is sent to `/account/sign-in` and from there back, if a page was asked for; all else is
/// answered with 401. While the site has no owner the answer is 503.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The number in the table `users`, for foreign keys of the site's own.
    pub id: i64,
    /// The e-mail address as it was entered.
    pub email: String,
    /// The name; empty where the user has not said one.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether a code is asked for at sign-in.
    pub has_second_factor: bool,
}

impl User {
    /// The name, or else the e-mail address.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.name.is_empty() {
            &self.email
        } else {
            &self.name
        }
    }

    /// Whether this is an owner.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.role == Role::Owner
    }
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let visit = Visit::of(parts)?;
        match visit.current().await? {
            Some(current) => Ok(current.account.user.clone()),
            None => Err(Refused::nobody(&visit, parts).await),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for User {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refused> {
        let current = Visit::of(parts)?.current().await?;
        Ok(current.map(|current| current.account.user.clone()))
    }
}

/// The owner: as an argument of a handler it answers 403 to every other user.
///
/// ```
/// use houseboat::auth::Owner;
///
/// async fn admin(Owner(user): Owner) -> String {
///     format!("{} owns this site", user.shown())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub User);

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let user = <User as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        if user.is_owner() {
            Ok(Self(user))
        } else {
            Err(Refused::not_owner())
        }
    }
}
