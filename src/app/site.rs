//! A site in its life: what runs while it is served, and how it ends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::sign;
use crate::auth;
use crate::auth::Accounts;
use crate::context::Context;
use crate::database::Damage;
use crate::database::Fence;
use crate::database::Keeper;
use crate::error::Error;
use crate::error::Result;
use crate::http;
use crate::queue;
use crate::queue::Maintenance;
use crate::queue::Scheduler;
use crate::queue::Worker;
use crate::replication::Snapshots;
use crate::settings::NoSettings;
use crate::settings::Section;

/// What is left of `server.stop_ms` for closing the files, once requests and jobs have had theirs:
/// a second, or a quarter where that is less.
const CLOSE: Duration = Duration::from_secs(1);

/// A stop that takes longer says what it waits for.
const SLOW: Duration = Duration::from_millis(500);

/// What a worker has, at least, for recording what its jobs did.
const RECORD: Duration = Duration::from_millis(250);

/// What a site does when its database is found damaged.
pub(super) type OnDamage<S> =
    Arc<dyn Fn(Context<S>, Damage) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A site whose files are open and of which nothing runs yet.
pub struct Site<S = NoSettings> {
    pub(super) context: Context<S>,
    pub(super) router: Router,
    pub(super) keeper: Keeper,
    pub(super) on_damage: Option<OnDamage<S>>,
    pub(super) accounts: Option<Accounts>,
    /// Where it is reached, if its listener does not know better.
    pub(super) address: String,
    pub(super) worker: Worker<Context<S>>,
    pub(super) scheduler: Scheduler,
    pub(super) maintenance: Maintenance,
    pub(super) snapshots: Option<Snapshots>,
    /// Until when it may write, for those who run jobs beside it.
    pub(super) fence: Fence,
    pub(super) server: http::Settings,
}

impl<S> fmt::Debug for Site<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Site")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
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

    /// The users, where the site has any ([`App::auth`](crate::App::auth)).
    #[must_use]
    pub fn accounts(&self) -> Option<&Accounts> {
        self.accounts.as_ref()
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
    /// When one of its parts ends by itself.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let mut running = self.run(Some(listener), stop.clone());
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            part = running.ended() => Some(part),
        };
        // A part that ends because it was told to is no news.
        let ended = ended.filter(|_| !stop.is_cancelled());
        running.stop().await;
        match ended {
            Some(part) => Err(Error::Ended(part)),
            None => Ok(()),
        }
    }

    /// Starts everything that runs as long as the site does; without a listener, requests come by its router alone.
    pub(super) fn run(self, listener: Option<TcpListener>, stop: CancellationToken) -> Running<S> {
        let (context, keeper) = (self.context.clone(), self.keeper.clone());
        let stop_time = self.server.stop();
        Running {
            parts: self.start(listener, &stop),
            context,
            keeper,
            stop,
            stop_time,
        }
    }

    /// Starts the parts; each gives its name when it ends.
    fn start(
        self,
        listener: Option<TcpListener>,
        stop: &CancellationToken,
    ) -> JoinSet<&'static str> {
        let mut parts = JoinSet::new();
        let (keeper, token) = (self.keeper, stop.clone());
        parts.spawn(async move {
            keeper.run(token).await;
            "keeper"
        });
        let (context, token) = (self.context.clone(), stop.clone());
        parts.spawn(async move {
            let telling = tell_of_damage(context, self.on_damage);
            token.run_until_cancelled(telling).await;
            "alarm"
        });
        let (worker, scheduler, maintenance) = (self.worker, self.scheduler, self.maintenance);
        if let Some(accounts) = self.accounts {
            let listening = listener.as_ref().and_then(|it| it.local_addr().ok());
            let address = listening.map_or(self.address, |address| format!("http://{address}"));
            let token = stop.clone();
            parts.spawn(async move {
                auth::announce(&accounts, &address).await;
                token.cancelled().await;
                "announcement"
            });
        }
        if let Some(listener) = listener {
            let (router, settings, token) = (self.router, self.server, stop.clone());
            parts.spawn(async move {
                http::serve(listener, router, &settings, token).await;
                "server"
            });
        }
        let database = self.context.database;
        let (path, fence, token) = (database.path().to_owned(), self.fence, stop.clone());
        parts.spawn(async move {
            sign::show(&path, &fence, token).await;
            "sign"
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
        if let Some(snapshots) = self.snapshots {
            let token = stop.clone();
            parts.spawn(async move {
                snapshots.run(database, token.clone()).await;
                // Where none is due by the clock, it ends at once.
                token.cancelled().await;
                "snapshots"
            });
        }
        parts
    }
}

/// A site of which everything runs.
pub(super) struct Running<S> {
    parts: JoinSet<&'static str>,
    context: Context<S>,
    keeper: Keeper,
    stop: CancellationToken,
    stop_time: Duration,
}

impl<S: Section> Running<S> {
    /// Adds a part: it is waited for at the end like the others.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.parts.spawn(async move {
            stop.cancelled().await;
            part.await;
            name
        });
    }

    /// Adds a part that runs until the token that it is given says so.
    pub(super) fn run_beside<F>(
        &mut self,
        name: &'static str,
        part: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let part = part(self.stop.clone());
        self.parts.spawn(async move {
            part.await;
            name
        });
    }

    /// Waits until a part ends by itself, which none should, and says which.
    pub(super) async fn ended(&mut self) -> String {
        match self.parts.join_next().await {
            Some(part) => part.unwrap_or("part that panicked").to_owned(),
            None => std::future::pending().await,
        }
    }

    /// Ends the parts and closes the files, within `server.stop_ms`.
    pub(super) async fn stop(self) {
        let close = close_time(self.stop_time);
        let run = self.stop_time.saturating_sub(close);
        self.stop.cancel();
        finish(self.parts, run).await;
        let closing = async {
            self.context.cache.close().await;
            self.context.database.close().await;
        };
        if tokio::time::timeout(close, closing).await.is_ok() {
            self.keeper.closed();
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped, and what was still to be written is left");
        }
    }
}

/// Calls the site's hook for each damage that is found, and at the start where it is known already.
async fn tell_of_damage<S: Section>(context: Context<S>, on_damage: Option<OnDamage<S>>) {
    let mut damage = context.database.watch_damage();
    damage.mark_changed();
    while damage.changed().await.is_ok() {
        let found = damage.borrow_and_update().clone();
        if let (Some(found), Some(tell)) = (found, &on_damage) {
            // In a task of its own: what panics there does not stop the site.
            if let Err(error) = tokio::spawn(tell(context.clone(), found)).await {
                tracing::error!(%error, "nobody could be told that the database is damaged");
            }
        }
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
pub(super) fn in_time(settings: &queue::Settings, stop_time: Duration) -> queue::Settings {
    let jobs = stop_time
        .saturating_sub(close_time(stop_time))
        .saturating_sub(RECORD);
    let jobs_ms = u64::try_from(jobs.as_millis()).unwrap_or(u64::MAX);
    queue::Settings {
        stop_ms: settings.stop_ms.min(jobs_ms),
        ..settings.clone()
    }
}
