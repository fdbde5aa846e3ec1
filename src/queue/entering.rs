//! How a worker comes among those of its file.

use std::sync::Arc;

use crate::database;
use crate::queue::Error;
use crate::queue::Worker;
use crate::queue::presence::Presence;
use crate::queue::pulse::tell_of;
use crate::queue::store::workers;
use crate::queue::worker::REFUSED_WAIT;

impl<C: Clone + Send + Sync + 'static> Worker<C> {
    /// Enters this worker among those of the file, and puts back what is left of the dead.
    pub(super) async fn enter(&self) -> (Option<Presence>, i64) {
        let mut is_told = false;
        loop {
            let error = match self.try_to_enter().await {
                Ok(entered) => return entered,
                Err(error) => error,
            };
            // That one is said already, and to be mended first.
            let is_known = matches!(error, Error::Database(database::Error::Damaged));
            if !is_told && !is_known {
                is_told = true;
                tracing::error!(%error, "no job is run yet: the worker cannot be entered");
            }
            tokio::time::sleep(REFUSED_WAIT).await;
        }
    }

    async fn try_to_enter(&self) -> Result<(Option<Presence>, i64), Error> {
        let presence = Presence::open(self.queue.database.path());
        let presence = presence.inspect_err(|error| {
            tracing::warn!(%error, "it is not known whether other processes run jobs; none is taken for dead before its time");
        });
        let presence = presence.ok();
        let is_alone = presence
            .as_ref()
            .is_some_and(|it| it.is_alone().unwrap_or(false));
        let presence = if is_alone {
            presence
        } else {
            share(presence).await
        };
        let (name, kinds) = (name(), self.kinds_json());
        let entered = self.queue.database.write(move |tx| {
            let rescued = if is_alone {
                workers::clear(tx)?
            } else {
                workers::orphans(tx)?
            };
            Ok((rescued, workers::enter(tx, &name, &kinds)?))
        });
        let (rescued, worker) = entered.await?;
        tell_of(rescued);
        self.queue.wake.tell();
        // Nothing is claimed before: in this moment another one may be alone.
        let presence = if is_alone {
            share(presence).await
        } else {
            presence
        };
        Ok((presence, worker))
    }
}

/// Shares the lock of those who run jobs; off the runtime's threads, since another one may be alone for a moment.
async fn share(presence: Option<Presence>) -> Option<Presence> {
    let presence = presence?;
    let shared = tokio::task::spawn_blocking(move || {
        presence
            .share()
            .inspect_err(|error| tracing::warn!(%error, "the lock of those who run jobs"))
            .map(|()| presence)
    });
    shared.await.ok()?.ok()
}

/// What this process is called among the workers.
pub(super) fn name() -> Arc<str> {
    format!("process {}", std::process::id()).into()
}
