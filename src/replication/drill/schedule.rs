//! When a drill is due.

use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::database::Clock;
use crate::database::Database;
use crate::replication::Replica;
use crate::replication::Result;
use crate::replication::drill::Drill;
use crate::replication::drill::Drilled;
use crate::replication::drill::Live;

/// A site that has just started has other things to do.
const AFTER_START: Duration = Duration::from_hours(1);

/// Where there never was one, and so nobody knows whether the settings are right.
const FIRST: Duration = Duration::from_mins(5);

/// After one that failed, or could not be made; also the most that is slept at once, so that one by hand is noticed.
const PAUSE: Duration = Duration::from_hours(1);

/// Sites that were started together do not all go to the provider at one moment.
const JITTER: Duration = Duration::from_mins(1);

impl Drill {
    /// Makes one every `drill_hours` until `stop`; never where that is 0.
    ///
    /// The bucket tells when the last was, so that deploys change nothing. One that failed is an error in the log and a
    /// warning of `/ready`, and tried again after an hour.
    pub async fn run(&self, database: &Database, replica: &Replica, stop: CancellationToken) {
        stop.run_until_cancelled(self.rounds(database, replica))
            .await;
    }

    async fn rounds(&self, database: &Database, replica: &Replica) {
        let start = Instant::now();
        let hours = u64::from(self.settings.drill_hours);
        if hours == 0 {
            return std::future::pending().await;
        }
        let every = Duration::from_hours(hours);
        loop {
            let pause = match self.round(database, replica, (every, start)).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "no drill could be made: the next try is in {PAUSE:?}");
                    PAUSE
                }
            };
            tokio::time::sleep(pause.min(PAUSE) + JITTER.mul_f32(fastrand::f32())).await;
        }
    }

    /// Makes one if it is due, and says how long until the next is.
    async fn round(
        &self,
        database: &Database,
        replica: &Replica,
        (every, start): (Duration, Instant),
    ) -> Result<Duration> {
        let last = self.last().await?;
        let left = wait(
            last.as_ref(),
            every,
            (start.elapsed(), Clock::system().now()),
        );
        replica.drilled(last);
        if !left.is_zero() {
            return Ok(left);
        }
        let Some(litestream) = replica.litestream() else {
            return Ok(PAUSE);
        };
        let generation = litestream.generation().to_owned();
        let live = Live::new(database.clone(), litestream.control().clone(), generation);
        let drilled = self.run_once(Some(&live)).await?;
        tell(&drilled);
        let is_ok = drilled.is_ok();
        replica.drilled(Some(drilled));
        Ok(if is_ok { every } else { PAUSE })
    }
}

fn tell(drilled: &Drilled) {
    let generation = &drilled.generation;
    match &drilled.error {
        None => tracing::info!(
            generation,
            bytes = drilled.bytes,
            took_ms = drilled.took_ms,
            tables = drilled.tables,
            "a drill: the replica can be restored"
        ),
        Some(error) => tracing::error!(
            generation,
            error,
            "a drill failed: the replica cannot be relied on; a copy of this database, by `backup`, can be made now, \
             and a restart begins a new generation"
        ),
    }
}

/// How long until the next one; none where it is due.
fn wait(
    last: Option<&Drilled>,
    every: Duration,
    (since_start, now): (Duration, Timestamp),
) -> Duration {
    let Some(last) = last else {
        return FIRST.saturating_sub(since_start);
    };
    // One that failed may have been of a generation before this start.
    let (every, settled) = if last.is_ok() {
        (every, AFTER_START)
    } else {
        (PAUSE.min(every), FIRST)
    };
    let age = now.duration_since(last.at);
    // By a clock that was wrong: the next one puts that right.
    let is_known = age.unsigned_abs() < every || age.is_positive();
    let left = if is_known {
        every.saturating_sub(age.unsigned_abs())
    } else {
        Duration::ZERO
    };
    left.max(settled.saturating_sub(since_start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn one_is_due_when_the_last_is_old_and_the_site_has_settled() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let every = 10 * HOUR;
        let left = |at: &str, is_ok: bool, since_start| {
            let last = Drilled {
                error: (!is_ok).then(String::new),
                ..Drilled::new(at.parse().unwrap())
            };
            wait(Some(&last), every, (since_start, now))
        };
        assert_eq!(left("2026-11-21T11:00:00Z", true, HOUR), 9 * HOUR);
        assert_eq!(left("2026-11-21T02:00:00Z", true, HOUR), Duration::ZERO);
        assert_eq!(left("2020-11-21T02:00:00Z", true, Duration::ZERO), HOUR);
        assert_eq!(left("2026-11-21T11:00:00Z", false, HOUR), Duration::ZERO);
        assert_eq!(left("2026-11-21T11:30:00Z", false, HOUR), HOUR / 2);
        assert_eq!(left("2026-11-21T11:00:00Z", false, Duration::ZERO), FIRST);
        assert_eq!(left("2027-11-21T11:00:00Z", true, HOUR), Duration::ZERO);
        assert_eq!(wait(None, every, (Duration::ZERO, now)), FIRST);
        assert_eq!(wait(None, every, (FIRST, now)), Duration::ZERO);
    }
}
