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
    /// It need not be whole: its holder died before it could say so, and the next one in the list is older and is.
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
        let is_wanted = match (is_there, self.fits(&seat.before)?) {
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
                    tracing::info!(%error, generation = source.generation, "not whole: taking the one before");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fits(&self, before: &Record) -> replication::Result<bool> {
        let note = Lineage::read(&self.database)?;
        Ok(replication::fits(before, note.as_ref()))
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
            may_fail: index < last,
        });
        return Ok(sources.collect());
    }
    let all = generations.list().await?;
    let mut sources = Vec::new();
    let announced = before.generation.as_deref();
    let announced = announced.and_then(|name| name.parse::<Generation>().ok());
    // The last holder's own, if it did not come to say that it is whole.
    let last = all.iter().rfind(|it| it.epoch() == before.epoch);
    if let Some(last) = last
        && announced
            .as_ref()
            .is_none_or(|announced| announced.epoch() < last.epoch())
    {
        sources.push(Source {
            generation: last.to_string(),
            may_fail: announced.is_some(),
        });
    }
    if let Some(announced) = &before.generation {
        sources.push(Source {
            generation: announced.clone(),
            may_fail: false,
        });
    }
    if let (true, Some(youngest)) = (sources.is_empty(), all.last()) {
        return Err(Error::Restore(format!(
            "the record of this site is gone from the bucket, but generations are there, the youngest of them {youngest}: \
             `restore --generation {youngest}` brings it back; replication.allow_empty starts without"
        )));
    }
    Ok(sources)
}
