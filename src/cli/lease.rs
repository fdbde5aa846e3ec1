//! The command `lease`.

use std::fmt::Write as _;

use crate::app;
use crate::cli::print;
use crate::config::Config;
use crate::error::Error;
use crate::error::Result;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Record;
use crate::settings::Section;

/// What the command is to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Give it back for a holder that is gone for good, so that the next one need not wait
    #[arg(long)]
    release: bool,
}

pub(super) async fn run<S: Section>(config: &Config<S>, arguments: &Arguments) -> Result<()> {
    if !config.replication.is_on() {
        let is_held = app::is_locked(&config.database.path)?;
        return print(if is_held {
            "on this disk: held by another process\n"
        } else {
            "on this disk: free\n"
        });
    }
    let bucket = Bucket::replica(&config.replication)?;
    let Some(record) = replication::look(&bucket).await? else {
        return print("free: nobody has ever had it\n");
    };
    if arguments.release {
        release(&bucket, &record).await?;
        return print("given back\n");
    }
    print(&text(&record))
}

fn text(record: &Record) -> String {
    let mut text = match &record.holder {
        Some(holder) => format!(
            "held by {} since {}\nreached at: {}\n",
            holder.id,
            holder.since,
            holder.addresses.join(", ")
        ),
        None => "free\n".to_owned(),
    };
    let generation = record.generation.as_deref().unwrap_or("none yet");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "epoch: {}", record.epoch);
    let _ = writeln!(text, "the data is in generation: {generation}");
    if let Some(point) = record.point {
        let _ = writeln!(text, "restored by request to: {point}");
    }
    text
}

async fn release(bucket: &Bucket, record: &Record) -> Result<()> {
    let Some(holder) = &record.holder else {
        return Err(Error::Unsound("nobody holds it".to_owned()));
    };
    if app::answers(holder).await {
        return Err(Error::Unsound(format!(
            "{} answers and holds it: stop that one, and it gives it back itself",
            holder.id
        )));
    }
    Ok(replication::release(bucket, record).await?)
}
