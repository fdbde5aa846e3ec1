//! The section `[server]` of the settings.

use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;
use serde::Serialize;

use crate::http::hosts::Hosts;
use crate::http::hosts::is_pattern;
use crate::http::proxies::Proxies;
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
    /// The names that the site answers to beside that of `url`, such as `*.example.org`; `["*"]` is every name.
    pub hosts: Vec<String>,
    /// For how long browsers are told to come by https only, in seconds; 31 536 000 by default, 0 to 315 360 000.
    pub hsts_s: u64,
    /// Whose word on a visitor's address is taken; `["private"]` by default.
    pub trusted_proxies: Vec<String>,
    /// How many connections there may be; 10 000 by default, 1 to 1 000 000.
    pub connections_max: usize,
    /// How long a connection may wait for its next request, in milliseconds; 75 000 by default, 1 to 3 600 000.
    pub idle_timeout_ms: u64,
    /// How long the head of a request may take, in milliseconds; 10 000 by default, 1 to 3 600 000.
    pub header_timeout_ms: u64,
    /// How long a body may go on without a byte, in milliseconds; 15 000 by default, 1 to 3 600 000.
    pub body_timeout_ms: u64,
    /// How slow a body may be after its first 5 s, in bytes a second; 240 by default, 0 to 1 MiB.
    ///
    /// So slow may be who takes an answer as well: see [`write_timeout_ms`](Self::write_timeout_ms).
    pub body_bytes_per_s_min: u64,
    /// How long a client may take nothing of an answer, in milliseconds; 60 000 by default, 1 to 3 600 000.
    ///
    /// What it takes makes up for as much time as it may take at [`body_bytes_per_s_min`](Self::body_bytes_per_s_min).
    pub write_timeout_ms: u64,
    /// The largest head of a request, in bytes; 32 KiB by default, 8 KiB to 256 KiB.
    pub header_bytes_max: usize,
    /// The longest address of a request, in bytes; 8 KiB by default, 256 to 65 534.
    pub uri_bytes_max: usize,
    /// How long a request may take, in milliseconds; 30 000 by default, 1 to 3 600 000.
    pub request_timeout_ms: u64,
    /// The largest request body, in bytes; 1 MiB by default, 1 KiB to 1 GiB.
    pub body_bytes_max: usize,
    /// How many bytes of files may be on their way at once; 1 GiB by default, 1 MiB to 1 TiB.
    ///
    /// They wait in the folder of the database, which could write nothing if they filled its disk.
    pub uploads_bytes_max: u64,
    /// How long the whole shutdown may take, in milliseconds; 10 000 by default, 100 to 600 000.
    pub stop_ms: u64,
    /// Whether it is the environment `development`, in which every host is taken and https is not asked for.
    #[serde(skip)]
    pub is_development: bool,
}

impl Settings {
    /// Says in the log what should be set and is not.
    pub(super) fn warn(&self) {
        if Hosts::is_unknown(self) {
            tracing::warn!(
                "requests for every host are answered, so that whoever asks chooses it: set server.url (APP_URL), or server.hosts"
            );
        }
    }

    /// Returns how long a request may take.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Returns the proxies that are trusted; none where the setting is wrong.
    pub(super) fn proxies(&self) -> Proxies {
        Proxies::parse(&self.trusted_proxies).unwrap_or_default()
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
    fn decide(&mut self, environment: &str) {
        self.is_development = environment == "development";
    }

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
        if let Some(wrong) = self.hosts.iter().find(|text| !is_pattern(text)) {
            problems.add(
                "hosts",
                format!("must be names such as \"example.org\" and \"*.example.org\", or \"*\", and not \"{wrong}\""),
            );
        }
        problems.range("hsts_s", self.hsts_s, 0..=315_360_000);
        if let Err(text) = Proxies::parse(&self.trusted_proxies) {
            problems.add(
                "trusted_proxies",
                format!(
                    "must be \"private\" or networks such as \"10.1.0.0/16\", and not \"{text}\""
                ),
            );
        }
        problems.range("connections_max", self.connections_max, 1..=1_000_000);
        problems.range("idle_timeout_ms", self.idle_timeout_ms, 1..=3_600_000);
        problems.range("header_timeout_ms", self.header_timeout_ms, 1..=3_600_000);
        problems.range("body_timeout_ms", self.body_timeout_ms, 1..=3_600_000);
        problems.range(
            "body_bytes_per_s_min",
            self.body_bytes_per_s_min,
            0..=1 << 20,
        );
        problems.range("write_timeout_ms", self.write_timeout_ms, 1..=3_600_000);
        problems.range("header_bytes_max", self.header_bytes_max, 8192..=256 << 10);
        problems.range("uri_bytes_max", self.uri_bytes_max, 256..=65_534);
        problems.range("request_timeout_ms", self.request_timeout_ms, 1..=3_600_000);
        problems.range("body_bytes_max", self.body_bytes_max, 1024..=1 << 30);
        problems.range(
            "uploads_bytes_max",
            self.uploads_bytes_max,
            1 << 20..=1 << 40,
        );
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
