//! A site with users, and browsers that ask it: by its router, at a time that stands still.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::http::Request;
use axum::http::header;
use axum::routing::get;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::auth::Accounts;
use houseboat::auth::Auth;
use houseboat::auth::Owner;
use houseboat::auth::Role;
use houseboat::auth::User;
use houseboat::auth::owner_only;
use houseboat::auth::users_only;
use houseboat::database::Clock;
use jiff::Timestamp;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::support::client::form;
use crate::support::client::once_key;

/// The password of everybody, where it does not matter.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The owner's address.
pub(crate) const OWNER: &str = "owner@site.test";

/// A member's address.
pub(crate) const MEMBER: &str = "member@site.test";

/// A site that is open, and not served.
pub(crate) struct People {
    pub(crate) router: Router,
    pub(crate) clock: Clock,
    pub(crate) context: Context,
    pub(crate) accounts: Accounts,
    _folder: TempDir,
}

/// A browser: it keeps cookies as it is told.
#[derive(Clone)]
pub(crate) struct Browser {
    router: Router,
    pub(crate) cookies: BTreeMap<String, String>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) agent: String,
    /// More headers, sent with each request.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The routes of the test's site.
pub(crate) fn routes() -> Router<Context> {
    let reports = Router::new()
        .route("/reports", get(async || "reports"))
        .layer(users_only());
    let vault = Router::new()
        .route("/vault", get(async || "vault").post(async || "written"))
        .layer(owner_only());
    Router::new()
        .route("/", get(async || "front"))
        .route("/hello", get(hello))
        .route("/notes", get(notes).post(notes))
        .route("/admin", get(admin))
        .merge(reports)
        .merge(vault)
}

async fn hello(user: Option<User>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| user.email)
}

async fn notes(user: User) -> String {
    format!("notes of {}", user.shown())
}

async fn admin(Owner(user): Owner) -> String {
    format!("admin {}", user.shown())
}

impl People {
    /// A site with an owner and a member.
    pub(crate) async fn start() -> Self {
        Self::with(Auth::default(), routes(), &[]).await
    }

    pub(crate) async fn with(
        auth: Auth,
        routes: Router<Context>,
        variables: &[(&str, &str)],
    ) -> Self {
        let people = Self::empty(auth, routes, variables).await;
        for (email, role) in [(OWNER, Role::Owner), (MEMBER, Role::Member)] {
            let added = people.accounts.add(email, "", role, PASSWORD).await;
            added.unwrap();
        }
        people
    }

    /// A site that nobody owns yet.
    pub(crate) async fn empty(
        auth: Auth,
        routes: Router<Context>,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let own = [
            ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
            ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
            (
                "HOUSEBOAT_AUTH__HASH_MEMORY_KIB".to_owned(),
                "128".to_owned(),
            ),
            ("HOUSEBOAT_AUTH__HASH_PASSES".to_owned(), "1".to_owned()),
        ];
        let more = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load_from(folder.path(), own.into_iter().chain(more)).unwrap();
        let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
        let site = App::new("lighthouse").routes(routes).auth(auth);
        let site = site.open(config, clock.clone()).await.unwrap();
        Self {
            router: site.router(),
            clock,
            context: site.context().clone(),
            accounts: site.accounts().unwrap().clone(),
            _folder: folder,
        }
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser {
            router: self.router.clone(),
            cookies: BTreeMap::new(),
            address: None,
            agent: "test".to_owned(),
            headers: Vec::new(),
        }
    }

    /// A browser that is signed in by the page.
    pub(crate) async fn signed_in(&self, email: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.sign_in(email, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        browser
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// To a millisecond before that time is over.
    pub(crate) fn advance_almost(&self, time: Duration) {
        self.advance(time.checked_sub(Duration::from_millis(1)).unwrap());
    }

    /// The one number that `sql` gives.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let number = self
            .context
            .database
            .read(move |conn| Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?));
        number.await.unwrap()
    }

    pub(crate) async fn id(&self, email: &str) -> i64 {
        let email = email.to_owned();
        let id = self.context.database.read(move |conn| {
            let sql = "SELECT id FROM users WHERE email_key = lower(?1)";
            Ok(conn.query_row(sql, [email], |row| row.get::<_, i64>(0))?)
        });
        id.await.unwrap()
    }
}

impl Browser {
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).header(header::ACCEPT, "text/html,*/*;q=0.8");
        self.send(request, String::new()).await
    }

    /// Sends a form as the site's own page does.
    pub(crate) async fn post(&mut self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let request = Request::post(path)
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, form(pairs)).await
    }

    /// Invites somebody, as the owner does.
    pub(crate) async fn invite(&mut self, email: &str) -> Answer {
        let pairs = [("email", email), ("_once", &once_key())];
        self.post("/account/people", &pairs).await
    }

    pub(crate) async fn sign_in(&mut self, email: &str, password: &str) -> Answer {
        let pairs = [("email", email), ("password", password)];
        self.post("/account/sign-in", &pairs).await
    }

    pub(crate) async fn send(
        &mut self,
        mut request: axum::http::request::Builder,
        body: String,
    ) -> Answer {
        request = request.header(header::USER_AGENT, &self.agent);
        if !self.cookies.is_empty() {
            let pairs = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            request = request.header(header::COOKIE, pairs.collect::<Vec<_>>().join("; "));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Body::from(body)).unwrap();
        if let Some(address) = self.address {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let answer = Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        self.keep(&answer);
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, rest) = cookie.split_once('=').unwrap();
            let (value, rest) = rest.split_once(';').unwrap();
            if rest.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The ticket of the session, as the cookie has it.
    pub(crate) fn session(&self) -> String {
        self.cookies.get("session").cloned().unwrap_or_default()
    }

    /// Whether the site takes this browser for somebody.
    pub(crate) async fn is_signed_in(&mut self) -> bool {
        self.get("/hello").await.body != "nobody"
    }
}

impl Answer {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    /// The path of the link on a page that shows one.
    pub(crate) fn link(&self) -> String {
        let start = self.body.find("/account/").map(|_| ());
        assert!(start.is_some(), "{}", self.body);
        let token = self.body.split("?token=").nth(1).unwrap();
        let token = &token[..64];
        format!("/account/reset?token={token}")
    }
}

/// The token in the path of a link.
pub(crate) fn token(link: &str) -> &str {
    link.split_once("token=").unwrap().1
}
