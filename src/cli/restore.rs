//! The command `restore`.

use std::fmt::Write as _;
use std::path::Path;

use crate::app;
use crate::cache::Cache;
use crate::cli::copying::Meter;
use crate::cli::copying::megabytes;
use crate::cli::print;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Restore;
use crate::error::Result;
use crate::settings::Section;

pub(super) async fn run<S: Section>(config: &Config<S>, from: &Path) -> Result<()> {
    let _lock = app::lock(&config.database.path)?;
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
        "{}: restored from {} ({}, verified)\n",
        restored.path.display(),
        from.display(),
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
