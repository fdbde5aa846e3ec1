//! The section `[auth]` of the settings.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Problems;
use crate::settings::Section;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// How people sign in, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which cookies are set; `auto` by default.
    pub cookies: Cookies,
    /// How long a session holds that nobody uses, in days; 14 by default, 1 to 365.
    pub session_idle_days: u32,
    /// How long a session holds at most, in days; 90 by default, 1 to 3 650.
    pub session_days: u32,
    /// How many sessions one user may have, the oldest of which goes; 100 by default, 1 to 1 000.
    pub sessions_max: u32,
    /// The memory that the hash of a password takes, in KiB; 19 456 by default, 128 to 1 048 576.
    pub hash_memory_kib: u32,
    /// How often the hash goes through it; 2 by default, 1 to 64.
    pub hash_passes: u32,
    /// How many lanes it has; 1 by default, 1 to 16.
    pub hash_lanes: u32,
    /// How many passwords are checked at the same time; 2 by default, 1 to 64.
    pub hashes_max: u32,
    /// How many passwords one network may try in a minute; 10 by default, 1 to 10 000.
    pub network_attempts_max: u32,
    /// How many passwords may be tried for one account in a quarter of an hour; 5 by default, 1 to 1 000.
    pub account_attempts_max: u32,
    /// How long a link holds that sets a password, in hours; 24 by default, 1 to 720.
    pub link_hours: u32,
    /// How long an invitation holds, in days; 7 by default, 1 to 90.
    pub invitation_days: u32,
}

/// Which cookies are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cookies {
    /// `plain` in the environment `development`, unless `server.url` is `https`; else `secure`.
    Auto,
    /// `__Host-session`, which browsers send by HTTPS alone.
    Secure,
    /// `session`, by HTTP as well: for a machine of one's own.
    Plain,
}

impl Settings {
    /// Returns how long a session holds that nobody uses.
    #[must_use]
    pub fn session_idle(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_idle_days) * DAY)
    }

    /// Returns how long a session holds at most.
    #[must_use]
    pub fn session_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_days) * DAY)
    }

    /// Returns how long a link holds that sets a password.
    #[must_use]
    pub fn link_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.link_hours) * HOUR)
    }

    /// Returns how long an invitation holds.
    #[must_use]
    pub fn invitation_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.invitation_days) * DAY)
    }

    /// Settles what depends on the environment, and on the address that visitors know.
    pub(crate) fn decide(&mut self, environment: &str, url: &str) {
        if self.cookies == Cookies::Auto {
            let is_plain = environment == "development" && !url.starts_with("https:");
            self.cookies = if is_plain {
                Cookies::Plain
            } else {
                Cookies::Secure
            };
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("auth")
    }
}

impl Section for Settings {
    fn check(&self, problems: &mut Problems) {
        problems.range("session_idle_days", self.session_idle_days, 1..=365);
        problems.range("session_days", self.session_days, 1..=3_650);
        problems.range("sessions_max", self.sessions_max, 1..=1_000);
        problems.range("hash_memory_kib", self.hash_memory_kib, 128..=1 << 20);
        problems.range("hash_passes", self.hash_passes, 1..=64);
        problems.range("hash_lanes", self.hash_lanes, 1..=16);
        problems.range("hashes_max", self.hashes_max, 1..=64);
        let network = self.network_attempts_max;
        problems.range("network_attempts_max", network, 1..=10_000);
        let account = self.account_attempts_max;
        problems.range("account_attempts_max", account, 1..=1_000);
        problems.range("link_hours", self.link_hours, 1..=720);
        problems.range("invitation_days", self.invitation_days, 1..=90);
    }
}
