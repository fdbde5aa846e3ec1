//! The command line that every site has.

mod backup;
mod cache;
mod check;
mod copying;
mod drill;
mod health;
mod jobs;
mod lease;
mod migrate;
mod recover;
mod replicate;
mod restore;
mod users;
mod work;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;

use crate::app;
use crate::app::App;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Database;
use crate::error::Error;
use crate::error::Result;
use crate::logs;
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

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve the site, run its jobs and its schedule (what happens without a command)
    Serve,
    /// Run the site as a container does: take the lease, restore, migrate, serve, replicate, hand over at the end
    Start,
    /// Say who holds the lease, and where the data is
    Lease(lease::Arguments),
    /// Copy the database to the bucket, without a site
    Replicate(replicate::Arguments),
    /// Restore the replica to a scratch file, check it, and compare it with the database if a site runs
    Drill,
    /// Apply the migrations that the database lacks
    Migrate(migrate::Arguments),
    /// Print the settings and where each comes from, without secrets
    Config,
    /// Copy the database to a new file or to the bucket, beside a running server or without one, and check the copy
    Backup(backup::Arguments),
    /// Bring what can be read of a damaged database into a new file
    Recover {
        /// The file to make; the database's name with .recovered by default
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Put the replica, a copy of a file, or a snapshot in the place of the database, and keep what was there
    Restore(restore::Arguments),
    /// Read both files and say whether they are sound
    Check {
        /// Compare the indexes with their tables too, and follow every foreign key
        #[arg(long)]
        full: bool,
    },
    /// Run jobs of a site that another process on this disk serves
    Work(work::Arguments),
    /// Count the jobs, or list, show, retry, discard and cancel them; pause queues; see and run the schedule
    Jobs(jobs::Arguments),
    /// Add the people who may sign in, list, disable and enable them; make links by which they set a password
    Users(users::Arguments),
    /// Say what is in the cache, print a value, or clear it
    Cache(cache::Arguments),
    /// Ask the running site whether it is up, for the health check of a container
    Health,
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
    if let Command::Health = command {
        return health::run(&config.server);
    }
    logs::init(&config.log, &config.environment);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Io("the runtime".to_owned(), error))?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve => app::serve(app, config).await,
            Command::Start => app::start(app, config).await,
            Command::Lease(arguments) => lease::run(&config, &arguments).await,
            Command::Replicate(arguments) => replicate::run(&app, &config, &arguments).await,
            Command::Drill => drill::run(&config).await,
            Command::Migrate(arguments) => migrate::run(&app, &config, &arguments).await,
            Command::Backup(arguments) => backup::run(&app, &config, &arguments).await,
            Command::Recover { to } => recover::run(&app, &config, to),
            Command::Restore(arguments) => restore::run(&config, &arguments).await,
            Command::Check { full } => check::run(&config, full).await,
            Command::Work(arguments) => work::run(app, config, arguments).await,
            Command::Jobs(arguments) => jobs::run(&app, &config, arguments).await,
            Command::Users(arguments) => users::run(&app, &config, arguments).await,
            Command::Cache(arguments) => cache::run(&config, arguments).await,
            Command::Config | Command::Health => Ok(()),
        }
    });
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

fn open_existing<S: Section>(config: &Config<S>) -> Result<Database> {
    let path = &config.database.path;
    if !path.exists() {
        return Err(Error::Missing(path.clone()));
    }
    let database = Database::open(&config.database, Clock::system())?;
    // Beside a site that is its own affair, and without one SQLite does it when the last one leaves.
    database.leave_the_wal(true);
    Ok(database)
}

fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Error::Io("stdout".to_owned(), error)),
    }
}
