//! The section `[cache]` of the settings.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Problems;
use crate::settings::Section;

/// Where the cache is, and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file; `data/cache.sqlite3` by default.
    pub path: PathBuf,
    /// How much the cache may hold, in bytes; 256 MiB by default, 1 MiB to 1 TiB.
    pub bytes_max: u64,
    /// The largest value, in bytes; 1 MiB by default, 1 KiB to 512 MiB, at most `bytes_max`.
    pub value_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("cache")
    }
}

impl Section for Settings {
    fn check(&self, problems: &mut Problems) {
        let path = self.path.to_string_lossy();
        if path.is_empty() || path.starts_with(':') || path.starts_with("file:") {
            problems.add(
                "path",
                "must be the path of a file, not a URI or \":memory:\"",
            );
        }
        problems.range("bytes_max", self.bytes_max, 1 << 20..=1 << 40);
        problems.range("value_bytes_max", self.value_bytes_max, 1024..=1 << 29);
        let bytes_max = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        if self.value_bytes_max > bytes_max {
            let reason = format!("must be at most cache.bytes_max, which is {bytes_max}");
            problems.add("value_bytes_max", reason);
        }
    }
}
