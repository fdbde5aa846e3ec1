//! Whether a database can be where it is wanted, in words that say what is in the way.
//!
//! SQLite says `unable to open database file` to most of this, and leaves half a database behind to some of it.
//! Nothing here makes or changes anything.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::Flock;
use rustix::process::FlockOffsetType;
use rustix::process::FlockType;
use rustix::process::fcntl_getlk;

use crate::database::files;
use crate::database::filesystem;

/// What every database begins with.
const HEADER: &[u8; 16] = b"SQLite format 3\0";

/// What SQLite keeps beside the file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The bytes of a database that SQLite locks (<https://sqlite.org/src/file/src/os.h>, `PENDING_BYTE`).
const LOCKS_START: u64 = 0x4000_0000;
const LOCKS: u64 = 512;

/// So many links are followed one after another, as the kernel does.
const LINKS_MAX: usize = 40;

/// The name of the file itself, where this one is a link to it, or to a place where it is going to be made.
///
/// SQLite keeps what belongs to a file beside the file itself, whatever name it is given; so does everything here.
pub(crate) fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(end) = fs::read_link(&path) else {
            break;
        };
        path = files::folder(&path).join(end);
    }
    path
}

/// Says what is in the way of a database at this path that can be written, if anything is.
pub(super) fn obstacle(file: &Path) -> Option<String> {
    file_obstacle(file)
        .or_else(|| beside_obstacle(file))
        .or_else(|| folder_obstacle(file))
}

fn file_obstacle(file: &Path) -> Option<String> {
    let kind = fs::metadata(file).ok()?.file_type();
    if kind.is_dir() {
        return Some("it is a directory, and should be a file".to_owned());
    }
    if !kind.is_file() {
        return Some("it is neither a file nor a link to one".to_owned());
    }
    let errno = access(file, Access::READ_OK | Access::WRITE_OK)?;
    Some(format!(
        "this user cannot read and write the file ({})",
        reason(errno)
    ))
}

/// Whether the file begins as no database does. An empty one is a new one.
///
/// Not to be asked of a file that this process has open: closing it here would end the locks of every connection.
pub(super) fn is_foreign(file: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(file).and_then(|file| file.take(16).read_to_end(&mut start));
    read.is_ok() && !start.is_empty() && start != HEADER
}

/// Whether another process has the database open: in WAL mode it holds a lock on it all the time.
///
/// Not to be asked of a file that this process has open: closing it here would end the locks of every connection.
pub(super) fn is_in_use(file: &Path) -> bool {
    let lock = Flock {
        start: LOCKS_START,
        length: LOCKS,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = File::open(file).map(|file| fcntl_getlk(file, &lock));
    matches!(found, Ok(Ok(Some(_))))
}

fn beside_obstacle(file: &Path) -> Option<String> {
    BESIDE.iter().find_map(|ending| {
        let mut name = file.file_name()?.to_owned();
        name.push(ending);
        let path = file.with_file_name(name);
        // A link would lead SQLite elsewhere; it follows none here.
        let kind = fs::symlink_metadata(&path).ok()?.file_type();
        let path = path.display();
        if kind.is_dir() {
            return Some(format!(
                "{path} is a directory, and SQLite keeps a file of that name beside the database: move it away"
            ));
        }
        None
    })
}

fn folder_obstacle(file: &Path) -> Option<String> {
    let folder = filesystem::folder(file);
    if !folder.is_dir() {
        return Some(format!(
            "cannot make the directory for it: {} is a file",
            folder.display()
        ));
    }
    let errno = access(&folder, Access::WRITE_OK | Access::EXEC_OK)?;
    Some(format!(
        "this user cannot make files in the directory {} ({}), and SQLite needs to beside its own",
        folder.display(),
        reason(errno)
    ))
}

fn access(path: &Path, access: Access) -> Option<Errno> {
    let answer = rustix::fs::access(path, access);
    // What else went wrong is for the opening to say.
    answer
        .err()
        .filter(|errno| [Errno::ACCESS, Errno::PERM, Errno::ROFS].contains(errno))
}

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::ROFS => "the file system is read-only",
        _ => "permission denied",
    }
}
