//! The command `restore`.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::app;
use crate::cache::Cache;
use crate::cli::copying::Meter;
use crate::cli::copying::SharedMeter;
use crate::cli::copying::megabytes;
use crate::cli::print;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Restore;
use crate::database::real_path;
use crate::error::Error;
use crate::error::Result;
use crate::replication;
use crate::replication::Brought;
use crate::replication::Bucket;
use crate::replication::Litestream;
use crate::replication::Record;
use crate::replication::Snapshots;
use crate::replication::Source;
use crate::settings::Section;

/// What is put in the place of the database: the replica in the bucket, if nothing else is named.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to take, which `backup` or `recover` has made
    #[arg(conflicts_with_all = ["from_snapshot", "at", "generation"])]
    file: Option<PathBuf>,
    /// The snapshot to take, which `backup --list` names, or latest
    #[arg(long, value_name = "NAME", conflicts_with_all = ["at", "generation"])]
    from_snapshot: Option<String>,
    /// The replica as it was at this time, such as 2026-11-21T07:30:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The replica's generation to take, in place of the one that has the data
    #[arg(long, value_name = "NAME")]
    generation: Option<String>,
}

pub(super) async fn run<S: Section>(config: &Config<S>, arguments: &Arguments) -> Result<()> {
    let _lock = app::lock(&config.database.path)?;
    match (&arguments.file, &arguments.from_snapshot) {
        (Some(file), _) => put(config, file, &file.display().to_string()).await,
        (None, Some(name)) => from_snapshot(config, name).await,
        (None, None) => from_replica(config, arguments).await,
    }
}

async fn from_replica<S: Section>(config: &Config<S>, arguments: &Arguments) -> Result<()> {
    let settings = &config.replication;
    if !settings.is_on() {
        let text = "replication.bucket is not set, so there is no replica: name a FILE, or --from-snapshot";
        return Err(Error::Unsound(text.to_owned()));
    }
    Litestream::check(settings).await?;
    let bucket = Bucket::replica(settings)?;
    let record = replication::look(&bucket).await?.unwrap_or_default();
    refuse_while_held(&record).await?;
    let sources = match &arguments.generation {
        Some(name) => vec![Source::named(name)?],
        None => Source::all(&bucket, &record, arguments.at).await?,
    };
    let meter = SharedMeter::start();
    let brought = replication::bring_back(
        (settings, &config.database),
        &sources,
        (&record, arguments.at),
        |progress| meter.show_restore(progress),
        async || Cache::clear_at(&config.cache, Clock::system()).await,
    )
    .await;
    drop(meter);
    print(&text(&config.database.path, &brought?, arguments.at))
}

/// What a holder writes from now on would not be in what is restored.
async fn refuse_while_held(record: &Record) -> Result<()> {
    let Some(holder) = &record.holder else {
        return Ok(());
    };
    if app::answers(holder).await {
        return Err(Error::Held(holder.id.clone()));
    }
    tracing::warn!(
        holder = holder.id,
        "the holder of the lease does not answer: if it lives, what it writes from now on is not in this copy"
    );
    Ok(())
}

fn text(path: &Path, brought: &Brought, at: Option<Timestamp>) -> String {
    let mut text = format!(
        "{}: restored from the replica ({}{}, {}, verified)\n",
        path.display(),
        brought.generation,
        at.map(|at| format!(" as of {at}")).unwrap_or_default(),
        megabytes(brought.restored.bytes)
    );
    add_kept(&mut text, &brought.kept);
    text
}

/// Adds where the files are that were in its place.
fn add_kept(text: &mut String, kept: &[PathBuf]) {
    for path in kept {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "what was there is kept: {}", path.display());
    }
}

async fn from_snapshot<S: Section>(config: &Config<S>, name: &str) -> Result<()> {
    let snapshots = Snapshots::new(&config.snapshots, &[])?;
    let snapshot = snapshots.find(name).await?;
    let name = format!("the snapshot {}", snapshot.name);
    let meter = SharedMeter::start();
    let beside = real_path(&config.database.path);
    let put = async |file: &Path| put(config, file, &name).await;
    snapshots
        .fetch(&snapshot, &beside, move |stage| meter.show(stage), put)
        .await
}

/// Puts a copy of the file in place, and tells of it by `name`.
async fn put<S: Section>(config: &Config<S>, from: &Path, name: &str) -> Result<()> {
    let clock = Clock::system();
    let mut meter = Meter::start();
    let settings = &config.database;
    let prepared = Restore::prepare(settings, from, clock.now(), |progress| meter.show(progress));
    drop(meter);
    let prepared = prepared?;
    // What it holds was made of the old file. First, since a kill must not leave it beside the new one.
    Cache::clear_at(&config.cache, clock).await;
    let restored = prepared.finish()?;
    let mut text = format!(
        "{}: restored from {name} ({}, verified)\n",
        restored.path.display(),
        megabytes(restored.bytes)
    );
    add_kept(&mut text, &restored.kept);
    for line in restored.violations {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "as in the file it was restored from: {line}");
    }
    print(&text)
}
