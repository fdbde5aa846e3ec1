//! What an owner does to people, and people to themselves.

use jiff::Timestamp;
use rusqlite::Connection;

use crate::auth::accounts::Accounts;
use crate::auth::accounts::Refusal;
use crate::auth::email::Email;
use crate::auth::store::codes;
use crate::auth::store::sessions;
use crate::auth::store::sessions::Session;
use crate::auth::store::tokens;
use crate::auth::store::users;
use crate::auth::store::users::Account;
use crate::auth::store::users::Part;
use crate::auth::totp;
use crate::auth::user::Role;
use crate::auth::user::User;
use crate::database;
use crate::http::Once;

/// So many people are on a page.
const PAGE: u32 = 50;

/// So many are read at once, where all are: a read is not to take long.
const AT_ONCE: u32 = 1_000;

/// A user, as the command line lists them.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) user: User,
    pub(crate) state: &'static str,
    pub(crate) created_at: Timestamp,
}

impl From<Account> for Listed {
    fn from(account: Account) -> Self {
        Self {
            state: match (&account.password_hash, account.is_enabled()) {
                (_, false) => "disabled",
                (None, true) => "invited",
                (Some(_), true) => "active",
            },
            created_at: Timestamp::from_millisecond(account.created_at).unwrap_or_default(),
            user: account.user,
        }
    }
}

/// Some of the people, as the owner sees them.
pub(super) struct Page {
    pub(super) people: Vec<Account>,
    pub(super) has_before: bool,
    pub(super) has_after: bool,
}

/// What came of disabling somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switched {
    Done,
    /// It was so before.
    Already,
    /// Nobody could enable anybody again.
    LastOwner,
    Missing,
}

impl Accounts {
    /// One page of the list: that part of it, or the first page where nobody is in that part.
    pub(super) async fn page(&self, part: Part) -> database::Result<Page> {
        let page = self.database().read(move |conn| {
            // One more says whether there are more.
            let mut people = users::list(conn, part, PAGE + 1)?;
            let part = if people.is_empty() {
                people = users::list(conn, Part::First, PAGE + 1)?;
                Part::First
            } else {
                part
            };
            let has_more = people.len() > PAGE as usize;
            let (has_before, has_after) = match part {
                Part::First => (false, has_more),
                Part::After(_) => (true, has_more),
                Part::Before(_) => (has_more, true),
            };
            match part {
                Part::Before(_) if has_more => drop(people.remove(0)),
                _ => people.truncate(PAGE as usize),
            }
            Ok(Page {
                people,
                has_before,
                has_after,
            })
        });
        page.await
    }

    /// All users, owners first.
    pub(crate) async fn listed(&self) -> database::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut part = Part::First;
        loop {
            let some = move |conn: &Connection| Ok(users::list(conn, part, AT_ONCE)?);
            let accounts = self.database().read(some).await?;
            let Some(last) = accounts.last() else {
                return Ok(listed);
            };
            part = Part::After(last.user.id);
            listed.extend(accounts.into_iter().map(Listed::from));
        }
    }

    /// Adds a member who has to set a password by a link, once however often the form is sent; gives the id.
    pub(super) async fn invite(&self, once: Once, email: &str) -> Result<i64, Refusal> {
        let email = Email::parse(email).map_err(|reason| Refusal::Email(reason.to_owned()))?;
        let taken = Refusal::taken(&email);
        let added = once.write(self.database(), move |tx| {
            Ok(users::insert(tx, &email, ("", Role::Member), None)?)
        });
        added.await?.ok_or(taken)
    }

    /// The user who has this address, however it is spelt.
    pub(crate) async fn id_of(&self, email: &str) -> database::Result<Option<i64>> {
        let Ok(email) = Email::parse(email) else {
            return Ok(None);
        };
        let found = self
            .database()
            .read(move |conn| Ok(users::find_by_email(conn, email.key())?));
        Ok(found.await?.map(|account| account.user.id))
    }

    pub(super) async fn find(&self, id: i64) -> database::Result<Option<Account>> {
        let found = self.database().read(move |conn| Ok(users::find(conn, id)?));
        found.await
    }

    /// Lets a user sign in again, or no more: all sessions and links end then.
    pub(crate) async fn switch(&self, id: i64, is_enabled: bool) -> database::Result<Switched> {
        let switched = self.database().write(move |tx| {
            let Some(account) = users::find(tx, id)? else {
                return Ok(Switched::Missing);
            };
            let is_last = account.user.role == Role::Owner && users::other_owners(tx, id)? == 0;
            if !is_enabled && is_last && account.is_enabled() {
                return Ok(Switched::LastOwner);
            }
            if !users::set_enabled(tx, id, is_enabled)? {
                return Ok(Switched::Already);
            }
            if !is_enabled {
                sessions::delete_all(tx, id)?;
                tokens::delete_all(tx, id)?;
            }
            Ok(Switched::Done)
        });
        switched.await
    }

    pub(super) async fn rename(&self, id: i64, name: String) -> database::Result<bool> {
        let renamed = self
            .database()
            .write(move |tx| Ok(users::set_name(tx, id, &name)?));
        renamed.await
    }

    pub(super) async fn sessions(&self, user: i64) -> database::Result<Vec<Session>> {
        let now = self.database().now().as_millisecond();
        let found = self
            .database()
            .read(move |conn| Ok(sessions::of_user(conn, user)?));
        let mut found = found.await?;
        found.retain(|session| self.holds(session, now));
        Ok(found)
    }

    /// How many sessions of a user hold.
    pub(crate) async fn session_count(&self, user: i64) -> database::Result<usize> {
        Ok(self.sessions(user).await?.len())
    }

    /// Ends one session of a user.
    pub(super) async fn revoke(&self, user: i64, session: i64) -> database::Result<bool> {
        let revoked = self
            .database()
            .write(move |tx| Ok(sessions::delete_of_user(tx, user, session)?));
        revoked.await
    }

    /// Ends all sessions of a user; says how many there were.
    pub(crate) async fn revoke_all(&self, user: i64) -> database::Result<usize> {
        let revoked = self.database().write(move |tx| {
            tokens::delete_all(tx, user)?;
            Ok(sessions::delete_all(tx, user)?)
        });
        revoked.await
    }

    /// Turns the second factor on, if it is a code of this secret and there is none yet; gives the codes for when it
    /// is lost.
    pub(super) async fn confirm_totp(
        &self,
        user: i64,
        secret: &[u8],
        code: &str,
    ) -> database::Result<Option<Vec<String>>> {
        let Some(step) = totp::step_of(secret, code, self.database().now().as_millisecond()) else {
            return Ok(None);
        };
        let secret = secret.to_owned();
        let confirmed = self.database().write(move |tx| {
            if !users::set_totp(tx, user, (&secret, step))? {
                return Ok(None);
            }
            let recovery = totp::recovery_codes();
            let keys: Vec<_> = recovery
                .iter()
                .filter_map(|code| totp::recovery_key(code))
                .collect();
            codes::replace(tx, user, &keys)?;
            Ok(Some(recovery))
        });
        confirmed.await
    }

    /// How many codes are left for when the second factor is lost.
    pub(super) async fn recovery_codes_left(&self, user: i64) -> database::Result<i64> {
        let count = self
            .database()
            .read(move |conn| Ok(codes::count(conn, user)?));
        count.await
    }

    /// The user is asked for codes no more.
    pub(crate) async fn drop_totp(&self, user: i64) -> database::Result<bool> {
        let dropped = self.database().write(move |tx| {
            codes::delete_all(tx, user)?;
            Ok(users::drop_totp(tx, user)?)
        });
        dropped.await
    }
}
