//! What is in a database, as one number for each table.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::Context;
use ring::digest::SHA256;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::database::Result;

/// The tables with content of their own; what is virtual keeps it in others. Litestream's own it changes as it likes.
const TABLES: &str = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') \
     AND name <> 'sqlite_schema' AND name NOT LIKE '\\_litestream\\_%' ESCAPE '\\'";

/// Where the schema is counted among the tables; no table can have this name.
const SCHEMA: &str = "sqlite_schema";

/// The rows of a table, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    /// All rows' checksums, added up.
    content: u128,
}

/// The content of a database at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<String, Sum>);

/// What came of holding a copy against the database that it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Tables that are the same, and the rows in them.
    pub(super) tables: u64,
    pub(super) rows: u64,
    /// Tables that were written meanwhile, of which nothing can be said.
    pub(super) written: u64,
    /// The first difference, in words.
    pub(super) difference: Option<String>,
}

impl Sums {
    /// Reads all of it; takes a time that grows with the file.
    pub(super) fn of(connection: &Connection) -> Result<Self> {
        let mut sums = BTreeMap::new();
        let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '%litestream%'";
        sums.insert(SCHEMA.to_owned(), sum(connection, schema)?);
        let mut tables = connection.prepare(TABLES)?;
        let tables = tables.query_map([], |row| row.get::<_, String>(0))?;
        for table in tables.collect::<Result<Vec<_>, _>>()? {
            let name = table.replace('"', "\"\"");
            let sum = sum(connection, &format!("SELECT * FROM \"{name}\""))?;
            sums.insert(table, sum);
        }
        Ok(Self(sums))
    }

    /// Holds a copy from between two moments, whose content is `before` and `after`, against them.
    ///
    /// A table that is the same at both was the same between them, and must be so in the copy. One that was changed and
    /// changed back looks the same, too: what differs once is to be looked at again.
    pub(super) fn compare(before: &Self, copy: &Self, after: &Self) -> Comparison {
        let mut comparison = Comparison::default();
        for (table, sum) in &before.0 {
            if after.0.get(table) != Some(sum) {
                comparison.written += 1;
                continue;
            }
            match copy.0.get(table) {
                Some(copied) if copied == sum => {
                    comparison.tables += 1;
                    comparison.rows += sum.rows;
                }
                Some(copied) => {
                    comparison.found(format!(
                        "{table} has {sum} here, and {copied} that are not the same in the replica"
                    ));
                }
                None => comparison.found(format!("{table} is not in the replica")),
            }
        }
        let is_new =
            |table: &&String| !before.0.contains_key(*table) && !after.0.contains_key(*table);
        if let Some(table) = copy.0.keys().find(is_new) {
            comparison.found(format!("{table} is in the replica, and not here"));
        }
        comparison
    }
}

impl Comparison {
    fn found(&mut self, difference: String) {
        self.difference.get_or_insert(difference);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} rows", self.rows)
    }
}

fn sum(connection: &Connection, sql: &str) -> Result<Sum> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut sum = Sum::default();
    while let Some(row) = rows.next()? {
        let mut digest = Context::new(&SHA256);
        for column in 0..columns {
            add(&mut digest, row.get_ref(column)?);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&digest.finish().as_ref()[..16]);
        sum.rows += 1;
        sum.content = sum.content.wrapping_add(u128::from_be_bytes(half));
    }
    Ok(sum)
}

/// With its type and its length, so that no two rows read the same.
fn add(digest: &mut Context, value: ValueRef<'_>) {
    let (kind, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => {
            digest.update(&[1]);
            digest.update(&number.to_be_bytes());
            return;
        }
        ValueRef::Real(number) => {
            digest.update(&[2]);
            digest.update(&number.to_bits().to_be_bytes());
            return;
        }
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    digest.update(&[kind]);
    digest.update(&(bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    async fn sums(sql: &'static str) -> Sums {
        let database = Database::open_temporary(&[]).await.unwrap();
        let written = database.write(move |tx| Ok(tx.execute_batch(sql)?));
        written.await.unwrap();
        let sums = database.read(Sums::of).await.unwrap();
        database.close().await;
        sums
    }

    const TABLE: &str = "CREATE TABLE a (b, c); INSERT INTO a VALUES (1, 'x'), (NULL, x'00');";

    #[tokio::test]
    async fn what_is_not_the_same_has_another_sum() {
        let one = sums(TABLE).await;
        for (other, part) in [
            (
                "CREATE TABLE a (b, c); INSERT INTO a VALUES (1, 'x')",
                "a has 2 rows here, and 1 rows",
            ),
            (
                "CREATE TABLE a (b, c); INSERT INTO a VALUES (1, 'x'), (NULL, char(0))",
                "a has 2 rows here",
            ),
            (
                "CREATE TABLE a (b, c); INSERT INTO a VALUES ('1', 'x'), (NULL, x'00')",
                "a has 2 rows here",
            ),
            ("CREATE TABLE d (b, c)", "a is not in the replica"),
            (
                "CREATE TABLE a (b, c); INSERT INTO a VALUES (1, 'x'), (NULL, x'00'); CREATE INDEX e ON a (b)",
                "sqlite_schema has 1 rows here",
            ),
        ] {
            let copy = sums(other).await;
            let found = Sums::compare(&one, &copy, &one).difference.unwrap();
            assert!(found.contains(part), "{other}: {found}");
        }
        let turned = "CREATE TABLE a (b, c); INSERT INTO a VALUES (NULL, x'00'), (1, 'x');";
        let found = Sums::compare(&one, &sums(turned).await, &one);
        assert_eq!((found.tables, found.rows, found.difference), (2, 3, None));
    }

    #[tokio::test]
    async fn a_table_that_was_written_meanwhile_is_left_out() {
        let before = sums(TABLE).await;
        let after = sums("CREATE TABLE a (b, c); INSERT INTO a VALUES (2, 'x')").await;
        let between = sums("CREATE TABLE a (b, c)").await;
        let found = Sums::compare(&before, &between, &after);
        assert_eq!(
            (found.tables, found.written, found.difference),
            (1, 1, None)
        );
        let more = sums("CREATE TABLE a (b, c); CREATE TABLE z (b)").await;
        let found = Sums::compare(&before, &more, &after).difference.unwrap();
        assert!(
            found.contains("sqlite_schema") || found.contains("z is in the replica"),
            "{found}"
        );
    }
}
