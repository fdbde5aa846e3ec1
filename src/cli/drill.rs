//! The command `drill`.

use std::fmt::Write as _;

use crate::cli::copying::megabytes;
use crate::cli::print;
use crate::config::Config;
use crate::error::Error;
use crate::error::Result;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Drill;
use crate::replication::Drilled;
use crate::replication::Litestream;
use crate::replication::Live;
use crate::settings::Section;

pub(super) async fn run<S: Section>(config: &Config<S>) -> Result<()> {
    let settings = &config.replication;
    if !settings.is_on() {
        let text = "replication.bucket is not set: there is no replica to restore";
        return Err(Error::Unsound(text.to_owned()));
    }
    Litestream::check(settings).await?;
    let drill = Drill::new(settings, &config.database, Bucket::replica(settings)?);
    let live = Live::beside(settings, &config.database).await?;
    let drilled = drill.run_once(live.as_ref()).await;
    if let Some(live) = live {
        live.close().await;
    }
    let drilled = drilled?;
    print(&text(&drilled))?;
    match drilled.error {
        None => Ok(()),
        Some(error) => Err(replication::Error::Drill(error).into()),
    }
}

fn text(drilled: &Drilled) -> String {
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms / 100 % 10);
    let mut text = format!(
        "generation {}: {} restored in {}, checked in {}\n",
        drilled.generation,
        megabytes(drilled.bytes),
        seconds(drilled.took_restore_ms),
        seconds(drilled.took_check_ms)
    );
    // Writing to a String cannot fail.
    if let Some(state_of) = drilled.state_of {
        let age = drilled.at.duration_since(state_of).as_secs().max(0);
        let _ = writeln!(text, "  it is of {state_of}, {age} s before this drill");
    }
    match &drilled.not_compared {
        Some(reason) => {
            let _ = writeln!(text, "  not compared: {reason}");
        }
        None => {
            let _ = writeln!(
                text,
                "  {} tables with {} rows are as in the database; {} were written meanwhile, and not compared",
                drilled.tables, drilled.rows, drilled.tables_written
            );
        }
    }
    for line in &drilled.violations {
        let _ = writeln!(text, "  a row that the schema does not allow: {line}");
    }
    let verdict = if drilled.is_ok() { "ok" } else { "FAILED" };
    let _ = writeln!(text, "{verdict}");
    text
}
