//! The command `migrate`.

use std::fmt::Write as _;

use crate::app::App;
use crate::cli::print;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Step;
use crate::database::Target;
use crate::error::Result;
use crate::settings::Section;

/// What the command is to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// List them, and change nothing
    #[arg(long, conflicts_with_all = ["to", "dry_run"])]
    status: bool,
    /// Go no further than this version of a set, such as site:V3; there is no way down
    #[arg(long, value_name = "SET:VERSION")]
    to: Option<Target>,
    /// Apply them to a copy, say how long each took, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: &Arguments,
) -> Result<()> {
    if arguments.status && !config.database.path.exists() {
        return print("there is no database yet: every migration is pending\n");
    }
    let steps = steps(app, config, arguments).await?;
    let mut text = String::new();
    for step in steps {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {}: {}",
            step.set,
            step.name,
            state(&step, arguments)
        );
    }
    if text.is_empty() {
        text.push_str("nothing to migrate\n");
    }
    print(&text)
}

async fn steps<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: &Arguments,
) -> Result<Vec<Step>> {
    let target = arguments.to.as_ref();
    if arguments.dry_run {
        return Ok(Database::dry_run(&config.database, app.sets(), target).await?);
    }
    if arguments.status {
        return Ok(Database::migrations_of(&config.database, app.sets()).await?);
    }
    let database = Database::open(&config.database, Clock::system())?;
    let steps = match target {
        Some(target) => database.migrate_to(app.sets(), target).await,
        None => database.migrate(app.sets()).await,
    };
    database.close().await;
    Ok(steps?)
}

fn state(step: &Step, arguments: &Arguments) -> String {
    match (&step.applied_at, step.time) {
        (Some(at), _) => format!("applied {at}"),
        (None, Some(time)) if arguments.dry_run => {
            format!(
                "would be applied, and took {} ms on a copy",
                time.as_millis()
            )
        }
        (None, Some(_)) => "applied now".to_owned(),
        (None, None) => "pending".to_owned(),
    }
}
