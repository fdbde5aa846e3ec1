//! Charts as inline SVG, drawn on the server: no script, no styles but classes.
//!
//! A chart of response times comes in three sizes; the page shows the wide or the narrow one,
//! so that labels keep their size on a phone. What a chart shows, its title says in words.

mod draw;
mod scale;
mod strip;
mod thin;

use std::fmt;

use askama::filters::HtmlSafe;
use jiff::SignedDuration;
use jiff::Timestamp;

use crate::site::format;

pub(crate) use self::strip::Cell;
pub(crate) use self::strip::strip;

/// The checks of one stretch of time, of the window's step in length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// When the stretch began.
    pub(crate) at: Timestamp,
    /// The mean response time of the checks that did not fail.
    pub(crate) mean_ms: f64,
    /// The longest response time of the checks that did not fail.
    pub(crate) max_ms: f64,
    /// How many checks failed.
    pub(crate) failures: u32,
    /// How many checks there were, failed ones included.
    pub(crate) checks: u32,
}

impl Point {
    /// Tells whether the times mean anything: they do not where every check failed.
    fn is_answered(&self) -> bool {
        self.checks > self.failures
    }
}

/// The time that a chart spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// The left edge.
    pub(crate) start: Timestamp,
    /// The right edge.
    pub(crate) end: Timestamp,
    /// The distance of two points that follow one another; a longer one is drawn as a gap.
    ///
    /// It is the length of a bucket, or the monitor's interval where that is longer.
    pub(crate) step: SignedDuration,
}

impl Window {
    fn words(&self) -> String {
        match self.end.duration_since(self.start).as_hours() {
            hours @ ..=48 => format!("last {hours} hours"),
            hours => format!("last {} days", hours / 24),
        }
    }
}

/// How large a chart is drawn, in the units of its view box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A sparkline for the list, without axes.
    Small,
    /// With axes, for a phone.
    Narrow,
    /// With axes, for a desk.
    Wide,
}

/// A finished drawing, safe to put into a page as it is.
#[derive(Debug, Clone)]
pub(crate) struct Svg(String);

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Every text in it went through an escaping template.
impl HtmlSafe for Svg {}

/// Response times over a window.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    window: Window,
    points: Vec<Point>,
}

impl Chart {
    /// Takes the points that lie in the window and have checks, in order of time.
    pub(crate) fn new(window: Window, points: &[Point]) -> Self {
        let inside = |point: &&Point| {
            point.checks > 0 && point.at < window.end && point.at + window.step > window.start
        };
        let mut points: Vec<_> = points.iter().filter(inside).copied().collect();
        points.sort_by_key(|point| point.at);
        Self { window, points }
    }

    /// Says what is to be seen: "median 45 ms, slowest 320 ms, 3 failed checks".
    pub(crate) fn summary(&self) -> String {
        let mut means: Vec<_> = self.answered().map(|point| point.mean_ms).collect();
        means.sort_by(f64::total_cmp);
        let failures = self
            .points
            .iter()
            .map(|point| u64::from(point.failures))
            .sum();
        let failed = match failures {
            0 => "no failed checks".to_owned(),
            _ => format::count(failures, "failed check"),
        };
        match means.get(means.len() / 2) {
            Some(median) => {
                let (median, slowest) = (format::millis(*median), format::millis(self.max_ms()));
                format!("median {median}, slowest {slowest}, {failed}")
            }
            None if self.points.is_empty() => "no checks yet".to_owned(),
            None => failed,
        }
    }

    /// Draws the chart.
    pub(crate) fn svg(&self, size: Size) -> Svg {
        draw::draw(self, size)
    }

    fn answered(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| point.is_answered())
    }

    fn max_ms(&self) -> f64 {
        self.answered()
            .map(|point| point.max_ms)
            .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests;
