//! The lease in the bucket: who may write the replica.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::MutexGuard;
use tokio::time::MissedTickBehavior;

use crate::database::Fence;
use crate::replication::Bucket;
use crate::replication::ConditionalWrites;
use crate::replication::Error;
use crate::replication::Generation;
use crate::replication::Generations;
use crate::replication::Holder;
use crate::replication::Outage;
use crate::replication::Record;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::Version;
use crate::replication::rules;
use crate::replication::rules::Sight;
use crate::replication::rules::Watch;

/// The object that the record is in, in the site's folder.
const RECORD: &str = "lease.json";

/// How often a write is tried that meets an own one.
const TRIES: u32 = 3;

/// Without conditional writes: how long after a write it is looked whether it is still there.
const SETTLE: Duration = Duration::from_secs(2);

/// One who wants the lease, and watches who has it.
#[derive(Debug)]
pub struct Candidate {
    bucket: Bucket,
    lease: Duration,
    outage: Outage,
    is_conditional: bool,
    own: Holder,
    watch: Watch,
}

/// What a candidate saw when it looked.
#[derive(Clone, Debug)]
pub struct Look {
    /// The record as it is; that of a site that never was, where there is none.
    pub record: Record,
    /// What the rules make of it.
    pub sight: Sight,
    version: Option<Version>,
}

impl Look {
    /// Whether there is no record: nobody has ever held the lease, or the record was deleted.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.version.is_none()
    }
}

impl Candidate {
    /// A candidate that will be the holder `own`.
    #[must_use]
    pub fn new(bucket: Bucket, settings: &Settings, own: Holder) -> Self {
        Self {
            bucket,
            lease: settings.lease(),
            outage: settings.outage,
            is_conditional: settings.conditional_writes == ConditionalWrites::Require,
            own,
            watch: Watch::default(),
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    ///
    /// When the bucket cannot be reached or refuses, or a newer program has written the record.
    pub async fn look(&mut self) -> Result<Look> {
        let found = read(&self.bucket).await?;
        let is_there = found.is_some();
        let (record, version) = match found {
            Some((record, version)) => (record, Some(version)),
            None => (Record::new(), None),
        };
        if let Some(site) = record.site.as_ref().filter(|site| **site != self.own.site) {
            return Err(Error::Refused(format!(
                "the replica there is that of the site {site:?}, and this is {:?}: \
                 give this one a replication.path of its own",
                self.own.site
            )));
        }
        let sight = if is_there {
            self.watch.look(&record, Fence::now(), self.lease)
        } else {
            Sight::Free
        };
        Ok(Look {
            record,
            sight,
            version,
        })
    }

    /// Says that the holder has answered, and so is to be waited for as long again.
    pub fn is_alive(&mut self) {
        self.watch.is_alive(Fence::now());
    }

    /// Takes the lease after the record that was seen, if that is still the record; `None` if it is not.
    ///
    /// The fence is extended, and from then on by [`Lease::keep`].
    ///
    /// # Errors
    ///
    /// When the bucket cannot be reached or refuses.
    pub async fn take(&self, look: &Look, fence: &Fence) -> Result<Option<Lease>> {
        let mut record = look.record.taken_by(self.own.clone());
        if look.is_first() {
            // The record may have been deleted, and no epoch may come twice.
            let generations = Generations::new(self.bucket.clone()).list().await?;
            let last = generations.iter().map(Generation::epoch).max();
            record.epoch = record.epoch.max(last.unwrap_or(0) + 1);
        }
        let sent = Fence::now();
        let written = if self.is_conditional {
            write(&self.bucket, &record, look.version.as_ref()).await
        } else {
            self.write_and_look(&record).await
        };
        let (record, version) = match written {
            Ok(version) => (record, version),
            // Of an own write the answer may have been lost.
            Err(Error::Conflict(_)) => match read(&self.bucket).await? {
                Some((found, version)) if is_same_holder(&found, &record) => (found, version),
                _ => return Ok(None),
            },
            Err(error) => return Err(error),
        };
        fence.extend(rules::end_of_right(sent, self.lease));
        let inner = Inner {
            bucket: self.bucket.clone(),
            lease: self.lease,
            outage: self.outage,
            is_conditional: self.is_conditional,
            fence: fence.clone(),
            held: AsyncMutex::new(Held { record, version }),
            trouble: Mutex::default(),
        };
        Ok(Some(Lease(Arc::new(inner))))
    }

    /// The best that can be done where a write has no condition: whoever wrote last has it.
    async fn write_and_look(&self, record: &Record) -> Result<Version> {
        self.bucket.put(RECORD, encode(record)).await?;
        tokio::time::sleep(SETTLE).await;
        match read(&self.bucket).await? {
            Some((found, version)) if found == *record => Ok(version),
            _ => Err(Error::Conflict(RECORD.to_owned())),
        }
    }
}

/// The lease, held by this process. Clones are the same lease.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    lease: Duration,
    outage: Outage,
    is_conditional: bool,
    fence: Fence,
    held: AsyncMutex<Held>,
    /// Why it could not be renewed, since the last time that it could.
    trouble: Mutex<Option<String>>,
}

struct Held {
    record: Record,
    version: Version,
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Lease {
    /// The record as this process has written it last.
    pub async fn record(&self) -> Record {
        self.0.held.lock().await.record.clone()
    }

    /// Why it could not be renewed the last time, if it could not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.0.trouble).clone()
    }

    /// Renews it, as long as that can be; returns when it is lost, and the fence is shut then.
    ///
    /// # Errors
    ///
    /// Always: [`Error::Lost`], with who has it now.
    pub async fn keep(&self) -> Result<std::convert::Infallible> {
        // Counted from the start of each try: one that hangs must not use up the time of the next.
        let mut due = tokio::time::interval(rules::renewal(self.0.lease));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        due.tick().await;
        loop {
            due.tick().await;
            if let Err(error @ Error::Lost(_)) = self.renew().await {
                self.0.fence.shut();
                return Err(error);
            }
        }
    }

    /// Renews it once. Where the bucket is out of reach, the settings say whether this process goes on without.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when somebody else has it; else why it could not be renewed, which may be better the next time.
    pub async fn renew(&self) -> Result<()> {
        let tried = Fence::now();
        // A try that takes longer than until the next one is due is of no use. What it has sent may still arrive.
        let limit = rules::renewal(self.0.lease);
        let renewed = tokio::time::timeout(limit, self.try_to_renew()).await;
        let renewed = renewed
            .unwrap_or_else(|_| Err(Error::Unreachable(format!("no answer within {limit:?}"))));
        match &renewed {
            Ok(()) => {
                if let Some(trouble) = lock(&self.0.trouble).take() {
                    tracing::info!(trouble, "the lease is renewed again");
                }
            }
            Err(Error::Lost(_)) => {}
            Err(error) => {
                self.tell_of(error);
                let is_outage = matches!(error, Error::Unreachable(_) | Error::Refused(_));
                if is_outage && self.0.outage == Outage::Serve {
                    // Never opened like this: another one may have taken over while this process stood still.
                    let end = rules::end_of_right(tried, self.0.lease);
                    self.0.fence.keep_open(end);
                }
            }
        }
        renewed
    }

    async fn try_to_renew(&self) -> Result<()> {
        let mut held = self.0.held.lock().await;
        self.write(&mut held, |next| next).await
    }

    fn tell_of(&self, error: &Error) {
        let trouble = lock(&self.0.trouble).replace(error.to_string());
        if trouble.is_some() {
            tracing::debug!(%error, "the lease is still not renewed");
        } else if self.0.outage == Outage::Serve {
            tracing::warn!(%error, "the lease cannot be renewed: going on: another one that reaches the bucket takes it only if this one does not answer");
        } else {
            tracing::warn!(%error, "the lease cannot be renewed: this process stops writing when it runs out");
        }
    }

    /// Records which generation has all the data from now on.
    ///
    /// # Errors
    ///
    /// As [`Lease::renew`].
    pub async fn set_generation(&self, generation: &str) -> Result<()> {
        let mut held = self.0.held.lock().await;
        let change = |next| Record {
            generation: Some(generation.to_owned()),
            ..next
        };
        self.write(&mut held, change).await
    }

    /// Gives it back, so that another one may take it at once; this process must not write any more.
    ///
    /// `whole` is the generation that everything is in by now, if it is.
    ///
    /// # Errors
    ///
    /// When it is lost already, or the bucket cannot be reached: it runs out by itself then.
    pub async fn release(&self, whole: Option<String>) -> Result<()> {
        self.0.fence.shut();
        let mut held = self.0.held.lock().await;
        let change = |next: Record| Record {
            holder: None,
            generation: whole.clone().or(next.generation),
            ..next
        };
        self.write(&mut held, change).await
    }

    /// Records the point in time that was restored by request.
    ///
    /// # Errors
    ///
    /// As [`Lease::renew`].
    pub async fn set_point(&self, point: Option<jiff::Timestamp>) -> Result<()> {
        let mut held = self.0.held.lock().await;
        self.write(&mut held, |next| Record { point, ..next }).await
    }

    /// Writes what `change` makes of the record, with a beat that no try before has had.
    ///
    /// Whoever watches takes two records with one beat for one, and one that was sent and not answered may be there.
    async fn write(
        &self,
        held: &mut MutexGuard<'_, Held>,
        change: impl Fn(Record) -> Record,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let next = change(held.record.renewed());
            held.record.beat = next.beat;
            let sent = Fence::now();
            match self.replace(&next, &held.version).await {
                Ok(version) => {
                    if next.holder.is_some() {
                        let end = rules::end_of_right(sent, self.0.lease);
                        self.0.fence.extend(end);
                    }
                    held.record = next;
                    held.version = version;
                    return Ok(());
                }
                Err(Error::Conflict(_)) => self.look_again(held).await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unreachable(format!(
            "{RECORD} changes while it is written"
        )))
    }

    async fn replace(&self, next: &Record, version: &Version) -> Result<Version> {
        if self.0.is_conditional {
            return write(&self.0.bucket, next, Some(version)).await;
        }
        match read(&self.0.bucket).await? {
            Some((found, _)) if found.epoch == next.epoch => {
                self.0.bucket.put(RECORD, encode(next)).await
            }
            _ => Err(Error::Conflict(RECORD.to_owned())),
        }
    }

    /// What is there is not what was expected: an own write of which no answer came, nothing at all, or another holder.
    async fn look_again(&self, held: &mut MutexGuard<'_, Held>) -> Result<()> {
        let found = match read(&self.0.bucket).await {
            // Of a newer program, which has taken over, or of nobody's that this one knows.
            Err(Error::Restore(reason)) => return Err(Error::Lost(reason)),
            found => found?,
        };
        match found {
            Some((found, version)) if is_same_holder(&found, &held.record) => {
                held.record.beat = held.record.beat.max(found.beat);
                held.version = version;
                Ok(())
            }
            Some((found, _)) => Err(Error::Lost(match found.holder {
                Some(holder) => format!("{} has it since {}", holder.id, holder.since),
                None => format!(
                    "another holder had it (epoch {}) and gave it back",
                    found.epoch
                ),
            })),
            None => {
                tracing::error!(
                    "{RECORD} was deleted from the bucket: it is written again, as this site runs"
                );
                held.version = self.0.bucket.create(RECORD, encode(&held.record)).await?;
                Ok(())
            }
        }
    }
}

fn is_same_holder(one: &Record, other: &Record) -> bool {
    let id = |record: &Record| record.holder.as_ref().map(|holder| holder.id.clone());
    one.epoch == other.epoch && id(one) == id(other)
}

async fn read(bucket: &Bucket) -> Result<Option<(Record, Version)>> {
    let Some((bytes, version)) = bucket.get(RECORD).await? else {
        return Ok(None);
    };
    let record =
        Record::parse(&bytes).map_err(|reason| Error::Restore(format!("{RECORD} {reason}")))?;
    Ok(Some((record, version)))
}

/// Reads the record of a site, for people to see.
///
/// # Errors
///
/// When the bucket cannot be reached or refuses, or a newer program has written the record.
pub async fn look(bucket: &Bucket) -> Result<Option<Record>> {
    Ok(read(bucket).await?.map(|(record, _)| record))
}

/// Gives the lease back for a holder that is gone; it is written only over the `record` that was seen.
///
/// # Errors
///
/// [`Error::Conflict`] when the record has changed since; when the bucket cannot be reached or refuses.
pub async fn release(bucket: &Bucket, record: &Record) -> Result<()> {
    match read(bucket).await? {
        Some((found, version)) if found == *record => {
            write(bucket, &record.released(), Some(&version))
                .await
                .map(drop)
        }
        _ => Err(Error::Conflict(RECORD.to_owned())),
    }
}

async fn write(bucket: &Bucket, record: &Record, version: Option<&Version>) -> Result<Version> {
    match version {
        Some(version) => bucket.replace(RECORD, encode(record), version).await,
        None => bucket.create(RECORD, encode(record)).await,
    }
}

fn encode(record: &Record) -> bytes::Bytes {
    record.to_json().into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
