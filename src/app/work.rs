//! A process of its own that runs jobs of a site that another process serves.
//!
//! It runs them only while a server on the same disk says that it serves (`sign.rs`): that one knows whether this disk
//! is the one that counts. So no job is run on the disk of a container that only stands by, on one that a newer
//! container has left behind, nor after the last copy of it was made.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::is_same;
use crate::app::pending;
use crate::app::sign::Watch;
use crate::app::sign::Word;
use crate::app::site::in_time;
use crate::cache::Cache;
use crate::config::Config;
use crate::context::Context;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Fence;
use crate::error::Error;
use crate::error::Result;
use crate::queue;
use crate::queue::Queue;
use crate::queue::Worker;
use crate::settings::Section;
use crate::shutdown;

/// How often it looks what the server says.
const LOOK: Duration = Duration::from_millis(250);

/// How often it looks whether another process has found the database damaged; as often as a server does.
const LOOK_FOR_MARK: Duration = Duration::from_secs(5);

/// How long closing the files may take.
const CLOSE: Duration = Duration::from_secs(1);

/// What a process is to run, and how long it waits to begin.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The queues it takes jobs of; all, if there are none here.
    pub(crate) queues: Vec<String>,
    /// How many jobs it runs at a time; `queue.workers` if it does not say.
    pub(crate) workers: Option<usize>,
    /// How long it waits for migrations that the server lacks.
    pub(crate) wait: Duration,
}

/// Runs jobs beside a server until SIGINT or SIGTERM.
pub(crate) async fn work<S: Section>(
    app: App<S>,
    mut config: Config<S>,
    share: Share,
) -> Result<()> {
    let stop = shutdown::on_signals().map_err(|error| Error::Io("signals".to_owned(), error))?;
    Database::refuse(&config.database)?;
    config.queue = settings(&config, &share)?;
    let work = Work {
        site: Arc::new(config.site),
        url: config.server.url,
        database: config.database,
        cache: config.cache,
        queue: config.queue,
        app,
        share,
    };
    tokio::select! {
        ended = work.run(&stop.soon) => ended,
        // What runs is put back by the others, as after a crash.
        () = stop.now.cancelled() => Ok(()),
    }
}

fn settings<S>(config: &Config<S>, share: &Share) -> Result<queue::Settings> {
    let settings = &config.queue;
    let workers = share.workers.unwrap_or(settings.workers);
    if workers == 0 {
        let text =
            "queue.workers is 0 here: say with --workers how many jobs this process runs at a time";
        return Err(Error::Usage(text.to_owned()));
    }
    let stop = config.server.stop().saturating_sub(LOOK);
    // So that a server that ends does not wait in vain.
    Ok(queue::Settings {
        workers,
        ..in_time(settings, stop)
    })
}

/// What does not change from one server to the next.
struct Work<S> {
    app: App<S>,
    share: Share,
    site: Arc<S>,
    url: String,
    database: crate::database::Settings,
    cache: crate::cache::Settings,
    queue: queue::Settings,
}

impl<S: Section> Work<S> {
    async fn run(&self, stop: &CancellationToken) -> Result<()> {
        while let Some(watch) = stop.run_until_cancelled(self.server()).await {
            self.beside(&watch?, stop).await?;
            if !stop.is_cancelled() {
                tracing::info!("the server has left: its jobs wait");
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Waits until somebody serves.
    async fn server(&self) -> Result<Watch> {
        let path = &self.database.path;
        let mut is_told = false;
        loop {
            if let Some(watch) = Watch::begin(path).map_err(|error| unreadable(path, error))? {
                return Ok(watch);
            }
            if !is_told {
                tracing::info!(database = %path.display(), "waiting for a server of this database");
                is_told = true;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs jobs until `stop`, or until the server leaves.
    async fn beside(&self, watch: &Watch, stop: &CancellationToken) -> Result<()> {
        if is_same(&self.database.path, &self.cache.path) {
            return Err(Error::SameFile(self.database.path.clone()));
        }
        // What the server may write, this may; it is opened by what the server says.
        let fence = Fence::closed();
        if let Word::Serves { until, .. } = self.word(watch)? {
            obey(&fence, until);
        }
        let clock = Clock::system();
        let database = Database::open_behind(&self.database, clock.clone(), fence.clone())?;
        database.leave_the_wal(true);
        let leave = stop.child_token();
        let working = async {
            let migrated = leave.run_until_cancelled(self.migrated(&database)).await;
            if let Some(Ok(())) = migrated {
                self.work(&database, clock, &leave).await;
            }
            migrated.unwrap_or(Ok(()))
        };
        let worked = tokio::select! {
            worked = working => worked,
            Err(error) = self.watch(watch, (&database, &fence), &leave) => Err(error),
        };
        if tokio::time::timeout(CLOSE, database.close()).await.is_err() {
            tracing::warn!("what was still to be written is left");
        }
        worked
    }

    /// Runs jobs until it is to leave, and lets those that run end.
    async fn work(&self, database: &Database, clock: Clock, leave: &CancellationToken) {
        let cache = Cache::open(&self.cache, clock).await;
        let queue = Queue::new(database.clone());
        let site = Arc::clone(&self.site);
        let context =
            Context::new(database.clone(), cache.clone(), queue.clone(), site).with_url(&self.url);
        let worker = Worker::new(queue, self.app.jobs.clone(), context, self.queue.clone());
        let queues = &self.share.queues;
        let worker = if queues.is_empty() {
            worker
        } else {
            worker.only(queues.clone())
        };
        tracing::info!(
            workers = self.queue.workers,
            ?queues,
            "running jobs of a site that another process serves"
        );
        worker.run(leave.clone()).await;
        if tokio::time::timeout(CLOSE, cache.close()).await.is_err() {
            tracing::warn!("the cache could not be closed in time");
        }
    }

    /// Waits until nothing is missing that this program needs.
    async fn migrated(&self, database: &Database) -> Result<()> {
        let begun = Instant::now();
        loop {
            let pending = pending(database, self.app.sets()).await;
            let Err(Error::Pending { count }) = pending else {
                return pending;
            };
            if begun.elapsed() >= self.share.wait {
                return pending;
            }
            tracing::info!(count, at_most = ?self.share.wait, "waiting for migrations to be applied");
            tokio::time::sleep(LOOK.max(self.share.wait / 60)).await;
        }
    }

    fn word(&self, watch: &Watch) -> Result<Word> {
        watch
            .word()
            .map_err(|error| unreadable(&self.database.path, error))
    }

    /// Does as the server says, also while jobs end.
    async fn watch(
        &self,
        watch: &Watch,
        (database, fence): (&Database, &Fence),
        leave: &CancellationToken,
    ) -> Result<Infallible> {
        let mut looked = Instant::now();
        loop {
            match self.word(watch)? {
                Word::Nobody => leave.cancel(),
                Word::Serves { until, is_leaving } => {
                    obey(fence, until);
                    if is_leaving || !fence.is_open() {
                        leave.cancel();
                    }
                }
            }
            if looked.elapsed() >= LOOK_FOR_MARK {
                looked = Instant::now();
                database.look_for_mark();
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Lets this process write as long as the server may.
fn obey(fence: &Fence, until: Option<Duration>) {
    match until {
        None => fence.extend(Duration::MAX),
        Some(end) if end > Fence::now() => fence.extend(end),
        // Earlier than it was said before, perhaps: another has the right.
        Some(_) => fence.shut(),
    }
}

fn unreadable(database: &Path, error: std::io::Error) -> Error {
    let database = database.display();
    Error::Io(
        format!("cannot see whether a server of {database} runs"),
        error,
    )
}
