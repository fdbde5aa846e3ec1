//! The data of a site that starts: what is there, or what the replica has.

use std::path::Path;

use crate::app::start::Container;
use crate::app::start::seat::Seat;
use crate::cache::Cache;
use crate::config::Config;
use crate::database::Clock;
use crate::error::Result;
use crate::http::Role;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Conflict;
use crate::replication::Error;
use crate::replication::Lease;
use crate::replication::Lineage;
use crate::replication::Record;
use crate::replication::Source;
use crate::settings::Section;

impl Container {
    /// Makes sure that the database is the site's: the one that is there, or the replica's, or none on a first start.
    pub(super) async fn bring<S: Section>(
        &self,
        config: &Config<S>,
        (seat, lease, bucket): (&Seat, &Lease, &Bucket),
    ) -> Result<()> {
        let settings = &config.replication;
        let is_there = self.database.metadata().is_ok_and(|file| file.len() > 0);
        let is_wanted = match (is_there, fits(&self.database, &seat.before, bucket).await?) {
            (true, true) => return Ok(()),
            (true, false) => self.decide(settings, &seat.before)?,
            (false, _) => true,
        };
        if !is_wanted {
            return Ok(());
        }
        let point = settings
            .point()
            .filter(|point| seat.before.point != Some(*point));
        match self.restore(config, bucket, (&seat.before, point)).await {
            Ok(()) => {}
            // Only when there is nothing to be had; a bucket that is out of reach may have it all.
            Err(error @ Error::Restore(_)) if settings.allow_empty && !is_there => {
                tracing::error!(%error, "nothing can be restored, and replication.allow_empty is set: starting empty");
            }
            Err(error) => return Err(error.into()),
        }
        if point.is_some() {
            lease.set_point(point).await?;
        }
        Ok(())
    }

    async fn restore<S: Section>(
        &self,
        config: &Config<S>,
        bucket: &Bucket,
        to: (&Record, Option<jiff::Timestamp>),
    ) -> replication::Result<()> {
        let sources = &Source::all(bucket, to.0, to.1).await?;
        if sources.is_empty() {
            tracing::info!(
                "there is no database yet, neither here nor in the bucket: a first start"
            );
            return Ok(());
        }
        self.set(Role::Restoring);
        let progress = |progress| self.progress(progress);
        // What it holds was made of another file.
        let ready = async || Cache::clear_at(&config.cache, Clock::system()).await;
        let settings = (&config.replication, &config.database);
        let brought = replication::bring_back(settings, sources, to, progress, ready).await?;
        let (generation, restored) = (&brought.generation, &brought.restored);
        tracing::info!(generation, ?restored, kept = ?brought.kept, "restored");
        Ok(())
    }

    /// What to do with a database that the replica does not come from; says whether to restore.
    fn decide(&self, settings: &replication::Settings, before: &Record) -> Result<bool> {
        let path = self.database.display();
        let replica = before.generation.as_deref();
        match settings.conflict {
            Conflict::Local => {
                tracing::warn!(%path, replica, "the replica comes from another database: using the one here");
                Ok(false)
            }
            Conflict::Replica => {
                tracing::warn!(%path, replica, "the replica comes from another database: restoring it");
                Ok(true)
            }
            Conflict::Refuse => Err(conflict(&self.database, before).into()),
        }
    }
}

/// Whether the database that is there, if one is, has all that the bucket has.
pub(super) async fn fits(
    database: &Path,
    before: &Record,
    bucket: &Bucket,
) -> replication::Result<bool> {
    let note = Lineage::read(database)?;
    if !replication::fits(before, note.as_ref()) {
        return Ok(false);
    }
    if note.is_none_or(|note| note.epoch() >= before.epoch) {
        return Ok(true);
    }
    // Another one has held the lease since, and may have written more than it came to say.
    let own = Source::all(bucket, before, None).await?;
    Ok(own.first().is_none_or(|source| source.is_announced))
}

/// What is said of a database that the replica does not come from.
pub(super) fn conflict(database: &Path, before: &Record) -> Error {
    Error::Restore(format!(
        "{} is there, but the replica ({}) was written from another database since: to use the one here, set \
         replication.conflict = \"local\" for one start; to keep it aside and restore the replica, \"replica\"",
        database.display(),
        before.generation.as_deref().unwrap_or_default()
    ))
}
