//! The command `migrate`.

use std::fmt::Write as _;

use crate::app::App;
use crate::cli::print;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Database;
use crate::error::Result;
use crate::settings::Section;

pub(super) async fn run<S: Section>(app: &App<S>, config: &Config<S>, status: bool) -> Result<()> {
    if status && !config.database.path.exists() {
        return print("there is no database yet: every migration is pending\n");
    }
    let database = Database::open(&config.database, Clock::system())?;
    let steps = if status {
        database.migrations(app.sets()).await
    } else {
        database.migrate(app.sets()).await
    };
    database.close().await;
    let mut text = String::new();
    for step in steps? {
        let state = match (status, step.applied_at) {
            (true, Some(at)) => format!("applied {at}"),
            (true, None) => "pending".to_owned(),
            (false, _) => "applied now".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {}: {state}", step.set, step.name);
    }
    if text.is_empty() {
        text.push_str("nothing to migrate\n");
    }
    print(&text)
}
