//! Why a request failed: for the log, and in development for the page.

use std::panic::Location;

use crate::database;

/// A chain of errors has so many links at most; what comes after is left out.
const LINKS_MAX: usize = 32;

/// Why a request failed: each error with the one that caused it, and where in the code it became the answer.
#[derive(Clone, Debug)]
pub struct Cause {
    chain: Vec<String>,
    place: &'static Location<'static>,
    sql: Option<String>,
}

impl Cause {
    #[track_caller]
    pub(super) fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Self {
            chain: Vec::new(),
            place: Location::caller(),
            sql: None,
        };
        let mut link = Some(error);
        while let Some(error) = link.filter(|_| cause.chain.len() < LINKS_MAX) {
            // Many an error says what caused it in its own text already, and one that is transparent says nothing else.
            let text = error.to_string();
            if cause.chain.last() != Some(&text) {
                cause.chain.push(text);
            }
            if let Some(rusqlite::Error::SqlInputError { sql, .. }) = error.downcast_ref() {
                cause.sql = Some(sql.clone());
            }
            link = match error.downcast_ref() {
                // `transparent` would skip the reason itself.
                Some(database::Error::Abort(reason)) => Some(reason.as_ref()),
                _ => error.source(),
            };
        }
        cause
    }

    /// One that is no error of a type.
    #[track_caller]
    pub(super) fn of(text: String) -> Self {
        Self {
            chain: vec![text],
            place: Location::caller(),
            sql: None,
        }
    }

    /// The errors, each with the one that caused it after it.
    #[must_use]
    pub fn chain(&self) -> &[String] {
        &self.chain
    }

    /// File, line and column of the code where the error became an answer, as a rule by a `?` in a handler.
    #[must_use]
    pub fn place(&self) -> String {
        self.place.to_string()
    }

    /// The statement, where SQLite could not understand a part of it: a slip in it, or a column that is not there.
    ///
    /// Of other errors, such as a constraint, SQLite gives the text alone; the place says whose they are.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        self.sql.as_deref()
    }

    /// All of it on one line, for the log.
    pub(super) fn line(&self) -> String {
        let mut line = String::new();
        for text in &self.chain {
            if line.contains(text) {
                continue;
            }
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(text);
        }
        line
    }
}
