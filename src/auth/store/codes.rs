//! The table `recovery_codes`.

use rusqlite::Connection;
use rusqlite::params;

use crate::auth::key::Key;
use crate::database::Transaction;

/// Puts these in the place of all that the user had.
pub(in crate::auth) fn replace(
    tx: &Transaction<'_>,
    user: i64,
    keys: &[Key],
) -> rusqlite::Result<()> {
    delete_all(tx, user)?;
    let mut insert =
        tx.prepare_cached("INSERT INTO recovery_codes (user_id, key) VALUES (?1, ?2)")?;
    for key in keys {
        insert.execute(params![user, key.as_bytes()])?;
    }
    Ok(())
}

/// Uses a code: it is found once, and no more.
pub(in crate::auth) fn take(tx: &Transaction<'_>, user: i64, key: &Key) -> rusqlite::Result<bool> {
    let taken = tx
        .prepare_cached("DELETE FROM recovery_codes WHERE user_id = ?1 AND key = ?2")?
        .execute(params![user, key.as_bytes()])?;
    Ok(taken > 0)
}

pub(in crate::auth) fn delete_all(tx: &Transaction<'_>, user: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM recovery_codes WHERE user_id = ?1")?
        .execute([user])?;
    Ok(())
}

/// How many are left.
pub(in crate::auth) fn count(conn: &Connection, user: i64) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT count(*) FROM recovery_codes WHERE user_id = ?1")?
        .query_row([user], |row| row.get(0))
}
