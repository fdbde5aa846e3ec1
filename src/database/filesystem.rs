//! The file system that a database lies on: whether it is one that WAL can trust.
//!
//! WAL keeps its index in memory that all processes share, by mapping the `-shm` file. A file system that is served by
//! another machine, or by a process of its own, does not give that reliably, nor the locks that go with it
//! (<https://sqlite.org/wal.html>, <https://sqlite.org/useovernet.html>).

use std::path::Path;
use std::path::PathBuf;

use crate::database::settings::NetworkFilesystem;

/// What `statfs` calls those that are refused (`linux/magic.h`). virtiofs is FUSE to the kernel.
const NETWORK: [(u32, &str); 10] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE (virtiofs, sshfs, s3fs and the like)"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
];

/// Decides whether the file may lie where it does: `Ok` with a warning, where there is something to say.
///
/// # Errors
///
/// A sentence for people when it may not.
pub(super) fn guard(file: &Path, setting: NetworkFilesystem) -> Result<Option<String>, String> {
    let folder = folder(file);
    match magic(&folder).and_then(name) {
        Some(name) => decide(&folder, name, setting).map(Some),
        None => Ok(None),
    }
}

fn decide(folder: &Path, name: &str, setting: NetworkFilesystem) -> Result<String, String> {
    let finding = format!(
        "the folder {} is on {name}, which does not give SQLite's WAL the shared memory and the locks that it needs",
        folder.display()
    );
    match setting {
        NetworkFilesystem::Allow => Ok(finding),
        NetworkFilesystem::Auto | NetworkFilesystem::Refuse => Err(format!(
            "{finding}: put the file on a disk of this machine, \
             or set database.network_filesystem to \"allow\" and risk it"
        )),
    }
}

fn name(magic: u32) -> Option<&'static str> {
    let found = NETWORK.iter().find(|(number, _)| *number == magic);
    found.map(|(_, name)| *name)
}

#[cfg(target_os = "linux")]
fn magic(folder: &Path) -> Option<u32> {
    let found = rustix::fs::statfs(folder).ok()?;
    // The kernel's numbers have 32 bits, and the field has as many as the machine.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is cut off is the sign"
    )]
    Some(found.f_type as u32)
}

#[cfg(not(target_os = "linux"))]
fn magic(_folder: &Path) -> Option<u32> {
    None
}

/// The folder that the file is in, or will be: the nearest that is there already, links followed.
pub(super) fn folder(file: &Path) -> PathBuf {
    let file = std::fs::canonicalize(file)
        .or_else(|_| std::path::absolute(file))
        .unwrap_or_else(|_| file.to_owned());
    let mut folders = file.ancestors().skip(1);
    let there = folders.find(|folder| folder.exists());
    there.unwrap_or_else(|| Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_known_by_their_names() {
        for (magic, expected) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("CIFS")),
            (0xfe53_4d42, Some("SMB2")),
            (0x0102_1997, Some("9p")),
            // ext4, tmpfs, overlayfs, btrfs, xfs
            (0xef53, None),
            (0x0102_1994, None),
            (0x794c_7630, None),
            (0x9123_683e, None),
            (0x5846_5342, None),
        ] {
            assert_eq!(name(magic), expected, "{magic:#x}");
        }
        assert!(name(0x6573_5546).is_some_and(|name| name.contains("virtiofs")));
    }

    #[test]
    fn auto_is_as_strict_as_refuse_and_allow_warns() {
        let decide = |setting| decide(Path::new("/srv/data"), "NFS", setting);
        let refusal = decide(NetworkFilesystem::Auto).unwrap_err();
        assert_eq!(decide(NetworkFilesystem::Refuse), Err(refusal.clone()));
        for part in ["/srv/data", "NFS", "database.network_filesystem"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let warning = decide(NetworkFilesystem::Allow).unwrap();
        assert!(warning.contains("/srv/data is on NFS"), "{warning}");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_it_will_be_in() {
        let temporary = tempfile::tempdir().unwrap();
        let there = std::fs::canonicalize(temporary.path()).unwrap();
        assert_eq!(folder(&there.join("a/b/site.sqlite3")), there);
        std::os::unix::fs::symlink("/proc/version", there.join("link")).unwrap();
        assert_eq!(folder(&there.join("link")), Path::new("/proc"));
    }
}
