//! A database beside the site's that goes away again.

use std::path::Path;
use std::path::PathBuf;

use crate::database::Clock;
use crate::database::Database;
use crate::database::Depth;
use crate::database::Error;
use crate::database::Report;
use crate::database::Result;
use crate::database::Settings;
use crate::database::real_path;
use crate::settings::Auto;

/// What SQLite, Litestream and we put beside a file: its WAL, a restore that is not done, a note of damage.
const ENDINGS: [&str; 6] = ["", "-wal", "-shm", "-journal", ".tmp", ".damaged"];

/// The name of a file beside the database, nobody else's, under which nothing is left when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Takes the name; what a killed process left there is removed.
    pub(crate) fn new(database: &Path, extension: &str) -> Self {
        let scratch = Self(real_path(database).with_added_extension(extension));
        scratch.remove();
        scratch
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Opens it like the site's own, but with no more than it takes to look at it.
    pub(super) fn open(&self, like: &Settings) -> Result<Database> {
        let settings = Settings {
            path: self.0.clone(),
            readers: Auto::Given(1),
            mmap_bytes: Auto::Given(0),
            // Who looks at all of it asks nobody to hurry.
            slow_ms: 3_600_000,
            ..like.clone()
        };
        Database::open(&settings, Clock::system())
    }

    /// Reads the whole file, its indexes and its foreign keys, and says what is wrong with it.
    pub(super) async fn check(&self, like: &Settings) -> Result<Report> {
        let checked = match self.open(like) {
            Ok(database) => {
                let checked = database.check(Depth::Full).await;
                database.close().await;
                checked
            }
            Err(error) => Err(error),
        };
        match checked {
            // So damaged that it cannot be opened, or read to its end.
            Err(error @ (Error::Open { .. } | Error::Sqlite(_) | Error::Damaged)) => Ok(Report {
                problems: vec![error.to_string()],
                ..Report::default()
            }),
            checked => checked,
        }
    }

    fn remove(&self) {
        for ending in ENDINGS {
            let mut path = self.0.clone().into_os_string();
            path.push(ending);
            // Mostly there is none; one that stays is in the way of the next restore, which says so.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}
