//! The right to serve: the lock on a disk, and the lease of a bucket.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::lock::try_lock;
use crate::app::start::Container;
use crate::app::start::control::Answer;
use crate::error::Result;
use crate::http::Peer;
use crate::http::Role;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Candidate;
use crate::replication::ConditionalWrites;
use crate::replication::Holder;
use crate::replication::Lease;
use crate::replication::Look;
use crate::replication::Record;
use crate::replication::Settings;
use crate::replication::Source;
use crate::replication::rules::Sight;
use crate::replication::volume;

/// How long until a holder is looked for again that could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the next container is asked whether it knows.
const TOLD_PAUSE: Duration = Duration::from_millis(10);

/// On a disk that is cheap.
const DISK_PAUSE: Duration = Duration::from_millis(100);

/// The right to serve the site.
#[derive(Debug)]
pub(super) struct Seat {
    /// Held as long as this process writes; the operating system takes it back from one that dies.
    lock: Option<File>,
    database: PathBuf,
    /// None where nothing is replicated.
    pub(super) lease: Option<Lease>,
    /// The record as the holder before has left it.
    pub(super) before: Record,
    keeping: Option<Keeping>,
}

/// The task that renews the lease as long as the seat is taken.
#[derive(Debug)]
struct Keeping {
    task: JoinHandle<()>,
    lost: watch::Receiver<Option<String>>,
}

impl Keeping {
    fn start(lease: Lease) -> Self {
        let (tell, lost) = watch::channel(None);
        let task = tokio::spawn(async move {
            let Err(error) = lease.keep().await;
            tell.send_replace(Some(error.to_string()));
        });
        Self { task, lost }
    }
}

impl Seat {
    /// Waits until this container may serve; meanwhile requests go to the one that does.
    pub(super) async fn take(
        container: &Container,
        bucket: Option<&Bucket>,
        settings: &Settings,
    ) -> Result<Self> {
        // On this disk first: who has that may find that the lease's holder was here, and is gone.
        let lock = take_lock(container).await?;
        let on_disk = volume::read_holder(&container.database);
        let Some(bucket) = bucket else {
            let before = on_disk.unwrap_or_default();
            volume::write_holder(&container.database, &before.taken_by(container.own.clone()))?;
            return Ok(Self::new(container, lock, None, before));
        };
        if settings.conditional_writes == ConditionalWrites::Require {
            bucket.probe_conditional_writes().await?;
        } else {
            tracing::warn!(
                "without conditional writes two containers may write at once: never let them overlap"
            );
        }
        let gone = on_disk
            .and_then(|record| record.holder)
            .map(|holder| holder.id);
        let candidate = Candidate::new(bucket.clone(), settings, container.own.clone());
        let has_data = container.database.metadata().is_ok_and(|it| it.len() > 0);
        let is_free = has_data || settings.allow_empty || settings.point().is_some();
        let must_be_empty = (!is_free).then_some(bucket);
        let (lease, before) = take_lease(container, candidate, (gone, must_be_empty)).await?;
        volume::write_holder(&container.database, &lease.record().await)?;
        Ok(Self::new(container, lock, Some(lease), before))
    }

    fn new(container: &Container, lock: File, lease: Option<Lease>, before: Record) -> Self {
        container.desk.holds();
        Self {
            lock: Some(lock),
            database: container.database.clone(),
            keeping: lease.clone().map(Keeping::start),
            lease,
            before,
        }
    }

    /// Waits until somebody else has it, and says who.
    pub(super) async fn lost(&self) -> replication::Error {
        let Some(keeping) = &self.keeping else {
            return std::future::pending().await;
        };
        let mut lost = keeping.lost.clone();
        match lost
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone())
        {
            Ok(reason) => replication::Error::Lost(reason.unwrap_or_default()),
            Err(_) => replication::Error::Lost("nothing renews it any more".to_owned()),
        }
    }

    /// Gives it back: the lease first, so that who waits for the lock finds it free.
    ///
    /// `whole` is the generation that everything is in by now, if it is.
    pub(super) async fn leave(mut self, whole: Option<String>, within: Duration) {
        if let Some(keeping) = self.keeping.take() {
            keeping.task.abort();
        }
        if let Some(lease) = &self.lease {
            match tokio::time::timeout(within, lease.release(whole)).await {
                Ok(Ok(())) => tracing::info!("the lease is given back"),
                Ok(Err(replication::Error::Lost(_))) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease could not be given back: it runs out by itself");
                }
                Err(_) => tracing::warn!(
                    "the lease could not be given back in time: it runs out by itself"
                ),
            }
        }
        drop(self.lock.take());
        tracing::debug!(database = %self.database.display(), "the lock is given back");
    }
}

async fn take_lock(container: &Container) -> Result<File> {
    loop {
        if let Some(lock) = try_lock(&container.database)? {
            return Ok(lock);
        }
        let holder = volume::read_holder(&container.database).and_then(|record| record.holder);
        stand_by(container, holder.as_ref(), DISK_PAUSE).await;
    }
}

/// In `must_be_empty` there may be no data where there is no record.
///
/// `gone` is a holder that is known to write no more: it was on this disk, of which the lock is ours now.
async fn take_lease(
    container: &Container,
    mut candidate: Candidate,
    (mut gone, must_be_empty): (Option<String>, Option<&Bucket>),
) -> Result<(Lease, Record)> {
    let mut has_seen = false;
    loop {
        let look = match candidate.look().await {
            Ok(look) => look,
            // Who waits already goes on waiting: the holder may have the bucket back first.
            Err(error @ replication::Error::Unreachable(_)) if has_seen => {
                tracing::warn!(%error, "waiting for the bucket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        has_seen = true;
        if !may_take(&mut candidate, &look, gone.as_deref()).await {
            let left = stand_by(container, look.record.holder.as_ref(), PAUSE).await;
            gone = left.or(gone);
            continue;
        }
        if let Some(bucket) = must_be_empty.filter(|_| look.is_first()) {
            // Before a record is made anew: the next try would find it, and nothing amiss.
            Source::all(bucket, &look.record, None).await?;
        }
        container.front.hold();
        let taken = match candidate.take(&look, &container.fence).await {
            // It may have been taken all the same: the next look tells.
            Err(error @ replication::Error::Unreachable(_)) => {
                tracing::warn!(%error, "the lease could not be taken yet");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            taken => taken?,
        };
        if let Some(lease) = taken {
            let record = lease.record().await;
            tracing::info!(epoch = record.epoch, "this container has the lease");
            return Ok((lease, look.record));
        }
    }
}

/// Whether the lease may be taken after what was seen. A holder that answers has not gone, whatever it seems.
async fn may_take(candidate: &mut Candidate, look: &Look, gone: Option<&str>) -> bool {
    let Some(holder) = &look.record.holder else {
        return true;
    };
    if look.sight == Sight::Held && gone != Some(&holder.id) {
        return false;
    }
    if answers(holder).await {
        candidate.is_alive();
        return false;
    }
    tracing::warn!(
        holder = holder.id,
        since = %holder.since,
        "the holder of the lease is gone without giving it back: taking it"
    );
    true
}

/// Whether this holder answers, and says that it holds the lease.
pub(crate) async fn answers(holder: &Holder) -> bool {
    let Ok(answer) = peer(holder).ask().await else {
        return false;
    };
    parse(&answer, holder).is_some_and(|answer| answer.holds)
}

/// Gives the lease back that was being taken when that was broken off, if it was taken.
pub(super) async fn abandon(bucket: &Bucket, own: &str, within: Duration) {
    let given_back = async {
        let record = replication::look(bucket).await?;
        let is_own = |record: &Record| record.holder.as_ref().is_some_and(|it| it.id == own);
        match record.filter(is_own) {
            Some(record) => replication::release(bucket, &record).await,
            None => Ok(()),
        }
    };
    match tokio::time::timeout(within, given_back).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "it is not known whether the lease was taken"),
        Err(_) => tracing::debug!("it is not known whether the lease was taken"),
    }
}

/// Waits until the next container knows that this one has left, so that what is passed on to it does not come back.
///
/// One that does not answer is not waited for: what does not reach it is held here.
pub(super) async fn until_it_holds(next: &Holder) {
    let told = async {
        while let Ok(answer) = peer(next).ask().await {
            if parse(&answer, next).is_none_or(|answer| !answer.passes) {
                return;
            }
            tokio::time::sleep(TOLD_PAUSE).await;
        }
    };
    // The time is only for one that hangs.
    let _ = tokio::time::timeout(PAUSE, told).await;
}

/// Passes requests on to the holder until it says that it has left, or it is worth looking again.
///
/// Gives its id if it says that it writes no more.
async fn stand_by(
    container: &Container,
    holder: Option<&Holder>,
    pause: Duration,
) -> Option<String> {
    let Some(holder) = holder else {
        container.front.hold();
        tokio::time::sleep(pause).await;
        return None;
    };
    let peer = peer(holder);
    container.is_standby(holder, &peer);
    let own = serde_json::to_string(&container.own).expect("names and addresses are JSON");
    let answer = match peer.wait(own).await {
        Ok(answer) => parse(&answer, holder),
        Err(error) => {
            tracing::debug!(%error, "the holder cannot be asked");
            None
        }
    };
    if answer.as_ref().is_some_and(|answer| answer.has_left) {
        container.front.hold();
        container.set(Role::Taking);
        return Some(holder.id.clone());
    }
    tokio::time::sleep(pause).await;
    None
}

fn parse(answer: &str, holder: &Holder) -> Option<Answer> {
    let answer = serde_json::from_str::<Answer>(answer).ok()?;
    (answer.id == holder.id).then_some(answer)
}

fn peer(holder: &Holder) -> Peer {
    Peer::new(holder.addresses.clone(), &holder.key)
}
