//! The statements of one migration, run one by one, so that the one that fails can be named.

use refinery_core::Migration;
use rusqlite::Batch;
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::AuthAction;
use rusqlite::hooks::AuthContext;
use rusqlite::hooks::Authorization;

use crate::database::Error;
use crate::database::Migrations;
use crate::database::Result;

/// How much of a statement an error shows, in characters.
const SHOWN: usize = 120;

/// Runs a migration inside the transaction that there is, which it cannot end.
pub(super) fn run(connection: &Connection, set: &Migrations, migration: &Migration) -> Result<()> {
    let sql = migration.sql().unwrap_or_default();
    connection.authorizer(Some(no_transactions))?;
    let failed = run_all(connection, sql);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    failed.map_err(|(start, error)| match Error::from(error) {
        Error::Sqlite(error) => {
            let (line, statement) = describe(sql, start);
            let reason = words(&error);
            Error::Migrate(format!(
                "{} {migration}, line {line}: {reason}; in `{statement}`",
                set.set
            ))
        }
        error => error,
    })
}

fn no_transactions(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Transaction { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

/// Runs every statement; on failure, says where in the text the one that failed begins.
fn run_all(
    connection: &Connection,
    sql: &str,
) -> std::result::Result<(), (usize, rusqlite::Error)> {
    let mut batch = Batch::new(connection, sql);
    let mut end = 0;
    while let Some(mut statement) = batch
        .next()
        .map_err(|error| (start(sql, end, &error), error))?
    {
        // As it stands in the file, but for parameters, which no migration has.
        let text = statement.expanded_sql().unwrap_or_default();
        let mut begin = end;
        if let Some(found) = sql[end..].find(&text) {
            begin = end + found;
            end = begin + text.len();
        }
        let mut rows = statement.raw_query();
        while rows.next().map_err(|error| (begin, error))?.is_some() {}
    }
    Ok(())
}

/// Where a statement begins that SQLite did not take: it was given all from there on, or, where the error does not
/// have it, the one after `end`.
fn start(sql: &str, end: usize, error: &rusqlite::Error) -> usize {
    match error {
        rusqlite::Error::SqlInputError { sql: rest, .. } if sql.ends_with(rest.as_str()) => {
            sql.len() - rest.len()
        }
        _ => end,
    }
}

/// SQLite's own words, and what to do where they do not say it.
fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(error, message)
            if error.code == rusqlite::ErrorCode::AuthorizationForStatementDenied =>
        {
            let message = message.as_deref().unwrap_or("not authorized");
            format!(
                "{message}: all migrations are one transaction, so leave out BEGIN, COMMIT and ROLLBACK"
            )
        }
        error => error.to_string(),
    }
}

/// The line on which the statement from `start` on begins, and its first words on one line.
fn describe(sql: &str, start: usize) -> (usize, String) {
    let rest = sql.get(start..).unwrap_or_default();
    let statement = without_comments(rest);
    let before = &sql[..sql.len() - statement.len()];
    let line = before.matches('\n').count() + 1;
    let statement = statement.split(';').next().unwrap_or_default();
    let words: Vec<&str> = statement.split_whitespace().collect();
    let words = words.join(" ");
    let shown: String = words.chars().take(SHOWN).collect();
    let dots = if shown.len() < words.len() { "…" } else { "" };
    (line, format!("{shown}{dots}"))
}

/// The text from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
        let end = if rest.starts_with("--") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else {
            return rest;
        };
        rest = end.map_or("", |end| &rest[end..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_described_by_its_first_line_and_its_words() {
        let sql = "CREATE TABLE a (b);\n-- why; not\n/* and\n more */ ;\n\n  INSERT\n  INTO a\n VALUES (1);";
        let start = sql.find('\n').unwrap();
        assert_eq!(
            describe(sql, start),
            (6, "INSERT INTO a VALUES (1)".to_owned())
        );
        assert_eq!(describe(sql, 0), (1, "CREATE TABLE a (b)".to_owned()));
    }

    #[test]
    fn a_long_statement_is_cut() {
        let sql = format!("SELECT '{}'", "ä".repeat(500));
        let (_, shown) = describe(&sql, 0);
        assert_eq!(shown.chars().count(), SHOWN + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn a_comment_without_an_end_is_no_statement() {
        for sql in ["-- nothing", "/* nothing", " ;; "] {
            assert_eq!(without_comments(sql), "");
        }
    }
}
