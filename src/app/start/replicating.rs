//! Litestream beside a site that is served.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::Clock;
use crate::error::Result;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Generation;
use crate::replication::Generations;
use crate::replication::Lease;
use crate::replication::Lineage;
use crate::replication::Litestream;
use crate::replication::Replica;
use crate::replication::Stopped;

/// How long until the bucket is asked again whether the first copy is there.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(100);

/// How long visitors wait for the first copy.
const FIRST_COPY: Duration = Duration::from_secs(2);

/// How often it is looked whether the record names the generation by now.
const ANNOUNCED_PAUSE: Duration = Duration::from_millis(20);

/// How often generations that nobody needs are deleted.
const PRUNE_PAUSE: Duration = Duration::from_hours(6);

/// Between two batches of that.
const PRUNE_NEXT: Duration = Duration::from_secs(10);

/// The copying to a generation of one's own.
#[derive(Debug)]
pub(super) struct Replicating {
    litestream: Arc<Litestream>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Replicating {
    /// Begins a generation with the whole database.
    pub(super) async fn start(
        database: &Path,
        settings: &replication::Settings,
        (lease, bucket): (&Lease, &Bucket),
        replica: &Replica,
    ) -> Result<Self> {
        let epoch = lease.record().await.epoch;
        let generation = Generation::new(epoch, Clock::system().now()).to_string();
        // Before the first byte is in the bucket: from then on the file and the generation belong together.
        Lineage::add(database, &generation, epoch)?;
        let litestream = Litestream::start(settings, database, &generation).await?;
        let litestream = Arc::new(litestream);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (running, token) = (Arc::clone(&litestream), stop.clone());
        tasks.spawn(async move { running.run(token).await });
        replica.attach(Arc::clone(&litestream), lease.clone(), settings);
        let (watching, token) = (replica.clone(), stop.clone());
        tasks.spawn(async move {
            token.run_until_cancelled(watching.watch()).await;
        });
        let announce = announce(lease.clone(), bucket.clone(), settings.clone(), generation);
        let token = stop.clone();
        tasks.spawn(async move {
            token.run_until_cancelled(announce).await;
        });
        Ok(Self {
            litestream,
            tasks,
            stop,
        })
    }

    /// The process, for who has to end it at once.
    pub(super) fn litestream(&self) -> Arc<Litestream> {
        Arc::clone(&self.litestream)
    }

    /// Waits a moment until the record names this generation, since a disk that dies before takes all with it.
    ///
    /// A large database takes longer than visitors are to wait: it is served before, and `/ready` says so.
    pub(super) async fn first_copy(&self, lease: &Lease) {
        let copied = async {
            // At once, and not when Litestream looks next. Nothing is written yet.
            if let Err(error) = self.litestream.sync(FIRST_COPY).await {
                tracing::debug!(%error, "the first copy takes its time");
            }
            self.announced(lease).await;
        };
        let copied = tokio::time::timeout(FIRST_COPY, copied).await;
        if copied.is_err() {
            tracing::warn!(
                "serving, and the first copy is not in the bucket yet: until it is, what is written is on this disk alone"
            );
        }
    }

    /// Waits until the record names this generation: everything that was there at the start is in the bucket.
    pub(super) async fn announced(&self, lease: &Lease) {
        let own = self.litestream.generation();
        while lease.record().await.generation.as_deref() != Some(own) {
            tokio::time::sleep(ANNOUNCED_PAUSE).await;
        }
    }

    /// Copies what is new for the last time, within `time`, and ends; gives the generation if everything is in it.
    pub(super) async fn end(mut self, time: Duration) -> Option<String> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        match self.litestream.stop(time).await {
            Stopped::Synced { .. } => Some(self.litestream.generation().to_owned()),
            Stopped::NotSynced(_) => None,
        }
    }

    /// Ends at once: what is on this disk is not the site's any more.
    pub(super) fn kill(self) {
        self.litestream.kill();
        self.stop.cancel();
    }
}

/// Says in the record that the generation is whole, once it is; then deletes those that nobody needs, now and then.
async fn announce(
    lease: Lease,
    bucket: Bucket,
    settings: replication::Settings,
    generation: String,
) {
    while !is_begun(&bucket, &generation).await {
        tokio::time::sleep(ANNOUNCE_PAUSE).await;
    }
    while let Err(error) = lease.set_generation(&generation).await {
        tracing::debug!(%error, "the record does not name the generation yet");
        tokio::time::sleep(ANNOUNCE_PAUSE).await;
    }
    tracing::info!(
        generation,
        "everything is in the bucket, and what is new follows"
    );
    loop {
        let pause = match prune(&bucket, &settings, &generation).await {
            Ok(true) => PRUNE_NEXT,
            Ok(false) => PRUNE_PAUSE,
            Err(error) => {
                tracing::warn!(%error, "generations that nobody needs could not be deleted");
                PRUNE_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether the first object of a generation is in the bucket: it has the whole database, and is there as a whole.
async fn is_begun(bucket: &Bucket, generation: &str) -> bool {
    let Ok(generation) = generation.parse::<Generation>() else {
        return false;
    };
    match bucket.list_some(&generation.folder(), 1).await {
        Ok(objects) => !objects.is_empty(),
        Err(error) => {
            tracing::debug!(%error, "it is not known whether the first copy is in the bucket");
            false
        }
    }
}

/// Deletes some of the generations that nobody needs; says whether there are more.
async fn prune(
    bucket: &Bucket,
    settings: &replication::Settings,
    generation: &str,
) -> replication::Result<bool> {
    let keep = SignedDuration::from_hours(settings.keep_hours.into());
    let generations = Generations::new(bucket.clone());
    let pruned = generations
        .prune(keep, generation, Clock::system().now())
        .await?;
    for gone in &pruned.generations {
        tracing::info!(generation = %gone, "a generation that nobody needs is deleted");
    }
    Ok(pruned.is_more)
}
