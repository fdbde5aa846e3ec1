//! The generations in the bucket: a folder for each holder of the lease that has replicated.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::replication::Bucket;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::stamp;

/// The folder that they are in.
const FOLDER: &str = "generations";

/// How many objects one call of [`Generations::prune`] deletes at most.
const PRUNED_MAX: usize = 1_000;

/// The name of a generation: who wrote it, and since when.
///
/// The order is that of the epochs, which no clock decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    epoch: u64,
    time: Timestamp,
    /// Two that took the same epoch, of which one lost, have different ones.
    random: u16,
}

impl Generation {
    /// The name of the generation that the holder of `epoch` begins now.
    #[must_use]
    pub fn new(epoch: u64, now: Timestamp) -> Self {
        Self {
            epoch,
            time: stamp::seconds(now),
            random: fastrand::u16(..),
        }
    }

    /// The epoch of its writer.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When it was begun, to the second, by its writer's clock.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Where it is, relative to the bucket's folder.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{FOLDER}/{self}")
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = stamp::write(self.time);
        write!(f, "{:08}-{time}-{:04x}", self.epoch, self.random)
    }
}

impl FromStr for Generation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let parse = || {
            let mut parts = name.split('-');
            let epoch = parts.next()?.parse().ok()?;
            let time = stamp::read(parts.next()?)?;
            let random = u16::from_str_radix(parts.next()?, 16).ok()?;
            let generation = Self {
                epoch,
                time,
                random,
            };
            // What is written otherwise is not ours.
            (generation.to_string() == name).then_some(generation)
        };
        parse().ok_or_else(|| {
            Error::Restore(format!(
                "{name:?} is no generation: one is named like 00000012-20261121T073214Z-09af"
            ))
        })
    }
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The generations that are gone now.
    pub generations: Vec<Generation>,
    /// How many objects.
    pub objects: usize,
    /// How large they were, in bytes.
    pub bytes: u64,
    /// Whether there is more to delete: call again.
    pub is_more: bool,
}

/// The generations of one replica.
#[derive(Clone, Debug)]
pub struct Generations {
    bucket: Bucket,
}

impl Generations {
    /// Those in the folder of a bucket.
    #[must_use]
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }

    /// Lists them, the oldest first. A folder of another name is left out: it is somebody else's.
    ///
    /// One may be there that never was whole: its writer died before its first sync.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn list(&self) -> Result<Vec<Generation>> {
        let names = self.bucket.folders(FOLDER).await?;
        let parsed = names.iter().filter_map(|name| name.parse().ok());
        let mut generations: Vec<_> = parsed.collect();
        generations.sort_unstable();
        Ok(generations)
    }

    /// Those that may hold what was there at `time`, the best first.
    ///
    /// It is the youngest that was begun by then. Where that one has nothing so old, since its first copy came a
    /// moment later or its writer died before, the next one ended with just that state.
    ///
    /// # Errors
    ///
    /// As [`Generations::list`].
    pub async fn at(&self, time: Timestamp) -> Result<Vec<Generation>> {
        Ok(covering(self.list().await?, time))
    }

    /// Deletes what was superseded longer than `keep` ago, at most 1000 objects of it, the oldest first.
    ///
    /// `current`, the generation that the record names, and any younger one stay.
    ///
    /// # Errors
    ///
    /// [`Error::Restore`] when `current` is no generation; [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn prune(
        &self,
        keep: SignedDuration,
        current: &str,
        now: Timestamp,
    ) -> Result<Pruned> {
        let current = current.parse()?;
        let mut pruned = Pruned::default();
        for generation in superseded(&self.list().await?, keep, current, now) {
            let left = PRUNED_MAX - pruned.objects;
            // One more tells whether these are all.
            let mut objects = self
                .bucket
                .list_some(&generation.folder(), left + 1)
                .await?;
            pruned.is_more = objects.len() > left;
            objects.truncate(left);
            pruned.objects += objects.len();
            pruned.bytes += objects.iter().map(|object| object.bytes).sum::<u64>();
            let is_there = !objects.is_empty();
            let names = objects.into_iter().map(|object| object.name);
            self.bucket.delete_all(names).await?;
            if pruned.is_more {
                break;
            }
            if is_there {
                pruned.generations.push(generation);
            }
        }
        Ok(pruned)
    }
}

/// The youngest that was begun by `time`, and those before it.
fn covering(mut generations: Vec<Generation>, time: Timestamp) -> Vec<Generation> {
    generations.retain(|generation| generation.time <= time);
    generations.reverse();
    generations
}

/// Those before `current` whose next one was begun longer than `keep` ago.
fn superseded(
    generations: &[Generation],
    keep: SignedDuration,
    current: Generation,
    now: Timestamp,
) -> Vec<Generation> {
    let is_old = |next: &Generation| now.duration_since(next.time) > keep;
    let pairs = generations.windows(2);
    let old = pairs.filter(|pair| pair[0] < current && is_old(&pair[1]));
    old.map(|pair| pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// The generation of an epoch that was begun so many hours ago.
    fn begun(epoch: u64, hours: i64) -> Generation {
        Generation {
            epoch,
            time: now() - SignedDuration::from_hours(hours),
            random: 7,
        }
    }

    #[test]
    fn a_name_tells_all_and_sorts_as_text_does() {
        let time = "2026-11-21T07:32:14.789Z".parse().unwrap();
        let generation = Generation::new(12, time);
        let name = generation.to_string();
        assert!(name.starts_with("00000012-20261121T073214Z-"), "{name}");
        assert_eq!(name.len(), "00000012-20261121T073214Z-09af".len());
        assert_eq!(name.parse::<Generation>().unwrap(), generation);
        assert!(
            begun(9, 1) < begun(10, 5),
            "the epoch decides, not the clock"
        );
        assert!(begun(9, 1).to_string() < begun(10, 5).to_string());
        let large = begun(123_456_789, 1);
        assert_eq!(large.to_string().parse::<Generation>().unwrap(), large);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "",
            "12-20261121T073214Z-09af",
            "00000012-20261121T073214Z",
            "00000012-20261121T073214Z-09af-1",
            "00000012-20261121T073214Z-09AF",
            "00000012-20261321T073214Z-09af",
            "+0000012-20261121T073214Z-09af",
            "../../x",
        ] {
            assert!(name.parse::<Generation>().is_err(), "{name}");
        }
    }

    #[test]
    fn only_what_was_superseded_long_ago_goes() {
        let keep = SignedDuration::from_hours(72);
        let gone = |generations: &[Generation], current| {
            let gone = superseded(generations, keep, current, now());
            gone.iter().map(Generation::epoch).collect::<Vec<_>>()
        };
        let all = [
            begun(1, 500),
            begun(2, 400),
            begun(3, 73),
            begun(4, 72),
            begun(5, 1),
        ];
        // 3 was superseded by 4, just as long ago as is kept; it was current until then.
        assert_eq!(gone(&all, begun(5, 1)), [1, 2]);
        assert_eq!(gone(&all, begun(2, 400)), [1]);
        assert_eq!(gone(&all, begun(1, 500)), [0; 0]);
        assert_eq!(gone(&all[..1], begun(1, 500)), [0; 0]);
        assert_eq!(gone(&[], begun(1, 500)), [0; 0]);
        // The record names one that is not there, which is not for this to judge.
        assert_eq!(gone(&all, begun(3, 99)), [1, 2]);
    }

    #[test]
    fn a_point_in_time_is_in_the_youngest_begun_by_then() {
        let all = vec![begun(1, 50), begun(2, 40), begun(3, 30)];
        let at = |hours| {
            let time = now() - SignedDuration::from_hours(hours);
            let found = covering(all.clone(), time);
            found.iter().map(Generation::epoch).collect::<Vec<_>>()
        };
        assert_eq!(at(0), [3, 2, 1]);
        assert_eq!(at(30), [3, 2, 1]);
        assert_eq!(at(31), [2, 1]);
        assert_eq!(at(50), [1]);
        assert_eq!(at(51), [0; 0]);
    }
}
