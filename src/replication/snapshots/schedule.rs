//! When a snapshot is due, and who makes it.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::replication::Result;
use crate::replication::snapshots::Snapshots;
use crate::replication::snapshots::time;

/// After the first failure.
const PAUSE: Duration = Duration::from_mins(1);

/// After many; also the most that is slept at once, so that a clock that is set is noticed.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// Sites that were started together do not all go to the provider at one moment.
const JITTER: Duration = Duration::from_mins(1);

impl Snapshots {
    /// Makes one every `every_hours` until `stop`, and at once where one is due; never where that is 0.
    ///
    /// The bucket tells when the last was made, so that restarts, and other containers, change nothing. A failure is a
    /// warning, and tried again after a minute, then two, four, up to an hour.
    pub async fn run(&self, database: Database, stop: CancellationToken) {
        let hours = u64::from(self.settings.every_hours);
        if hours == 0 {
            return;
        }
        let every = Duration::from_hours(hours);
        let mut pause = PAUSE;
        while let Some(done) = stop.run_until_cancelled(self.round(&database, every)).await {
            let wait = match done {
                Ok(wait) => {
                    pause = PAUSE;
                    wait.min(PAUSE_MAX) + JITTER.mul_f32(fastrand::f32())
                }
                Err(error) => {
                    let wait = pause;
                    tracing::warn!("no snapshot was made, the next try is in {wait:?}: {error}");
                    self.note_status(|status| status.error = Some(error.to_string()));
                    pause = PAUSE_MAX.min(pause * 2);
                    wait
                }
            };
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Makes one if it is due, and says how long until the next is.
    async fn round(&self, database: &Database, every: Duration) -> Result<Duration> {
        let names = self.names().await?;
        let times = names.iter().filter_map(|name| time(name));
        let now = database.now();
        let last = last(times, every, now);
        self.note_status(|status| status.last = last);
        let wait = wait(last, every, now);
        if !wait.is_zero() {
            self.note_status(|status| status.error = None);
            return Ok(wait);
        }
        let made = self.make(database, |_| {}).await?;
        tracing::info!(
            bytes = made.bytes,
            packed_bytes = made.packed_bytes,
            "the snapshot {} is in the bucket",
            made.name
        );
        Ok(every)
    }
}

/// The youngest, but for those that are so far in the future that a clock was wrong.
fn last(
    mut times: impl Iterator<Item = Timestamp>,
    every: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    times.find(|time| *time <= now || time.duration_since(now).unsigned_abs() < every)
}

/// How long until the next one; none where it is due.
fn wait(last: Option<Timestamp>, every: Duration, now: Timestamp) -> Duration {
    let age = |last| now.duration_since(last).unsigned_abs();
    last.map_or(Duration::ZERO, |last| every.saturating_sub(age(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_when_the_last_is_old_enough() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let every = Duration::from_hours(24);
        let at = |texts: &[&str]| {
            let times = texts.iter().map(|text| text.parse().unwrap());
            wait(last(times, every, now), every, now)
        };
        assert_eq!(at(&[]), Duration::ZERO);
        assert_eq!(at(&["2026-11-21T12:00:00Z"]), every);
        assert_eq!(
            at(&["2026-11-20T13:00:00Z", "2020-01-01T00:00:00Z"]),
            Duration::from_hours(1)
        );
        assert_eq!(at(&["2026-11-20T12:00:00Z"]), Duration::ZERO);
        assert_eq!(at(&["2020-01-01T00:00:00Z"]), Duration::ZERO);
        // By a clock that is an hour ahead, and by one that is a year ahead.
        assert_eq!(at(&["2026-11-21T13:00:00Z"]), Duration::from_hours(23));
        assert_eq!(at(&["2027-11-21T13:00:00Z"]), Duration::ZERO);
        assert_eq!(
            at(&["2027-11-21T13:00:00Z", "2026-11-21T11:00:00Z"]),
            Duration::from_hours(23)
        );
    }
}
