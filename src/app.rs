//! The pieces of a site, and its life: open, serve, stop.

use std::fmt;
use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::config::Config;
use crate::context::Context;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Migrations;
use crate::error::Error;
use crate::error::Result;
use crate::http;
use crate::http::Assets;
use crate::queue;
use crate::queue::Jobs;
use crate::queue::Maintenance;
use crate::queue::Queue;
use crate::queue::Schedule;
use crate::queue::Scheduler;
use crate::queue::Worker;
use crate::settings::NoSettings;
use crate::settings::Section;
use crate::shutdown;

/// What is left of `server.stop_ms` for closing the files, once requests and jobs have had theirs:
/// a second, or a quarter where that is less.
const CLOSE: Duration = Duration::from_secs(1);

/// A stop that takes longer says what it waits for.
const SLOW: Duration = Duration::from_millis(500);

/// What a worker has, at least, for recording what its jobs did.
const RECORD: Duration = Duration::from_millis(250);

/// A site: its tables, routes, jobs, schedule and files. [`run`](crate::run) does the rest.
pub struct App<S = NoSettings> {
    name: &'static str,
    version: Option<&'static str>,
    migrations: Vec<Migrations>,
    routes: Router<Context<S>>,
    jobs: Jobs<Context<S>>,
    schedule: Schedule,
    assets: Assets,
}

impl<S: Section> App<S> {
    /// A site of this name, which the command line's help shows, with nothing in it yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            version: None,
            migrations: vec![queue::MIGRATIONS],
            routes: Router::new(),
            jobs: Jobs::default(),
            schedule: Schedule::default(),
            assets: Assets::default(),
        }
    }

    /// Says what `--version` prints, as a rule `env!("CARGO_PKG_VERSION")`.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds a set of migrations; sets are applied in the order of these calls, after the framework's own.
    #[must_use]
    pub fn migrations(mut self, set: Migrations) -> Self {
        self.migrations.push(set);
        self
    }

    /// Adds routes. `/up` and `/assets/` are taken.
    ///
    /// An error that is HTML or JSON is sent as it is; one with a short plain text gets the framework's page with
    /// that text in it, and one without a body the framework's own words.
    #[must_use]
    pub fn routes(mut self, routes: Router<Context<S>>) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Adds jobs that the site can run.
    ///
    /// # Panics
    ///
    /// When one of this name was added before.
    #[must_use]
    pub fn jobs(mut self, jobs: Jobs<Context<S>>) -> Self {
        self.jobs = self.jobs.merge(jobs);
        self
    }

    /// Adds jobs that are enqueued by the clock.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = self.schedule.merge(schedule);
        self
    }

    /// Adds static files.
    #[must_use]
    pub fn assets(mut self, assets: Assets) -> Self {
        self.assets = self.assets.merge(assets);
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn version_text(&self) -> String {
        let framework = concat!("Houseboat ", env!("CARGO_PKG_VERSION"));
        match self.version {
            Some(version) => format!("{version} ({framework})"),
            None => format!("({framework})"),
        }
    }

    pub(crate) fn sets(&self) -> &[Migrations] {
        &self.migrations
    }

    /// Opens the files, migrates, and puts the pieces together, without starting anything.
    ///
    /// This is the site that [`run`](crate::run) serves; tests of a site use it to ask its router directly:
    ///
    /// ```no_run
    /// use houseboat::axum::{Router, body::Body, http::Request, routing::get};
    /// use houseboat::{App, Config, Context, database::Clock};
    /// use tower::ServiceExt;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = std::env::temp_dir().join("a-folder-for-this-test");
    /// let path = |name| folder.join(name).display().to_string();
    /// let config: Config = Config::load_from(
    ///     &folder,
    ///     [
    ///         ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
    ///         ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
    ///     ],
    /// )?;
    /// let routes: Router<Context> = Router::new().route("/", get(async || "hello"));
    /// let site = App::new("test").routes(routes).open(config, Clock::system()).await?;
    /// let answer = site.router().oneshot(Request::get("/").body(Body::empty())?).await?;
    /// assert_eq!(answer.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When a file cannot be opened or migrated, or the jobs and the schedule do not fit together.
    pub async fn open(self, config: Config<S>, clock: Clock) -> Result<Site<S>> {
        if let Some(name) = self.schedule.names().find(|name| !self.jobs.contains(name)) {
            return Err(Error::UnknownJob(name));
        }
        let database = Database::open(&config.database, clock.clone())?;
        if is_same(&config.database.path, &config.cache.path) {
            return Err(Error::SameFile(config.database.path));
        }
        migrate(
            &database,
            &self.migrations,
            config.database.migrate_at_start,
        )
        .await?;
        let cache = Cache::open(&config.cache, clock).await;
        let queue = Queue::new(database.clone());
        let settings = Arc::new(config.site);
        let context = Context::new(database, cache, queue.clone(), settings);
        let scheduler = Scheduler::new(queue.clone(), self.schedule)?;
        let routes = self.routes.with_state(context.clone());
        Ok(Site {
            router: http::router(routes, self.assets, &config.server),
            worker: Worker::new(
                queue.clone(),
                self.jobs,
                context.clone(),
                in_time(&config.queue, config.server.stop()),
            ),
            maintenance: Maintenance::new(queue, config.queue.clone()),
            scheduler,
            context,
            stop_time: config.server.stop(),
        })
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("App")
            .field("name", &self.name)
            .field("migrations", &self.migrations)
            .field("jobs", &self.jobs)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// A site whose files are open and of which nothing runs yet.
#[derive(Debug)]
pub struct Site<S = NoSettings> {
    context: Context<S>,
    router: Router,
    worker: Worker<Context<S>>,
    scheduler: Scheduler,
    maintenance: Maintenance,
    stop_time: Duration,
}

impl<S: Section> Site<S> {
    /// The handles.
    #[must_use]
    pub fn context(&self) -> &Context<S> {
        &self.context
    }

    /// The routes, with every layer around them.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What runs the site's jobs.
    #[must_use]
    pub fn worker(&self) -> &Worker<Context<S>> {
        &self.worker
    }

    /// Answers requests and runs jobs until `stop`, then ends both and closes the files, within `server.stop_ms`.
    ///
    /// No other process may do so with the same database: [`run`](crate::run) makes sure of that by a lock.
    ///
    /// # Errors
    ///
    /// When one of its parts ends by itself, or the jobs of a dead process cannot be put back.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        self.context.queue.rescue().await?;
        let context = self.context.clone();
        let router = self.router();
        let close = close_time(self.stop_time);
        let run = self.stop_time.saturating_sub(close);
        let mut parts = self.start(listener, router, &stop);
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            Some(part) = parts.join_next() => Some(part.unwrap_or("part that panicked")),
        };
        // A part that ends because it was told to is no news.
        let ended = ended.filter(|_| !stop.is_cancelled());
        stop.cancel();
        finish(parts, run).await;
        let closing = async {
            context.cache.close().await;
            context.database.close().await;
        };
        if tokio::time::timeout(close, closing).await.is_ok() {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped, and what was still to be written is left");
        }
        match ended {
            Some(part) => Err(Error::Ended(part.to_owned())),
            None => Ok(()),
        }
    }

    /// Starts everything that runs as long as the site does; each part gives its name when it ends.
    fn start(
        self,
        listener: TcpListener,
        router: Router,
        stop: &CancellationToken,
    ) -> JoinSet<&'static str> {
        let mut parts = JoinSet::new();
        let (worker, scheduler, maintenance) = (self.worker, self.scheduler, self.maintenance);
        let token = stop.clone();
        parts.spawn(async move {
            if let Err(error) = http::serve(listener, router, token).await {
                tracing::error!(%error, "the server failed");
            }
            "server"
        });
        let token = stop.clone();
        parts.spawn(async move {
            worker.run(token).await;
            "worker"
        });
        let token = stop.clone();
        parts.spawn(async move {
            scheduler.run(token).await;
            "scheduler"
        });
        let token = stop.clone();
        parts.spawn(async move {
            maintenance.run(token).await;
            "maintenance"
        });
        parts
    }
}

/// Waits for the parts to end, and leaves behind what does not end in time.
async fn finish(mut parts: JoinSet<&'static str>, time: Duration) {
    let all = async {
        let slow = tokio::time::sleep(SLOW);
        tokio::pin!(slow);
        loop {
            tokio::select! {
                ended = parts.join_next() => if ended.is_none() { break },
                () = &mut slow, if !slow.is_elapsed() => {
                    tracing::info!(at_most = ?time, "waiting for requests and jobs to end");
                }
            }
        }
    };
    if tokio::time::timeout(time, all).await.is_err() {
        tracing::warn!(
            left = parts.len(),
            "not everything ended in time; leaving it"
        );
        parts.shutdown().await;
    }
}

fn close_time(stop_time: Duration) -> Duration {
    CLOSE.min(stop_time / 4)
}

/// The queue's settings, with a `stop_ms` that leaves time to record what the jobs did.
fn in_time(settings: &queue::Settings, stop_time: Duration) -> queue::Settings {
    let jobs = stop_time
        .saturating_sub(close_time(stop_time))
        .saturating_sub(RECORD);
    let jobs_ms = u64::try_from(jobs.as_millis()).unwrap_or(u64::MAX);
    queue::Settings {
        stop_ms: settings.stop_ms.min(jobs_ms),
        ..settings.clone()
    }
}

/// Whether both are there and are one file, by whatever names.
fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

async fn migrate(database: &Database, sets: &[Migrations], at_start: bool) -> Result<()> {
    if !at_start {
        return pending(database, sets).await;
    }
    for step in database.migrate(sets).await? {
        tracing::info!(set = step.set, migration = step.name, "migrated");
    }
    Ok(())
}

/// Refuses where a migration is not applied.
pub(crate) async fn pending(database: &Database, sets: &[Migrations]) -> Result<()> {
    let steps = database.migrations(sets).await?;
    match steps
        .iter()
        .filter(|step| step.applied_at.is_none())
        .count()
    {
        0 => Ok(()),
        count => Err(Error::Pending { count }),
    }
}

/// Serves a site until SIGINT or SIGTERM.
pub(crate) async fn serve<S: Section>(app: App<S>, config: Config<S>) -> Result<()> {
    let stop = shutdown::on_signals().map_err(|error| Error::Io("signals".to_owned(), error))?;
    // Before anything is made: a port in use must leave no trace.
    let listener = listen(&config.server).await?;
    let _lock = lock(&config.database.path)?;
    let environment = config.environment.clone();
    let site = app.open(config, Clock::system()).await?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(environment, "listening on http://{address}");
    }
    tokio::select! {
        served = site.serve(listener, stop.soon) => served,
        // What was acknowledged is in the file, and jobs that ran run again: it is as good as a crash.
        () = stop.now.cancelled() => Ok(()),
    }
}

async fn listen(settings: &http::Settings) -> Result<TcpListener> {
    let address = (settings.host.as_str(), settings.port);
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            address: format!("{}:{}", settings.host, settings.port),
            source,
        })
}

/// Makes this the only process that serves the database: its jobs are then nobody else's.
///
/// The operating system lets go of it when the process ends, however it ends.
pub(crate) fn lock(database: &Path) -> Result<File> {
    // By its real name: a link to the file is the same file.
    let path = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let path = path.with_added_extension("lock");
    let failed = |error| Error::Io(format!("cannot lock {}", path.display()), error);
    if let Some(directory) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|error| {
            Error::Io(
                format!(
                    "cannot make the folder {} for the database",
                    directory.display()
                ),
                error,
            )
        })?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            path: database.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
