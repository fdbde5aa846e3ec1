//! One request: who it is from, found out once, and only if somebody asks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::Uri;
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::OnceCell;

use crate::auth::accounts::Accounts;
use crate::auth::accounts::Current;
use crate::auth::cookie::Cookie;
use crate::auth::key::Key;
use crate::database;
use crate::http;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// In a request's extensions: what is needed to find out who is signed in.
#[derive(Clone)]
pub(super) struct Visit(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    /// Of the session that the cookie names.
    key: Option<Key>,
    uri: Uri,
    found: OnceCell<Option<Arc<Current>>>,
    was_asked: AtomicBool,
}

impl Visit {
    fn new(accounts: Accounts, request: &Request) -> Self {
        let key = accounts.cookies().read(Cookie::Session, request.headers());
        Self(Arc::new(Inner {
            accounts,
            key,
            uri: request.uri().clone(),
            found: OnceCell::new(),
            was_asked: AtomicBool::new(false),
        }))
    }

    /// The one beside this request.
    pub(super) fn of(parts: &Parts) -> http::Result<Self> {
        let visit = parts.extensions.get::<Self>().cloned();
        visit.ok_or_else(|| http::Error::internal("this site has no users: call `App::auth`"))
    }

    pub(super) fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// Of the session that the cookie names, if there is such a one or not.
    pub(super) fn key(&self) -> Option<Key> {
        self.0.key
    }

    /// Path and query as they came.
    pub(super) fn target(&self) -> &str {
        let target = self.0.uri.path_and_query();
        target.map_or("/", |target| target.as_str())
    }

    /// Who is signed in: one read of the database for a request that has the cookie, and none for any other.
    pub(super) async fn current(&self) -> database::Result<Option<Arc<Current>>> {
        self.0.was_asked.store(true, Ordering::Relaxed);
        let Some(key) = self.0.key else {
            return Ok(None);
        };
        let find = || async { self.0.accounts.current(key).await };
        let found = self.0.found.get_or_try_init(find).await?;
        Ok(found.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = http::Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> http::Result<Self> {
        Self::of(parts)
    }
}

/// The layer around every route: an answer that depends on who asks is for nobody else.
pub(super) async fn around(
    State(accounts): State<Accounts>,
    mut request: Request,
    next: Next,
) -> Response {
    let visit = Visit::new(accounts, &request);
    request.extensions_mut().insert(visit.clone());
    let mut response = next.run(request).await;
    if visit.0.was_asked.load(Ordering::Relaxed) {
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    }
    response
}
