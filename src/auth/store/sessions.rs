//! The table `sessions`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::auth::client::Client;
use crate::auth::key::Key;
use crate::database::Transaction;

/// So many that are over are deleted at each sign-in.
const PRUNE: u32 = 100;

/// A row: somebody who is signed in, at one browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Session {
    pub(in crate::auth) id: i64,
    pub(in crate::auth) user: i64,
    pub(in crate::auth) created_at: i64,
    pub(in crate::auth) seen_at: i64,
    pub(in crate::auth) expires_at: i64,
    pub(in crate::auth) address: Option<String>,
    pub(in crate::auth) agent: Option<String>,
}

const COLUMNS: &str = "id, user_id, created_at, seen_at, expires_at, address, agent";

fn session(row: &rusqlite::Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get(0)?,
        user: row.get(1)?,
        created_at: row.get(2)?,
        seen_at: row.get(3)?,
        expires_at: row.get(4)?,
        address: row.get(5)?,
        agent: row.get(6)?,
    })
}

/// The session with this key, over or not.
pub(in crate::auth) fn find(conn: &Connection, key: &Key) -> rusqlite::Result<Option<Session>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE key = ?1"))?
        .query_row([key.as_bytes()], session)
        .optional()
}

/// The sessions of a user, the one that was seen last first.
pub(in crate::auth) fn of_user(conn: &Connection, user: i64) -> rusqlite::Result<Vec<Session>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE user_id = ?1 ORDER BY seen_at DESC, id DESC LIMIT 1000"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    statement.query_map([user], session)?.collect()
}

/// Adds a session, and ends the oldest where there are more than `at_most` of the user.
pub(in crate::auth) fn insert(
    tx: &Transaction<'_>,
    (key, user): (&Key, i64),
    client: &Client,
    (expires_at, at_most): (i64, u32),
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO sessions (key, user_id, created_at, seen_at, expires_at, address, agent)
         VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        key.as_bytes(),
        user,
        tx.now_ms(),
        expires_at,
        client.address.map(|address| address.to_string()),
        client.agent,
    ])?;
    tx.prepare_cached(
        "DELETE FROM sessions
         WHERE id IN (SELECT id FROM sessions WHERE user_id = ?1 ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![user, at_most])?;
    Ok(())
}

/// Notes that it was used.
pub(in crate::auth) fn seen(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE sessions SET seen_at = ?2 WHERE id = ?1 AND seen_at < ?2")?
        .execute(params![id, tx.now_ms()])?;
    Ok(())
}

pub(in crate::auth) fn delete(tx: &Transaction<'_>, key: &Key) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(())
}

/// Ends one of a user's own, and no other's.
pub(in crate::auth) fn delete_of_user(
    tx: &Transaction<'_>,
    user: i64,
    id: i64,
) -> rusqlite::Result<bool> {
    let deleted = tx
        .prepare_cached("DELETE FROM sessions WHERE id = ?2 AND user_id = ?1")?
        .execute([user, id])?;
    Ok(deleted > 0)
}

/// Ends all of a user's; says how many there were.
pub(in crate::auth) fn delete_all(tx: &Transaction<'_>, user: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached("DELETE FROM sessions WHERE user_id = ?1")?
        .execute([user])
}

/// Deletes some that are over.
pub(in crate::auth) fn prune(tx: &Transaction<'_>, not_seen_since: i64) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM sessions
         WHERE id IN (SELECT id FROM sessions WHERE expires_at <= ?1 OR seen_at <= ?2 LIMIT ?3)",
    )?
    .execute(params![tx.now_ms(), not_seen_since, PRUNE])
}
