//! The command `work`.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::app;
use crate::app::App;
use crate::app::Share;
use crate::cli::jobs::queue_name;
use crate::config::Config;
use crate::error::Result;
use crate::settings::Section;

/// Which jobs to run.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run jobs of these queues alone, such as mail,default
    #[arg(long, value_name = "QUEUE,…", value_delimiter = ',', value_parser = queue_name)]
    queues: Vec<String>,
    /// How many jobs to run at the same time, 1 to 1024, in place of queue.workers
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    workers: Option<usize>,
    /// How many seconds to wait for migrations, 0 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
}

pub(super) async fn run<S: Section>(
    app: App<S>,
    config: Config<S>,
    arguments: Arguments,
) -> Result<()> {
    let share = Share {
        queues: arguments.queues,
        workers: arguments.workers,
        wait: Duration::from_secs(arguments.wait),
    };
    app::work(app, config, share).await
}
