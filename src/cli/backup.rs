//! The command `backup`.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;

use crate::app::App;
use crate::cli::copying::Meter;
use crate::cli::copying::SharedMeter;
use crate::cli::copying::megabytes;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::replication::Snapshots;
use crate::settings::Section;

/// Where the copy goes.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// The file to make
    file: Option<PathBuf>,
    /// Make a snapshot in the bucket of `[snapshots]`
    #[arg(long)]
    to_bucket: bool,
    /// List the snapshots in that bucket, and make none
    #[arg(long)]
    list: bool,
}

pub(super) async fn run<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: &Arguments,
) -> Result<()> {
    match &arguments.file {
        Some(file) => to_file(config, file).await,
        None if arguments.list => list(config).await,
        None => to_bucket(app, config).await,
    }
}

async fn to_file<S: Section>(config: &Config<S>, to: &Path) -> Result<()> {
    let database = open_existing(config)?;
    let mut meter = Meter::start();
    let made = database
        .backup(to, move |progress| meter.show(progress))
        .await;
    database.close().await;
    let made = made?;
    let mut text = format!(
        "{}: {} in {:.1} s, verified\n",
        to.display(),
        megabytes(made.bytes),
        made.time.as_secs_f64()
    );
    for line in made.violations {
        text.push_str("  as in the database itself: ");
        text.push_str(&line);
        text.push('\n');
    }
    print(&text)
}

async fn to_bucket<S: Section>(app: &App<S>, config: &Config<S>) -> Result<()> {
    let snapshots = Snapshots::new(&config.snapshots, app.sets())?;
    let database = open_existing(config)?;
    let meter = SharedMeter::start();
    let made = snapshots
        .make(&database, move |stage| meter.show(stage))
        .await;
    database.close().await;
    let made = made?;
    print(&format!(
        "{}: {}, packed {}, verified\n",
        made.name,
        megabytes(made.bytes),
        megabytes(made.packed_bytes)
    ))
}

async fn list<S: Section>(config: &Config<S>) -> Result<()> {
    let mut text = String::new();
    for snapshot in Snapshots::new(&config.snapshots, &[])?.list().await? {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {:>12} packed {:>12}",
            snapshot.name,
            megabytes(snapshot.bytes),
            megabytes(snapshot.packed_bytes)
        );
    }
    if text.is_empty() {
        text.push_str("there are no snapshots\n");
    }
    print(&text)
}
