//! The section `[database]` of the settings.

use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::settings;
use crate::settings::Auto;
use crate::settings::Problems;
use crate::settings::Section;

/// SQLite maps no more than this of a file (`SQLITE_MAX_MMAP_SIZE`).
const MMAP_BYTES_MAX: u64 = 0x7fff_0000;

/// Where the database is, and how its connections are set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file; `data/site.sqlite3` by default.
    pub path: PathBuf,
    /// The number of reader threads, 1 to 64, and as many again for reads that take long; `auto` by default,
    /// see [`Settings::reader_count`].
    pub readers: Auto<usize>,
    /// How long to wait for a lock, in milliseconds; 5 000 by default, 0 to 60 000.
    pub busy_timeout_ms: u32,
    /// What a commit survives; normal by default.
    pub synchronous: Synchronous,
    /// How long a read may take, waiting included, in milliseconds; 10 000 by default, 1 to 3 600 000.
    pub read_timeout_ms: u64,
    /// How long a write may wait for its turn, in milliseconds; 10 000 by default, 1 to 3 600 000.
    pub write_timeout_ms: u64,
    /// The page cache of each connection, in pages; 2 000 by default, 10 to 1 000 000.
    pub cache_pages: u32,
    /// The size the WAL is cut back to, in bytes; 27 103 364 by default, 0 to 1 TiB.
    pub journal_size_limit_bytes: u64,
    /// How much of the file is mapped, in bytes, 0 to 2 147 418 112, where 0 is off; `auto` by default.
    pub mmap_bytes: Auto<u64>,
    /// How many reads, and how many writes, may wait; 1 024 by default, 1 to 65 536.
    pub waiting_max: usize,
    /// How many writes share one commit at most; 256 by default, 1 to 10 000.
    pub group_max: usize,
    /// A statement that takes longer is logged with its plan, in milliseconds; 100 by default, 1 to 3 600 000.
    pub slow_ms: u64,
    /// How often the file's structure is checked, in hours; 24 by default, 0 to 8 760, where 0 is never.
    pub check_quick_hours: u32,
    /// How often the whole file is checked, its indexes too, in hours; 168 by default, 0 to 8 760, where 0 is never.
    pub check_full_hours: u32,
    /// Whether pending migrations are applied at start; true by default.
    pub migrate_at_start: bool,
    /// Whether a copy is put beside the file before it is migrated; true by default.
    pub copy_before_migration: bool,
    /// Whether the file may be on a file system of another machine or process; `auto` by default.
    pub network_filesystem: NetworkFilesystem,
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// A killed process, but the last commits may be missing after a power cut.
    Normal,
    /// A power cut as well.
    Full,
}

/// Whether a database may be on NFS, SMB, 9p, FUSE and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkFilesystem {
    /// As `Allow` in the environment `development`, and as `Refuse` in every other, and where there is none.
    Auto,
    /// It is not opened there.
    Refuse,
    /// It is opened there, with a warning.
    Allow,
}

impl Settings {
    /// Returns the number of reader threads: `auto` is twice the cores, at least 4, at most 16.
    #[must_use]
    pub fn reader_count(&self) -> usize {
        self.readers.unwrap_or_else(|| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            cores.saturating_mul(2).clamp(4, 16)
        })
    }

    /// Returns how long a read may take, waiting included.
    #[must_use]
    pub fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms)
    }

    /// Returns from how long on a statement is slow.
    #[must_use]
    pub fn slow_time(&self) -> Duration {
        Duration::from_millis(self.slow_ms)
    }

    /// Returns how long a write may wait for its turn.
    #[must_use]
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("database")
    }
}

impl Section for Settings {
    fn decide(&mut self, environment: &str) {
        if environment == "development" && self.network_filesystem == NetworkFilesystem::Auto {
            self.network_filesystem = NetworkFilesystem::Allow;
        }
    }

    fn check(&self, problems: &mut Problems) {
        if !is_file_path(&self.path) {
            problems.add(
                "path",
                "must be the path of a file, not a URI or \":memory:\"",
            );
        }
        let readers = self.readers.unwrap_or_else(|| 1);
        problems.range("readers", readers, 1..=64);
        problems.range("busy_timeout_ms", self.busy_timeout_ms, 0..=60_000);
        problems.range("read_timeout_ms", self.read_timeout_ms, 1..=3_600_000);
        problems.range("write_timeout_ms", self.write_timeout_ms, 1..=3_600_000);
        problems.range("slow_ms", self.slow_ms, 1..=3_600_000);
        problems.range("check_quick_hours", self.check_quick_hours, 0..=8_760);
        problems.range("check_full_hours", self.check_full_hours, 0..=8_760);
        problems.range("cache_pages", self.cache_pages, 10..=1_000_000);
        let journal = self.journal_size_limit_bytes;
        problems.range("journal_size_limit_bytes", journal, 0..=1 << 40);
        let mmap = self.mmap_bytes.unwrap_or_else(|| 0);
        problems.range("mmap_bytes", mmap, 0..=MMAP_BYTES_MAX);
        problems.range("waiting_max", self.waiting_max, 1..=65_536);
        problems.range("group_max", self.group_max, 1..=10_000);
    }
}

// With `:memory:` every connection would have a database of its own.
fn is_file_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    !text.is_empty() && !text.starts_with(':') && !text.starts_with("file:")
}
