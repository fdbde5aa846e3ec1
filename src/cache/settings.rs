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
    /// How much the file may take, with its WAL, in bytes; 256 MiB by default, 1 MiB to 1 TiB, or 0 for no file.
    pub bytes_max: u64,
    /// How much is kept in memory as well, in bytes; 32 MiB by default, up to 64 GiB, or 0 for none.
    pub memory_bytes_max: u64,
    /// The largest value, in bytes; 1 MiB by default, 1 KiB to 512 MiB, at most an eighth of `bytes_max`.
    pub value_bytes_max: usize,
}

/// A value may take this part of the file: so that others are not evicted for it by the hundred.
const VALUE_PART: u64 = 8;

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
        if self.bytes_max != 0 {
            problems.range("bytes_max", self.bytes_max, 1 << 20..=1 << 40);
        }
        problems.range("memory_bytes_max", self.memory_bytes_max, 0..=1 << 36);
        problems.range("value_bytes_max", self.value_bytes_max, 1024..=1 << 29);
        let part = usize::try_from(self.bytes_max / VALUE_PART).unwrap_or(usize::MAX);
        if self.bytes_max != 0 && self.value_bytes_max > part {
            let reason =
                format!("must be at most an eighth of cache.bytes_max, which makes {part}");
            problems.add("value_bytes_max", reason);
        }
    }
}
