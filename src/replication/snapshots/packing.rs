//! A file becomes a smaller one with a checksum, and again what it was.

use std::fs::File;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ring::digest::Context;
use ring::digest::SHA256;
use tokio::sync::oneshot;

use crate::digits::hex;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::Transfer;
use crate::replication::snapshots::Stage;

/// What is in memory of a file, in bytes.
const PIECE: usize = 1024 * 1024;

/// What is in these files is the database.
const OWNER_ONLY: u32 = 0o600;

/// A packed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// What was packed, in bytes.
    pub(super) bytes_before: u64,
    /// What it became, in bytes.
    pub(super) bytes: u64,
    /// Of what it became, in hexadecimal digits.
    pub(super) sha256: String,
}

/// Packs `from` into the new file `to`, which `gunzip` opens.
pub(super) async fn pack(
    from: PathBuf,
    to: PathBuf,
    progress: impl Fn(Stage) + Send + 'static,
) -> Result<Packed> {
    aside(move |is_left| {
        let mut source = File::open(&from).map_err(io(&from))?;
        let bytes = source.metadata().map_err(io(&from))?.len();
        let mut packer = GzEncoder::new(Hashing::new(create(&to)?), Compression::default());
        let told = |done| progress(Stage::Packing(Transfer { done, bytes }));
        let done = copy(&mut source, &mut packer, is_left, told).map_err(io(&to))?;
        let hashing = packer.finish().map_err(io(&to))?;
        Ok(Packed {
            bytes_before: done,
            bytes: hashing.bytes,
            sha256: hashing.sha256(),
        })
    })
    .await
}

/// Unpacks `from` into the new file `to`, if it is what the checksum says.
pub(super) async fn unpack(
    from: PathBuf,
    to: PathBuf,
    packed: Packed,
    progress: impl Fn(Stage) + Send + 'static,
) -> Result<()> {
    aside(move |is_left| {
        let mut source = File::open(&from).map_err(io(&from))?;
        let mut hashing = Hashing::new(std::io::sink());
        copy(&mut source, &mut hashing, is_left, |_| {}).map_err(io(&from))?;
        if hashing.bytes != packed.bytes || hashing.sha256() != packed.sha256 {
            return Err(Error::Snapshot(
                "its checksum is not what it was when it was made: it is damaged, take another one"
                    .to_owned(),
            ));
        }
        let bytes = packed.bytes_before;
        let source = File::open(&from).map_err(io(&from))?;
        // One byte more tells that there is more.
        let mut source = GzDecoder::new(BufReader::new(source)).take(bytes.saturating_add(1));
        let mut file = create(&to)?;
        let told = |done| progress(Stage::Unpacking(Transfer { done, bytes }));
        let done = copy(&mut source, &mut file, is_left, told).map_err(io(&to))?;
        if done != bytes {
            return Err(Error::Snapshot(format!(
                "it does not have the {bytes} bytes that it should have"
            )));
        }
        file.sync_all().map_err(io(&to))
    })
    .await
}

pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + use<'_> {
    move |error| match error.kind() {
        ErrorKind::StorageFull => {
            Error::Snapshot(format!("there is no room for {}", path.display()))
        }
        _ => Error::Io(path.display().to_string(), error),
    }
}

fn create(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(OWNER_ONLY);
    options.open(path).map_err(io(path))
}

/// Copies until the end, or until nobody waits any more.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    is_left: &AtomicBool,
    told: impl Fn(u64),
) -> std::io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        if is_left.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("nobody waits for it any more"));
        }
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(done),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&piece[..read])?;
        done += u64::try_from(read).unwrap_or(u64::MAX);
        told(done);
    }
}

/// Runs `work` on a thread of its own, after everything else that this machine has to do.
async fn aside<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let leaving = Leaving::default();
    let is_left = Arc::clone(&leaving.0);
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("packing".to_owned())
        .spawn(move || {
            let thread = rustix::thread::gettid();
            // It is slower for others then, and no less right.
            let _ = rustix::process::setpriority_process(Some(thread), 19);
            // Nobody listens any more if the caller left meanwhile.
            let _ = reply.send(work(&is_left));
        })
        .map_err(|error| Error::Io("a thread".to_owned(), error))?;
    let panicked = |_| Err(Error::Snapshot("the packing panicked".to_owned()));
    answer.await.unwrap_or_else(panicked)
}

/// Tells a thread when nobody waits for it any more.
#[derive(Default)]
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Knows the checksum of what goes through it.
struct Hashing<W> {
    inner: W,
    context: Context,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
            bytes: 0,
        }
    }

    fn sha256(self) -> String {
        let digest = self.context.finish();
        hex(digest.as_ref())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
