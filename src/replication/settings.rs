//! The sections `[replication]` and `[snapshots]` of the settings.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Problems;
use crate::settings::Secret;
use crate::settings::Section;

/// Where the replica is, and what is done when all is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The bucket of the replica; empty by default, which replicates nothing.
    pub bucket: String,
    /// The folder in the bucket, which belongs to one site; `houseboat` by default.
    pub path: String,
    /// The address of the S3 server; empty, the default, is AWS.
    pub endpoint: String,
    /// The region; empty by default, which is `us-east-1`.
    pub region: String,
    /// The name of the key; a secret like the key.
    pub access_key_id: Secret,
    /// The key.
    pub secret_access_key: Secret,
    /// How often Litestream looks for what is new, in milliseconds; 1000 by default, 100 to 60 000.
    pub sync_ms: u64,
    /// How often the whole database is uploaded, in hours; 24 by default, 1 to 720.
    pub snapshot_hours: u32,
    /// How far back one can go, in hours; 72 by default, 1 to 8760.
    pub keep_hours: u32,
    /// How long a lease holds without being renewed, in milliseconds; 15 000 by default, 3000 to 300 000.
    pub lease_ms: u64,
    /// What a holder does that cannot reach the bucket for that long; `Serve` by default.
    pub outage: Outage,
    /// Whether the provider has conditional writes; `Require` by default.
    pub conditional_writes: ConditionalWrites,
    /// How long a restore may take in all, in milliseconds; 600 000 by default, 1000 to 86 400 000.
    pub restore_timeout_ms: u64,
    /// How long a restore may go on without a byte, in milliseconds; 30 000 by default, 1000 to 3 600 000.
    pub restore_stall_ms: u64,
    /// The point in time to restore, RFC 3339; empty, the default, is the latest.
    pub restore_at: String,
    /// Whether a site that has had data may start without any; false by default.
    pub allow_empty: bool,
    /// What is done with a database that the replica does not come from; `Refuse` by default.
    pub conflict: Conflict,
    /// How far the replica may be behind, in milliseconds; 60 000 by default, 1000 to 86 400 000.
    pub behind_ms: u64,
    /// Whether `/ready` fails then; false by default.
    pub behind_fails: bool,
    /// How often the replica is restored to see whether it can be, in hours; 168 by default, 0 (never) to 8760.
    pub drill_hours: u32,
    /// The program; `litestream` by default.
    pub litestream: String,
    /// A configuration of Litestream's to use in place of the built-in one; empty by default.
    pub litestream_config: String,
    /// Where Litestream tells its metrics, `address:port` of this machine alone; empty, the default, is nowhere.
    pub litestream_metrics: String,
}

/// What a holder of the lease does that cannot reach the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outage {
    /// It goes on, and says that nothing is replicated.
    Serve,
    /// It stops writing when the lease runs out.
    Stop,
}

/// Whether the provider has conditional writes, without which a lease is a convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalWrites {
    /// It has, or the site does not start.
    Require,
    /// It goes on without.
    Off,
}

/// What is done with a database that is there while the replica comes from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// The site does not start, and says so.
    Refuse,
    /// The database is used, and replicated from now on.
    Local,
    /// The database is kept aside, and the replica restored.
    Replica,
}

impl Settings {
    /// Whether anything is replicated.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.bucket.is_empty()
    }

    /// How long a lease holds without being renewed.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The point in time to restore, if one is asked for.
    #[must_use]
    pub fn point(&self) -> Option<Timestamp> {
        self.restore_at.parse().ok()
    }
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("replication")
    }
}

impl Section for Settings {
    const SECRETS: &'static [&'static str] = &["access_key_id", "secret_access_key"];

    fn check(&self, problems: &mut Problems) {
        check_bucket(problems, &self.bucket);
        check_endpoint(problems, &self.endpoint);
        let path = self.path.trim_matches('/');
        if path.is_empty() || path != self.path || path.split('/').any(str::is_empty) {
            problems.add(
                "path",
                "must be a folder in the bucket, such as \"houseboat\" or \"sites/one\"",
            );
        }
        if self.is_on() {
            check_keys(problems, &self.access_key_id, &self.secret_access_key);
        }
        problems.range("sync_ms", self.sync_ms, 100..=60_000);
        problems.range("snapshot_hours", self.snapshot_hours, 1..=720);
        problems.range("keep_hours", self.keep_hours, 1..=8760);
        problems.range("lease_ms", self.lease_ms, 3000..=300_000);
        problems.range(
            "restore_timeout_ms",
            self.restore_timeout_ms,
            1000..=86_400_000,
        );
        problems.range("restore_stall_ms", self.restore_stall_ms, 1000..=3_600_000);
        problems.range("behind_ms", self.behind_ms, 1000..=86_400_000);
        problems.range("drill_hours", self.drill_hours, 0..=8760);
        if !self.restore_at.is_empty() && self.point().is_none() {
            problems.add(
                "restore_at",
                "must be a time such as \"2026-11-21T07:30:00Z\"",
            );
        }
        if self.litestream.is_empty() {
            problems.add("litestream", "must be the name or the path of the program");
        }
        let metrics = self.litestream_metrics.parse::<SocketAddr>();
        if !self.litestream_metrics.is_empty()
            && !metrics.is_ok_and(|address| address.ip().is_loopback())
        {
            problems.add(
                "litestream_metrics",
                "must be an address of this machine alone, such as \"127.0.0.1:9090\", since a profiler is there, too",
            );
        }
    }
}

/// A second copy with another provider: a whole snapshot, now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSettings {
    /// The bucket; empty by default, which makes none.
    pub bucket: String,
    /// The folder in the bucket; `houseboat` by default.
    pub path: String,
    /// The address of the S3 server; empty, the default, is AWS.
    pub endpoint: String,
    /// The region; empty by default, which is `us-east-1`.
    pub region: String,
    /// The name of the key; a secret like the key.
    pub access_key_id: Secret,
    /// The key.
    pub secret_access_key: Secret,
    /// How often one is made, in hours; 24 by default, 0 (only by the command) to 8760.
    pub every_hours: u32,
    /// How many are kept at least; 7 by default, 1 to 1000.
    pub keep: u32,
    /// How long they are kept at least, in days; 30 by default, 0 to 3650.
    pub keep_days: u32,
}

impl SnapshotSettings {
    /// Whether there is a bucket for them.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.bucket.is_empty()
    }
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        settings::defaults("snapshots")
    }
}

impl Section for SnapshotSettings {
    const SECRETS: &'static [&'static str] = &["access_key_id", "secret_access_key"];

    fn check(&self, problems: &mut Problems) {
        check_bucket(problems, &self.bucket);
        check_endpoint(problems, &self.endpoint);
        if self.is_on() {
            check_keys(problems, &self.access_key_id, &self.secret_access_key);
        }
        problems.range("every_hours", self.every_hours, 0..=8760);
        problems.range("keep", self.keep, 1..=1000);
        problems.range("keep_days", self.keep_days, 0..=3650);
    }
}

fn check_bucket(problems: &mut Problems, bucket: &str) {
    if bucket.contains(['/', ':', ' ']) {
        problems.add(
            "bucket",
            "must be the name of a bucket, and no more: the address of the server is endpoint",
        );
    }
}

fn check_keys(problems: &mut Problems, name: &Secret, key: &Secret) {
    for (field, secret) in [("access_key_id", name), ("secret_access_key", key)] {
        if secret.is_empty() {
            problems.add(field, "must be set where there is a bucket");
        }
    }
}

fn check_endpoint(problems: &mut Problems, endpoint: &str) {
    let is_address = endpoint.starts_with("https://") || endpoint.starts_with("http://");
    if !endpoint.is_empty() && !is_address {
        problems.add(
            "endpoint",
            "must begin with https:// (or http://, inside a network of one's own)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_for_this_machine_alone() {
        for (address, is_good) in [
            ("", true),
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("0.0.0.0:9090", false),
            ("localhost:9090", false),
            (":9090", false),
        ] {
            let mut problems = Problems::default();
            let settings = Settings {
                litestream_metrics: address.to_owned(),
                ..Settings::default()
            };
            settings.check(&mut problems);
            assert_eq!(problems.into_found().is_empty(), is_good, "{address}");
        }
    }
}
