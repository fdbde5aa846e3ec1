//! Reading around what is damaged, row by row.

use std::cell::Cell;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::Row;
use rusqlite::Statement;
use rusqlite::params_from_iter;
use rusqlite::types::ToSqlOutput;

use crate::database::Error;
use crate::database::Result;
use crate::database::connection;
use crate::database::recover::quoted;

/// How often a stretch that cannot be read is halved in search of rows in its midst: each time twice as many looks.
const HALVINGS: u32 = 12;

/// Something that the schema has.
struct Item {
    kind: String,
    name: String,
    sql: String,
}

/// Copies what the tables of `from` lead to into the empty file `to`; gives what could not be made there.
///
/// A row that the new file does not take, because it breaks a rule of its table, is left out, and counted.
///
/// # Errors
///
/// When nothing can be read, or `to` cannot be written.
pub(super) fn salvage(from: &Path, to: &Path) -> Result<Vec<String>> {
    let source = connection::open_as_it_is(from).map_err(unreadable(from))?;
    // One state, even if somebody writes.
    source
        .execute_batch("BEGIN")
        .map_err(Error::from)
        .map_err(unreadable(from))?;
    let items = schema(&source).map_err(unreadable(from))?;
    let target = connection::open_copy(to)?;
    let mut complaints = Vec::new();
    prepare(&source, &target)?;
    for table in items.iter().filter(|item| item.kind == "table") {
        let made = make(&target, table).and_then(|()| copy(&source, &target, table));
        match made.map(Ok).or_else(refused)? {
            Ok(0) => {}
            Ok(rows) => complaints.push(format!(
                "table {}: rows that break one of its rules: {rows}",
                table.name
            )),
            Err(error) => complaints.push(format!("table {}: {error}", table.name)),
        }
    }
    // Now that the rows are in: a trigger must not fire for them.
    for item in items.iter().filter(|item| item.kind != "table") {
        if let Err(error) = make(&target, item).map(Ok).or_else(refused)? {
            complaints.push(format!("{} {}: {error}", item.kind, item.name));
        }
    }
    target.close().map_err(|(_, error)| error)?;
    Ok(complaints)
}

/// Tells what the new file does not take, because of the schema or of a row, from what ends the work: whatever is
/// missing after an error of the disk would be missing without a word.
fn refused<T>(error: rusqlite::Error) -> Result<rusqlite::Result<T>> {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::Unknown
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::AuthorizationForStatementDenied
            // A virtual table whose text is damaged.
            | ErrorCode::DatabaseCorrupt,
        ) => Ok(Err(error)),
        _ => Err(error.into()),
    }
}

/// The schema, as far as it can be read.
fn schema(source: &Connection) -> Result<Vec<Item>> {
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL";
    let mut statement = source.prepare(sql)?;
    let items = statement.query_map([], |row| {
        Ok(Item {
            kind: row.get(0)?,
            name: row.get(1)?,
            sql: row.get(2)?,
        })
    })?;
    let mut items: Vec<Item> = items.map_while(std::result::Result::ok).collect();
    // It is there once a table is that it counts for, and is written with each of their rows.
    items.sort_by_key(|item| item.name == "sqlite_sequence");
    Ok(items)
}

/// What the file says of itself, apart from its tables.
fn prepare(source: &Connection, target: &Connection) -> Result<()> {
    target.pragma_update(None, "foreign_keys", false)?;
    for name in ["page_size", "user_version", "application_id"] {
        let value = source.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        if let Ok(value) = value {
            target.pragma_update(None, name, value)?;
        }
    }
    Ok(())
}

fn make(target: &Connection, item: &Item) -> rusqlite::Result<()> {
    if item.name.starts_with("sqlite_") {
        // SQLite makes these by itself.
        return Ok(());
    }
    if !is_virtual(item) {
        return target.execute_batch(&item.sql);
    }
    // Its tables are copied as any other; to create it would make them anew.
    target.pragma_update(None, "writable_schema", true)?;
    let sql = "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)";
    let made = target.execute(sql, [&item.name, &item.sql]);
    target.pragma_update(None, "writable_schema", false)?;
    made.map(|_| ())
}

/// Copies the rows of a table, and says how many the new one did not take.
fn copy(source: &Connection, target: &Connection, table: &Item) -> rusqlite::Result<u64> {
    if is_virtual(table) || table.name.starts_with("sqlite_stat") {
        return Ok(0);
    }
    let is_sequence = table.name == "sqlite_sequence";
    if is_sequence && !target.table_exists(None, table.name.as_str())? {
        // It outlives the tables that it counted for.
        return Ok(0);
    }
    let rows = Rows::of(source, target, &table.name)?;
    target.execute_batch("BEGIN")?;
    if is_sequence {
        target.execute("DELETE FROM sqlite_sequence", [])?;
    }
    let read = if rows.key.is_some() {
        rows.scan(i64::MIN, i64::MAX, HALVINGS)
    } else {
        rows.scan_from_both_ends()
    };
    // Whatever became of it, the next table begins anew.
    target.execute_batch("COMMIT")?;
    read.map(|()| rows.refused.get())
}

fn is_virtual(item: &Item) -> bool {
    let sql = item.sql.trim_start().as_bytes();
    let begin = b"CREATE VIRTUAL";
    sql.get(..begin.len())
        .is_some_and(|sql| sql.eq_ignore_ascii_case(begin))
}

/// The rows of a table, in the one file and in the other.
struct Rows<'a> {
    source: &'a Connection,
    target: &'a Connection,
    /// What the rows are numbered by; a table WITHOUT ROWID has none.
    key: Option<&'static str>,
    select: String,
    insert: String,
    /// How the table is ordered by itself, backwards.
    backwards: String,
    /// How many rows the new table did not take.
    refused: Cell<u64>,
}

/// How reading ended.
enum End {
    /// All was read.
    Whole,
    /// The row after this one could not be, or, without a number, not even the first.
    After(Option<i64>),
}

impl<'a> Rows<'a> {
    fn of(source: &'a Connection, target: &'a Connection, table: &str) -> rusqlite::Result<Self> {
        let mut statement =
            target.prepare("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
        let columns = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let columns: Vec<(String, i64)> = columns.collect::<rusqlite::Result<_>>()?;
        let is_without: bool = target.query_row(
            "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
            [table],
            |row| row.get(0),
        )?;
        let is_free = |name: &&str| {
            !columns
                .iter()
                .any(|(column, _)| column.eq_ignore_ascii_case(name))
        };
        let key = (!is_without)
            .then(|| ["rowid", "_rowid_", "oid"].into_iter().find(is_free))
            .flatten();
        let mut names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
        names.splice(..0, key.map(str::to_owned));
        let marks = vec!["?"; names.len()].join(", ");
        let names = names.join(", ");
        let mut of_key: Vec<&(String, i64)> =
            columns.iter().filter(|column| column.1 > 0).collect();
        of_key.sort_by_key(|column| column.1);
        let backwards: Vec<String> = of_key
            .iter()
            .map(|(name, _)| format!("{} DESC", quoted(name)))
            .collect();
        let table = quoted(table);
        Ok(Self {
            source,
            target,
            key,
            select: format!("SELECT {names} FROM {table}"),
            insert: format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"),
            backwards: backwards.join(", "),
            refused: Cell::new(0),
        })
    }

    /// Copies the rows numbered from `low` to `high`, around what cannot be read.
    fn scan(&self, low: i64, high: i64, halvings: u32) -> rusqlite::Result<()> {
        let Some(key) = self.key else {
            return Ok(());
        };
        let range = format!("NOT INDEXED WHERE {key} BETWEEN ?1 AND ?2 ORDER BY {key}");
        let End::After(last) = self.read(&range, &[low, high])? else {
            return Ok(());
        };
        let low = last.map_or(Some(low), |last| last.checked_add(1));
        let Some(low) = low.filter(|low| *low <= high) else {
            return Ok(());
        };
        let End::After(first) = self.read(&format!("{range} DESC"), &[low, high])? else {
            return Ok(());
        };
        let high = first.map_or(Some(high), |first| first.checked_sub(1));
        let Some(high) = high.filter(|high| low < *high && halvings > 0) else {
            return Ok(());
        };
        let middle = low.midpoint(high);
        self.scan(low, middle, halvings - 1)?;
        self.scan(middle + 1, high, halvings - 1)
    }

    fn scan_from_both_ends(&self) -> rusqlite::Result<()> {
        if let End::After(_) = self.read("NOT INDEXED", &[])?
            && !self.backwards.is_empty()
        {
            let refused = self.refused.get();
            self.read(&format!("ORDER BY {}", self.backwards), &[])?;
            // A row that is met again is refused, and is there.
            self.refused.set(refused);
        }
        Ok(())
    }

    /// Copies rows until there are none or one cannot be read; fails only where the new file does.
    fn read(&self, which: &str, range: &[i64]) -> rusqlite::Result<End> {
        let mut last = None;
        let Ok(mut statement) = self
            .source
            .prepare_cached(&format!("{} {which}", self.select))
        else {
            return Ok(End::After(last));
        };
        let columns = statement.column_count();
        let mut insert = self.target.prepare_cached(&self.insert)?;
        let Ok(mut rows) = statement.query(params_from_iter(range)) else {
            return Ok(End::After(last));
        };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(End::Whole),
                Err(_) => return Ok(End::After(last)),
            };
            match insert_row(&mut insert, row, columns) {
                Ok(0) => self.refused.set(self.refused.get() + 1),
                Ok(_) => {}
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    self.refused.set(self.refused.get() + 1);
                }
                Err(error) => return Err(error),
            }
            if self.key.is_some() {
                last = row.get(0).ok();
            }
        }
    }
}

/// Inserts a row as it is, a text that is no UTF-8 too; gives 0 where a rule of the table refused it.
fn insert_row(
    insert: &mut Statement<'_>,
    row: &Row<'_>,
    columns: usize,
) -> rusqlite::Result<usize> {
    for column in 0..columns {
        let value = ToSqlOutput::Borrowed(row.get_ref(column)?);
        insert.raw_bind_parameter(column + 1, value)?;
    }
    insert.raw_execute()
}

fn unreadable(from: &Path) -> impl FnOnce(Error) -> Error {
    move |error| {
        Error::Recover(format!(
            "{} cannot be read ({error}): only the sqlite3 shell's .recover may find rows in it, \
             and there is none here: one that has it is at https://sqlite.org/download.html",
            from.display()
        ))
    }
}
