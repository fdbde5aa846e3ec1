//! Files as they are on the disk now, for who changes them while the site runs.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use bytes::Bytes;

use crate::http::assets::file::File;

/// A larger file is left as it is in the program.
const BYTES_MAX: u64 = 64 << 20;

/// One file on the disk, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct OnDisk(Mutex<Option<Seen>>);

#[derive(Debug)]
struct Seen {
    changed: Option<SystemTime>,
    bytes: u64,
    file: Arc<File>,
}

impl OnDisk {
    /// The file as it is now, or `None` where it cannot be had; waits for the disk.
    pub(super) fn look(&self, folder: &Path, name: &str) -> Option<Arc<File>> {
        let path = inside(folder, name)?;
        let of = std::fs::metadata(&path).ok()?;
        if !of.is_file() || of.len() > BYTES_MAX {
            return None;
        }
        let (changed, bytes) = (of.modified().ok(), of.len());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = &*seen
            && seen.bytes == bytes
            && seen.changed == changed
            && changed.is_some()
        {
            return Some(Arc::clone(&seen.file));
        }
        let content = std::fs::read(&path).ok()?;
        let file = Arc::new(File::passing(name, Bytes::from(content)));
        *seen = Some(Seen {
            changed,
            bytes,
            file: Arc::clone(&file),
        });
        Some(file)
    }
}

/// Where a file is, if that is in the folder: a link may lead out of it.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let path = folder.join(name).canonicalize().ok()?;
    path.starts_with(&folder).then_some(path)
}
