//! How far the replica is behind, and how to wait for it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use crate::database::Clock;
use crate::replication::Drilled;
use crate::replication::Lease;
use crate::replication::Litestream;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::Snapshots;
use crate::replication::progress::Progress;
use crate::replication::progress::Sight;

/// How often Litestream is asked.
const LOOK: Duration = Duration::from_secs(1);

/// A handle to the copy of the database in the bucket. Clones are cheap, and the same copy.
///
/// A site that is not replicated has one too: what it says then is that there is no copy.
#[derive(Clone, Debug, Default)]
pub struct Replica(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    copying: Option<Copying>,
    /// What came of the last drill.
    drilled: Option<Drilled>,
    /// The copies with another provider.
    snapshots: Option<Snapshots>,
}

/// Who copies, and what is known of it.
#[derive(Clone, Debug)]
struct Copying {
    litestream: Arc<Litestream>,
    lease: Lease,
    behind_max: Duration,
    behind_fails: bool,
    since: Instant,
    progress: Progress,
    is_told: bool,
}

/// Where a write is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// In the bucket.
    Bucket,
    /// On this disk alone: nothing is replicated.
    Disk,
}

/// What is known of the copy in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The generation that is written.
    pub generation: String,
    /// Everything that was committed before is in the bucket; none while nothing is known to be.
    pub synced_at: Option<Timestamp>,
    /// How long ago that was, in milliseconds; since the start, while nothing is known. What can be proved is told, and
    /// that is 3 to 4 s behind while all is well, and the bucket about one.
    pub behind_ms: u64,
    /// Whether that is more than `replication.behind_ms`.
    pub is_behind: bool,
    /// How often Litestream had to be started again.
    pub restarts: u64,
    /// Why the lease could not be renewed the last time, if it could not.
    pub lease_trouble: Option<String>,
    /// What came of the last drill, if there was one.
    pub drill: Option<Drilled>,
}

impl Replica {
    /// Waits until everything that is committed now is in the bucket: for a write that must not be lost with this disk.
    ///
    /// It costs a request to the bucket, some milliseconds where that is near.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`](crate::replication::Error::Litestream) when that did not come about `within` this time:
    /// the write is stored here, and may be copied later.
    pub async fn synced(&self, within: Duration) -> Result<Reached> {
        let Some(litestream) = self.litestream() else {
            return Ok(Reached::Disk);
        };
        litestream.sync(within).await.map(|_| Reached::Bucket)
    }

    /// What is known of the copy; `None` where nothing is replicated.
    #[must_use]
    pub fn status(&self) -> Option<ReplicaStatus> {
        let state = self.state();
        let status = state.copying.as_ref().map(Copying::status)?;
        Some(ReplicaStatus {
            drill: state.drilled.clone(),
            ..status
        })
    }

    /// From now on this is what copies.
    pub(crate) fn attach(&self, litestream: Arc<Litestream>, lease: Lease, settings: &Settings) {
        self.state().copying = Some(Copying {
            litestream,
            lease,
            behind_max: Duration::from_millis(settings.behind_ms),
            behind_fails: settings.behind_fails,
            since: Instant::now(),
            progress: Progress::new(Instant::now()),
            is_told: false,
        });
    }

    /// Looks how far behind it is, as long as it is polled, and says so when it is too far.
    pub(crate) async fn watch(&self) {
        loop {
            if let Some(litestream) = self.litestream() {
                let sight = look(&litestream).await;
                if let Some(copying) = self.state().copying.as_mut() {
                    copying.saw(sight);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is wrong, for `/ready`: what fails it, and what is only said.
    pub(crate) fn concerns(&self) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let state = self.state();
        if let Some(drilled) = state.drilled.as_ref()
            && let Some(error) = &drilled.error
        {
            warnings.push(format!(
                "the drill of {} failed, and the replica cannot be relied on: {error}",
                drilled.at
            ));
        }
        let snapshots = state.snapshots.as_ref().map(Snapshots::status);
        if let Some(error) = snapshots.and_then(|status| status.error) {
            warnings.push(format!("no snapshot could be made: {error}"));
        }
        let Some(copying) = state.copying.as_ref() else {
            return (problems, warnings);
        };
        if copying.is_behind() {
            let text = format!(
                "the replica is {} s behind: what was written since is on this disk alone",
                copying.behind().as_secs()
            );
            if copying.behind_fails {
                problems.push(text);
            } else {
                warnings.push(text);
            }
        }
        if let Some(trouble) = copying.lease.trouble() {
            warnings.push(format!("the lease cannot be renewed: {trouble}"));
        }
        (problems, warnings)
    }

    /// What copies, if anything does.
    pub(crate) fn litestream(&self) -> Option<Arc<Litestream>> {
        let state = self.state();
        state.copying.as_ref().map(|it| Arc::clone(&it.litestream))
    }

    /// From now on this is the last drill.
    pub(crate) fn drilled(&self, drilled: Option<Drilled>) {
        self.state().drilled = drilled;
    }

    /// From now on these are the copies with another provider.
    pub(crate) fn has_snapshots(&self, snapshots: Snapshots) {
        self.state().snapshots = Some(snapshots);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None when it does not answer, or was started again meanwhile.
async fn look(litestream: &Litestream) -> Option<Sight> {
    let process = litestream.restarts();
    let control = litestream.control();
    let (read, has_read) = control.last_read().await.ok()?;
    let sight = Sight {
        process,
        read,
        has_read,
        uploaded: control.last_sync().await.ok()?,
    };
    (litestream.restarts() == process).then_some(sight)
}

impl Copying {
    fn saw(&mut self, sight: Option<Sight>) {
        if let Some(sight) = sight {
            self.progress.saw(sight, Instant::now());
        }
        let is_behind = self.is_behind();
        if is_behind == self.is_told {
            return;
        }
        self.is_told = is_behind;
        if is_behind {
            tracing::warn!(behind = ?self.behind(), "the replica is behind: what is written now is on this disk alone");
        } else {
            tracing::info!("the replica has caught up");
        }
    }

    fn behind(&self) -> Duration {
        self.progress.in_bucket().unwrap_or(self.since).elapsed()
    }

    fn is_behind(&self) -> bool {
        self.behind() > self.behind_max
    }

    fn status(&self) -> ReplicaStatus {
        let (now, synced_at) = (Clock::system().now(), self.progress.in_bucket());
        ReplicaStatus {
            generation: self.litestream.generation().to_owned(),
            synced_at: synced_at.and_then(|known| now.checked_sub(known.elapsed()).ok()),
            behind_ms: u64::try_from(self.behind().as_millis()).unwrap_or(u64::MAX),
            is_behind: self.is_behind(),
            restarts: self.litestream.restarts(),
            lease_trouble: self.lease.trouble(),
            drill: None,
        }
    }
}
