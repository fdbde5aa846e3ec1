//! The pieces of a site, and its life: open, serve, stop.

mod lock;
mod sign;
mod site;
mod start;
mod work;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;

use crate::auth;
use crate::auth::Accounts;
use crate::auth::Auth;
use crate::cache::Cache;
use crate::config::Config;
use crate::context::Context;
use crate::database::BoxError;
use crate::database::Clock;
use crate::database::Damage;
use crate::database::Database;
use crate::database::Fence;
use crate::database::Keeper;
use crate::database::Migrations;
use crate::error::Error;
use crate::error::Result;
use crate::http;
use crate::http::Assets;
use crate::http::ErrorPage;
use crate::http::ErrorPages;
use crate::queue;
use crate::queue::Jobs;
use crate::queue::Maintenance;
use crate::queue::Queue;
use crate::queue::Schedule;
use crate::queue::Scheduler;
use crate::queue::Worker;
use crate::replication::Snapshots;
use crate::settings::NoSettings;
use crate::settings::Section;
use crate::shutdown;

pub(crate) use self::lock::is_locked;
pub(crate) use self::lock::lock;
pub use self::site::Site;
pub(crate) use self::start::answers;
pub(crate) use self::start::replicate;
pub(crate) use self::start::start;
pub(crate) use self::work::Share;
pub(crate) use self::work::work;

use self::site::OnDamage;

/// How many connections may wait to be accepted; the system's own limit, `somaxconn`, is as high by default.
///
/// Who comes when so many wait is not heard, and comes again after a second.
const BACKLOG: u32 = 4096;

/// A site: its tables, routes, jobs, schedule and files. [`run`](crate::run) does the rest.
pub struct App<S = NoSettings> {
    name: &'static str,
    version: Option<&'static str>,
    migrations: Vec<Migrations>,
    routes: Router<Context<S>>,
    jobs: Jobs<Context<S>>,
    schedule: Schedule,
    assets: Assets,
    errors: ErrorPages,
    on_damage: Option<OnDamage<S>>,
    auth: Option<Auth<S>>,
}

impl<S: Section> App<S> {
    /// A site of this name, which the command line's help shows, with nothing in it yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            version: None,
            migrations: vec![queue::MIGRATIONS, http::MIGRATIONS],
            routes: Router::new(),
            jobs: Jobs::default(),
            schedule: Schedule::default(),
            assets: Assets::default(),
            errors: ErrorPages::default(),
            on_damage: None,
            auth: None,
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

    /// Adds routes. `/up`, `/ready` and `/assets/` are taken.
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

    /// Makes the pages for errors, as a rule from a template with the site's own look.
    ///
    /// ```
    /// use askama::Template;
    /// use houseboat::http::ErrorPage;
    ///
    /// #[derive(Template)]
    /// #[template(source = "<h1>{{ page.title() }}</h1><p>{{ page.detail() }}</p>", ext = "html")]
    /// struct Page<'a> {
    ///     page: &'a ErrorPage,
    /// }
    ///
    /// let app: houseboat::App = houseboat::App::new("site").errors(|page| Page { page }.render());
    /// # let _ = app;
    /// ```
    ///
    /// It should need nothing that could fail: no database, no cache. If it fails or panics all the same, the
    /// framework's page is shown. In the environment `development` an error with a cause is always shown there, with it.
    #[must_use]
    pub fn errors<F, E>(mut self, page: F) -> Self
    where
        F: Fn(&ErrorPage) -> std::result::Result<String, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.errors = ErrorPages::new(page);
        self
    }

    /// Says what to do when the database is found damaged: tell somebody, as a rule.
    ///
    /// It is called once for a finding, at the first read that trips over it or the check that finds it, and again at
    /// each start while the file is damaged. The database takes no writes then, so a job cannot be enqueued.
    #[must_use]
    pub fn on_damage<F, Fut>(mut self, tell: F) -> Self
    where
        F: Fn(Context<S>, Damage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_damage = Some(Arc::new(move |context, damage| {
            Box::pin(tell(context, damage))
        }));
        self
    }

    /// Gives the site users: their tables, the pages under `/account`, the extractors of [`auth`], and the
    /// command `users`.
    ///
    /// Their tables are made before those of the site, which may refer to `users (id)`.
    #[must_use]
    pub fn auth(mut self, auth: Auth<S>) -> Self {
        if self.auth.replace(auth).is_none() {
            // After the queue's, whatever the order of the calls.
            self.migrations.insert(1, auth::MIGRATIONS);
        }
        self
    }

    /// The users of the site, for who works beside it; `None` for a site that has none.
    pub(crate) fn accounts(&self, database: &Database, config: &Config<S>) -> Option<Accounts> {
        self.auth.as_ref()?;
        let accounts = Accounts::new(self.name, database.clone(), &config.auth);
        accounts.is_at(&address_of(&config.server));
        Some(accounts)
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

    /// What does the site's schedule, or tells of it and changes it beside a site.
    pub(crate) fn scheduler(&self, queue: Queue, settings: &queue::Settings) -> Result<Scheduler> {
        self.check_schedule()?;
        Ok(Scheduler::new(queue, self.schedule.clone(), settings)?)
    }

    fn check_schedule(&self) -> Result<()> {
        let mut names = self.schedule.names();
        match names.find(|name| !self.jobs.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::UnknownJob(name)),
        }
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
        self.open_behind(config, clock, Fence::open()).await
    }

    /// As [`App::open`]; nothing is stored while the fence is closed.
    pub(crate) async fn open_behind(
        self,
        config: Config<S>,
        clock: Clock,
        fence: Fence,
    ) -> Result<Site<S>> {
        self.check_schedule()?;
        let database = Database::open_behind(&config.database, clock.clone(), fence.clone())?;
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
        let context =
            Context::new(database, cache, queue.clone(), settings).with_url(&config.server.url);
        let scheduler = self.scheduler(queue.clone(), &config.queue)?;
        let snapshots = if config.snapshots.is_on() {
            Some(Snapshots::new(&config.snapshots, &self.migrations)?)
        } else {
            None
        };
        if let Some(snapshots) = &snapshots {
            context.replica.has_snapshots(snapshots.clone());
        }
        let mut assets = Assets::own().merge(self.assets);
        let mut routes = self.routes.with_state(context.clone());
        let accounts = self
            .auth
            .map(|auth| auth.open(self.name, &context, &config.auth));
        if let Some(accounts) = &accounts {
            routes = auth::around(routes, accounts);
            assets = assets.merge(auth::assets().clone());
        }
        assets.set_live(config.server.is_development);
        let assets = assets.remember(&context.database).await;
        let (database, cache, replica) = (&context.database, &context.cache, &context.replica);
        let handles = (database, cache, replica);
        Ok(Site {
            router: http::router(routes, assets, &config.server, self.errors, handles),
            keeper: Keeper::new(database.clone(), &config.database),
            on_damage: self.on_damage,
            accounts,
            address: address_of(&config.server),
            worker: Worker::new(
                queue.clone(),
                self.jobs,
                context.clone(),
                site::in_time(&config.queue, config.server.stop()),
            ),
            maintenance: Maintenance::new(queue, config.queue.clone()),
            scheduler,
            snapshots,
            context,
            fence,
            server: config.server,
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

/// Where a site listens that knows no other address of its own.
fn address_of(settings: &http::Settings) -> String {
    let http::Settings {
        host, port, url, ..
    } = settings;
    match (url.as_str(), host.contains(':')) {
        ("", true) => format!("http://[{host}]:{port}"),
        ("", false) => format!("http://{host}:{port}"),
        (url, _) => url.to_owned(),
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
        tracing::info!(set = step.set, migration = step.name, took = ?step.time.unwrap_or_default(), "migrated");
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
    Database::refuse(&config.database)?;
    let _lock = lock(&config.database.path)?;
    let environment = config.environment.clone();
    let url = (!config.server.url.is_empty()).then(|| config.server.url.clone());
    let stop_time = config.server.stop();
    let site = tokio::select! {
        site = app.open(config, Clock::system()) => site?,
        // A migration that is broken off is taken back.
        () = late(&stop, stop_time) => return Ok(()),
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(environment, url, "listening on http://{address}");
    }
    tokio::select! {
        served = site.serve(listener, stop.soon) => served,
        // What was acknowledged is in the file, and jobs that ran run again: it is as good as a crash.
        () = stop.now.cancelled() => Ok(()),
    }
}

/// Waits until the site has to end, even if it has not begun: at the second signal, or `time` after the first one.
async fn late(stop: &shutdown::Stop, time: Duration) {
    let since_first = async {
        stop.soon.cancelled().await;
        tokio::time::sleep(time).await;
    };
    tokio::select! {
        () = stop.now.cancelled() => {}
        () = since_first => tracing::warn!("stopped before the database was open"),
    }
}

/// Listens at the first of its addresses that is free.
async fn listen(settings: &http::Settings) -> Result<TcpListener> {
    let address = (settings.host.as_str(), settings.port);
    let listen = async {
        let mut last = None;
        for address in tokio::net::lookup_host(address).await? {
            match listen_at(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
    };
    listen.await.map_err(|source| Error::Listen {
        address: format!("{}:{}", settings.host, settings.port),
        source,
    })
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
