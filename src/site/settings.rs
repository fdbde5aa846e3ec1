//! The section `[site]` of the settings.

use std::time::Duration;

use houseboat::settings::Problems;
use houseboat::settings::Secret;
use houseboat::settings::Section;
use reqwest::Url;
use serde::Deserialize;
use serde::Serialize;

use crate::site::probe::Network;

/// What an operator of the status monitor may set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where alerts are sent; empty: nowhere.
    pub(crate) webhook_url: Secret,
    /// How long checks and incidents are kept.
    pub(crate) keep_days: u16,
    /// Whether addresses on private networks are checked.
    pub(crate) private_addresses: PrivateAddresses,
}

/// Whether addresses on private networks are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PrivateAddresses {
    /// In development alone.
    Auto,
    Allow,
    Refuse,
}

impl Settings {
    pub(crate) fn keep(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_days) * 24 * 60 * 60)
    }

    /// What checks may reach.
    pub(crate) fn network(&self) -> &'static Network {
        match self.private_addresses {
            PrivateAddresses::Allow => Network::any(),
            PrivateAddresses::Auto | PrivateAddresses::Refuse => Network::public(),
        }
    }
}

impl Section for Settings {
    const DEFAULTS: &'static str = include_str!("../../config/site.toml");
    const SECRETS: &'static [&'static str] = &["webhook_url"];

    fn decide(&mut self, environment: &str) {
        if environment == "development" && self.private_addresses == PrivateAddresses::Auto {
            self.private_addresses = PrivateAddresses::Allow;
        }
    }

    fn check(&self, problems: &mut Problems) {
        problems.range("keep_days", self.keep_days, 1..=3_650);
        let url = self.webhook_url.expose();
        let is_web = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !url.is_empty() && !Url::parse(url).is_ok_and(is_web) {
            problems.add("webhook_url", "must be an http or https address");
        }
    }
}
