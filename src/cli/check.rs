//! The command `check`.

use std::fmt::Write as _;

use crate::cache::Cache;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::database::Depth;
use crate::database::Report;
use crate::error::Error;
use crate::error::Result;
use crate::settings::Section;

pub(super) async fn run<S: Section>(config: &Config<S>, full: bool) -> Result<()> {
    let database = open_existing(config)?;
    let depth = if full { Depth::Full } else { Depth::Quick };
    let report = database.check(depth).await;
    database.close().await;
    let site = verdict(report.map_err(Into::into));
    let mut text = format!("{}: {}\n", config.database.path.display(), site.0);
    for warning in database.warnings() {
        let _ = writeln!(text, "  warning: {warning}");
    }
    let mut sound = site.1;
    if config.cache.path.exists() {
        let cache = verdict(check_cache(config).await);
        let _ = writeln!(text, "{}: {}", config.cache.path.display(), cache.0);
        sound &= cache.1;
    }
    print(&text)?;
    if sound {
        Ok(())
    } else {
        Err(Error::Unsound("the check found damage".to_owned()))
    }
}

/// Looks at the cache file as it is: opening the cache would make a damaged one anew.
async fn check_cache<S: Section>(config: &Config<S>) -> Result<Report> {
    Ok(Cache::check(&config.cache).await?)
}

/// What to print of a report, and whether all is well.
fn verdict(report: Result<Report>) -> (String, bool) {
    match report {
        Ok(report) if report.is_ok() => ("ok".to_owned(), true),
        Ok(report) => (findings(&report), false),
        Err(error) => (format!("cannot be read: {error}"), false),
    }
}

fn findings(report: &Report) -> String {
    let kinds = [
        ("damaged", &report.problems),
        ("rows that the schema does not allow", &report.violations),
    ];
    let found = kinds.iter().filter(|(_, lines)| !lines.is_empty());
    let text = found.map(|(what, lines)| format!("{what}\n  {}", lines.join("\n  ")));
    text.collect::<Vec<_>>().join("\n")
}
