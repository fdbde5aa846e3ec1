//! From the tables to the pages.

use std::time::Duration;

use houseboat::database::Result;
use houseboat::http;
use jiff::SignedDuration;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::site::assets;
use crate::site::chart::Chart;
use crate::site::chart::Window;
use crate::site::history;
use crate::site::incidents;
use crate::site::monitors;
use crate::site::monitors::Monitor;
use crate::site::pages::Check;
use crate::site::pages::Frame;
use crate::site::pages::MonitorPage;
use crate::site::pages::MonitorRow;
use crate::site::pages::State;
use crate::site::pages::StatusPage;

/// So many of each stand on a monitor's page.
const CHECKS_SHOWN: u32 = 20;
const INCIDENTS_SHOWN: u32 = 20;

/// What stands around every page, for users or for visitors.
pub(crate) fn frame(is_user: bool) -> Frame {
    let assets = assets();
    Frame {
        is_user,
        stylesheet: assets.url("site.css"),
        script: assets.url("site.js"),
        icon: assets.url("icon.svg"),
        messages: Vec::new(),
    }
}

/// The list of all monitors.
pub(crate) fn status(conn: &Connection, now: Timestamp, frame: Frame) -> Result<StatusPage> {
    // One state of the database for all that is on the page.
    let tx = conn.unchecked_transaction()?;
    let row = |monitor: Monitor| row(&tx, monitor, now);
    let rows = monitors::list(&tx)?.into_iter().map(row);
    Ok(StatusPage {
        frame,
        now,
        monitors: rows.collect::<Result<_>>()?,
    })
}

fn row(conn: &Connection, monitor: Monitor, now: Timestamp) -> Result<MonitorRow> {
    let last = history::last(conn, monitor.id, 1)?.pop();
    Ok(MonitorRow {
        id: monitor.id,
        state: state(&monitor, last.as_ref()),
        uptime: history::uptime(conn, monitor.id, now)?,
        chart: chart(conn, &monitor, now)?,
        last,
        name: monitor.input.name,
        address: monitor.input.target.address,
    })
}

/// All there is to say about a monitor.
pub(crate) fn monitor(
    conn: &Connection,
    id: i64,
    now: Timestamp,
    frame: Frame,
) -> Result<MonitorPage> {
    let tx = conn.unchecked_transaction()?;
    let monitor = monitors::find(&tx, id)?.ok_or_else(missing)?;
    let checks = history::last(&tx, id, CHECKS_SHOWN)?;
    Ok(MonitorPage {
        frame,
        now,
        id,
        state: state(&monitor, checks.first()),
        uptime: history::uptime(&tx, id, now)?,
        chart: chart(&tx, &monitor, now)?,
        days: history::days(&tx, id, now)?,
        incidents: incidents::last(&tx, id, INCIDENTS_SHOWN)?,
        checks,
        input: monitor.input,
    })
}

fn chart(conn: &Connection, monitor: &Monitor, now: Timestamp) -> Result<Chart> {
    let day = SignedDuration::from_hours(24);
    let step = Duration::max(history::FIVE_MINUTES, monitor.input.interval);
    let window = Window {
        start: now.checked_sub(day).unwrap_or(now),
        end: now,
        step: step.try_into().unwrap_or(day),
    };
    Ok(Chart::new(window, &history::points(conn, monitor.id, now)?))
}

fn state(monitor: &Monitor, last: Option<&Check>) -> State {
    match monitor {
        Monitor { paused: true, .. } => State::Paused,
        Monitor { down: true, .. } => State::Down,
        // What failed before it was changed says nothing of what it is now.
        _ if last.is_none_or(|last| last.failure.is_some() && last.at < monitor.changed_at) => {
            State::Pending
        }
        Monitor { failures: 0, .. } => State::Up,
        monitor => State::Failing {
            failures: monitor.failures,
            failures_max: monitor.input.failures_max,
        },
    }
}

/// What a closure gives up with when there is no such monitor; `found` makes a 404 of it.
#[derive(Debug, thiserror::Error)]
#[error("there is no such monitor")]
struct Missing;

pub(crate) fn missing() -> houseboat::database::Error {
    houseboat::database::Error::abort(Missing)
}

/// Tells a monitor that is not there from a failure.
pub(crate) fn found<T>(result: Result<T>) -> http::Result<T> {
    result.map_err(|error| match error.abort_reason::<Missing>() {
        Some(_) => http::Error::not_found(),
        None => error.into(),
    })
}
