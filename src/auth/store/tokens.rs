//! The table `tokens`: links that are good once, and half sessions.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::auth::key::Key;
use crate::database::Transaction;

/// So many that are over are deleted with each that is made.
const PRUNE: u32 = 100;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Purpose {
    /// Makes the first owner.
    Owner,
    /// Sets the first password of who is invited.
    Invite,
    /// Sets another password.
    Reset,
    /// The password was right, and a code is asked for.
    Second,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Invite => "invite",
            Self::Reset => "reset",
            Self::Second => "second",
        }
    }

    fn of(word: &str) -> Option<Self> {
        let all = [Self::Owner, Self::Invite, Self::Reset, Self::Second];
        all.into_iter().find(|purpose| purpose.as_str() == word)
    }
}

/// A token that holds still.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct Token {
    pub(in crate::auth) purpose: Purpose,
    /// Nobody, for that of the first owner.
    pub(in crate::auth) user: Option<i64>,
    pub(in crate::auth) tries: i64,
}

fn token(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Token>> {
    let (user, tries) = (row.get(1)?, row.get(2)?);
    let purpose = Purpose::of(row.get_ref(0)?.as_str()?);
    Ok(purpose.map(|purpose| Token {
        purpose,
        user,
        tries,
    }))
}

/// The token, if it is for one of these purposes and holds at this time.
pub(in crate::auth) fn find(
    conn: &Connection,
    key: &Key,
    (purposes, now): (&[Purpose], i64),
) -> rusqlite::Result<Option<Token>> {
    let found = conn
        .prepare_cached(
            "SELECT purpose, user_id, tries FROM tokens WHERE key = ?1 AND expires_at > ?2",
        )?
        .query_row(params![key.as_bytes(), now], token)
        .optional()?;
    let found = found.flatten();
    Ok(found.filter(|token| purposes.contains(&token.purpose)))
}

/// Uses a token: it is found once, and no more.
pub(in crate::auth) fn take(
    tx: &Transaction<'_>,
    key: &Key,
    purposes: &[Purpose],
) -> rusqlite::Result<Option<Token>> {
    let found = find(tx, key, (purposes, tx.now_ms()))?;
    if found.is_some() {
        tx.prepare_cached("DELETE FROM tokens WHERE key = ?1")?
            .execute([key.as_bytes()])?;
    }
    Ok(found)
}

/// Adds a token; some that are over go.
pub(in crate::auth) fn insert(
    tx: &Transaction<'_>,
    key: &Key,
    (purpose, user): (Purpose, Option<i64>),
    expires_at: i64,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "DELETE FROM tokens WHERE key IN (SELECT key FROM tokens WHERE expires_at <= ?1 LIMIT ?2)",
    )?
    .execute(params![tx.now_ms(), PRUNE])?;
    tx.prepare_cached(
        "INSERT INTO tokens (key, purpose, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![key.as_bytes(), purpose.as_str(), user, tx.now_ms(), expires_at])?;
    Ok(())
}

/// Deletes those of a user for a purpose, or those of nobody.
pub(in crate::auth) fn delete_of(
    tx: &Transaction<'_>,
    user: Option<i64>,
    purpose: Purpose,
) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM tokens WHERE user_id IS ?1 AND purpose = ?2")?
        .execute(params![user, purpose.as_str()])?;
    Ok(())
}

/// Deletes all of a user's.
pub(in crate::auth) fn delete_all(tx: &Transaction<'_>, user: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM tokens WHERE user_id = ?1")?
        .execute([user])?;
    Ok(())
}

/// Counts a code that was wrong.
pub(in crate::auth) fn tried(tx: &Transaction<'_>, key: &Key) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE tokens SET tries = tries + 1 WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(())
}
