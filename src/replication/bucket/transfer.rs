//! Whole files to and from a bucket, a part at a time.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use futures_util::TryStreamExt as _;
use object_store::MultipartUpload;
use object_store::ObjectStoreExt as _;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::replication::Error;
use crate::replication::Result;
use crate::replication::bucket::Bucket;
use crate::replication::bucket::answer;

/// What is in memory of a file, in bytes.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// S3 takes 10 000 parts.
const PARTS_MAX: u64 = 9_000;

/// What is downloaded is nobody else's until its owner says so.
const OWNER_ONLY: u32 = 0o600;

/// How much of a file is sent, or has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes.
    pub done: u64,
    /// Of how many.
    pub bytes: u64,
}

impl Bucket {
    /// Sends a file, in parts of 8 MiB or more, one after another; `progress` is told of each.
    ///
    /// The object is there when all of it is. What a killed upload has sent stays invisible with the provider until a
    /// rule of the bucket removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], also when a part takes longer than a minute; [`Error::Refused`]; [`Error::Io`].
    pub async fn upload(
        &self,
        name: &str,
        file: &Path,
        mut progress: impl FnMut(Transfer),
    ) -> Result<()> {
        let key = self.key(name)?;
        let unreadable = io(file);
        let mut source = File::open(file).await.map_err(&unreadable)?;
        let bytes = source.metadata().await.map_err(&unreadable)?.len();
        let part_bytes = PART_BYTES.max(bytes / PARTS_MAX);
        if bytes <= part_bytes {
            let all = part(&mut source, part_bytes).await.map_err(&unreadable)?;
            let sent = self.large.put(&key, all.into()).await;
            sent.map_err(|error| self.failed(name, &error))?;
            progress(Transfer { done: bytes, bytes });
            return Ok(());
        }
        let upload = self.large.put_multipart(&key).await;
        let mut upload = upload.map_err(|error| self.failed(name, &error))?;
        let sent = async {
            let mut done = 0;
            while done < bytes {
                let part = part(&mut source, part_bytes).await.map_err(&unreadable)?;
                if part.is_empty() {
                    return Err(unreadable(std::io::ErrorKind::UnexpectedEof.into()));
                }
                done += length(&part);
                let sent = upload.put_part(part.into()).await;
                sent.map_err(|error| self.failed(name, &error))?;
                progress(Transfer { done, bytes });
            }
            let completed = upload.complete().await;
            completed.map_err(|error| self.failed(name, &error))
        }
        .await;
        if sent.is_err() {
            give_up(upload).await;
        }
        sent.map(drop)
    }

    /// Brings an object into a new file, `max_bytes` of it at most, and says how many; `progress` is told as it comes.
    ///
    /// Only the owner may read the file. On failure there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], also when nothing has come for a minute; [`Error::Refused`], also when there is no
    /// such object or it is larger; [`Error::Io`], also when the file is there.
    pub async fn download(
        &self,
        name: &str,
        to: &Path,
        max_bytes: u64,
        mut progress: impl FnMut(Transfer),
    ) -> Result<u64> {
        let failed = |error| self.failed(name, &error);
        let found = self.large.get(&self.key(name)?).await.map_err(failed)?;
        let bytes = found.meta.size;
        if bytes > max_bytes {
            return Err(Error::Refused(format!(
                "{name} has {bytes} bytes, and {max_bytes} are expected at most"
            )));
        }
        let mut new = New::create(to)?;
        let mut body = found.into_stream();
        let mut done = 0;
        while let Some(piece) = body.try_next().await.map_err(failed)? {
            done += length(&piece);
            if done > bytes {
                return Err(Error::Refused(format!(
                    "{name} has more bytes than it says"
                )));
            }
            new.write(&piece).await?;
            progress(Transfer { done, bytes });
        }
        if done < bytes {
            let text = format!("{name} ended after {done} bytes of {bytes}");
            return Err(Error::Unreachable(text));
        }
        new.keep().await?;
        Ok(bytes)
    }
}

/// A new file that goes away unless it is kept.
struct New<'a> {
    path: &'a Path,
    file: File,
    is_kept: bool,
}

impl<'a> New<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let mut options = std::fs::File::options();
        options.write(true).create_new(true).mode(OWNER_ONLY);
        let file = options.open(path).map_err(io(path))?;
        Ok(Self {
            path,
            file: File::from_std(file),
            is_kept: false,
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).await.map_err(io(self.path))
    }

    async fn keep(mut self) -> Result<()> {
        self.file.flush().await.map_err(io(self.path))?;
        self.file.sync_all().await.map_err(io(self.path))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed is in the way of the next one, which says so.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + use<'_> {
    move |error| Error::Io(path.display().to_string(), error)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

async fn part(file: &mut File, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(bytes).read_to_end(&mut part).await?;
    Ok(part)
}

/// Takes back what was sent; where that fails, it costs room with the provider, and nothing else.
async fn give_up(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(
            "an upload that failed could not be taken back: {}",
            answer::cause(&error)
        );
    }
}
