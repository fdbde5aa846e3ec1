//! The data of a site that starts: what is there, or what the replica has.

use std::path::Path;

use crate::app::start::Container;
use crate::app::start::seat::Seat;
use crate::database;
use crate::error::Result;
use crate::http::Role;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Conflict;
use crate::replication::Error;
use crate::replication::Generation;
use crate::replication::Generations;
use crate::replication::Lease;
use crate::replication::Lineage;
use crate::replication::Record;

/// Where the data comes from, if it is not there.
#[derive(Debug)]
struct Source {
    generation: String,
    /// Whether the record names it.
    is_announced: bool,
    /// It need not reach back as far as is asked: the next one in the list may.
    may_fail: bool,
}

impl Container {
    /// Makes sure that the database is the site's: the one that is there, or the replica's, or none on a first start.
    pub(super) async fn bring(
        &self,
        settings: &replication::Settings,
        database: &database::Settings,
        (seat, lease, bucket): (&Seat, &Lease, &Bucket),
    ) -> Result<()> {
        let is_there = self.database.metadata().is_ok_and(|file| file.len() > 0);
        let is_wanted = match (is_there, self.fits(&seat.before, bucket).await?) {
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
        let sources = sources(bucket, &seat.before, point).await?;
        if sources.is_empty() {
            tracing::info!(
                "there is no database yet, neither here nor in the bucket: a first start"
            );
            return Ok(());
        }
        let outcome = self.restore(settings, database, sources, point).await;
        match outcome {
            Ok(()) => {}
            Err(error) if settings.allow_empty && !is_there => {
                tracing::error!(%error, "nothing can be restored, and replication.allow_empty is set: starting empty");
            }
            Err(error) => return Err(error.into()),
        }
        if point.is_some() {
            lease.set_point(point).await?;
        }
        Ok(())
    }

    async fn restore(
        &self,
        settings: &replication::Settings,
        database: &database::Settings,
        sources: Vec<Source>,
        point: Option<jiff::Timestamp>,
    ) -> replication::Result<()> {
        self.set(Role::Restoring);
        for source in sources {
            let progress = |progress| self.progress(progress);
            let restored =
                replication::restore(settings, database, &source.generation, point, progress).await;
            match restored {
                Ok(restored) => {
                    tracing::info!(generation = source.generation, ?restored, "restored");
                    return Ok(());
                }
                Err(error) if source.may_fail => {
                    tracing::info!(%error, generation = source.generation, "it does not reach back so far: taking the one before");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the database that is there, if one is, has all that the bucket has.
    async fn fits(&self, before: &Record, bucket: &Bucket) -> replication::Result<bool> {
        let note = Lineage::read(&self.database)?;
        if !replication::fits(before, note.as_ref()) {
            return Ok(false);
        }
        if note.is_none_or(|note| note.epoch() >= before.epoch) {
            return Ok(true);
        }
        // Another one has held the lease since, and may have written more than it came to say.
        let own = sources(bucket, before, None).await?;
        Ok(own.first().is_none_or(|source| source.is_announced))
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

/// What is said of a database that the replica does not come from.
pub(super) fn conflict(database: &Path, before: &Record) -> Error {
    Error::Restore(format!(
        "{} is there, but the replica ({}) was written from another database since: to use the one here, set \
         replication.conflict = \"local\" for one start; to keep it aside and restore the replica, \"replica\"",
        database.display(),
        before.generation.as_deref().unwrap_or_default()
    ))
}

/// Where the data may be, the youngest first.
async fn sources(
    bucket: &Bucket,
    before: &Record,
    point: Option<jiff::Timestamp>,
) -> replication::Result<Vec<Source>> {
    let generations = Generations::new(bucket.clone());
    if let Some(point) = point {
        let all = generations.at(point).await?;
        if all.is_empty() {
            return Err(Error::Restore(format!(
                "no generation reaches back to {point}"
            )));
        }
        let last = all.len() - 1;
        let sources = all.iter().enumerate().map(|(index, generation)| Source {
            generation: generation.to_string(),
            is_announced: true,
            may_fail: index < last,
        });
        return Ok(sources.collect());
    }
    let all = generations.list().await?;
    let announced = before.generation.as_deref();
    let announced = announced.and_then(|name| name.parse::<Generation>().ok());
    // A holder may have died between its first copy, which is whole once it is there, and saying so.
    let since = |it: &&Generation| {
        it.epoch() <= before.epoch
            && announced.is_none_or(|announced| announced.epoch() < it.epoch())
    };
    let unannounced = all.iter().rev().find(since).map(Generation::to_string);
    let generation = unannounced.clone().or_else(|| before.generation.clone());
    let sources: Vec<_> = generation
        .map(|generation| Source {
            is_announced: unannounced.is_none(),
            generation,
            may_fail: false,
        })
        .into_iter()
        .collect();
    if let (true, Some(youngest)) = (sources.is_empty(), all.last()) {
        return Err(Error::Restore(format!(
            "the record of this site is gone from the bucket, but generations are there, the youngest of them {youngest}: \
             `restore --generation {youngest}` brings it back; replication.allow_empty starts without"
        )));
    }
    Ok(sources)
}
