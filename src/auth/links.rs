//! Links that are good once: the first owner's, an invitation, another password.

use std::time::Duration;

use crate::auth::accounts::Accounts;
use crate::auth::accounts::after;
use crate::auth::attempts::Attempt;
use crate::auth::email::Email;
use crate::auth::key::Key;
use crate::auth::key::Ticket;
use crate::auth::sign_in::Asking;
use crate::auth::sign_in::Entered;
use crate::auth::store::sessions;
use crate::auth::store::tokens;
use crate::auth::store::tokens::Purpose;
use crate::auth::store::users;
use crate::auth::store::users::Account;
use crate::auth::user::Role;
use crate::database;
use crate::database::Transaction;
use crate::http;

/// Those that set a password.
const SETTING: [Purpose; 2] = [Purpose::Invite, Purpose::Reset];

/// Who sends a link has so long.
const SEND_TIME: Duration = Duration::from_mins(1);

/// What an owner enters at first.
pub(super) struct First {
    pub(super) email: Email,
    pub(super) name: String,
    pub(super) hash: String,
}

/// What came of the first owner's link.
pub(super) enum Founded {
    Session(Ticket),
    /// Somebody has this address already.
    Taken,
    /// It was used, or is over.
    Gone,
}

impl Accounts {
    /// Makes the link by which the first owner's account is made, in the place of an older one; none if there is an owner.
    pub(super) async fn first_link(&self) -> database::Result<Option<String>> {
        let ticket = Ticket::new();
        let (key, time) = (ticket.key(), self.settings().link_time());
        let made = self.database().write(move |tx| {
            if users::has_owner(tx)? {
                return Ok(false);
            }
            tokens::delete_of(tx, None, Purpose::Owner)?;
            let expires_at = after(tx.now_ms(), time);
            tokens::insert(tx, &key, (Purpose::Owner, None), expires_at)?;
            Ok(true)
        });
        let link = made.await?.then(|| self.link("first", &ticket));
        Ok(link)
    }

    /// Makes a link by which a user sets a password, in the place of an older one; `None` if there is no such user who
    /// may sign in.
    pub(crate) async fn password_link(&self, user: i64) -> database::Result<Option<String>> {
        let (ticket, settings) = (Ticket::new(), self.settings());
        let key = ticket.key();
        let (link_time, invitation_time) = (settings.link_time(), settings.invitation_time());
        let made = self.database().write(move |tx| {
            let Some(account) = users::find(tx, user)?.filter(Account::is_enabled) else {
                return Ok(false);
            };
            let (purpose, time) = match account.password_hash {
                Some(_) => (Purpose::Reset, link_time),
                None => (Purpose::Invite, invitation_time),
            };
            for purpose in SETTING {
                tokens::delete_of(tx, Some(user), purpose)?;
            }
            let expires_at = after(tx.now_ms(), time);
            tokens::insert(tx, &key, (purpose, Some(user)), expires_at)?;
            Ok(true)
        });
        let link = made.await?.then(|| self.link("reset", &ticket));
        Ok(link)
    }

    fn link(&self, page: &str, ticket: &Ticket) -> String {
        format!("{}/account/{page}?token={}", self.url(), ticket.as_str())
    }

    /// Whether the first owner's link holds.
    pub(super) async fn is_first_link(&self, key: Key) -> database::Result<bool> {
        let now = self.database().now().as_millisecond();
        let found = self.database().read(move |conn| {
            let token = tokens::find(conn, &key, (&[Purpose::Owner], now))?;
            Ok(token.is_some() && !users::has_owner(conn)?)
        });
        found.await
    }

    /// Whose password a link sets, if it holds.
    pub(super) async fn account_of_link(&self, key: Key) -> database::Result<Option<Account>> {
        let now = self.database().now().as_millisecond();
        let found = self.database().read(move |conn| {
            let token = tokens::find(conn, &key, (&SETTING, now))?;
            let account = match token.and_then(|token| token.user) {
                Some(user) => users::find(conn, user)?,
                None => None,
            };
            Ok(account.filter(Account::is_enabled))
        });
        found.await
    }

    /// Makes the first owner, and the session; of several with one link the first one is it.
    pub(super) async fn found(
        &self,
        key: Key,
        first: First,
        asking: &Asking,
    ) -> database::Result<Founded> {
        let (this, asking) = (self.clone(), asking.clone());
        let founded = self.database().write(move |tx| {
            if users::has_owner(tx)? {
                return Ok(Founded::Gone);
            }
            if users::find_by_email(tx, first.email.key())?.is_some() {
                return Ok(Founded::Taken);
            }
            if tokens::take(tx, &key, &[Purpose::Owner])?.is_none() {
                return Ok(Founded::Gone);
            }
            let owner = (first.name.as_str(), Role::Owner);
            let Some(user) = users::insert(tx, &first.email, owner, Some(&first.hash))? else {
                return Ok(Founded::Taken);
            };
            tokens::delete_of(tx, None, Purpose::Owner)?;
            let ticket = Ticket::new();
            this.enter(tx, (&ticket.key(), user), &asking.client, asking.old)?;
            Ok(Founded::Session(ticket))
        });
        founded.await
    }

    /// Sets the password by a link: all sessions and links of the user end. `None` if it was used, or is over.
    pub(super) async fn set_by_link(
        &self,
        key: Key,
        (name, hash): (Option<String>, String),
        asking: &Asking,
    ) -> database::Result<Option<Entered>> {
        let (this, asking) = (self.clone(), asking.clone());
        let entered = self.database().write(move |tx| {
            let token = tokens::take(tx, &key, &SETTING)?;
            let Some(user) = token.and_then(|token| token.user) else {
                return Ok(None);
            };
            let Some(account) = users::find(tx, user)?.filter(Account::is_enabled) else {
                return Ok(None);
            };
            set(tx, user, (name.as_deref(), &hash))?;
            Ok(Some(this.enter_or_ask(tx, &account, &asking)?))
        });
        entered.await
    }

    /// Has a link sent to who has this address, if anybody has, behind the answer: it tells nobody who does.
    pub(super) async fn send_link(&self, email: &str) -> http::Result<()> {
        let (Some(send), Ok(email)) = (self.on_reset().cloned(), Email::parse(email)) else {
            return Ok(());
        };
        self.allow_for(email.key(), Attempt::Link).await?;
        let Ok(permit) = self.sending().try_acquire_owned() else {
            tracing::warn!("too many links are being sent: one that was asked for is not");
            return Ok(());
        };
        let this = self.clone();
        tokio::spawn(async move {
            match this.link_for(email).await {
                Ok(Some((user, link))) => {
                    if tokio::time::timeout(SEND_TIME, send(user, link))
                        .await
                        .is_err()
                    {
                        tracing::error!("a link to set a password was not sent in time");
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "no link could be made to set a password"),
            }
            drop(permit);
        });
        Ok(())
    }

    async fn link_for(
        &self,
        email: Email,
    ) -> database::Result<Option<(crate::auth::User, String)>> {
        let found = self
            .database()
            .read(move |conn| Ok(users::find_by_email(conn, email.key())?));
        let Some(account) = found.await? else {
            return Ok(None);
        };
        let link = self.password_link(account.user.id).await?;
        Ok(link.map(|link| (account.user, link)))
    }
}

fn set(
    tx: &Transaction<'_>,
    user: i64,
    (name, hash): (Option<&str>, &str),
) -> database::Result<()> {
    users::set_password(tx, user, hash)?;
    if let Some(name) = name {
        users::set_name(tx, user, name)?;
    }
    sessions::delete_all(tx, user)?;
    tokens::delete_all(tx, user)?;
    Ok(())
}
