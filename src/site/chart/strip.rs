//! A strip of cells, one for each day or hour: up, partly, down, or nothing known.

use askama::Template;
use jiff::SignedDuration;
use jiff::Timestamp;

use crate::site::chart::Svg;
use crate::site::format;

const CELL_WIDTH: u32 = 8;
const HEIGHT: u32 = 32;

/// One day or hour of the strip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    /// When the day or hour began.
    pub(crate) start: Timestamp,
    /// The share of its checks that were up, from 0 to 1; `None` when there were none.
    pub(crate) uptime: Option<f64>,
}

impl Cell {
    fn kind(&self) -> Kind {
        match self.uptime {
            None => Kind::Unknown,
            Some(share) if share >= 1.0 => Kind::Up,
            Some(share) if share > 0.0 => Kind::Partly,
            Some(_) => Kind::Down,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Up,
    Partly,
    Down,
    Unknown,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Partly => "partly",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }

    /// The shape differs with the meaning, for those who do not see the colours.
    fn shape(self) -> &'static str {
        match self {
            Self::Up => "h6v32h-6Z",
            Self::Partly => "v12l6-8v28h-6Z",
            Self::Down => "h6v10h-6ZM0 14h6v18h-6Z",
            Self::Unknown => "m0 28h6v4h-6Z",
        }
    }
}

#[derive(Template)]
#[template(path = "site/strip.svg")]
struct Drawing {
    width: u32,
    height: u32,
    title: String,
    cells: Vec<Drawn>,
}

struct Drawn {
    x: u32,
    kind: Kind,
    words: String,
}

/// Draws the cells, oldest first, each `step` long.
pub(crate) fn strip(cells: &[Cell], step: SignedDuration) -> Svg {
    let positions = (0..).step_by(CELL_WIDTH as usize);
    let drawn: Vec<_> = positions
        .zip(cells)
        .map(|(x, cell)| Drawn {
            x,
            kind: cell.kind(),
            words: words(cell, step),
        })
        .collect();
    let width = drawn.last().map_or(CELL_WIDTH, |cell| cell.x + CELL_WIDTH) - 2;
    let drawing = Drawing {
        width,
        height: HEIGHT,
        title: title(cells, step),
        cells: drawn,
    };
    Svg(drawing.render().expect("writing to a string cannot fail"))
}

fn words(cell: &Cell, step: SignedDuration) -> String {
    let when = if is_days(step) {
        format::day(cell.start)
    } else {
        format::instant(cell.start)
    };
    format!("{when}: {}", format::percentage(cell.uptime))
}

fn title(cells: &[Cell], step: SignedDuration) -> String {
    let unit = if is_days(step) { "day" } else { "hour" };
    let count = |kind| cells.iter().filter(|cell| cell.kind() == kind).count();
    let [up, partly, down, unknown] =
        [Kind::Up, Kind::Partly, Kind::Down, Kind::Unknown].map(count);
    let total = cells.len();
    format!(
        "Uptime, last {total} {unit}s: {up} up, {partly} partly down, {down} down, \
         {unknown} without data",
    )
}

fn is_days(step: SignedDuration) -> bool {
    step >= SignedDuration::from_hours(24)
}
