//! The section `[site]` of the settings.

use std::time::Duration;

use houseboat::settings::Problems;
use houseboat::settings::Secret;
use houseboat::settings::Section;
use reqwest::Url;
use serde::Deserialize;
use serde::Serialize;

/// What an operator of the status monitor may set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where alerts are sent; empty: nowhere.
    pub(crate) webhook_url: Secret,
    /// How long checks and incidents are kept.
    pub(crate) keep_days: u16,
}

impl Settings {
    pub(crate) fn keep(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_days) * 24 * 60 * 60)
    }
}

impl Section for Settings {
    const DEFAULTS: &'static str = include_str!("../../config/site.toml");
    const SECRETS: &'static [&'static str] = &["webhook_url"];

    fn check(&self, problems: &mut Problems) {
        problems.range("keep_days", self.keep_days, 1..=3_650);
        let url = self.webhook_url.expose();
        let is_web = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !url.is_empty() && !Url::parse(url).is_ok_and(is_web) {
            problems.add("webhook_url", "must be an http or https address");
        }
    }
}
