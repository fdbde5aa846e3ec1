//! A database that a real Litestream copies to a real S3 server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use houseboat::database;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::replication::Litestream;
use houseboat::replication::Settings;
use houseboat::replication::Stopped;
use houseboat::replication::restore;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::NOTES;
use crate::database::settings;
use crate::database::texts;
use crate::support::s3::BUCKET;
use crate::support::s3::KEY;
use crate::support::s3::S3;
use crate::support::s3::SECRET;

/// Generous: the machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) const FIRST: &str = "00000001-20261121T080000Z-0001";
pub(crate) const SECOND: &str = "00000002-20261121T090000Z-0002";

/// The settings that replicate to `path` on this server, and give up soon.
pub(crate) fn replication(s3: &S3) -> Settings {
    Settings {
        bucket: BUCKET.to_owned(),
        path: "site".to_owned(),
        endpoint: s3.endpoint(),
        access_key_id: KEY.to_owned().into(),
        secret_access_key: SECRET.to_owned().into(),
        sync_ms: 200,
        ..Settings::default()
    }
}

/// A database with the table `notes` that is replicated.
#[derive(Debug)]
pub(crate) struct Replicated {
    pub(crate) settings: database::Settings,
    pub(crate) database: Database,
    pub(crate) litestream: Arc<Litestream>,
    pub(crate) stop: CancellationToken,
    run: JoinHandle<()>,
    _folder: TempDir,
}

impl Replicated {
    pub(crate) async fn start(replication: &Settings, generation: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let database = open(&settings).await;
        Self::with(folder, settings, database, replication, generation).await
    }

    pub(crate) async fn with(
        folder: TempDir,
        settings: database::Settings,
        database: Database,
        replication: &Settings,
        generation: &str,
    ) -> Self {
        let litestream = Litestream::start(replication, &settings.path, generation)
            .await
            .unwrap();
        let litestream = Arc::new(litestream);
        let stop = CancellationToken::new();
        let run = tokio::spawn({
            let (litestream, stop) = (Arc::clone(&litestream), stop.clone());
            async move { litestream.run(stop).await }
        });
        Self {
            settings,
            database,
            litestream,
            stop,
            run,
            _folder: folder,
        }
    }

    /// Writes rows `from..to`, each in a transaction of its own but committed together.
    pub(crate) async fn write(&self, rows: std::ops::Range<u32>) {
        let written = self.database.write(move |tx| {
            for row in rows {
                tx.execute("INSERT INTO notes (text) VALUES (?1)", [text(row)])?;
            }
            Ok(())
        });
        written.await.unwrap();
    }

    pub(crate) async fn synced(&self) {
        self.litestream.sync(LONG).await.unwrap();
    }

    /// Closes the database and stops Litestream.
    pub(crate) async fn stop(&self, within: Duration) -> Stopped {
        self.database.close().await;
        self.stop.cancel();
        self.litestream.stop(within).await
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        self.run.abort();
    }
}

pub(crate) fn text(row: u32) -> String {
    format!("unique row {row:06}")
}

pub(crate) async fn open(settings: &database::Settings) -> Database {
    let database = Database::open(settings, Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    database
}

/// Restores the generation into an empty folder and gives the rows.
pub(crate) async fn restored(replication: &Settings, generation: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    restore(replication, &settings, generation, None, |_| {})
        .await
        .unwrap();
    rows(&settings).await
}

/// The rows of a database that nobody has open.
pub(crate) async fn rows(settings: &database::Settings) -> Vec<String> {
    let database = open(settings).await;
    let rows = texts(&database).await;
    database.close().await;
    rows
}

/// Every name in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
