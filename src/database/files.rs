//! Files, the folders that they are in, and the names that they have there.

use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::database::connection;

/// The folder that a file is in.
pub(crate) fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes sure that a folder's names, the new and the gone ones, survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// How much room there is in a folder for what this user writes, in bytes.
pub(crate) fn room(folder: &Path) -> io::Result<u64> {
    let there = rustix::fs::statvfs(folder)?;
    Ok(there.f_bavail.saturating_mul(there.f_frsize))
}

/// Writes a file so that it is there as a whole or not at all, and survives a power cut.
///
/// `mode` is who may read and write it, before the umask. It is made under `<path>.new`, what is there of one that was
/// killed is removed; two at once are for the caller to prevent.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_added_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let named = written.and_then(|()| std::fs::rename(&new, path));
    named.inspect_err(|_| {
        // A part of it is of no use; the next one removes what stays.
        let _ = std::fs::remove_file(&new);
    })?;
    sync_folder(folder(path))
}

/// Whether this open file is the one of that name.
pub(crate) fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

/// This name, or, where something has it, the next one with a number.
pub(super) fn free(name: &Path) -> PathBuf {
    let mut number = 1;
    let mut free = name.to_owned();
    while free.symlink_metadata().is_ok() {
        number += 1;
        free = connection::beside(name, &format!("-{number}"));
    }
    free
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_written_as_a_whole_and_read_by_those_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        // Of one that was killed: it says no more who may read the file, or what is in it.
        std::fs::write(
            path.with_added_extension("new"),
            "a part of something longer",
        )
        .unwrap();
        for text in ["one", "2"] {
            write_whole(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_get_its_name_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        write_whole(&path, b"text", 0o600).unwrap_err();
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_a_folder_is_in_this_one() {
        assert_eq!(folder(Path::new("site.sqlite3")), Path::new("."));
        assert_eq!(folder(Path::new("data/site.sqlite3")), Path::new("data"));
    }
}
