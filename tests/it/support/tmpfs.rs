//! A small disk that can be filled.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::waiting::all_tests_are_wanted;

/// A file system in memory of a given size; gone when dropped.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// Mounts one, or says that the test is skipped; where all tests are wanted, to be refused fails it.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(Self { folder });
        }
        let reason = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(!all_tests_are_wanted(), "mount: {reason}");
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped a test on a small disk, which takes root: {reason}");
        }
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, since a program may still be leaving; a mount that stays is not the test's failure.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
