//! The copying without a site.

use std::time::Duration;

use crate::app::lock;
use crate::app::start::data::conflict;
use crate::app::start::data::fits;
use crate::app::start::replicating::Replicating;
use crate::app::start::seat::answers;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Fence;
use crate::database::real_path;
use crate::error::Error;
use crate::error::Result;
use crate::replication::Bucket;
use crate::replication::Candidate;
use crate::replication::Conflict;
use crate::replication::Holder;
use crate::replication::Lease;
use crate::replication::Litestream;
use crate::replication::Record;
use crate::replication::Replica;
use crate::replication::rules::Sight;
use crate::settings::Section;
use crate::shutdown;

/// Between two looks at a lease that somebody may still hold.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the last copy may take, where no platform waits.
const END: Duration = Duration::from_secs(30);

/// Copies the database to the bucket under the lease, until it is told to stop, or until everything is there.
pub(crate) async fn replicate<S: Section>(
    site: &str,
    config: &Config<S>,
    is_once: bool,
) -> Result<()> {
    let settings = &config.replication;
    if !settings.is_on() {
        let text = "replication.bucket is not set: there is nowhere to copy the database to";
        return Err(Error::Unsound(text.to_owned()));
    }
    if !config.database.path.exists() {
        return Err(Error::Missing(config.database.path.clone()));
    }
    let stop = shutdown::on_signals().map_err(|error| Error::Io("signals".to_owned(), error))?;
    Litestream::check(settings).await?;
    let _lock = lock(&config.database.path)?;
    let (bucket, database) = (Bucket::replica(settings)?, real_path(&config.database.path));
    let own = Holder::new(site, Vec::new(), settings.lease(), Clock::system().now());
    let mut candidate = Candidate::new(bucket.clone(), settings, own);
    let (lease, before) = tokio::select! {
        taken = take(&mut candidate) => taken?,
        () = stop.soon.cancelled() => return Ok(()),
    };
    let is_its = fits(&database, &before, &bucket).await;
    if !is_its.as_ref().is_ok_and(|is_its| *is_its) && settings.conflict != Conflict::Local {
        lease.release(None).await?;
        is_its?;
        return Err(conflict(&database, &before).into());
    }
    let to = (&lease, &bucket);
    let replicating = Replicating::start(&database, settings, to, &Replica::default()).await?;
    let too_long = tokio::time::sleep(Duration::from_millis(settings.restore_timeout_ms));
    let kept = tokio::select! {
        () = stop.soon.cancelled() => Ok(()),
        () = replicating.announced(&lease), if is_once => Ok(()),
        () = too_long, if is_once => {
            tracing::warn!("the first copy takes longer than a restore may: trying to finish it");
            Ok(())
        }
        Err(error) = lease.keep() => Err(error),
    };
    if let Err(error) = kept {
        replicating.kill();
        return Err(error.into());
    }
    let whole = tokio::select! {
        whole = replicating.end(END) => whole,
        () = stop.now.cancelled() => None,
    };
    let is_whole = whole.is_some();
    lease.release(whole).await?;
    if is_whole {
        return Ok(());
    }
    Err(Error::Unsound(
        "not everything is in the bucket; the log says why".to_owned(),
    ))
}

/// Takes the lease from nobody, or from a holder that is gone; one that lives is not waited for.
async fn take(candidate: &mut Candidate) -> Result<(Lease, Record)> {
    let mut first = None;
    loop {
        let look = candidate.look().await?;
        let beat = (look.record.epoch, look.record.beat);
        if let Some(holder) = look
            .record
            .holder
            .as_ref()
            .filter(|_| look.sight != Sight::Free)
        {
            if *first.get_or_insert(beat) != beat || answers(holder).await {
                return Err(Error::Held(holder.id.clone()));
            }
            if look.sight == Sight::Held {
                tracing::info!(
                    holder = holder.id,
                    "waiting whether the holder of the lease is gone"
                );
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        if let Some(lease) = candidate.take(&look, &Fence::closed()).await? {
            return Ok((lease, look.record));
        }
    }
}
