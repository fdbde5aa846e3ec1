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
    let mut worst = site.1;
    if let Some(damage) = database.damage().filter(|_| worst != Verdict::Damaged) {
        let _ = writeln!(
            text,
            "  marked as damaged by {} ({}): it takes no writes until `check --full` passes",
            damage.found_by, damage.found_at
        );
        worst = Verdict::Marked;
    }
    if config.cache.path.exists() {
        let cache = verdict(check_cache(config).await);
        let _ = writeln!(text, "{}: {}", config.cache.path.display(), cache.0);
        worst = worst.max(cache.1);
    }
    print(&text)?;
    let found = match worst {
        Verdict::Sound => return Ok(()),
        Verdict::Broken => {
            "the check found no damage, but rows that the schema does not allow: mend them in SQL"
        }
        Verdict::Marked => "this check found no damage, and is not enough to lift the mark",
        Verdict::Damaged => "the check found damage",
    };
    Err(Error::Unsound(found.to_owned()))
}

/// The better one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Sound,
    /// Rows break a rule; the file itself is sound.
    Broken,
    /// Damage was found earlier, and no full check has passed since.
    Marked,
    Damaged,
}

/// Looks at the cache file as it is: opening the cache would make a damaged one anew.
async fn check_cache<S: Section>(config: &Config<S>) -> Result<Report> {
    Ok(Cache::check(&config.cache).await?)
}

/// What to print of a report, and what it comes to.
fn verdict(report: Result<Report>) -> (String, Verdict) {
    match report {
        Ok(report) if report.is_ok() => ("ok".to_owned(), Verdict::Sound),
        Ok(report) if report.problems.is_empty() => (findings(&report), Verdict::Broken),
        Ok(report) => (findings(&report), Verdict::Damaged),
        Err(error) => (format!("cannot be read: {error}"), Verdict::Damaged),
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
