//! Which generation the data is in, and the way from there into the place of the database.

use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::database;
use crate::replication::Bucket;
use crate::replication::Error;
use crate::replication::Generation;
use crate::replication::Generations;
use crate::replication::Lineage;
use crate::replication::Record;
use crate::replication::RestoreProgress;
use crate::replication::Restored;
use crate::replication::Result;
use crate::replication::restore_over;

/// A generation that the data may be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) generation: String,
    /// Whether the record names it.
    pub(crate) is_announced: bool,
    /// It need not reach back as far as is asked: the next one in the list may.
    may_fail: bool,
}

/// What was brought back.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The generation that it came from.
    pub(crate) generation: String,
    pub(crate) restored: Restored,
    /// Where the files are that were there before.
    pub(crate) kept: Vec<PathBuf>,
}

impl Source {
    /// The one that somebody has named.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when that is no name of one.
    pub(crate) fn named(name: &str) -> Result<Self> {
        Ok(Self {
            generation: name.parse::<Generation>()?.to_string(),
            is_announced: true,
            may_fail: false,
        })
    }

    /// Where the data may be, the youngest first; none where there never was any.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when nothing reaches back to the point in time, or the record is gone and generations are
    /// there; [`Error::Unreachable`]; [`Error::Refused`].
    pub(crate) async fn all(
        bucket: &Bucket,
        record: &Record,
        point: Option<Timestamp>,
    ) -> Result<Vec<Self>> {
        let generations = Generations::new(bucket.clone());
        match point {
            Some(point) => at(&generations.at(point).await?, point),
            None => latest(&generations.list().await?, record),
        }
    }
}

/// Restores the first of `sources` that has what is asked for; a database that is there is kept aside.
///
/// The file then belongs to `record`: it is what its holder left, or what somebody wants in its place. The caller holds
/// the lock on the database. `ready` runs when all is checked and nothing is changed yet.
///
/// # Errors
///
/// As [`restore_over`]; nothing is changed then.
pub(crate) async fn bring_back(
    settings: (&crate::replication::Settings, &database::Settings),
    sources: &[Source],
    (record, point): (&Record, Option<Timestamp>),
    progress: impl Fn(RestoreProgress),
    ready: impl AsyncFn(),
) -> Result<Brought> {
    let mut failed = Error::Nothing("there is nothing in the bucket yet".to_owned());
    for source in sources {
        let generation = source.generation.clone();
        let done = restore_over(settings, &generation, point, &progress, &ready).await;
        match done {
            Ok((restored, kept)) => {
                belongs(&settings.1.path, &generation, record)?;
                return Ok(Brought {
                    generation,
                    restored,
                    kept,
                });
            }
            Err(error @ Error::Nothing(_)) if source.may_fail => {
                tracing::info!(%error, generation, "it does not reach back so far: taking the one before");
                failed = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

/// Notes that the file fits the record, even where that names a younger generation than it came from.
fn belongs(database: &Path, generation: &str, record: &Record) -> Result<()> {
    Lineage::add(database, generation, record.epoch)?;
    match &record.generation {
        Some(announced) => Lineage::add(database, announced, record.epoch),
        None => Ok(()),
    }
}

fn at(all: &[Generation], point: Timestamp) -> Result<Vec<Source>> {
    let Some(last) = all.len().checked_sub(1) else {
        return Err(Error::Restore(format!(
            "no generation reaches back to {point}"
        )));
    };
    let sources = all.iter().enumerate().map(|(index, generation)| Source {
        generation: generation.to_string(),
        is_announced: true,
        may_fail: index < last,
    });
    Ok(sources.collect())
}

fn latest(all: &[Generation], record: &Record) -> Result<Vec<Source>> {
    let announced = record.generation.as_deref();
    let announced = announced.and_then(|name| name.parse::<Generation>().ok());
    // A holder may have died between its first copy, which is whole once it is there, and saying so.
    let since = |it: &&Generation| {
        it.epoch() <= record.epoch
            && announced.is_none_or(|announced| announced.epoch() < it.epoch())
    };
    let unannounced = all.iter().rev().find(since).map(Generation::to_string);
    let generation = unannounced.clone().or_else(|| record.generation.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn generations(epochs: &[u64]) -> Vec<Generation> {
        let time = "2026-11-21T08:00:00Z".parse().unwrap();
        let all = epochs.iter().map(|epoch| Generation::new(*epoch, time));
        all.collect()
    }

    fn record(epoch: u64, announced: Option<&Generation>) -> Record {
        Record {
            epoch,
            generation: announced.map(Generation::to_string),
            ..Record::new()
        }
    }

    #[test]
    fn the_youngest_up_to_the_records_epoch_has_the_data() {
        let all = generations(&[1, 2, 5]);
        let found = |epoch, announced: usize| {
            let sources = latest(&all, &record(epoch, Some(&all[announced]))).unwrap();
            (sources[0].generation.clone(), sources[0].is_announced)
        };
        assert_eq!(found(2, 1), (all[1].to_string(), true));
        assert_eq!(found(2, 0), (all[1].to_string(), false));
        assert_eq!(found(5, 1), (all[2].to_string(), false));
        // 5 was begun by who never came to be in the record.
        assert_eq!(found(4, 1), (all[1].to_string(), true));
        assert_eq!(latest(&[], &record(1, None)).unwrap(), []);
        let error = latest(&all, &Record::new()).unwrap_err().to_string();
        let way_out = format!("`restore --generation {}`", all[2]);
        assert!(error.contains(&way_out), "{error}");
    }

    #[test]
    fn a_point_in_time_may_be_in_an_earlier_one() {
        let point = "2026-11-21T09:00:00Z".parse().unwrap();
        let sources = at(&generations(&[3, 2]), point).unwrap();
        let may_fail: Vec<_> = sources.iter().map(|source| source.may_fail).collect();
        assert_eq!(may_fail, [true, false]);
        assert!(at(&[], point).is_err());
    }
}
