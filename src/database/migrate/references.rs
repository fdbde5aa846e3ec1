//! Rows that refer to rows that are not there: a migration must not make any, and may find some.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OptionalExtension as _;

use crate::database::Error;
use crate::database::Result;
use crate::database::recover::quoted;

/// How often each reference that leads nowhere is there, by the hash of its table, of what it refers to, and of its
/// values. Not by its row's number: to make a table anew may number its rows anew.
type Broken = HashMap<u64, u64>;

/// Refuses references that lead nowhere in `after` and that `before` does not have: what was broken stays as it is.
///
/// `before` is asked for only where there is something to compare.
pub(super) fn check(after: &Connection, before: impl FnOnce() -> Result<Connection>) -> Result<()> {
    let is_whole = each(after, |_, _, _| Ok(false))?;
    if is_whole {
        return Ok(());
    }
    let mut known = broken(&before()?)?;
    each(after, |table, parent, hash| {
        let left = known.get_mut(&hash).filter(|left| **left > 0);
        let left = left.ok_or_else(|| {
            Error::Migrate(format!(
                "after it, rows of {table} would refer to rows of {parent} that are not there"
            ))
        })?;
        *left -= 1;
        Ok(true)
    })?;
    Ok(())
}

fn broken(connection: &Connection) -> Result<Broken> {
    let mut broken = Broken::new();
    let counted = each(connection, |_, _, hash| {
        *broken.entry(hash).or_default() += 1;
        Ok(true)
    });
    match counted {
        // A foreign key that does not fit its parent: the migration may be there to mend that.
        Err(Error::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            Ok(broken)
        }
        counted => counted.map(|_| broken),
    }
}

/// Gives `found` the table, the parent and the hash of each reference that leads nowhere, until it says `false`;
/// says whether it never did.
fn each(
    connection: &Connection,
    mut found: impl FnMut(&str, &str, u64) -> Result<bool>,
) -> Result<bool> {
    let mut check = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        let values = match row.get(1)? {
            Some(rowid) => values(connection, &table, rowid, row.get(3)?)?,
            // A table WITHOUT ROWID: they can be counted, not told apart.
            None => None,
        };
        let mut hash = DefaultHasher::new();
        (&table, &parent, values).hash(&mut hash);
        if !found(&table, &parent, hash.finish())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a row has in the columns of one of its table's foreign keys, as SQL writes it.
fn values(
    connection: &Connection,
    table: &str,
    rowid: i64,
    key: i64,
) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT \"from\" FROM pragma_foreign_key_list(?1) WHERE id = ?2 ORDER BY seq";
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.query_map((table, key), |row| row.get::<_, String>(0))?;
    let quote = |column: rusqlite::Result<String>| Ok(format!("quote({})", quoted(&column?)));
    let columns: Vec<String> = columns.map(quote).collect::<rusqlite::Result<_>>()?;
    let (columns, table) = (columns.join(" || ',' || "), quoted(table));
    let sql = format!("SELECT {columns} FROM {table} WHERE _rowid_ = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([rowid], |row| row.get(0)).optional()
}
