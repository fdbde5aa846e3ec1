//! The users of a site, for its pages, its command line and its tests.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::OnceCell;
use tokio::sync::Semaphore;

use crate::auth::Settings;
use crate::auth::client::Client;
use crate::auth::cookie::Cookie;
use crate::auth::cookie::Cookies;
use crate::auth::email::Email;
use crate::auth::key::Key;
use crate::auth::key::Ticket;
use crate::auth::password::Hasher;
use crate::auth::password::Password;
use crate::auth::store::sessions;
use crate::auth::store::sessions::Session;
use crate::auth::store::tokens;
use crate::auth::store::tokens::Purpose;
use crate::auth::store::users;
use crate::auth::store::users::Account;
use crate::auth::user::Role;
use crate::auth::visit::Visit;
use crate::cache::Cache;
use crate::database;
use crate::database::Database;
use crate::database::Transaction;
use crate::http;

/// The sight of a session is written at most so often.
const SEEN: Duration = Duration::from_mins(5);

/// So many links are sent at a time; with more the request for one comes to nothing.
const SENDING: usize = 16;

/// So many kinds of hashes are read.
const KINDS_READ: u32 = 16;

/// What sends a link that sets a password.
pub(super) type OnReset = Arc<
    dyn Fn(crate::auth::User, String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync,
>;

/// The users of a site: what its pages do, for code of its own and for its tests. Cloning is cheap.
///
/// As an argument of a handler it is the site's own.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    site: String,
    /// The address that visitors know, without a slash at its end.
    url: OnceLock<String>,
    database: Database,
    /// Counts attempts; the command line has none.
    cache: Option<Cache>,
    settings: Settings,
    hasher: Hasher,
    /// Whether the hasher knows which kinds of hashes are kept.
    has_learnt: OnceCell<()>,
    cookies: Cookies,
    /// Once there is an owner there is always one.
    has_owner: AtomicBool,
    on_reset: Option<OnReset>,
    sending: Arc<Semaphore>,
}

/// Who is signed in, and by which session.
pub(super) struct Current {
    pub(super) account: Account,
    pub(super) session: Session,
}

/// Why a user could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no address, or somebody has it already.
    #[error("{0}")]
    Email(String),
    /// It is not a good one.
    #[error("{0}")]
    Password(String),
    /// The name is too long.
    #[error("a name has at most {NAME_CHARS_MAX} characters")]
    Name,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Too many passwords are checked at this moment.
    #[error("too many passwords are checked just now")]
    Busy,
}

impl Refusal {
    pub(super) fn taken(email: &Email) -> Self {
        Self::Email(format!("{} has an account already.", email.as_str()))
    }
}

/// A name has at most so many characters.
pub(super) const NAME_CHARS_MAX: usize = 100;

impl Accounts {
    pub(crate) fn new(site: &str, database: Database, settings: &Settings) -> Self {
        Self(Arc::new(Inner {
            site: site.to_owned(),
            url: OnceLock::new(),
            database,
            cache: None,
            settings: settings.clone(),
            hasher: Hasher::new(settings),
            has_learnt: OnceCell::new(),
            cookies: Cookies::of(settings),
            has_owner: AtomicBool::new(false),
            on_reset: None,
            sending: Arc::new(Semaphore::new(SENDING)),
        }))
    }

    pub(super) fn serving(mut self, cache: Cache, on_reset: Option<OnReset>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.cache = Some(cache);
            inner.on_reset = on_reset;
        }
        self
    }

    /// Says at which address visitors know the site; the first word counts, and an empty one does not.
    pub(crate) fn is_at(&self, url: &str) {
        let url = url.trim_end_matches('/');
        if !url.is_empty() {
            let _ = self.0.url.set(url.to_owned());
        }
    }

    /// Adds a user who can sign in with this password, and gives the id.
    ///
    /// # Errors
    ///
    /// What is wrong with the address, the name or the password.
    pub async fn add(
        &self,
        email: &str,
        name: &str,
        role: Role,
        password: &str,
    ) -> Result<i64, Refusal> {
        let email = Email::parse(email).map_err(|reason| Refusal::Email(reason.to_owned()))?;
        let password = self.chosen(password, &email)?;
        let hash = self.hasher().hash(password).await;
        let hash = hash.map_err(|_| Refusal::Busy)?;
        self.insert(email, (name, role), Some(hash)).await
    }

    /// Adds a user who has to set a password by a link, and gives the id.
    pub(crate) async fn add_without_password(
        &self,
        email: &str,
        (name, role): (&str, Role),
    ) -> Result<i64, Refusal> {
        let email = Email::parse(email).map_err(|reason| Refusal::Email(reason.to_owned()))?;
        self.insert(email, (name, role), None).await
    }

    fn chosen(&self, password: &str, email: &Email) -> Result<Password, Refusal> {
        Password::chosen(password, Some(email), self.site()).map_err(Refusal::Password)
    }

    async fn insert(
        &self,
        email: Email,
        (name, role): (&str, Role),
        hash: Option<String>,
    ) -> Result<i64, Refusal> {
        let name = clean_name(name).ok_or(Refusal::Name)?;
        let taken = Refusal::taken(&email);
        let id = self.database().write(move |tx| {
            let id = users::insert(tx, &email, (&name, role), hash.as_deref())?;
            if role == Role::Owner && id.is_some() {
                tokens::delete_of(tx, None, Purpose::Owner)?;
            }
            Ok(id)
        });
        id.await?.ok_or(taken)
    }

    /// Signs a user in without a password, and gives the cookie to send: `session=…`. For the tests of a site.
    ///
    /// # Errors
    ///
    /// When the database fails, or there is no such user who may sign in.
    pub async fn open_session(&self, user: i64) -> Result<String, Refusal> {
        let ticket = Ticket::new();
        let (key, this) = (ticket.key(), self.clone());
        let opened = self.database().write(move |tx| {
            let account = users::find(tx, user)?.filter(Account::is_enabled);
            match account {
                Some(_) => this.enter(tx, (&key, user), &Client::default(), None),
                None => Ok(false),
            }
        });
        if !opened.await? {
            return Err(Refusal::Email("There is no such user.".to_owned()));
        }
        let name = self.cookies().name(Cookie::Session);
        Ok(format!("{name}={}", ticket.as_str()))
    }

    /// Writes a session, in the place of the one that the browser had.
    pub(super) fn enter(
        &self,
        tx: &Transaction<'_>,
        (key, user): (&Key, i64),
        client: &Client,
        old: Option<Key>,
    ) -> database::Result<bool> {
        if let Some(old) = old {
            sessions::delete(tx, &old)?;
        }
        let settings = self.settings();
        sessions::prune(tx, before(tx.now_ms(), settings.session_idle()))?;
        let expires_at = after(tx.now_ms(), settings.session_time());
        sessions::insert(tx, (key, user), client, (expires_at, settings.sessions_max))?;
        Ok(true)
    }

    /// Who is signed in by a session that holds: one read.
    pub(super) async fn current(&self, key: Key) -> database::Result<Option<Arc<Current>>> {
        let found = self.database().read(move |conn| {
            let Some(session) = sessions::find(conn, &key)? else {
                return Ok(None);
            };
            let account = users::find(conn, session.user)?.filter(Account::is_enabled);
            Ok(account.map(|account| Current { account, session }))
        });
        let now = self.database().now().as_millisecond();
        let found = found.await?;
        let found = found.filter(|current| self.holds(&current.session, now));
        if let Some(current) = &found {
            self.notes_sight(&current.session, now);
        }
        Ok(found.map(Arc::new))
    }

    pub(super) fn holds(&self, session: &Session, now: i64) -> bool {
        let idle_at = after(session.seen_at, self.settings().session_idle());
        now < session.expires_at && now < idle_at
    }

    /// Behind the answer, and now and then only: nobody waits for it.
    fn notes_sight(&self, session: &Session, now: i64) {
        if now < after(session.seen_at, SEEN) {
            return;
        }
        let (database, id) = (self.database().clone(), session.id);
        tokio::spawn(async move {
            let noted = database.write(move |tx| Ok(sessions::seen(tx, id)?)).await;
            if let Err(error) = noted {
                tracing::debug!(%error, "that a session is in use could not be noted");
            }
        });
    }

    /// Whether the site has an owner. It is read until there is one.
    pub(super) async fn has_owner(&self) -> database::Result<bool> {
        if self.0.has_owner.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let has = self.database().read(|conn| Ok(users::has_owner(conn)?));
        let has = has.await?;
        self.0.has_owner.store(has, Ordering::Relaxed);
        Ok(has)
    }

    pub(super) fn site(&self) -> &str {
        &self.0.site
    }

    pub(super) fn url(&self) -> &str {
        self.0.url.get().map_or("", String::as_str)
    }

    pub(super) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_ref()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    /// The hasher, once it knows which kinds of hashes are kept; they are read once.
    pub(super) async fn learnt(&self) -> database::Result<&Hasher> {
        let learn = || async {
            let kinds = self
                .database()
                .read(|conn| Ok(users::kinds_of_hashes(conn, KINDS_READ)?));
            self.hasher().learn(&kinds.await?);
            Ok::<_, database::Error>(())
        };
        self.0.has_learnt.get_or_try_init(learn).await?;
        Ok(self.hasher())
    }

    pub(super) fn cookies(&self) -> Cookies {
        self.0.cookies
    }

    pub(super) fn on_reset(&self) -> Option<&OnReset> {
        self.0.on_reset.as_ref()
    }

    pub(super) fn sending(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.sending)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Accounts")
            .field("site", &self.0.site)
            .finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Accounts {
    type Rejection = http::Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> http::Result<Self> {
        Ok(Visit::of(parts)?.accounts().clone())
    }
}

/// A name without what does not belong in one; `None` if it is too long.
pub(super) fn clean_name(name: &str) -> Option<String> {
    let name = name.trim();
    if name.chars().take(NAME_CHARS_MAX + 1).count() > NAME_CHARS_MAX {
        return None;
    }
    Some(name.chars().filter(|c| !c.is_control()).collect())
}

/// A time in milliseconds, so much later.
pub(super) fn after(ms: i64, time: Duration) -> i64 {
    ms.saturating_add(millis(time))
}

fn before(ms: i64, time: Duration) -> i64 {
    ms.saturating_sub(millis(time))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
