//! The table `users`.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::auth::email::Email;
use crate::auth::user::Role;
use crate::auth::user::User;
use crate::database::Transaction;

/// Of a hash of 32 bytes by a salt of 16, with the signs before both.
const SALT_AND_HASH_CHARS: u32 = 67;

/// Comes after every address.
const LAST: &str = "\u{10FFFF}";

const COLUMNS: &str = "id, email, name, role, password_hash, totp_secret, created_at, disabled_at";

/// A user, with what nobody is shown.
#[derive(Clone)]
pub(in crate::auth) struct Account {
    pub(in crate::auth) user: User,
    pub(in crate::auth) password_hash: Option<String>,
    pub(in crate::auth) totp_secret: Option<Vec<u8>>,
    pub(in crate::auth) created_at: i64,
    pub(in crate::auth) disabled_at: Option<i64>,
}

impl Account {
    pub(in crate::auth) fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let role = row.get_ref(3)?.as_str()?;
    let totp_secret: Option<Vec<u8>> = row.get(5)?;
    Ok(Account {
        user: User {
            id: row.get(0)?,
            email: row.get(1)?,
            name: row.get(2)?,
            role: Role::of(role),
            has_second_factor: totp_secret.is_some(),
        },
        password_hash: row.get(4)?,
        totp_secret,
        created_at: row.get(6)?,
        disabled_at: row.get(7)?,
    })
}

pub(in crate::auth) fn find(conn: &Connection, id: i64) -> rusqlite::Result<Option<Account>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE id = ?1"))?
        .query_row([id], account)
        .optional()
}

pub(in crate::auth) fn find_by_email(
    conn: &Connection,
    key: &str,
) -> rusqlite::Result<Option<Account>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE email_key = ?1");
    conn.prepare_cached(&sql)?
        .query_row([key], account)
        .optional()
}

/// Which people of the list: owners first, each role in the order of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Part {
    First,
    /// Those after this user.
    After(i64),
    /// Those before this user.
    Before(i64),
}

/// So many people of a part of the list, the nearest ones, in its order; none after or before nobody.
pub(in crate::auth) fn list(
    conn: &Connection,
    part: Part,
    limit: u32,
) -> rusqlite::Result<Vec<Account>> {
    let (Part::After(from) | Part::Before(from)) = part else {
        return after(conn, None, limit);
    };
    match place(conn, from)? {
        Some(place) if part == Part::Before(from) => before(conn, place, limit),
        Some(place) => after(conn, Some(place), limit),
        None => Ok(Vec::new()),
    }
}

/// A role, and the key of an address.
type Place = (Role, String);

fn after(conn: &Connection, from: Option<Place>, limit: u32) -> rusqlite::Result<Vec<Account>> {
    let (first, key) = from.unwrap_or((Role::Owner, String::new()));
    let sql = format!(
        "SELECT {COLUMNS} FROM users WHERE role = ?1 AND email_key > ?2 ORDER BY email_key LIMIT ?3"
    );
    let mut found = of_role(conn, &sql, (first, &key, limit))?;
    if first == Role::Owner {
        let left = limit.saturating_sub(count(&found));
        found.extend(of_role(conn, &sql, (Role::Member, "", left))?);
    }
    Ok(found)
}

fn before(conn: &Connection, (last, key): Place, limit: u32) -> rusqlite::Result<Vec<Account>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM users WHERE role = ?1 AND email_key < ?2 ORDER BY email_key DESC LIMIT ?3"
    );
    let mut found = of_role(conn, &sql, (last, &key, limit))?;
    if last == Role::Member {
        let left = limit.saturating_sub(count(&found));
        found.extend(of_role(conn, &sql, (Role::Owner, LAST, left))?);
    }
    found.reverse();
    Ok(found)
}

fn of_role(
    conn: &Connection,
    sql: &str,
    (role, key, limit): (Role, &str, u32),
) -> rusqlite::Result<Vec<Account>> {
    let mut statement = conn.prepare_cached(sql)?;
    statement
        .query_map(params![role.as_str(), key, limit], account)?
        .collect()
}

fn count(found: &[Account]) -> u32 {
    u32::try_from(found.len()).unwrap_or(u32::MAX)
}

/// Where somebody stands in the list.
fn place(conn: &Connection, id: i64) -> rusqlite::Result<Option<Place>> {
    conn.prepare_cached("SELECT role, email_key FROM users WHERE id = ?1")?
        .query_row([id], |row| {
            Ok((Role::of(row.get_ref(0)?.as_str()?), row.get(1)?))
        })
        .optional()
}

/// A hash of each kind that is kept, up to so many: they are alike but for the salt and what comes after it.
pub(in crate::auth) fn kinds_of_hashes(
    conn: &Connection,
    limit: u32,
) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare_cached(
        "SELECT min(password_hash) FROM users WHERE password_hash IS NOT NULL
         GROUP BY substr(password_hash, 1, length(password_hash) - ?1) LIMIT ?2",
    )?;
    statement
        .query_map([SALT_AND_HASH_CHARS, limit], |row| row.get(0))?
        .collect()
}

/// Whether the site has an owner.
pub(in crate::auth) fn has_owner(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'owner')")?
        .query_row([], |row| row.get(0))
}

/// How many owners can sign in, but for this one.
pub(in crate::auth) fn other_owners(conn: &Connection, id: i64) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "SELECT count(*) FROM users WHERE role = 'owner' AND disabled_at IS NULL AND id <> ?1",
    )?
    .query_row([id], |row| row.get(0))
}

/// Adds a user and gives the id; `None` where the address is taken.
pub(in crate::auth) fn insert(
    tx: &Transaction<'_>,
    email: &Email,
    (name, role): (&str, Role),
    password_hash: Option<&str>,
) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(
        "INSERT INTO users (email, email_key, name, role, password_hash, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (email_key) DO NOTHING
         RETURNING id",
    )?
    .query_row(
        params![
            email.as_str(),
            email.key(),
            name,
            role.as_str(),
            password_hash,
            tx.now_ms()
        ],
        |row| row.get(0),
    )
    .optional()
}

pub(in crate::auth) fn set_name(
    tx: &Transaction<'_>,
    id: i64,
    name: &str,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE users SET name = ?2 WHERE id = ?1")?
        .execute(params![id, name])?;
    Ok(changed > 0)
}

pub(in crate::auth) fn set_password(
    tx: &Transaction<'_>,
    id: i64,
    hash: &str,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE users SET password_hash = ?2 WHERE id = ?1")?
        .execute(params![id, hash])?;
    Ok(changed > 0)
}

/// Changes the password of who has this hash still, and so not one that was set meanwhile.
pub(in crate::auth) fn exchange_password(
    tx: &Transaction<'_>,
    id: i64,
    (old, new): (&str, &str),
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached("UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2")?
        .execute(params![id, old, new])?;
    Ok(changed > 0)
}

/// Disables or enables; says whether that changed anything.
pub(in crate::auth) fn set_enabled(
    tx: &Transaction<'_>,
    id: i64,
    is_enabled: bool,
) -> rusqlite::Result<bool> {
    let disabled_at = (!is_enabled).then(|| tx.now_ms());
    let changed = tx
        .prepare_cached(
            "UPDATE users SET disabled_at = ?2 WHERE id = ?1 AND (disabled_at IS NULL) <> (?2 IS NULL)",
        )?
        .execute(params![id, disabled_at])?;
    Ok(changed > 0)
}

/// From now on the user is asked for codes of this secret; the one of this step is used.
pub(in crate::auth) fn set_totp(
    tx: &Transaction<'_>,
    id: i64,
    (secret, step): (&[u8], i64),
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE users SET totp_secret = ?2, totp_step = ?3 WHERE id = ?1 AND totp_secret IS NULL",
        )?
        .execute(params![id, secret, step])?;
    Ok(changed > 0)
}

/// Uses the code of a step; says no if that one, or a later one, was used before.
pub(in crate::auth) fn use_totp_step(
    tx: &Transaction<'_>,
    id: i64,
    (secret, step): (&[u8], i64),
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE users SET totp_step = ?3
             WHERE id = ?1 AND totp_secret = ?2 AND (totp_step IS NULL OR totp_step < ?3)",
        )?
        .execute(params![id, secret, step])?;
    Ok(changed > 0)
}

/// The user is asked for codes no more.
pub(in crate::auth) fn drop_totp(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE users SET totp_secret = NULL, totp_step = NULL WHERE id = ?1 AND totp_secret IS NOT NULL",
        )?
        .execute([id])?;
    Ok(changed > 0)
}
