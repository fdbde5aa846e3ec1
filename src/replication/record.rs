//! The record: who may write, and where the data is.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::digits::hex;
use crate::digits::random;

/// How this program writes it; a record of another format is not touched.
const FORMAT: u32 = 1;

/// What the lease object holds, and the file beside a database on a volume.
///
/// It is the marker, too: a record with a generation says that this site has had data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this layout.
    pub format: u32,
    /// Grows by one with each holder, so that no two have the same.
    pub epoch: u64,
    /// Changes with each renewal, so that whoever watches sees that the holder lives, without a clock.
    pub beat: u64,
    /// Who may write; nobody after a release.
    pub holder: Option<Holder>,
    /// The generation that has all the data; none before there was any.
    pub generation: Option<String>,
    /// The name of the site that this belongs to, as its first holder gave it; no other one touches it.
    #[serde(default)]
    pub site: Option<String>,
    /// The point in time that was restored by request last, so that the same request does so once.
    #[serde(default)]
    pub point: Option<Timestamp>,
}

/// A process that may write, and how others reach it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Random; another for each start of a process.
    pub id: String,
    /// The name of its site.
    #[serde(default)]
    pub site: String,
    /// Where it takes requests of other containers, as `address:port`; any of them may be out of reach from here.
    pub addresses: Vec<String>,
    /// What such a request must show.
    pub key: String,
    /// Since when; for people to read.
    pub since: Timestamp,
    /// How long it holds without being renewed, in milliseconds.
    pub lease_ms: u64,
}

impl fmt::Debug for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Holder")
            .field("id", &self.id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Holder {
    /// This process from now on, with a new name and a new key.
    #[must_use]
    pub fn new(site: &str, addresses: Vec<String>, lease: Duration, now: Timestamp) -> Self {
        Self {
            id: hex(&random::<8>()),
            site: site.to_owned(),
            addresses,
            key: hex(&random::<32>()),
            since: now,
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Record {
    /// The record of a site that never was.
    #[must_use]
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            epoch: 0,
            beat: 0,
            holder: None,
            generation: None,
            site: None,
            point: None,
        }
    }

    /// Reads what [`Record::to_json`] has written; what is wrong with it goes on where a file's name ends.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {
                serde_json::from_value(value).map_err(|error| format!("is not a record: {error}"))
            }
            Some(format) => Err(format!(
                "has format {format}, which a newer program wrote: this one knows {FORMAT}"
            )),
            None => Err("is not a record of this program's".to_owned()),
        }
    }

    /// As text, one line for each field, since people look at it, too.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record has nothing that JSON lacks")
    }

    /// The record with which `holder` takes the lease after this one.
    #[must_use]
    pub fn taken_by(&self, holder: Holder) -> Self {
        Self {
            epoch: self.epoch + 1,
            beat: 0,
            site: Some(holder.site.clone()),
            holder: Some(holder),
            ..self.clone()
        }
    }

    /// The record that renews it.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self {
            beat: self.beat + 1,
            ..self.clone()
        }
    }

    /// The record that gives it back.
    #[must_use]
    pub fn released(&self) -> Self {
        Self {
            beat: self.beat + 1,
            holder: None,
            ..self.clone()
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}
