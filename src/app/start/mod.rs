//! What a container runs: the lease, the data, the site, and the hand-over to the next one.
//!
//! One rule: a container that may not serve passes every request on to the one that may, and holds it while there is
//! none. So it answers from its first moment to its last, whoever serves.

mod alone;
mod budget;
mod control;
mod data;
mod rehearsal;
mod replicating;
mod seat;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::late;
use crate::app::listen;
use crate::app::site::Running;
use crate::config::Config;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Fence;
use crate::database::real_path;
use crate::error::Error;
use crate::error::Result;
use crate::http::Front;
use crate::http::Peer;
use crate::http::Progress;
use crate::http::Role;
use crate::http::Status;
use crate::http::addresses as addresses_of;
use crate::replication;
use crate::replication::Bucket;
use crate::replication::Drill;
use crate::replication::Holder;
use crate::replication::Litestream;
use crate::replication::RestoreProgress;
use crate::settings::Secret;
use crate::settings::Section;
use crate::shutdown;
use crate::shutdown::Stop;

use self::budget::Budget;
use self::control::Desk;
use self::replicating::Replicating;
use self::seat::Seat;

pub(crate) use self::alone::replicate;
pub(crate) use self::seat::answers;

/// More questions than that at once nobody asks.
const QUESTIONS: usize = 64;

/// What is left of the grace when the last copy is given up, so that the lease can be given back.
const RELEASE: Duration = Duration::from_secs(1);

/// A container, from its first moment to its last.
pub(super) struct Container {
    front: Front,
    status: watch::Sender<Status>,
    /// Told when another container is seen to serve.
    is_second: Notify,
    has_rehearsed: AtomicBool,
    /// Who waited when this container was told to stop, and is passed to even if its question breaks off meanwhile.
    next: Mutex<Option<Holder>>,
    desk: Arc<Desk>,
    own: Holder,
    fence: Fence,
    database: PathBuf,
    budget: Budget,
    stop: Stop,
    /// When the stop signal came.
    signalled: Arc<OnceLock<Instant>>,
    /// Ends the listeners.
    closed: CancellationToken,
}

/// Serves a site as one of several containers that follow each other, until SIGINT or SIGTERM.
pub(crate) async fn start<S: Section>(app: App<S>, mut config: Config<S>) -> Result<()> {
    let stop = shutdown::on_signals().map_err(|error| Error::Io("signals".to_owned(), error))?;
    let budget = Budget::of(&config.server, &config.handover, config.replication.is_on())?;
    config.server.stop_ms = u64::try_from(budget.stop.as_millis()).unwrap_or(u64::MAX);
    let bucket = bucket(&config.replication)?;
    if bucket.is_some() {
        Litestream::check(&config.replication).await?;
    }
    // Before anything is made: a port in use must leave no trace.
    let listener = listen(&config.server).await?;
    Database::refuse(&config.database)?;
    let mut tasks = JoinSet::new();
    let container =
        Container::open((app.name(), &config), (listener, budget, stop), &mut tasks).await?;
    let lived = container.live(app, config, bucket).await;
    container.end(tasks).await;
    match lived {
        Err(Error::Stopped) => Ok(()),
        lived => lived,
    }
}

fn bucket(settings: &replication::Settings) -> Result<Option<Bucket>> {
    if !settings.is_on() {
        tracing::warn!(
            "nothing is replicated: replication.bucket is not set, and the data is on this disk alone"
        );
        return Ok(None);
    }
    Ok(Some(Bucket::replica(settings)?))
}

impl Container {
    /// Opens the doors: from now on every request is answered, passed on, or held.
    async fn open<S: Section>(
        (site, config): (&str, &Config<S>),
        (listener, budget, stop): (TcpListener, Budget, Stop),
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let address = (config.server.host.as_str(), config.handover.port);
        let peers = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen {
                address: format!("{}:{}", address.0, address.1),
                source,
            })?;
        let io = |error| Error::Io("the address for other containers".to_owned(), error);
        let addresses = addresses_of(&config.handover, peers.local_addr().map_err(io)?);
        let (lease, now) = (config.replication.lease(), Clock::system().now());
        let own = Holder::new(site, addresses, lease, now);
        let fence = if config.replication.is_on() {
            Fence::closed()
        } else {
            Fence::open()
        };
        let status = watch::Sender::new(Status::new(Role::Starting, Clock::system().now()));
        let front = Front::new(&config.handover, &config.server, status.subscribe());
        let closed = CancellationToken::new();
        let desk = Arc::new(Desk::new(own.id.clone(), fence.clone(), front.clone()));
        let (ask, questions) = mpsc::channel(QUESTIONS);
        if let Ok(address) = listener.local_addr() {
            let url = (!config.server.url.is_empty()).then_some(&config.server.url);
            tracing::info!(
                environment = config.environment,
                url,
                "listening on http://{address}"
            );
        }
        tracing::info!(addresses = ?own.addresses, ?budget, "other containers are listened to");
        let (public, token) = (front.clone(), closed.clone());
        tasks.spawn(async move { public.run(listener, token).await });
        let (inner, key, token) = (front.clone(), Secret::from(own.key.clone()), closed.clone());
        tasks.spawn(async move { inner.run_peers(peers, key, ask, token).await });
        let answering = Arc::clone(&desk);
        tasks.spawn(async move { answering.run(questions).await });
        let signalled = Arc::new(OnceLock::new());
        tasks.spawn(when_signalled(
            (stop.soon.clone(), closed.clone()),
            Arc::clone(&signalled),
            status.clone(),
        ));
        Ok(Self {
            front,
            is_second: Notify::new(),
            has_rehearsed: AtomicBool::new(false),
            next: Mutex::default(),
            signalled,
            status,
            desk,
            own,
            fence,
            database: real_path(&config.database.path),
            budget,
            stop,
            closed,
        })
    }

    /// Says what this container does from now on, and whether that is something else than before.
    fn set(&self, role: Role) -> bool {
        let now = self.status.borrow().role;
        // Once it is told to stop, whatever it still does: its health is to fail.
        let is_new = now != role && now != Role::Draining;
        if is_new {
            self.status
                .send_replace(Status::new(role, Clock::system().now()));
        }
        is_new
    }

    fn progress(&self, progress: RestoreProgress) {
        let (RestoreProgress::Fetching { bytes } | RestoreProgress::Checking { bytes }) = progress;
        let progress = Progress {
            done: bytes,
            total: None,
        };
        self.status
            .send_modify(|status| status.progress = Some(progress));
    }

    fn is_standby(&self, holder: &Holder, peer: &Peer) {
        let role = if self.has_rehearsed.load(Ordering::Relaxed) {
            Role::Standby
        } else {
            Role::Rehearsing
        };
        if self.set(role) {
            tracing::info!(
                holder = holder.id,
                "another container serves: requests are passed on to it"
            );
            self.is_second.notify_one();
        }
        self.front.pass(peer.clone());
    }

    /// The migrations were tried: from now on a standby is healthy.
    fn is_rehearsed(&self) {
        self.has_rehearsed.store(true, Ordering::Relaxed);
        if self.status.borrow().role == Role::Rehearsing {
            self.set(Role::Standby);
        }
    }

    fn since_signal(&self) -> Option<Duration> {
        self.signalled.get().map(Instant::elapsed)
    }

    /// From waiting for the seat to giving it back.
    async fn live<S: Section>(
        &self,
        app: App<S>,
        config: Config<S>,
        bucket: Option<Bucket>,
    ) -> Result<()> {
        let taken = tokio::select! {
            seat = Seat::take(self, bucket.as_ref(), &config.replication) => seat,
            error = self.rehearse(&config, app.sets(), bucket.as_ref()) => Err(error),
            () = self.stop.soon.cancelled() => Err(Error::Stopped),
        };
        let seat = match taken {
            Ok(seat) => seat,
            Err(error) => {
                // It may have been taken in this moment.
                if let Some(bucket) = &bucket {
                    seat::abandon(bucket, &self.own.id, RELEASE).await;
                }
                return Err(error);
            }
        };
        let (whole, served) = match self.serve(app, config, &seat, bucket.as_ref()).await {
            Ok((serving, ended)) => (self.drain(serving, &ended).await, ended),
            Err(error) => (None, Err(error)),
        };
        // After a second signal there is no time to give anything back.
        if !self.stop.now.is_cancelled() {
            seat.leave(whole, RELEASE).await;
            let told = self.desk.released();
            let expected = self
                .next
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(next) = told.or(expected) {
                tracing::info!(
                    container = next.id,
                    "requests are passed on to the next one"
                );
                seat::until_it_holds(&next).await;
                self.front.pass(Peer::new(next.addresses, &next.key));
            }
        }
        served
    }

    /// Brings the data and serves the site, until the signal, or why else it has ended.
    async fn serve<S: Section>(
        &self,
        app: App<S>,
        config: Config<S>,
        seat: &Seat,
        bucket: Option<&Bucket>,
    ) -> Result<(Serving<S>, Result<()>)> {
        let begun = Instant::now();
        let lost = seat.lost();
        tokio::pin!(lost);
        let mut serving = tokio::select! {
            serving = self.prepare(app, config, seat, bucket) => serving?,
            error = &mut lost => return Err(error.into()),
            // A restore or a migration that is broken off is taken back.
            () = late(&self.stop, self.budget.stop) => return Err(Error::Stopped),
        };
        self.set(Role::Serving);
        tracing::info!(took = ?begun.elapsed(), "serving");
        let ended = tokio::select! {
            () = self.stop.soon.cancelled() => Ok(()),
            error = &mut lost => Err(error.into()),
            part = serving.site.ended() => Err(Error::Ended(part)),
        };
        Ok((serving, ended))
    }

    async fn prepare<S: Section>(
        &self,
        app: App<S>,
        config: Config<S>,
        seat: &Seat,
        bucket: Option<&Bucket>,
    ) -> Result<Serving<S>> {
        let settings = config.replication.clone();
        let drill = bucket.map(|it| Drill::new(&settings, &config.database, it.clone()));
        let replica = seat.lease.as_ref().zip(bucket);
        if let Some((lease, bucket)) = replica {
            self.bring(&config, (seat, lease, bucket)).await?;
        }
        self.set(Role::Migrating);
        let site = app
            .open_behind(config, Clock::system(), self.fence.clone())
            .await?;
        let replicating = match replica {
            Some(to) => {
                let replica = &site.context().replica;
                site.context().database.leave_the_wal(true);
                Some(Replicating::start(&self.database, &settings, to, replica).await?)
            }
            None => None,
        };
        if let (Some(replicating), Some((lease, _))) = (&replicating, replica) {
            replicating.first_copy(lease).await;
        }
        self.front.serve(site.router());
        let context = site.context().clone();
        let mut site = site.run(None, CancellationToken::new());
        let front = self.front.clone();
        site.add("server", async move { front.ended().await });
        if let Some(drill) = drill {
            let (database, replica) = (context.database.clone(), context.replica);
            site.run_beside("drill", async move |stop| {
                drill.run(&database, &replica, stop).await;
            });
        }
        Ok(Serving { site, replicating })
    }

    /// Ends the site and the copying, in the platform's grace; gives the generation that everything is in, if it is.
    async fn drain<S: Section>(&self, serving: Serving<S>, ended: &Result<()>) -> Option<String> {
        let begun = Instant::now();
        self.set(Role::Draining);
        let is_lost = matches!(ended, Err(Error::Replication(replication::Error::Lost(_))));
        let next = self.desk.next();
        let is_followed = next.is_some();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
        if is_lost || is_followed {
            self.front.hold();
        } else {
            // Nobody to pass to: what is accepted is served, and no more is accepted.
            self.closed.cancel();
        }
        if is_lost {
            // First: what this process has from now on is not the site's.
            serving.replicating.into_iter().for_each(Replicating::kill);
            serving.site.stop().await;
            return None;
        }
        let copying = serving.replicating.as_ref().map(Replicating::litestream);
        let at_once = async {
            self.stop.now.cancelled().await;
            // It would live on: nothing that is dropped is waited for then.
            if let Some(litestream) = &copying {
                litestream.kill();
            }
        };
        tokio::pin!(at_once);
        tokio::select! {
            () = serving.site.stop() => {}
            () = &mut at_once => return None,
        }
        let stopped = begun.elapsed();
        let whole = match serving.replicating {
            Some(replicating) => {
                let left = self.budget.copy(self.since_signal().unwrap_or(stopped));
                tokio::select! {
                    whole = replicating.end(left) => whole,
                    () = at_once => None,
                }
            }
            None => None,
        };
        let copied = begun.elapsed().saturating_sub(stopped);
        tracing::info!(requests_and_jobs = ?stopped, last_copy = ?copied, "the site has ended");
        whole
    }

    /// Passes on what still comes, until the proxy knows that this container has gone.
    async fn end(&self, mut tasks: JoinSet<()>) {
        self.set(Role::Draining);
        if self.front.is_passing() && self.stop.soon.is_cancelled() {
            let since_signal = self.since_signal().unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(self.budget.linger.saturating_sub(since_signal)) => {}
                () = self.stop.now.cancelled() => {}
            }
        }
        self.closed.cancel();
        let listeners = async { while tasks.join_next().await.is_some() {} };
        let left = self
            .since_signal()
            .map(|since| self.budget.until_kill(since));
        if tokio::time::timeout(left.unwrap_or(RELEASE), listeners)
            .await
            .is_err()
        {
            tracing::warn!("requests that were being passed on are left");
        }
    }
}

/// Notes when the stop signal comes, from which moment on the container's health fails.
async fn when_signalled(
    (soon, closed): (CancellationToken, CancellationToken),
    signalled: Arc<OnceLock<Instant>>,
    status: watch::Sender<Status>,
) {
    if closed.run_until_cancelled(soon.cancelled()).await.is_some() {
        let _ = signalled.set(Instant::now());
        status.send_replace(Status::new(Role::Draining, Clock::system().now()));
    }
}

/// A site that is served, and what copies it.
struct Serving<S> {
    site: Running<S>,
    replicating: Option<Replicating>,
}
