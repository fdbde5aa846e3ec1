//! The command `jobs`.

use std::fmt::Write as _;

use crate::app;
use crate::app::App;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::queue::Queue;
use crate::settings::Section;

pub(super) async fn run<S: Section>(app: &App<S>, config: &Config<S>) -> Result<()> {
    let database = open_existing(config)?;
    let counts = match app::pending(&database, app.sets()).await {
        Ok(()) => Queue::new(database.clone())
            .counts()
            .await
            .map_err(Into::into),
        Err(error) => Err(error),
    };
    database.close().await;
    let mut text = String::new();
    for (state, count) in counts? {
        let _ = writeln!(text, "{:<10} {count:>8}", state.as_str());
    }
    print(&text)
}
