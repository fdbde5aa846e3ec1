//! What the site does by itself: checks, and cleaning up.

use std::time::Duration;

use houseboat::database;
use houseboat::database::BoxError;
use houseboat::database::Transaction;
use houseboat::queue::Attempt;
use houseboat::queue::Job;
use houseboat::queue::Outcome;
use houseboat::queue::Priority;
use houseboat::queue::Queue;
use houseboat::queue::Request;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::site::Context;
use crate::site::alerts::SendAlert;
use crate::site::history;
use crate::site::incidents;
use crate::site::monitors;
use crate::site::monitors::Monitor;
use crate::site::pages::Incident;
use crate::site::probe;
use crate::site::probe::Failure;
use crate::site::probe::Finding;

/// Enqueues a check of every monitor whose time has come.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct CheckDueMonitors {}

impl Job for CheckDueMonitors {
    const NAME: &'static str = "check_due_monitors";
    // The next tick is seconds away, and does what this one did not.
    const ATTEMPTS_MAX: u32 = 1;
    const PRIORITY: Priority = Priority::High;
    type Context = Context;

    async fn run(self, context: Attempt<Context>) -> Result<Outcome, BoxError> {
        let queue = context.queue.clone();
        context
            .database
            .write(move |tx| {
                for monitor in monitors::take_due(tx)? {
                    queue.enqueue(tx, check(monitor))?;
                }
                Ok(())
            })
            .await?;
        Ok(Outcome::Complete)
    }
}

/// Enqueues a check of one monitor; if one waits or runs already, another follows at the next tick.
pub(crate) fn enqueue_check(
    queue: &Queue,
    tx: &Transaction<'_>,
    monitor: i64,
) -> database::Result<()> {
    if !queue.enqueue(tx, check(monitor))?.is_new() {
        // That one may be of before what the caller has changed.
        monitors::check_soon(tx, monitor)?;
    }
    Ok(())
}

/// One check of a monitor at a time.
fn check(monitor: i64) -> Request {
    let key = format!("{}:{monitor}", CheckMonitor::NAME);
    Request::new(&CheckMonitor { monitor }).unique(key)
}

/// Checks one monitor and stores what it found.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CheckMonitor {
    monitor: i64,
}

impl Job for CheckMonitor {
    const NAME: &'static str = "check_monitor";
    const ATTEMPTS_MAX: u32 = 3;
    // The longest that a monitor's own timeout can be is 60 s.
    const TIMEOUT: Duration = Duration::from_secs(90);
    type Context = Context;

    async fn run(self, context: Attempt<Context>) -> Result<Outcome, BoxError> {
        let id = self.monitor;
        let monitor = context
            .database
            .read(move |conn| monitors::find(conn, id))
            .await?;
        let Some(monitor) = monitor.filter(|monitor| !monitor.paused) else {
            return Ok(Outcome::Cancel(
                "the monitor is paused or deleted".to_owned(),
            ));
        };
        let at = context.database.now();
        let finding = probe::probe(&monitor.input.target, context.settings.network()).await;
        let queue = context.queue.clone();
        let alerts = !context.settings.webhook_url.is_empty();
        let stored = context.database.write(move |tx| {
            // Changed while the check ran: what it found is of something else.
            if !is_still(tx, &monitor)? {
                return Ok(false);
            }
            let alert = record(tx, &monitor, at, &finding)?;
            if let Some(alert) = alert.filter(|_| alerts) {
                queue.enqueue(tx, &alert)?;
            }
            Ok(true)
        });
        if stored.await? {
            Ok(Outcome::Complete)
        } else {
            Ok(Outcome::Snooze(Duration::ZERO))
        }
    }

    fn backoff(attempt: u32) -> Duration {
        Duration::from_secs(attempt.into())
    }
}

fn is_still(tx: &Transaction<'_>, monitor: &Monitor) -> database::Result<bool> {
    let now = monitors::find(tx, monitor.id)?;
    Ok(now.is_some_and(|now| now.changed_at == monitor.changed_at))
}

/// Stores what a check found, begins or ends an incident, and says what there is to tell.
fn record(
    tx: &Transaction<'_>,
    monitor: &Monitor,
    at: Timestamp,
    finding: &Finding,
) -> database::Result<Option<SendAlert>> {
    history::insert(tx, monitor.id, at, finding)?;
    match &finding.failure {
        Some(failure) => failed(tx, monitor, at, failure),
        None => succeeded(tx, monitor),
    }
}

fn succeeded(tx: &Transaction<'_>, monitor: &Monitor) -> database::Result<Option<SendAlert>> {
    monitors::forget_failures(tx, monitor.id)?;
    let closed = incidents::close(tx, monitor.id)?;
    Ok(closed.map(|(id, incident)| SendAlert::new(monitor, id, &incident)))
}

fn failed(
    tx: &Transaction<'_>,
    monitor: &Monitor,
    at: Timestamp,
    failure: &Failure,
) -> database::Result<Option<SendAlert>> {
    let failures = monitors::count_failure(tx, monitor.id)?;
    if monitor.down || failures < monitor.input.failures_max {
        return Ok(None);
    }
    let first = history::first_of_last(tx, monitor.id, failures)?;
    // After a clock was set back, the checks are not in the order of their times.
    let first = first.and_then(|check| Some((check.at, check.failure?)));
    let (start, failure) = first.unwrap_or_else(|| (at, failure.clone()));
    let incident = Incident {
        start,
        end: None,
        cause: failure.cause,
        detail: failure.detail,
    };
    let id = incidents::open(tx, monitor.id, &incident)?;
    Ok(id.map(|id| SendAlert::new(monitor, id, &incident)))
}

/// Deletes what is older than the site keeps, and what deleted monitors have left.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct PruneHistory {}

/// So many checks go in one transaction, so that a visitor's write waits some milliseconds at the most.
const BATCH: u32 = 200;

impl PruneHistory {
    /// To be done soon, and once: an hourly one is in the schedule.
    pub(crate) fn request() -> Request {
        Request::new(&Self {}).unique(Self::NAME)
    }
}

impl Job for PruneHistory {
    const NAME: &'static str = "prune_history";
    const PRIORITY: Priority = Priority::Low;
    type Context = Context;

    async fn run(self, context: Attempt<Context>) -> Result<Outcome, BoxError> {
        let (keep, database) = (context.settings.keep(), context.database.clone());
        let batch = move |tx: &Transaction<'_>| history::prune_checks(tx, keep, BATCH);
        while database.write(batch).await? >= BATCH as usize {}
        for monitor in database.read(monitors::ids).await? {
            let periods = move |tx: &Transaction<'_>| history::prune_periods(tx, monitor, keep);
            database.write(periods).await?;
        }
        let rest = database.write(move |tx| {
            incidents::prune(tx, keep)?;
            monitors::remove_deleted(tx)
        });
        rest.await?;
        Ok(Outcome::Complete)
    }
}
