//! People: users, passwords, sessions, and a second factor.
//!
//! A site has them once it says so, and the command `users` with them:
//!
//! ```no_run
//! use houseboat::App;
//! use houseboat::Context;
//! use houseboat::auth::Auth;
//! use houseboat::auth::Owner;
//! use houseboat::auth::User;
//! use houseboat::auth::users_only;
//! use houseboat::axum::Router;
//! use houseboat::axum::routing::get;
//!
//! async fn front(user: Option<User>) -> String {
//!     user.map_or_else(|| "Hello".to_owned(), |user| format!("Hello, {}", user.shown()))
//! }
//!
//! async fn notes(user: User) -> String {
//!     format!("The notes of {}", user.email)
//! }
//!
//! async fn admin(Owner(_): Owner) -> &'static str {
//!     "for the owner"
//! }
//!
//! let reports: Router<Context> = Router::new()
//!     .route("/reports", get(async || "for all users"))
//!     .layer(users_only());
//! let routes = Router::new()
//!     .route("/", get(front))
//!     .route("/notes", get(notes))
//!     .route("/admin", get(admin))
//!     .merge(reports);
//! let app: App = App::new("notes").routes(routes).auth(Auth::default());
//! # let _ = app;
//! ```
//!
//! The pages are under `/account`: `/account/sign-in`, `/account` for one's name, password, second factor and sessions,
//! `/account/people` for the owner, who invites others by a link. There is no default password: while a site has no
//! owner its log has a link, good once, by which the owner's account is made, and private pages answer 503.
//!
//! What is kept of passwords is argon2id; of sessions and links a SHA-256, so that who reads the database can sign in by
//! none of them. A session is read from the database at each request whose handler asks who it is from: one that was
//! revoked is over at once.

mod accounts;
mod attempts;
mod client;
mod cookie;
mod costs;
mod email;
mod key;
mod links;
mod next;
mod pages;
mod password;
mod people;
mod refused;
mod settings;
mod sign_in;
mod store;
mod totp;
mod user;
mod visit;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::Route;
use tower::Layer;
use tower::Service;

use crate::context::Context;
use crate::database;
use crate::database::Migrations;
use crate::settings::NoSettings;

pub use self::accounts::Accounts;
pub use self::accounts::Refusal;
pub(crate) use self::pages::assets;
pub(crate) use self::people::Listed;
pub(crate) use self::people::Switched;
pub use self::refused::Refused;
pub use self::settings::Cookies;
pub use self::settings::Settings;
pub use self::user::Owner;
pub use self::user::Role;
pub use self::user::User;

/// The tables of users, sessions and links.
pub const MIGRATIONS: Migrations = Migrations::new(
    "auth",
    &[
        (
            "V1__users",
            include_str!("../../migrations/auth/V1__users.sql"),
        ),
        (
            "V2__totp",
            include_str!("../../migrations/auth/V2__totp.sql"),
        ),
        (
            "V3__users_by_role",
            include_str!("../../migrations/auth/V3__users_by_role.sql"),
        ),
    ],
);

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

type OnReset<S> = Arc<dyn Fn(Context<S>, User, String) -> Sending + Send + Sync>;

/// That a site has users, and what it does for them: see [`App::auth`](crate::App::auth).
pub struct Auth<S = NoSettings> {
    on_reset: Option<OnReset<S>>,
}

impl<S> Auth<S> {
    /// Says how to send a user the link that sets a password; with it there is a page to ask for one.
    ///
    /// It is called behind the answer, which is the same whether somebody has the address or not. The link is a secret:
    /// it belongs in no log.
    ///
    /// ```
    /// use houseboat::Context;
    /// use houseboat::auth::{Auth, User};
    ///
    /// let auth = Auth::default().on_reset(async |_: Context, user: User, link: String| {
    ///     send(&user.email, &format!("Set another password: {link}")).await;
    /// });
    /// # let _: Auth = auth;
    /// # async fn send(_: &str, _: &str) {}
    /// ```
    #[must_use]
    pub fn on_reset<F, Fut>(mut self, send: F) -> Self
    where
        F: Fn(Context<S>, User, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_reset = Some(Arc::new(move |context, user, link| {
            Box::pin(send(context, user, link))
        }));
        self
    }
}

impl<S: Send + Sync + 'static> Auth<S> {
    /// The users of a site whose files are open.
    pub(crate) fn open(self, site: &str, context: &Context<S>, settings: &Settings) -> Accounts {
        let accounts = Accounts::new(site, context.database.clone(), settings);
        accounts.is_at(&context.url);
        let on_reset = self.on_reset.map(|send| {
            let context = context.clone();
            let send: accounts::OnReset =
                Arc::new(move |user, link| send(context.clone(), user, link));
            send
        });
        accounts.serving(context.cache.clone(), on_reset)
    }
}

impl<S> Default for Auth<S> {
    fn default() -> Self {
        Self { on_reset: None }
    }
}

impl<S> fmt::Debug for Auth<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Auth")
            .field("on_reset", &self.on_reset.is_some())
            .finish()
    }
}

/// Puts the pages beside a site's routes, and around both what knows who asks.
pub(crate) fn around(routes: Router, accounts: &Accounts) -> Router {
    let known = middleware::from_fn_with_state(accounts.clone(), visit::around);
    routes.merge(pages::routes(accounts)).layer(known)
}

/// Says in the log how the owner's account is made, while there is none. `address` is where the site listens.
pub(crate) async fn announce(accounts: &Accounts, address: &str) {
    accounts.is_at(address);
    match accounts.first_link().await {
        Ok(Some(link)) => {
            tracing::warn!("this site has no owner yet: open {link} to make the account");
        }
        Ok(None) | Err(database::Error::Closed) => {}
        Err(error) => {
            tracing::error!(%error, "no link could be made for the owner: `users create --owner` makes the account");
        }
    }
}

/// A layer that lets users in, and nobody else: as [`User`] in each handler.
///
/// ```
/// use houseboat::Context;
/// use houseboat::auth::users_only;
/// use houseboat::axum::{Router, routing::get};
///
/// let routes: Router<Context> = Router::new()
///     .route("/reports", get(async || "for users"))
///     .layer(users_only());
/// ```
#[must_use]
pub fn users_only() -> impl Guard {
    middleware::from_fn(pass_user)
}

/// A layer that lets the owner in, and nobody else: as [`Owner`] in each handler.
#[must_use]
pub fn owner_only() -> impl Guard {
    middleware::from_fn(pass_owner)
}

async fn pass_user(_: User, request: Request, next: Next) -> Response {
    next.run(request).await
}

async fn pass_owner(_: Owner, request: Request, next: Next) -> Response {
    next.run(request).await
}

/// What [`Router::layer`] takes.
pub trait Guard:
    Layer<
        Route,
        Service: Service<
            Request,
            Response = Response,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
                     + Send
                     + Sync
                     + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<L> Guard for L where
    L: Layer<
            Route,
            Service: Service<
                Request,
                Response = Response,
                Error = Infallible,
                Future: Send + 'static,
            > + Clone
                         + Send
                         + Sync
                         + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}
