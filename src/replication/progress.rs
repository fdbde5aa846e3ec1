//! What may be said to be in the bucket, from what Litestream tells of itself.
//!
//! It tells when an upload ended, and not what was in it: one that the bucket held up for a minute has what was there a
//! minute ago. So an upload counts for what was in Litestream's files before the *previous* one ended, which is before
//! this one began.

use std::time::Instant;

use jiff::Timestamp;

/// What one look at Litestream shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Which of its processes was looked at.
    pub(super) process: u64,
    /// When it began to read the WAL the last time.
    pub(super) read: Option<Timestamp>,
    /// Whether that is over, and went well.
    pub(super) has_read: bool,
    /// When its last upload ended.
    pub(super) uploaded: Option<Timestamp>,
}

/// What follows from the looks so far; each moment is one before which everything that was committed is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    looked: Instant,
    sight: Sight,
    /// The last reading of the WAL began after this.
    read_after: Instant,
    in_files: Option<Instant>,
    /// Will be in the bucket once the upload that began last has ended.
    in_upload: Option<Instant>,
    in_bucket: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            looked: now,
            sight: Sight::default(),
            read_after: now,
            in_files: None,
            in_upload: None,
            in_bucket: None,
        }
    }

    /// The moment before which everything is in the bucket; none while nothing is known to be.
    pub(super) fn in_bucket(&self) -> Option<Instant> {
        self.in_bucket
    }

    /// Takes a look into account that was made at `now`.
    pub(super) fn saw(&mut self, sight: Sight, now: Instant) {
        if sight.process != self.sight.process {
            // What the other one was at has come to nothing.
            self.in_files = None;
            self.in_upload = None;
            self.sight = Sight {
                process: sight.process,
                ..Sight::default()
            };
        }
        if sight.uploaded.is_some() && sight.uploaded != self.sight.uploaded {
            self.in_bucket = self.in_upload.or(self.in_bucket);
            // Known at the last look, when this upload had not ended: the next one began later.
            self.in_upload = self.in_files;
            self.sight.uploaded = sight.uploaded;
        }
        if sight.read != self.sight.read {
            self.read_after = self.looked;
            self.sight.read = sight.read;
        }
        if sight.has_read {
            self.in_files = Some(self.read_after);
        }
        self.looked = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A Litestream in milliseconds: it reads the WAL and uploads, each in its own loop, and dies now and then.
    #[derive(Default)]
    struct Model {
        process: u64,
        reading: Option<(u64, u64)>,
        read: Option<u64>,
        has_read: bool,
        files_until: u64,
        /// When it began and will end, and what is in it.
        upload: Option<(u64, u64)>,
        uploaded: Option<u64>,
        bucket_until: u64,
    }

    impl Model {
        fn step(&mut self, now: u64, chance: &mut impl FnMut(u64) -> u64) {
            if chance(8_000) == 0 {
                let process = self.process + 1;
                let (files_until, bucket_until) = (self.files_until, self.bucket_until);
                *self = Self {
                    process,
                    files_until,
                    bucket_until,
                    ..Self::default()
                };
            }
            match self.reading {
                Some((begun, end)) if end <= now => {
                    self.reading = None;
                    let is_well = chance(4) > 0;
                    self.has_read = is_well;
                    if is_well {
                        self.files_until = begun;
                    }
                }
                None if chance(500) == 0 => {
                    self.reading = Some((now, now + chance(700)));
                    self.read = Some(now);
                    self.has_read = false;
                }
                _ => {}
            }
            match self.upload {
                Some((content, end)) if end <= now => {
                    self.upload = None;
                    self.bucket_until = content;
                    self.uploaded = Some(now);
                }
                // An outage is a long upload.
                None if chance(500) == 0 => {
                    let took = if chance(5) == 0 { 8_000 } else { 300 };
                    self.upload = Some((self.files_until, now + chance(took)));
                }
                _ => {}
            }
        }

        fn sight(&self) -> Sight {
            let at = |ms: u64| Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
            Sight {
                process: self.process,
                read: self.read.map(at),
                has_read: self.has_read,
                uploaded: self.uploaded.map(at),
            }
        }
    }

    /// The usual multiplier and increment of a linear congruential generator (Knuth, MMIX).
    fn chances(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn nothing_is_said_to_be_in_the_bucket_that_is_not() {
        let mut known = 0;
        for seed in 0..40 {
            let mut chance = chances(seed);
            let start = Instant::now();
            let (mut model, mut progress) = (Model::default(), Progress::new(start));
            for now in 0..120_000 {
                model.step(now, &mut chance);
                if chance(1_000) > 0 {
                    continue;
                }
                progress.saw(model.sight(), start + Duration::from_millis(now));
                if let Some(said) = progress.in_bucket() {
                    known += 1;
                    let said = said.duration_since(start).as_millis();
                    let is = u128::from(model.bucket_until);
                    assert!(said <= is, "seed {seed}, {now} ms: {said} and not {is}");
                }
            }
        }
        assert!(known > 1_000, "{known}");
    }

    #[test]
    fn while_all_is_well_it_is_some_looks_behind() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for second in 1..20 {
            let at = |second: i64| Timestamp::from_second(second).unwrap();
            let sight = Sight {
                process: 0,
                read: Some(at(second)),
                has_read: true,
                uploaded: Some(at(second)),
            };
            let now = start + Duration::from_secs(second.unsigned_abs());
            progress.saw(sight, now);
            if second > 3 {
                let behind = now - progress.in_bucket().unwrap();
                assert!(behind <= Duration::from_secs(4), "{behind:?}");
            }
        }
    }
}
