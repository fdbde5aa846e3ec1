//! The word of who serves to the processes on its disk that run jobs for it: the file `<database>.serving`.
//!
//! The file is locked as long as somebody serves, and says until when that one may write. A process that runs jobs has
//! a lock of another kind on the same file, by which the server sees at its end whether one is left. Both are the
//! operating system's, which takes them back from a process that dies.

use std::fs::File;
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::fs::fcntl_lock;
use rustix::process::Flock;
use rustix::process::FlockOffsetType;
use rustix::process::FlockType;
use rustix::process::fcntl_getlk;
use tokio_util::sync::CancellationToken;

use crate::database::Fence;
use crate::database::real_path;

/// How often the server writes down until when it may write, where that has an end: it is extended every second at
/// least.
const EXTEND: Duration = Duration::from_millis(500);

/// How often the server looks whether all others have left.
const LOOK: Duration = Duration::from_millis(20);

/// How often a word is read that is being written.
const READS: u32 = 10;

/// How often a lock that nobody should have is asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// What is written where the right to write has no end.
const ALWAYS: u64 = u64::MAX;

/// So that half of what is written is not taken for all of it.
const SUM: u64 = 0x5e41_9bd2_0c77_a863;

/// What a process that runs jobs is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Nobody serves.
    Nobody,
    /// Somebody serves, and may write.
    Serves {
        /// Until then, by [`Fence::now`]; `None` is for as long as it serves.
        until: Option<Duration>,
        /// Whether it ends, and waits for the others to leave.
        is_leaving: bool,
    },
}

fn path(database: &Path) -> PathBuf {
    real_path(database).with_added_extension("serving")
}

/// The server's part: says that it serves until `stop`, then that it leaves, and waits until the others have left.
pub(super) async fn show(database: &Path, fence: &Fence, stop: CancellationToken) {
    let path = path(database);
    let Some(mut sign) = stop.run_until_cancelled(hung(&path, fence)).await else {
        return;
    };
    while stop.run_until_cancelled(sign.next_change()).await.is_some() {
        sign.note(false);
    }
    sign.note(true);
    let mut is_told = false;
    while let Err(TryLockError::WouldBlock) = sign.file.try_lock() {
        if !is_told {
            tracing::info!("waiting for `work` to end");
            is_told = true;
        }
        tokio::time::sleep(LOOK).await;
        // What they were doing is still to be recorded.
        sign.note(true);
    }
}

/// Tries until it can be done: no other server has the file, or this one would not be here.
async fn hung<'a>(path: &Path, fence: &'a Fence) -> Sign<'a> {
    let mut is_told = false;
    loop {
        let error = match Sign::hang(path, fence) {
            Ok(sign) => return sign,
            Err(error) => error,
        };
        if !is_told {
            let path = path.display();
            tracing::warn!(%error, "cannot lock {path}: `work` runs no jobs for this process");
            is_told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

struct Sign<'a> {
    file: File,
    fence: &'a Fence,
    written: Option<[u8; 24]>,
}

impl<'a> Sign<'a> {
    fn hang(path: &Path, fence: &'a Fence) -> std::io::Result<Self> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(path)?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut sign = Self {
            file,
            fence,
            written: None,
        };
        sign.note(false);
        Ok(sign)
    }

    /// Waits until there may be something new to say.
    async fn next_change(&self) {
        match self.fence.until() {
            Some(_) => tokio::time::sleep(EXTEND).await,
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, is_leaving: bool) {
        let until = self.fence.until();
        let until = until.map_or(ALWAYS, |end| {
            u64::try_from(end.as_nanos()).unwrap_or(ALWAYS - 1)
        });
        let words = [until, u64::from(is_leaving), sum(until, is_leaving)];
        let mut bytes = [0; 24];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        if self.written == Some(bytes) {
            return;
        }
        match self.file.write_all_at(&bytes, 0) {
            Ok(()) => self.written = Some(bytes),
            // Who reads the old end stops by it.
            Err(error) => tracing::debug!(%error, "the end of the right to write was not written"),
        }
    }
}

fn sum(until: u64, is_leaving: bool) -> u64 {
    until.rotate_left(17) ^ u64::from(is_leaving) ^ SUM
}

/// The part of a process that runs jobs: as long as this is there, the server waits for it at its end.
#[derive(Debug)]
pub(super) struct Watch(File);

impl Watch {
    /// Watches the one that serves this database now; `None` if nobody does, it leaves, or may not write now.
    pub(super) fn begin(database: &Path) -> std::io::Result<Option<Self>> {
        let file = match File::open(path(database)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            // A server looks just now whether anybody is left.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // After: a server that has said that it leaves did so before it looked.
        let watch = Self(file);
        let serves = match watch.word()? {
            Word::Nobody => false,
            Word::Serves { until, is_leaving } => {
                !is_leaving && until.is_none_or(|end| end > Fence::now())
            }
        };
        Ok(serves.then_some(watch))
    }

    /// What the server says now.
    pub(super) fn word(&self) -> std::io::Result<Word> {
        for _ in 0..READS {
            if !self.is_locked()? {
                return Ok(Word::Nobody);
            }
            let mut bytes = [0; 24];
            match self.0.read_exact_at(&mut bytes, 0) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            let mut words = bytes.chunks_exact(8).map(|word| {
                u64::from_le_bytes(word.try_into().expect("eight bytes are eight bytes"))
            });
            let mut next = || words.next().unwrap_or_default();
            let (until, is_leaving, found) = (next(), next() == 1, next());
            if sum(until, is_leaving) == found {
                let until = (until != ALWAYS).then(|| Duration::from_nanos(until));
                return Ok(Word::Serves { until, is_leaving });
            }
        }
        // Being written each time, or written by something else: nothing that one could go by.
        Ok(Word::Nobody)
    }

    fn is_locked(&self) -> std::io::Result<bool> {
        let lock = Flock {
            start: 0,
            length: 0,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        Ok(fcntl_getlk(&self.0, &lock)?.is_some())
    }
}
