//! The table `replica_marks`: a row that a drill writes, and looks for in what it restores.
//!
//! It is made by the first drill, and not by a migration: a database that is only replicated has none of ours.

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;

use crate::database::Database;
use crate::database::Result;

/// So many are kept.
const KEPT: i64 = 10;

/// A row that no other database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    token: String,
    pub(super) at: Timestamp,
}

impl Mark {
    /// Writes a new one.
    pub(super) async fn write(database: &Database) -> Result<Self> {
        let token = format!("{:032x}", fastrand::u128(..));
        let written = token.clone();
        let at = database.write(move |tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS replica_marks \
                 (id INTEGER PRIMARY KEY, token TEXT NOT NULL, at INTEGER NOT NULL) STRICT",
            )?;
            let row = (&written, tx.now_ms());
            tx.execute("INSERT INTO replica_marks (token, at) VALUES (?1, ?2)", row)?;
            let last = tx.last_insert_rowid();
            tx.execute("DELETE FROM replica_marks WHERE id <= ?1", [last - KEPT])?;
            Ok(tx.now())
        });
        Ok(Self {
            at: at.await?,
            token,
        })
    }

    /// Whether it is in a database.
    pub(super) fn is_in(&self, connection: &Connection) -> Result<bool> {
        let table = "SELECT 1 FROM sqlite_schema WHERE name = 'replica_marks' AND type = 'table'";
        let has_table = connection.query_row(table, [], |_| Ok(())).optional()?;
        if has_table.is_none() {
            return Ok(false);
        }
        let row = "SELECT 1 FROM replica_marks WHERE token = ?1";
        let found = connection.query_row(row, [&self.token], |_| Ok(()));
        Ok(found.optional()?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_is_in_its_own_database_and_ten_are_kept() {
        let one = Database::open_temporary(&[]).await.unwrap();
        let other = Database::open_temporary(&[]).await.unwrap();
        let first = Mark::write(&one).await.unwrap();
        let is_in = async |mark: &Mark, database: &Database| {
            let mark = mark.clone();
            let found = database.read(move |connection| mark.is_in(connection));
            found.await.unwrap()
        };
        assert!(is_in(&first, &one).await);
        assert!(!is_in(&first, &other).await);
        Mark::write(&other).await.unwrap();
        assert!(!is_in(&first, &other).await);
        for _ in 0..10 {
            assert!(is_in(&first, &one).await);
            Mark::write(&one).await.unwrap();
        }
        assert!(!is_in(&first, &one).await);
        one.close().await;
        other.close().await;
    }
}
