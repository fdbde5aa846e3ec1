//! Databases for tests, which go away by themselves.

use std::sync::PoisonError;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::database::Clock;
use crate::database::Database;
use crate::database::Error;
use crate::database::Inner;
use crate::database::Migrations;
use crate::database::NetworkFilesystem;
use crate::database::READ_GRACE;
use crate::database::Result;
use crate::database::Settings;

impl Database {
    /// Opens a fresh database in a temporary folder and applies `sets`, for a site's own tests.
    ///
    /// It has the default settings and the system's clock. The folder is removed with the last handle, which waits
    /// for what runs still.
    ///
    /// ```
    /// use houseboat::database::{Database, Migrations};
    ///
    /// const MIGRATIONS: Migrations = Migrations::new(
    ///     "site",
    ///     &[("V1__notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;")],
    /// );
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> houseboat::database::Result<()> {
    /// let database = Database::open_temporary(&[MIGRATIONS]).await?;
    /// let insert = database.write(|tx| Ok(tx.execute("INSERT INTO notes (text) VALUES ('hello')", [])?));
    /// assert_eq!(insert.await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Open`] when no folder or file can be made; [`Error::Migrate`] as from [`Database::migrate`].
    pub async fn open_temporary(sets: &[Migrations]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("houseboat-").tempdir();
        let folder = folder.map_err(|error| Error::Open {
            path: std::env::temp_dir(),
            reason: format!("cannot make a temporary folder: {error}"),
        })?;
        let settings = Settings {
            path: folder.path().join("site.sqlite3"),
            // Nothing is lost with it.
            network_filesystem: NetworkFilesystem::Allow,
            ..Settings::default()
        };
        let database = Self::open(&settings, Clock::system())?;
        // Nobody has set it: the database was made above.
        let _ = database.inner.temporary.set(folder);
        database.migrate(sets).await?;
        Ok(database)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(folder) = self.temporary.take() else {
            return;
        };
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let this = std::thread::current().id();
        let is_this = |thread: &JoinHandle<()>| thread.thread().id() == this;
        if threads.readers.iter().chain(&threads.writer).any(is_this) {
            // A closure held the last handle. Its thread ends when this is dropped, and cannot wait for itself.
            let all = threads.readers.into_iter().chain(threads.writer);
            std::thread::spawn(move || remove(folder, all));
        } else {
            self.readers.stop(READ_GRACE, threads.readers);
            self.writer.stop();
            remove(folder, threads.writer);
        }
    }
}

/// Removes the folder once these threads have closed their connections.
fn remove(folder: TempDir, threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        // One that panicked has closed its connection too.
        let _ = thread.join();
    }
    let path = folder.path().to_owned();
    if let Err(error) = folder.close() {
        tracing::warn!(%error, path = %path.display(), "a temporary folder could not be removed");
    }
}
