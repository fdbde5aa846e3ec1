//! Compressed copies of a file: made once, behind the first visitor who can read them.

use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::Semaphore;

use crate::http::assets::file::File;
use crate::http::coding::Coding;

/// Above this, brotli's best takes seconds (3 s for a MiB); two steps below it is 17 times as fast, and a tenth larger.
const BEST_BYTES_MAX: usize = 1 << 20;

/// A larger file is not compressed: two copies of it would stay in memory.
const BYTES_MAX: usize = 32 << 20;

/// One file at a time, so that a start costs no more than one core.
static TURN: Semaphore = Semaphore::const_new(1);

#[derive(Debug, Default)]
pub(super) struct Copies {
    made: OnceLock<Made>,
    is_begun: AtomicBool,
}

/// Those that are smaller than the file.
#[derive(Debug, Default)]
pub(super) struct Made {
    gzip: Option<Bytes>,
    brotli: Option<Bytes>,
}

impl Copies {
    /// `None` while they are not there: nobody need wait.
    pub(super) fn made(&self) -> Option<&Made> {
        self.made.get()
    }

    /// Begins to make them, unless somebody did.
    pub(super) fn begin(&self, file: &Arc<File>) {
        if self.is_begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let file = Arc::clone(file);
        tokio::spawn(async move {
            let turn = TURN.acquire().await;
            let make = move || {
                let made = Made::of(&file.content);
                // There is one that begins.
                let _ = file.copies.made.set(made);
            };
            if let Err(error) = tokio::task::spawn_blocking(make).await {
                tracing::warn!(%error, "a static file was not compressed");
            }
            drop(turn);
        });
    }
}

impl Made {
    pub(super) fn copy(&self, coding: Coding) -> Option<&Bytes> {
        match coding {
            Coding::Identity => None,
            Coding::Gzip => self.gzip.as_ref(),
            Coding::Brotli => self.brotli.as_ref(),
        }
    }

    fn of(content: &[u8]) -> Self {
        if content.len() > BYTES_MAX {
            return Self::default();
        }
        let smaller = |copy: Vec<u8>| (copy.len() < content.len()).then(|| Bytes::from(copy));
        Self {
            gzip: gzip(content).ok().and_then(smaller),
            brotli: brotli(content).ok().and_then(smaller),
        }
    }
}

fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

fn brotli(mut content: &[u8]) -> std::io::Result<Vec<u8>> {
    let params = BrotliEncoderParams {
        quality: if content.len() > BEST_BYTES_MAX {
            9
        } else {
            11
        },
        size_hint: content.len(),
        ..BrotliEncoderParams::default()
    };
    let mut copy = Vec::new();
    brotli::BrotliCompress(&mut content, &mut copy, &params)?;
    Ok(copy)
}
