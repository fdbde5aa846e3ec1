//! A version to stop at.

use std::path::Path;
use std::str::FromStr;

use refinery_core::Migration;
use rusqlite::Connection;

use crate::database::Error;
use crate::database::Migrations;
use crate::database::Result;
use crate::database::connection;
use crate::database::migrate::books;
use crate::database::migrate::copies;

/// The version of one set up to which to migrate, as in `site:V3`; the other sets are applied whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    set: String,
    version: i64,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (set, version) = text.split_once(':')?;
            let version = version.strip_prefix('V').unwrap_or(version);
            Some(Self {
                set: set.to_owned(),
                version: version.parse().ok()?,
            })
        };
        parse().ok_or_else(|| {
            Error::Migrate(format!(
                "{text:?} should be a set and a version of it, such as site:V3"
            ))
        })
    }
}

impl Target {
    /// Whether this migration of the set is to be in the file.
    pub(super) fn has(&self, set: &Migrations, migration: &Migration) -> bool {
        set.set != self.set || i64::from(migration.version()) <= self.version
    }

    /// Refuses a version that there is not, and one that the file is beyond.
    pub(super) fn check(
        &self,
        connection: &Connection,
        database: &Path,
        sets: &[Migrations],
    ) -> Result<()> {
        let Some(set) = sets.iter().find(|set| set.set == self.set) else {
            let names: Vec<_> = sets.iter().map(|set| set.set).collect();
            return Err(Error::Migrate(format!(
                "there is no set {}: there are {}",
                self.set,
                names.join(", ")
            )));
        };
        let files = set.parse()?;
        let is_there = |file: &Migration| i64::from(file.version()) == self.version;
        if !files.iter().any(is_there) {
            let names: Vec<_> = files.iter().map(ToString::to_string).collect();
            return Err(Error::Migrate(format!(
                "{} has no version {}: it has {}",
                self.set,
                self.version,
                names.join(", ")
            )));
        }
        let rows = books::rows(connection, set)?;
        match rows.last().filter(|row| row.version > self.version) {
            Some(row) => Err(self.beyond(&row.file(), self.copy(database, set))),
            None => Ok(()),
        }
    }

    fn beyond(&self, last: &str, copy: Option<String>) -> Error {
        let Self { set, version } = self;
        let copy = copy.map_or_else(
            || "no copy of before it is kept".to_owned(),
            |copy| format!("the copy {copy} is of before it"),
        );
        Error::Migrate(format!(
            "the file has {set} {last}, which is beyond V{version}, and there is no way down: {copy}"
        ))
    }

    /// The newest copy that is not beyond this version.
    fn copy(&self, database: &Path, set: &Migrations) -> Option<String> {
        let is_before = |copy: &&std::path::PathBuf| {
            let rows = connection::open_as_it_is(copy).and_then(|copy| books::rows(&copy, set));
            rows.is_ok_and(|rows| rows.iter().all(|row| row.version <= self.version))
        };
        let copies = copies::all(database);
        copies
            .iter()
            .find(is_before)
            .map(|copy| copy.display().to_string())
    }
}
