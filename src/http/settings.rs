//! The section `[server]` of the settings.

use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Problems;
use crate::settings::Section;

/// How the server listens, and what a request may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address to listen on, an IP address or a name; `127.0.0.1` by default.
    pub host: String,
    /// The port to listen on, where 0 is any free one; 8000 by default.
    pub port: u16,
    /// The address that visitors know, `https://…`; empty, the default, where it is not known.
    pub url: String,
    /// How long a request may take, in milliseconds; 30 000 by default, 1 to 3 600 000.
    pub request_timeout_ms: u64,
    /// The largest request body, in bytes; 1 MiB by default, 1 KiB to 1 GiB.
    pub body_bytes_max: usize,
    /// How long the whole shutdown may take, in milliseconds; 10 000 by default, 100 to 600 000.
    pub stop_ms: u64,
    /// Whether the environment is `development`: errors are told with their causes, and cookies need no TLS.
    #[serde(skip)]
    pub is_development: bool,
}

impl Settings {
    /// Settles what depends on the environment.
    pub(crate) fn decide(&mut self, environment: &str) {
        self.is_development = environment == "development";
    }

    /// Returns how long a request may take.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Returns how long the whole shutdown may take.
    #[must_use]
    pub fn stop(&self) -> Duration {
        Duration::from_millis(self.stop_ms)
    }
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("server")
    }
}

impl Section for Settings {
    fn check(&self, problems: &mut Problems) {
        // A port or a scheme in the name is the usual slip; an IPv6 address has colons of its own.
        let is_address = self.host.parse::<std::net::IpAddr>().is_ok();
        if !is_address && (self.host.is_empty() || self.host.contains([':', '/', ' '])) {
            problems.add("host", "must be an IP address or a host name, and no more");
        }
        if !self.url.is_empty() && !is_url(&self.url) {
            problems.add(
                "url",
                "must be an address such as \"https://status.example\"",
            );
        }
        problems.range("request_timeout_ms", self.request_timeout_ms, 1..=3_600_000);
        problems.range("body_bytes_max", self.body_bytes_max, 1024..=1 << 30);
        problems.range("stop_ms", self.stop_ms, 100..=600_000);
    }
}

/// Whether it is the address of a site: scheme, host, perhaps a path, and no more.
pub(crate) fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let has_scheme = matches!(uri.scheme_str(), Some("https" | "http"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    has_scheme && has_host && !text.contains(['?', '#', '@'])
}
