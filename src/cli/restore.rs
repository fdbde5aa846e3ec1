//! The command `restore`.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

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
use crate::error::Result;
use crate::replication::Snapshots;
use crate::settings::Section;

/// What is put in the place of the database.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// The file to take, which `backup` or `recover` has made
    file: Option<PathBuf>,
    /// The snapshot to take, which `backup --list` names, or latest
    #[arg(long, value_name = "NAME")]
    from_snapshot: Option<String>,
}

pub(super) async fn run<S: Section>(config: &Config<S>, arguments: &Arguments) -> Result<()> {
    let _lock = app::lock(&config.database.path)?;
    match (&arguments.file, &arguments.from_snapshot) {
        (Some(file), _) => put(config, file, &file.display().to_string()).await,
        (None, Some(name)) => from_snapshot(config, name).await,
        // One of them is required.
        (None, None) => Ok(()),
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
    if config.cache.path.exists() {
        // What it holds was made of the old file. First, since a kill must not leave it beside the new one.
        let cache = Cache::open(&config.cache, clock).await;
        cache.clear().await;
        cache.close().await;
    }
    let restored = prepared.finish()?;
    let mut text = format!(
        "{}: restored from {name} ({}, verified)\n",
        restored.path.display(),
        megabytes(restored.bytes)
    );
    // Writing to a String cannot fail.
    for path in restored.kept {
        let _ = writeln!(text, "what was there is kept: {}", path.display());
    }
    for line in restored.violations {
        let _ = writeln!(text, "as in the file it was restored from: {line}");
    }
    print(&text)
}
