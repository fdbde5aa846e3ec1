//! Puts points, ticks and marks to their places.

use std::fmt::Write;

use askama::Template;
use jiff::Timestamp;

use crate::site::chart::Chart;
use crate::site::chart::Point;
use crate::site::chart::Size;
use crate::site::chart::Svg;
use crate::site::chart::scale;
use crate::site::chart::thin::thin;
use crate::site::format;

/// Two points are neighbours up to this many steps: clocks jitter.
const NEIGHBOUR_STEPS: f64 = 1.75;

/// The view box and the plot in it; below the plot is the lane of the failure marks.
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Half the side of a cross.
    cross: f64,
    /// How many time labels have room; 0 draws no axes.
    times_max: i64,
    /// More points than these could not be told apart.
    points_max: i64,
}

const SMALL: Frame = Frame {
    class: "small",
    width: 200.0,
    height: 44.0,
    left: 2.0,
    right: 198.0,
    top: 3.0,
    bottom: 33.0,
    cross: 3.0,
    times_max: 0,
    points_max: 100,
};

const NARROW: Frame = Frame {
    class: "narrow",
    width: 320.0,
    height: 220.0,
    left: 50.0,
    right: 304.0,
    top: 10.0,
    bottom: 172.0,
    cross: 4.0,
    times_max: 4,
    points_max: 150,
};

const WIDE: Frame = Frame {
    class: "wide",
    width: 960.0,
    height: 260.0,
    left: 58.0,
    right: 940.0,
    top: 10.0,
    bottom: 208.0,
    cross: 4.0,
    times_max: 8,
    points_max: 450,
};

/// Around a point that has no neighbour: a line of no length would hardly be seen.
const DOT: &str = "m-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0";

#[derive(Template)]
#[template(path = "site/chart.svg")]
struct Drawing {
    frame: &'static Frame,
    title: String,
    summary: String,
    values: Vec<Tick>,
    times: Vec<Tick>,
    band: String,
    line: String,
    marks: Vec<Mark>,
    empty: &'static str,
}

struct Tick {
    at: String,
    label: String,
}

/// A run of stretches in which checks failed.
struct Mark {
    x: String,
    width: String,
    cross: String,
}

pub(super) fn draw(chart: &Chart, size: Size) -> Svg {
    let frame = match size {
        Size::Small => &SMALL,
        Size::Narrow => &NARROW,
        Size::Wide => &WIDE,
    };
    let thinned = thin(chart, frame.points_max);
    let drawing = Plot::new(&thinned, frame).drawing(chart.summary());
    let svg = drawing.render().expect("writing to a string cannot fail");
    Svg(svg)
}

struct Plot<'a> {
    chart: &'a Chart,
    frame: &'static Frame,
    values: Vec<f64>,
    value_max: f64,
}

impl<'a> Plot<'a> {
    fn new(chart: &'a Chart, frame: &'static Frame) -> Self {
        let values = scale::values(chart.max_ms());
        let value_max = match frame.times_max {
            // Without axes one slow check would press all others flat.
            0 => {
                chart
                    .answered()
                    .map(|point| point.mean_ms)
                    .fold(f64::EPSILON, f64::max)
                    * 1.1
            }
            _ => values.last().copied().unwrap_or(1.0),
        };
        Self {
            chart,
            frame,
            values,
            value_max,
        }
    }

    /// The summary is that of all points: the merged ones would have another median.
    fn drawing(&self, summary: String) -> Drawing {
        let runs = self.runs();
        let has_axes = self.frame.times_max > 0;
        let has_answers = !runs.is_empty();
        Drawing {
            frame: self.frame,
            title: format!("Response time, {}", self.chart.window.words()),
            summary,
            values: if has_axes && has_answers {
                self.value_ticks()
            } else {
                Vec::new()
            },
            times: if has_axes {
                self.time_ticks()
            } else {
                Vec::new()
            },
            band: runs
                .iter()
                .filter(|_| has_axes)
                .map(|run| self.band(run))
                .collect(),
            line: runs.iter().map(|run| self.line(run)).collect(),
            marks: self.marks(),
            empty: match () {
                () if !has_axes || has_answers => "",
                () if self.chart.points.is_empty() => "No checks yet",
                () => "No answers",
            },
        }
    }

    fn value_ticks(&self) -> Vec<Tick> {
        let tick = |value: &f64| Tick {
            at: round(self.y(*value)),
            label: format::millis(*value),
        };
        self.values.iter().map(tick).collect()
    }

    fn time_ticks(&self) -> Vec<Tick> {
        scale::instants(&self.chart.window, self.frame.times_max)
            .into_iter()
            .map(|(at, label)| Tick {
                at: round(self.x(at)),
                label,
            })
            .collect()
    }

    /// Splits the answered points where one is missing.
    fn runs(&self) -> Vec<Vec<&Point>> {
        let answered: Vec<_> = self.chart.answered().collect();
        let runs = answered.chunk_by(|a, b| self.are_neighbours(a, b));
        runs.map(<[_]>::to_vec).collect()
    }

    fn are_neighbours(&self, a: &Point, b: &Point) -> bool {
        let step = self.chart.window.step.as_secs_f64();
        b.at.duration_since(a.at).as_secs_f64() <= step * NEIGHBOUR_STEPS
    }

    fn line(&self, run: &[&Point]) -> String {
        let mut path = String::new();
        for (index, point) in run.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            push(&mut path, verb, self.middle(point), self.y(point.mean_ms));
        }
        if run.len() == 1 {
            path.push_str(DOT);
        }
        path
    }

    /// The area between the mean and the slowest.
    fn band(&self, run: &[&Point]) -> String {
        let mut path = String::new();
        for (index, point) in run.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            push(&mut path, verb, self.middle(point), self.y(point.max_ms));
        }
        for point in run.iter().rev() {
            push(&mut path, 'L', self.middle(point), self.y(point.mean_ms));
        }
        path.push('Z');
        path
    }

    fn marks(&self) -> Vec<Mark> {
        let failed: Vec<_> = self
            .chart
            .points
            .iter()
            .filter(|point| point.failures > 0)
            .collect();
        let runs = failed.chunk_by(|a, b| self.are_neighbours(a, b));
        runs.filter_map(|run| Some(self.mark(run.first()?, run.last()?)))
            .collect()
    }

    fn mark(&self, first: &Point, last: &Point) -> Mark {
        let (from, to) = (self.x(first.at), self.x(last.at + self.chart.window.step));
        let cross = self.frame.cross;
        let (x, y) = (f64::midpoint(from, to) - cross, self.frame.bottom + 3.0);
        let (side, back) = (round(cross * 2.0), round(cross * -2.0));
        Mark {
            x: round(from),
            width: round((to - from).max(2.0)),
            cross: format!(
                "M{} {}l{side} {side}m0 {back}l{back} {side}",
                round(x),
                round(y)
            ),
        }
    }

    fn middle(&self, point: &Point) -> f64 {
        self.x(point.at + self.chart.window.step / 2)
    }

    fn x(&self, at: Timestamp) -> f64 {
        let window = &self.chart.window;
        let span = window
            .end
            .duration_since(window.start)
            .as_secs_f64()
            .max(1.0);
        let share = at.duration_since(window.start).as_secs_f64() / span;
        self.frame.left + share.clamp(0.0, 1.0) * (self.frame.right - self.frame.left)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.value_max).clamp(0.0, 1.0);
        self.frame.bottom - share * (self.frame.bottom - self.frame.top)
    }
}

fn push(path: &mut String, verb: char, x: f64, y: f64) {
    write!(path, "{verb}{} {}", round(x), round(y)).expect("writing to a string cannot fail");
}

/// A tenth of a unit is finer than a pixel.
fn round(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
