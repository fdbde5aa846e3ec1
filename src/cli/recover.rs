//! The command `recover`.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::app::App;
use crate::cli::print;
use crate::config::Config;
use crate::database;
use crate::database::Rows;
use crate::error::Error;
use crate::error::Result;
use crate::settings::Section;

/// How many rows that break a rule are named: where rows are lost, others refer to them by the hundred.
const SHOWN: usize = 5;

pub(super) fn run<S: Section>(app: &App<S>, config: &Config<S>, to: Option<PathBuf>) -> Result<()> {
    let from = &config.database.path;
    if !from.exists() {
        return Err(Error::Missing(from.clone()));
    }
    let to = to.unwrap_or_else(|| from.with_added_extension("recovered"));
    let recovered = database::recover(from, &to)?;
    let mut text = format!(
        "{:<30} {:>15} {:>15}\n",
        "rows of table", "before", "recovered"
    );
    // Writing to a String cannot fail.
    for table in recovered.tables {
        let (before, after) = (rows(table.before), rows(table.after));
        let _ = writeln!(text, "{:<30} {before:>15} {after:>15}", table.name);
    }
    for line in recovered.complaints {
        let _ = writeln!(text, "not brought over: {line}");
    }
    for line in recovered.violations.iter().take(SHOWN) {
        let _ = writeln!(text, "in the recovered file: {line}");
    }
    if recovered.violations.len() > SHOWN {
        let _ = writeln!(
            text,
            "in the recovered file: more of that kind; `check --full` lists them"
        );
    }
    if let Some(reason) = recovered.without_shell {
        let _ = writeln!(text, "read row by row: {reason}");
    }
    let _ = writeln!(
        text,
        "{0} is sound. Look at it, and put it in place with: {1} restore {0}",
        to.display(),
        app.name()
    );
    print(&text)
}

fn rows(rows: Rows) -> String {
    match rows {
        Rows::Counted(rows) => rows.to_string(),
        Rows::Unreadable => "cannot be read".to_owned(),
        Rows::NoTable => "-".to_owned(),
    }
}
