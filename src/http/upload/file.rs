//! A file that a visitor sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ring::digest::Digest;

use crate::database::files;
use crate::http::Error;
use crate::http::Result;
use crate::http::upload::not_stored;
use crate::http::upload::room::Held;

/// Characters of a name that is shown.
const NAME_CHARS_MAX: usize = 100;

/// A file that a visitor sent, of an allowed type and size. It is gone when this is dropped, unless it was kept.
#[derive(Debug)]
pub struct UploadedFile {
    field: String,
    name: String,
    media: &'static str,
    size: usize,
    digest: Digest,
    file: Arc<File>,
    /// Given back when the file is gone, after it.
    _held: Held,
}

impl UploadedFile {
    pub(super) fn new(
        (field, name): (String, &str),
        media: &'static str,
        (file, size, held): (File, usize, Held),
        digest: Digest,
    ) -> Self {
        Self {
            field,
            name: shown(name),
            media,
            size,
            digest,
            file: Arc::new(file),
            _held: held,
        }
    }

    /// The field of the form.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The name that the visitor's file had, for showing it and for nothing else; never a path of this machine.
    ///
    /// Up to 100 characters, without folders, control characters and what turns the direction of writing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is by its content, one of the allowed types.
    #[must_use]
    pub fn media(&self) -> &'static str {
        self.media
    }

    /// Its bytes, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Its SHA-256.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        self.digest.as_ref()
    }

    /// All of it, for the database: what is there is copied to the bucket, and a file on the disk is not.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn bytes(&self) -> Result<Bytes> {
        let (file, size) = (Arc::clone(&self.file), self.size);
        let read = blocking(move || {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        });
        Ok(read.await?.into())
    }

    /// Puts it on the disk under this path, in place of what is there: as a whole or not at all.
    ///
    /// Of two at once for one path one is there in the end. A kill may leave a part in a file named `….new` beside it.
    ///
    /// It is not copied to a bucket there. The path is the site's to choose, never from [`name`](Self::name).
    ///
    /// # Errors
    ///
    /// When the disk fails, or is full (507).
    pub async fn keep(&self, path: impl Into<PathBuf>) -> Result<()> {
        let (file, path) = (Arc::clone(&self.file), path.into());
        blocking(move || copy(&file, &path)).await
    }
}

/// Does on a thread of its own what may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(not_stored),
        Err(error) => Err(Error::internal(error)),
    }
}

/// By way of a file of its own beside the path, `<name>.<random>.new`, for there may be two at once.
fn copy(file: &File, path: &Path) -> io::Result<()> {
    const PIECE: usize = 64 << 10;
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    // Only its owner may read it, and it is removed where this ends before it has its name.
    let new = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".new")
        .tempfile_in(files::folder(path))?;
    let to = new.as_file();
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    loop {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&piece[..read], at)?;
        at += read as u64;
    }
    to.sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    files::sync_folder(files::folder(path))
}

/// A name as it may be shown.
fn shown(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let name: String = name.chars().filter(|c| !is_bad(*c)).collect();
    let name = name.trim().trim_matches('.');
    let short: String = name.chars().take(NAME_CHARS_MAX).collect();
    if short.is_empty() {
        "file".to_owned()
    } else {
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_without_what_could_mislead() {
        for (name, expected) in [
            ("photo.png", "photo.png"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\ann\\cv.pdf", "cv.pdf"),
            ("a\r\nSet-Cookie: b.txt", "aSet-Cookie: b.txt"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            (".htaccess", "htaccess"),
            ("..", "file"),
            ("", "file"),
            ("/", "file"),
            ("日本.txt", "日本.txt"),
        ] {
            assert_eq!(shown(name), expected, "{name:?}");
        }
        assert_eq!(shown(&"é".repeat(300)).chars().count(), 100);
    }
}
