//! The command `replicate`.

use crate::app;
use crate::app::App;
use crate::config::Config;
use crate::error::Result;
use crate::settings::Section;

/// What the command is to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// End when everything is in the bucket
    #[arg(long)]
    once: bool,
}

pub(super) async fn run<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: &Arguments,
) -> Result<()> {
    app::replicate(app.name(), config, arguments.once).await
}
