//! A try of the migrations on a copy, before a container says that it is healthy.
//!
//! A platform stops the old container as soon as the new one is healthy. One whose migrations fail must not get that
//! far: it ends, and the old one goes on.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::app::start::Container;
use crate::config::Config;
use crate::database;
use crate::database::Database;
use crate::database::Migrations;
use crate::error::Error;
use crate::error::Result;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Scratch;
use crate::settings::Section;

/// How long it may take: within the start period of the image's health check and its retries.
const TIME: Duration = Duration::from_secs(6);

/// A larger database is not tried: the platform would give the new container up meanwhile.
const BYTES_MAX: u64 = 256 << 20;

impl Container {
    /// Tries the migrations once another container is seen to serve; returns only to say that they fail.
    pub(super) async fn rehearse<S: Section>(
        &self,
        config: &Config<S>,
        sets: &[Migrations],
        bucket: Option<&Bucket>,
    ) -> Error {
        self.is_second.notified().await;
        let begun = Instant::now();
        let tried = async {
            match bucket {
                None => on_disk(&config.database, sets).await,
                Some(bucket) => from_bucket(config, sets, bucket, &self.database).await,
            }
        };
        // A platform gives a container up that is not healthy by then.
        let tried = tokio::time::timeout(TIME, tried).await.unwrap_or(Ok(None));
        match tried {
            Ok(Some(steps)) => {
                tracing::info!(steps, took = ?begun.elapsed(), "the migrations go through, on a copy");
            }
            Ok(None) => {
                tracing::info!("the migrations are not tried on a copy: that takes too long");
            }
            Err(error) if is_telling(&error) => return error,
            Err(error) => tracing::warn!(%error, "the migrations could not be tried on a copy"),
        }
        self.is_rehearsed();
        std::future::pending().await
    }
}

/// Whether this would stop the site from starting, rather than only the try of it.
fn is_telling(error: &Error) -> bool {
    matches!(
        error,
        Error::Pending { .. }
            | Error::Database(database::Error::Migrate(_))
            | Error::Replication(replication::Error::Restore(_))
    )
}

async fn on_disk(settings: &database::Settings, sets: &[Migrations]) -> Result<Option<usize>> {
    let bytes = settings.path.metadata().map_or(0, |file| file.len());
    if bytes > BYTES_MAX {
        return Ok(None);
    }
    dry_run(settings, sets).await.map(Some)
}

async fn from_bucket<S: Section>(
    config: &Config<S>,
    sets: &[Migrations],
    bucket: &Bucket,
    database: &Path,
) -> Result<Option<usize>> {
    let record = replication::look(bucket).await?;
    let Some(generation) = record.and_then(|record| record.generation) else {
        return Ok(Some(0));
    };
    let objects = bucket.list(&format!("generations/{generation}")).await?;
    if objects.iter().map(|object| object.bytes).sum::<u64>() > BYTES_MAX / 2 {
        return Ok(None);
    }
    // Of two that wait, each has its own.
    let name = format!("rehearsal-{:06x}", fastrand::u32(..1 << 24));
    let copy = Scratch::new(database, &name);
    let (replica, to) = (&config.replication, copy.path());
    replication::restore_to(replica, database, &generation, None, to).await?;
    let settings = database::Settings {
        path: to.to_owned(),
        ..config.database.clone()
    };
    dry_run(&settings, sets).await.map(Some)
}

/// Applies what is pending to a copy, and says how much that was.
async fn dry_run(settings: &database::Settings, sets: &[Migrations]) -> Result<usize> {
    let steps = Database::migrations_of(settings, sets).await?;
    let pending = steps
        .iter()
        .filter(|step| step.applied_at.is_none())
        .count();
    match pending {
        0 => Ok(0),
        count if !settings.migrate_at_start => Err(Error::Pending { count }),
        _ => Ok(Database::dry_run(settings, sets, None).await?.len()),
    }
}
