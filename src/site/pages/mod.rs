//! The pages of the site: what each one shows, as plain data, beside its template.
//!
//! A page is rendered by askama's `render`. It asks nobody for anything: what it says, and what
//! time it is, comes in its fields.

mod state;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use askama::Template;
use jiff::SignedDuration;
use jiff::Timestamp;

use crate::site::chart;
use crate::site::chart::Cell;
use crate::site::chart::Chart;
use crate::site::chart::Size;
use crate::site::chart::Svg;
use crate::site::form::MonitorForm;
use crate::site::form::MonitorInput;
use crate::site::format;
use crate::site::format::Time;
use crate::site::probe::Cause;
use crate::site::probe::Failure;
use crate::site::probe::Method;
use houseboat::http::Errors;
use houseboat::http::Flash;
use houseboat::http::Message;
use houseboat::http::OnceKey;

pub(crate) use self::state::State;
pub(crate) use self::status::MonitorRow;
pub(crate) use self::status::StatusPage;

/// What stands around every page.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Whether it is for somebody who is signed in, and may change things.
    pub(crate) is_user: bool,
    /// Where `assets/site.css` is; the addresses carry a hash of the content.
    pub(crate) stylesheet: String,
    /// Where `assets/site.js` is.
    pub(crate) script: String,
    /// Where `assets/icon.svg` is.
    pub(crate) icon: String,
    /// What was just done, told once.
    pub(crate) messages: Vec<Message>,
}

impl Frame {
    /// The same with these messages; who sent a form twice is told once.
    pub(crate) fn telling(mut self, flash: &Flash) -> Self {
        self.messages = flash.messages().to_vec();
        self.messages.dedup();
        self
    }
}

/// The shares of checks that were up, from 0 to 1; `None` where there were none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Uptime {
    /// Over the last 24 hours.
    pub(crate) day: Option<f64>,
    /// Over the last 7 days.
    pub(crate) week: Option<f64>,
    /// Over the last 90 days.
    pub(crate) quarter: Option<f64>,
}

impl Uptime {
    fn labelled(&self) -> [(&'static str, String); 3] {
        [
            ("24 hours", self.day),
            ("7 days", self.week),
            ("90 days", self.quarter),
        ]
        .map(|(label, share)| (label, format::percentage(share)))
    }
}

/// A check that was made.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// When it began.
    pub(crate) at: Timestamp,
    /// How long it took.
    pub(crate) duration: Duration,
    /// The status of the answer, when there was one.
    pub(crate) status: Option<u16>,
    /// Why it failed; `None` when all was as expected.
    pub(crate) failure: Option<Failure>,
}

impl Check {
    fn time(&self) -> Time {
        Time::second(self.at)
    }

    fn ago(&self, now: &Timestamp) -> Time {
        Time::ago(self.at, *now)
    }

    fn took(&self) -> String {
        format::duration(self.duration)
    }

    fn state(&self) -> State {
        if self.failure.is_some() {
            State::Down
        } else {
            State::Up
        }
    }
}

/// A time during which a monitor was down.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    /// When the first of the failures was.
    pub(crate) start: Timestamp,
    /// When the monitor was up again; `None` while the incident goes on.
    pub(crate) end: Option<Timestamp>,
    /// Why the first check failed.
    pub(crate) cause: Cause,
    /// What was seen then.
    pub(crate) detail: String,
}

impl Incident {
    fn began(&self) -> Time {
        Time::instant(self.start)
    }

    fn ended(&self) -> Option<Time> {
        self.end.map(Time::instant)
    }

    fn length(&self, now: &Timestamp) -> String {
        let length = self.end.unwrap_or(*now).duration_since(self.start);
        format::duration(length.try_into().unwrap_or_default())
    }
}

/// `GET /monitors/{id}`: all there is to say about a monitor.
#[derive(Debug, Clone, Template)]
#[template(path = "site/monitor.html")]
pub(crate) struct MonitorPage {
    /// What stands around every page.
    pub(crate) frame: Frame,
    /// When the page is made.
    pub(crate) now: Timestamp,
    /// The monitor's number.
    pub(crate) id: i64,
    /// Its settings.
    pub(crate) input: MonitorInput,
    /// How it is.
    pub(crate) state: State,
    /// How it was.
    pub(crate) uptime: Uptime,
    /// Response times of the last day.
    pub(crate) chart: Chart,
    /// The last 90 days, oldest first, one cell a day.
    pub(crate) days: Vec<Cell>,
    /// The last incidents, newest first.
    pub(crate) incidents: Vec<Incident>,
    /// The last checks, newest first.
    pub(crate) checks: Vec<Check>,
}

impl MonitorPage {
    fn strip(&self) -> Svg {
        chart::strip(&self.days, SignedDuration::from_hours(24))
    }

    fn last(&self) -> Option<&Check> {
        self.checks.first()
    }

    /// What is wrong now, unless nobody looks.
    fn trouble(&self) -> Option<&'static str> {
        let failure = self.last()?.failure.as_ref()?;
        (!self.state.is_paused()).then_some(failure.cause.words())
    }

    fn every(&self) -> String {
        format::duration(self.input.interval)
    }

    fn timeout(&self) -> String {
        format::duration(self.input.target.timeout)
    }

    fn down_after(&self) -> String {
        match self.input.failures_max {
            1 => "1 failed check".to_owned(),
            failures => format!("{failures} failed checks in a row"),
        }
    }
}

/// Which monitor a form is of.
#[derive(Debug, Clone)]
pub(crate) enum Of {
    /// A new one, which is made once by this key.
    New(OnceKey),
    /// This one.
    Monitor(i64),
}

/// `GET /monitors/new`, `GET /monitors/{id}/edit`, and either again when something was wrong.
#[derive(Debug, Clone, Template)]
#[template(path = "site/monitor_form.html")]
pub(crate) struct FormPage {
    /// What stands around every page.
    pub(crate) frame: Frame,
    /// Which monitor it is of.
    pub(crate) of: Of,
    /// The fields as they were entered, or as they are.
    pub(crate) form: MonitorForm,
    /// What is wrong with them.
    pub(crate) errors: Errors,
}

impl FormPage {
    fn title(&self) -> &'static str {
        match self.of {
            Of::New(_) => "Add monitor",
            Of::Monitor(_) => "Edit monitor",
        }
    }

    fn label(field: &str) -> &'static str {
        match field {
            "name" => "Name",
            "address" => "Address",
            "method" => "Method",
            "expected_status" => "Expected status",
            "body_text" => "Text in the body",
            "interval_s" => "Interval in seconds",
            "timeout_s" => "Timeout in seconds",
            _ => "Failures in a row",
        }
    }

    fn errors_count(&self) -> u64 {
        self.errors.iter().map(|_| 1).sum()
    }

    fn action(&self) -> String {
        match self.of {
            Of::New(_) => "/monitors".to_owned(),
            Of::Monitor(id) => format!("/monitors/{id}"),
        }
    }

    fn back(&self) -> String {
        match self.of {
            Of::New(_) => "/".to_owned(),
            Of::Monitor(id) => format!("/monitors/{id}"),
        }
    }
}

/// `GET /monitors/{id}/delete`: asks before all is gone.
#[derive(Debug, Clone, Template)]
#[template(path = "site/delete.html")]
pub(crate) struct DeletePage {
    /// What stands around every page.
    pub(crate) frame: Frame,
    /// So that it is done once, however often the form is sent.
    pub(crate) key: OnceKey,
    /// The monitor's number.
    pub(crate) id: i64,
    /// What it is called.
    pub(crate) name: String,
    /// What it checks.
    pub(crate) address: String,
}
