//! Waiting together for the bucket.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::replication::Error;
use crate::replication::Result;
use crate::replication::control::Control;
use crate::replication::control::Position;

/// A copy that is asked for is not given up before; the bucket may be gone for long, and Litestream goes on with it.
const COPY: Duration = Duration::from_mins(10);

/// Callers who wait for the bucket: one copy at a time is asked for, and serves all who came before it began.
///
/// So a site that asks with each request costs a request to the bucket for many of them, and an outage one that hangs.
#[derive(Debug)]
pub(super) struct Barrier {
    control: Control,
    begun: Arc<AtomicU64>,
    /// The last copy that went well: its number, and what it reached.
    reached: Arc<Mutex<Option<(u64, Position)>>>,
}

impl Barrier {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control,
            begun: Arc::default(),
            reached: Arc::default(),
        }
    }

    /// Waits until everything that is committed now is in the bucket, or an attempt at that has failed.
    pub(super) async fn pass(&self, within: Duration) -> Result<Position> {
        let needed = self.begun.load(Ordering::SeqCst) + 1;
        tokio::time::timeout(within, self.copied(needed))
            .await
            .unwrap_or_else(|_| {
                Err(Error::Litestream(format!(
                    "not everything was in the bucket within {within:?}"
                )))
            })
    }

    /// Waits for a copy with this number or a later one.
    async fn copied(&self, needed: u64) -> Result<Position> {
        let mut reached = Arc::clone(&self.reached).lock_owned().await;
        if let Some((number, position)) = *reached
            && number >= needed
        {
            return Ok(position);
        }
        let (begun, control) = (Arc::clone(&self.begun), self.control.clone());
        // Whoever gives up leaves it to the others.
        let copy = tokio::spawn(async move {
            let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
            let position = control.sync(COPY).await?;
            *reached = Some((number, position));
            Ok(position)
        });
        match copy.await {
            Ok(copied) => copied,
            Err(ended) => Err(Error::Litestream(ended.to_string())),
        }
    }
}
