//! The section `[queue]` of the settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::queue::schedule::zone_of;
use crate::settings;
use crate::settings::Problems;
use crate::settings::Section;

/// How many jobs run, and how long they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How many jobs run at the same time, where 0 is none; 16 by default, 0 to 1 024.
    pub workers: usize,
    /// How often workers look unasked, in milliseconds; 30 000 by default, 100 to 3 600 000.
    pub poll_ms: u64,
    /// How long running jobs have at a stop, in milliseconds; 8 000 by default, 0 to 600 000.
    pub stop_ms: u64,
    /// After how long without a sign of life another process is taken for dead, in milliseconds; 15 000 by default, 3 000
    /// to 600 000. Its jobs are run again then.
    pub lease_ms: u64,
    /// How long completed jobs are kept, in hours; 24 by default, 0 to 87 600.
    pub keep_completed_hours: u32,
    /// How long discarded and cancelled jobs are kept, in days; 30 by default, 0 to 3 650.
    pub keep_discarded_days: u32,
    /// What is said of single queues; others may use all workers, and have the weight 1.
    pub queues: BTreeMap<String, QueueSettings>,
    /// The time zone of the schedule's entries that name none, by its IANA name; "UTC" by default.
    pub zone: String,
}

/// What is said of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// How many of its jobs run at the same time; all workers by default, 1 to 1 024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Its share of the workers where several queues have something to do; 1 by default, 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

impl Settings {
    /// Returns how often workers look for jobs that nobody told them of.
    #[must_use]
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// Returns how long running jobs may go on after the stop signal.
    #[must_use]
    pub fn stop(&self) -> Duration {
        Duration::from_millis(self.stop_ms)
    }

    /// Returns after how long without a sign of life another process is taken for dead.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Returns how long completed jobs are kept.
    #[must_use]
    pub fn keep_completed(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_completed_hours) * 3600)
    }

    /// Returns how long discarded and cancelled jobs are kept.
    #[must_use]
    pub fn keep_discarded(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_discarded_days) * 86_400)
    }
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("queue")
    }
}

impl Section for Settings {
    fn check(&self, problems: &mut Problems) {
        problems.range("workers", self.workers, 0..=1024);
        problems.range("poll_ms", self.poll_ms, 100..=3_600_000);
        problems.range("lease_ms", self.lease_ms, 3000..=600_000);
        for (name, queue) in &self.queues {
            if !(1..=1024).contains(&queue.workers.unwrap_or(1)) {
                problems.add("queues", format!("{name}: workers must be from 1 to 1024"));
            }
            if !(1..=100).contains(&queue.weight.unwrap_or(1)) {
                problems.add("queues", format!("{name}: weight must be from 1 to 100"));
            }
        }
        problems.range("stop_ms", self.stop_ms, 0..=600_000);
        let hours = self.keep_completed_hours;
        problems.range("keep_completed_hours", hours, 0..=87_600);
        problems.range("keep_discarded_days", self.keep_discarded_days, 0..=3_650);
        if zone_of(&self.zone).is_none() {
            let reason =
                "must be \"UTC\", or a name of the IANA database such as \"Europe/Berlin\"";
            problems.add("zone", reason);
        }
    }
}
