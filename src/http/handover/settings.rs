//! The section `[handover]` of the settings.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Auto;
use crate::settings::Problems;
use crate::settings::Section;

/// How one container takes over from another, and what visitors see of it, which is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverSettings {
    /// Where others reach this one, as `host:port`; `auto`, the default, is every address of this machine.
    pub address: String,
    /// The port for that; 0 by default, which is any free one.
    pub port: u16,
    /// How many requests may wait while nobody serves; 1000 by default, 1 to 65 536.
    pub hold_max: usize,
    /// How long a request may wait, in milliseconds; 25 000 by default, 0 to 300 000.
    pub hold_ms: u64,
    /// How long requests are passed on after the stop signal, in milliseconds; 9000 by default, 0 to 600 000.
    pub linger_ms: u64,
    /// What the platform waits before its kill, in milliseconds; `auto` by default, 1000 to 3 600 000.
    pub grace_ms: Auto<u64>,
    /// How much of that the last copy to the bucket may take, in milliseconds; 3000 by default, 100 to 600 000.
    pub sync_ms: u64,
}

/// What Docker waits between its stop signal and its kill, in milliseconds, where nobody says more.
const DOCKER_GRACE_MS: u64 = 10_000;

/// What Coolify does.
const COOLIFY_GRACE_MS: u64 = 30_000;

impl HandoverSettings {
    /// Decides by the platform what is `auto` because of it.
    pub(crate) fn decide(&mut self, is_coolify: bool) {
        if self.grace_ms == Auto::Auto {
            let grace_ms = if is_coolify {
                COOLIFY_GRACE_MS
            } else {
                DOCKER_GRACE_MS
            };
            self.grace_ms = Auto::Given(grace_ms);
        }
    }

    /// How long the platform waits between its stop signal and its kill.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let grace_ms = match self.grace_ms {
            Auto::Given(grace_ms) => grace_ms,
            Auto::Auto => DOCKER_GRACE_MS,
        };
        Duration::from_millis(grace_ms)
    }

    /// How long a request may wait.
    #[must_use]
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms)
    }
}

impl Default for HandoverSettings {
    fn default() -> Self {
        settings::defaults("handover")
    }
}

impl Section for HandoverSettings {
    fn check(&self, problems: &mut Problems) {
        let has_port = self.address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if self.address != "auto" && !has_port {
            problems.add(
                "address",
                "must be \"auto\" or host and port, such as \"10.0.0.5:8001\"",
            );
        }
        problems.range("hold_max", self.hold_max, 1..=65_536);
        problems.range("hold_ms", self.hold_ms, 0..=300_000);
        problems.range("linger_ms", self.linger_ms, 0..=600_000);
        if let Auto::Given(grace_ms) = self.grace_ms {
            problems.range("grace_ms", grace_ms, 1000..=3_600_000);
        }
        problems.range("sync_ms", self.sync_ms, 100..=600_000);
    }
}
