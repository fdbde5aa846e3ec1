//! The command `backup`.

use std::path::Path;

use crate::cli::copying::Meter;
use crate::cli::copying::megabytes;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::settings::Section;

pub(super) async fn run<S: Section>(config: &Config<S>, to: &Path) -> Result<()> {
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
