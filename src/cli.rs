//! The command line that every site has.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;

use crate::app;
use crate::app::App;
use crate::cache::Cache;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Depth;
use crate::database::Report;
use crate::error::Error;
use crate::error::Result;
use crate::logs;
use crate::queue::Queue;
use crate::settings::Section;

/// What is left of the runtime at the end, a name being looked up for instance, is not waited for longer.
const LEFT_BEHIND: Duration = Duration::from_millis(200);

/// The commands; without one, the site is served.
#[derive(Debug, Parser)]
#[command(about = "A website on one SQLite file", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Serve the site, run its jobs and its schedule (what happens without a command)
    Serve,
    /// Apply the migrations that the database lacks
    Migrate {
        /// List them, and change nothing
        #[arg(long)]
        status: bool,
    },
    /// Print the settings and where each comes from, without secrets
    Config,
    /// Read both files and say whether they are sound
    Check {
        /// Compare the indexes with their tables too, and follow every foreign key
        #[arg(long)]
        full: bool,
    },
    /// Print how many jobs there are in each state
    Jobs,
}

/// Runs a site: reads the command line and the settings, and does what they say.
///
/// Errors go to stderr, one line each. The exit code is 0, or 2 for wrong arguments and settings, or 1.
#[must_use]
pub fn run<S: Section>(app: App<S>) -> ExitCode {
    let command = Cli::command().name(app.name()).version(app.version_text());
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match execute(app, cli.command.unwrap_or(Command::Serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing more can be done where stderr is closed.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute<S: Section>(app: App<S>, command: Command) -> Result<()> {
    let config = Config::load()?;
    if let Command::Config = command {
        return print(&config.to_string());
    }
    logs::init(&config.log, &config.environment);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Io("the runtime".to_owned(), error))?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve => app::serve(app, config).await,
            Command::Migrate { status } => migrate(&app, &config, status).await,
            Command::Check { full } => check(&config, full).await,
            Command::Jobs => jobs(&app, &config).await,
            Command::Config => Ok(()),
        }
    });
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

async fn migrate<S: Section>(app: &App<S>, config: &Config<S>, status: bool) -> Result<()> {
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

async fn check<S: Section>(config: &Config<S>, full: bool) -> Result<()> {
    let database = open_existing(config)?;
    let report = database
        .check(if full { Depth::Full } else { Depth::Quick })
        .await;
    database.close().await;
    let site = verdict(report.map_err(Into::into));
    let mut text = format!("{}: {}\n", config.database.path.display(), site.0);
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
    let mut text = String::new();
    let kinds = [
        ("damaged", &report.problems),
        ("rows that the schema does not allow", &report.violations),
    ];
    for (what, lines) in kinds.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let and = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{and}{what}\n  {}", lines.join("\n  "));
    }
    text
}

async fn jobs<S: Section>(app: &App<S>, config: &Config<S>) -> Result<()> {
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

fn open_existing<S: Section>(config: &Config<S>) -> Result<Database> {
    let path = &config.database.path;
    if !path.exists() {
        return Err(Error::Missing(path.clone()));
    }
    Ok(Database::open(&config.database, Clock::system())?)
}

fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Error::Io("stdout".to_owned(), error)),
    }
}
