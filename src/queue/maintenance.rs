//! What keeps the table of jobs small.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::database;
use crate::queue::Queue;
use crate::queue::Settings;
use crate::queue::State;
use crate::queue::store;

/// How often old jobs are looked for.
const PAUSE: Duration = Duration::from_mins(10);

/// So many go in one transaction, so that a visitor's write waits a few milliseconds at the most.
const BATCH: usize = 500;

/// Prunes jobs that ended long enough ago.
#[derive(Debug)]
pub struct Maintenance {
    queue: Queue,
    settings: Settings,
}

impl Maintenance {
    /// Maintenance of a queue, with what its settings say of keeping.
    #[must_use]
    pub fn new(queue: Queue, settings: Settings) -> Self {
        Self { queue, settings }
    }

    /// Prunes now and every ten minutes, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mended = || stop.run_until_cancelled(self.queue.database.mended());
        while mended().await.is_some() {
            match self.prune().await {
                Ok(0) => {}
                Ok(pruned) => tracing::info!(pruned, "old jobs are pruned"),
                Err(error) => tracing::warn!(%error, "old jobs could not be pruned"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Deletes jobs that ended long enough ago, in small batches, and says how many.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`](crate::database::Database::write).
    pub async fn prune(&self) -> database::Result<usize> {
        let mut pruned = 0;
        for (state, keep) in [
            (State::Completed, self.settings.keep_completed()),
            (State::Cancelled, self.settings.keep_discarded()),
            (State::Discarded, self.settings.keep_discarded()),
        ] {
            pruned += self.prune_state(state, keep).await?;
        }
        Ok(pruned)
    }

    async fn prune_state(&self, state: State, keep: Duration) -> database::Result<usize> {
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let mut pruned = 0;
        loop {
            let batch = self
                .queue
                .database
                .write(move |tx| {
                    let before = tx.now_ms().saturating_sub(keep_ms);
                    Ok(store::prune(tx, state, before, BATCH)?)
                })
                .await?;
            pruned += batch;
            if batch < BATCH {
                return Ok(pruned);
            }
        }
    }
}
