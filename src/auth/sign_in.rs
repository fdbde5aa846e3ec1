//! Signing in: by a password, and a code where the user has a second factor.

use std::time::Duration;

use crate::auth::accounts::Accounts;
use crate::auth::accounts::Current;
use crate::auth::accounts::after;
use crate::auth::attempts::Attempt;
use crate::auth::attempts::From;
use crate::auth::client::Client;
use crate::auth::email::Email;
use crate::auth::key::Key;
use crate::auth::key::Ticket;
use crate::auth::password::Password;
use crate::auth::store::codes;
use crate::auth::store::sessions;
use crate::auth::store::tokens;
use crate::auth::store::tokens::Purpose;
use crate::auth::store::users;
use crate::auth::store::users::Account;
use crate::auth::totp;
use crate::database;
use crate::database::Transaction;
use crate::http;

/// How long somebody may look for the telephone.
const SECOND_TIME: Duration = Duration::from_mins(10);

/// So many wrong codes, and it begins with the password again.
const TRIES_MAX: i64 = 5;

/// Who asks to be let in.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) client: Client,
    /// The session that the browser has, which ends when there is a new one.
    pub(super) old: Option<Key>,
}

/// What came of it.
pub(super) enum Entered {
    /// This goes into the cookie of the session.
    Session(Ticket),
    /// This goes into the cookie of the half session.
    Second(Ticket),
    /// Nobody has this address and this password, or may not sign in: it is not said which.
    Wrong,
}

/// What came of a code.
pub(super) enum Coded {
    Session(Ticket),
    Wrong,
    /// There is no half session, or no more.
    Over,
}

impl Accounts {
    /// # Errors
    ///
    /// 429 after too many attempts, 503 when too many passwords are checked.
    pub(super) async fn sign_in(
        &self,
        (email, password): (&str, &str),
        asking: &Asking,
    ) -> http::Result<Entered> {
        self.allow_from(&asking.client, From::SignIn).await?;
        // What is no address is looked for all the same: it takes as long, and counts by itself.
        let key = Email::parse(email).map_or_else(
            |_| Key::of(email.as_bytes()).to_hex(),
            |email| email.key().to_owned(),
        );
        self.allow_sign_in(&asking.client, &key).await?;
        let account = self.by_email(&key).await?;
        // Who may not sign in has no right password, and so no hash that is made anew, which takes time.
        let account = account.filter(Account::is_enabled);
        let kept = account.as_ref().and_then(|it| it.password_hash.clone());
        let password = Password::entered(password);
        let verdict = self.learnt().await?.verify(password, kept).await?;
        let account = account.filter(|_| verdict.is_right);
        let Some(account) = account else {
            return Ok(Entered::Wrong);
        };
        if account.totp_secret.is_none() {
            self.signed_in(&asking.client, &key).await;
        }
        let (this, asking) = (self.clone(), asking.clone());
        let entered = self.database().write(move |tx| {
            // The password was changed, or the user disabled, while it was checked?
            let now = users::find(tx, account.user.id)?;
            let now = now.filter(|now| now.password_hash == account.password_hash);
            let Some(now) = now.filter(Account::is_enabled) else {
                return Ok(Entered::Wrong);
            };
            if let (Some(old), Some(new)) = (&account.password_hash, &verdict.new_hash) {
                users::exchange_password(tx, now.user.id, (old, new))?;
            }
            this.enter_or_ask(tx, &now, &asking)
        });
        Ok(entered.await?)
    }

    async fn by_email(&self, key: &str) -> database::Result<Option<Account>> {
        let key = key.to_owned();
        let account = self
            .database()
            .read(move |conn| Ok(users::find_by_email(conn, &key)?));
        account.await
    }

    /// A session, or half of one for who is to be asked for a code.
    pub(super) fn enter_or_ask(
        &self,
        tx: &Transaction<'_>,
        account: &Account,
        asking: &Asking,
    ) -> database::Result<Entered> {
        let (ticket, user) = (Ticket::new(), account.user.id);
        if account.totp_secret.is_none() {
            self.enter(tx, (&ticket.key(), user), &asking.client, asking.old)?;
            return Ok(Entered::Session(ticket));
        }
        let expires_at = after(tx.now_ms(), SECOND_TIME);
        // One at a time: what is tried for another one would not be counted with it.
        tokens::delete_of(tx, Some(user), Purpose::Second)?;
        tokens::insert(tx, &ticket.key(), (Purpose::Second, Some(user)), expires_at)?;
        Ok(Entered::Second(ticket))
    }

    /// Takes a code of the second factor, or one of those for when it is lost.
    ///
    /// # Errors
    ///
    /// 429 after too many attempts.
    pub(super) async fn second(
        &self,
        half: Key,
        code: &str,
        asking: &Asking,
    ) -> http::Result<Coded> {
        self.allow_from(&asking.client, From::SignIn).await?;
        let Some(email) = self.email_of_half(half).await? else {
            return Ok(Coded::Over);
        };
        self.allow_for(&email, Attempt::Code).await?;
        let client = asking.client.clone();
        let (this, asking, code) = (self.clone(), asking.clone(), code.to_owned());
        let coded = self
            .database()
            .write(move |tx| this.code(tx, &half, (&code, &asking)))
            .await?;
        if let Coded::Session(_) = &coded {
            self.signed_in(&client, &email).await;
            self.succeeded(&email, Attempt::Code).await;
        }
        Ok(coded)
    }

    /// The key of the address of whose half session this is.
    async fn email_of_half(&self, half: Key) -> database::Result<Option<String>> {
        let now = self.database().now().as_millisecond();
        let found = self.database().read(move |conn| {
            let token = tokens::find(conn, &half, (&[Purpose::Second], now))?;
            let account = match token.and_then(|token| token.user) {
                Some(user) => users::find(conn, user)?,
                None => None,
            };
            Ok(account.map(|account| account.user.email))
        });
        let email = found.await?.and_then(|email| Email::parse(&email).ok());
        Ok(email.map(|email| email.key().to_owned()))
    }

    fn code(
        &self,
        tx: &Transaction<'_>,
        half: &Key,
        (code, asking): (&str, &Asking),
    ) -> database::Result<Coded> {
        let token = tokens::find(tx, half, (&[Purpose::Second], tx.now_ms()))?;
        let Some((token, user)) = token.and_then(|token| Some((token, token.user?))) else {
            return Ok(Coded::Over);
        };
        let Some(account) = users::find(tx, user)?.filter(Account::is_enabled) else {
            return Ok(Coded::Over);
        };
        if takes_code(tx, &account, code)? {
            tokens::take(tx, half, &[Purpose::Second])?;
            let ticket = Ticket::new();
            self.enter(tx, (&ticket.key(), user), &asking.client, asking.old)?;
            return Ok(Coded::Session(ticket));
        }
        if token.tries + 1 >= TRIES_MAX {
            tokens::take(tx, half, &[Purpose::Second])?;
            return Ok(Coded::Over);
        }
        tokens::tried(tx, half)?;
        Ok(Coded::Wrong)
    }

    /// Whether it is the password of who is signed in; a code is not asked for again.
    ///
    /// # Errors
    ///
    /// 429 after too many attempts, 503 when too many passwords are checked.
    pub(super) async fn confirms(&self, current: &Current, password: &str) -> http::Result<bool> {
        let email = Email::parse(&current.account.user.email);
        let key = email.map_or_else(|_| String::new(), |email| email.key().to_owned());
        self.allow_for(&key, Attempt::Confirm).await?;
        let kept = current.account.password_hash.clone();
        let verdict = self.hasher().verify(Password::entered(password), kept);
        let is_right = verdict.await?.is_right;
        if is_right {
            self.succeeded(&key, Attempt::Confirm).await;
        }
        Ok(is_right)
    }

    /// Sets another password for who is signed in: every other session ends, and this one gets another ticket.
    pub(super) async fn change_password(
        &self,
        current: &Current,
        hash: String,
        client: &Client,
    ) -> database::Result<Option<Ticket>> {
        let (user, old) = (
            current.account.user.id,
            current.account.password_hash.clone(),
        );
        let (this, client) = (self.clone(), client.clone());
        let changed = self.database().write(move |tx| {
            let now = users::find(tx, user)?.filter(Account::is_enabled);
            if now.is_none_or(|now| now.password_hash != old) {
                return Ok(None);
            }
            users::set_password(tx, user, &hash)?;
            sessions::delete_all(tx, user)?;
            tokens::delete_all(tx, user)?;
            let ticket = Ticket::new();
            this.enter(tx, (&ticket.key(), user), &client, None)?;
            Ok(Some(ticket))
        });
        changed.await
    }
}

/// Uses a code, if it is one that is good now.
fn takes_code(tx: &Transaction<'_>, account: &Account, code: &str) -> database::Result<bool> {
    let user = account.user.id;
    if let Some(secret) = &account.totp_secret
        && let Some(step) = totp::step_of(secret, code, tx.now_ms())
    {
        return Ok(users::use_totp_step(tx, user, (secret, step))?);
    }
    match totp::recovery_key(code) {
        Some(key) => Ok(codes::take(tx, user, &key)?),
        None => Ok(false),
    }
}
