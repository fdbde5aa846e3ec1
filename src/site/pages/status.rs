//! `GET /`: all monitors, and one sentence about them.

use askama::Template;
use jiff::Timestamp;

use crate::site::chart::Chart;
use crate::site::chart::Size;
use crate::site::format::Time;
use crate::site::pages::Check;
use crate::site::pages::Frame;
use crate::site::pages::State;
use crate::site::pages::Uptime;

/// The list of all monitors.
#[derive(Debug, Clone, Template)]
#[template(path = "site/status.html")]
pub(crate) struct StatusPage {
    /// What stands around every page.
    pub(crate) frame: Frame,
    /// When the page is made.
    pub(crate) now: Timestamp,
    /// The monitors in their order on the page.
    pub(crate) monitors: Vec<MonitorRow>,
}

/// A monitor in the list.
#[derive(Debug, Clone)]
pub(crate) struct MonitorRow {
    /// Its number.
    pub(crate) id: i64,
    /// What it is called.
    pub(crate) name: String,
    /// What it checks.
    pub(crate) address: String,
    /// How it is.
    pub(crate) state: State,
    /// How it was.
    pub(crate) uptime: Uptime,
    /// The last check.
    pub(crate) last: Option<Check>,
    /// Response times of the last day.
    pub(crate) chart: Chart,
}

impl StatusPage {
    /// The worst that is true of the monitors, for the colour of the sentence.
    fn overall(&self) -> State {
        let worst = |state: &State| match state {
            State::Down => 4,
            State::Failing { .. } => 3,
            State::Up => 2,
            State::Pending => 1,
            State::Paused => 0,
        };
        let states = self.monitors.iter().map(|monitor| monitor.state);
        states.max_by_key(worst).unwrap_or(State::Pending)
    }

    /// Says how the monitors are: "All 4 monitors are up", "2 of 5 monitors are down".
    fn sentence(&self) -> String {
        let down = self.count("down");
        let up = self.count("up") + self.count("failing");
        let watched = up + down;
        match (down, watched) {
            (0, 0) if self.count("pending") > 0 => "Waiting for the first check".to_owned(),
            (0, 0) => "Everything is paused".to_owned(),
            (0, 1) => "The monitor is up".to_owned(),
            (1, 1) => "The monitor is down".to_owned(),
            (0, 2) => "Both monitors are up".to_owned(),
            (2, 2) => "Both monitors are down".to_owned(),
            (0, _) => format!("All {watched} monitors are up"),
            (1, _) => format!("1 of {watched} monitors is down"),
            _ if down == watched => format!("All {down} monitors are down"),
            _ => format!("{down} of {watched} monitors are down"),
        }
    }

    /// Says what the sentence leaves out: "1 is failing, 2 are paused".
    fn remarks(&self) -> String {
        let remark = |class, one: &str, many: &str| match self.count(class) {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let remarks = [
            remark("failing", "is failing", "are failing"),
            remark(
                "pending",
                "waits for its first check",
                "wait for their first check",
            ),
            remark("paused", "is paused", "are paused"),
        ];
        remarks.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn count(&self, class: &str) -> usize {
        self.monitors
            .iter()
            .filter(|monitor| monitor.state.class() == class)
            .count()
    }
}

impl MonitorRow {
    /// What is wrong now, for those that are down or failing.
    fn trouble(&self) -> Option<&str> {
        let failure = self.last.as_ref()?.failure.as_ref()?;
        let is_shown = matches!(self.state, State::Down | State::Failing { .. });
        is_shown.then_some(&failure.detail)
    }
}
