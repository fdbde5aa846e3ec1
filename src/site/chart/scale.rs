//! Round numbers for axes.

use std::iter;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::site::chart::Window;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The distances of time labels, in seconds, that clocks and calendars make round.
const STEPS: [i64; 13] = [
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
];

/// Returns round values from 0 to the first that is not below `max`: at most six.
pub(super) fn values(max: f64) -> Vec<f64> {
    let max = max.max(0.5);
    let rough = max / 4.0;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * magnitude >= rough);
    let step = factor.unwrap_or(10.0) * magnitude;
    let mut values = vec![0.0];
    for index in 1..=5_u8 {
        if values.last().is_some_and(|last| *last >= max) {
            break;
        }
        values.push(step * f64::from(index));
    }
    values
}

/// Returns at most `count_max` round instants within the window, each with its label, in UTC.
pub(super) fn instants(window: &Window, count_max: i64) -> Vec<(Timestamp, String)> {
    let (start, end) = (window.start.as_second(), window.end.as_second());
    let fits = |step: &&i64| (end - start) / **step <= count_max;
    let step = *STEPS.iter().find(fits).unwrap_or(&(28 * DAY));
    let first = (start + step - 1).div_euclid(step) * step;
    iter::successors(Some(first), |second| Some(second + step))
        .take_while(|second| *second <= end)
        .filter_map(|second| Timestamp::from_second(second).ok())
        .map(|at| (at, label(at)))
        .collect()
}

/// A day at midnight, and the time of day otherwise.
fn label(at: Timestamp) -> String {
    let format = if at.as_second() % DAY == 0 {
        "%-d %b"
    } else {
        "%H:%M"
    };
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn values_are_round_and_reach_the_largest() {
        assert_eq!(values(320.0), [0.0, 100.0, 200.0, 300.0, 400.0]);
        assert_eq!(values(400.0), [0.0, 100.0, 200.0, 300.0, 400.0]);
        assert_eq!(values(45.0), [0.0, 20.0, 40.0, 60.0]);
        assert_eq!(values(9_800.0), [0.0, 5_000.0, 10_000.0]);
        for max in [0.0, 0.01, 1.0, 7.3, 99.9, 101.0, 12_345.6, 60_000.0] {
            let values = values(max);
            assert!(values.len() >= 3 && values.len() <= 6, "{max}: {values:?}");
            assert!(*values.last().unwrap() >= max, "{max}: {values:?}");
        }
    }

    #[test]
    fn instants_are_round_and_within_the_window() {
        let end: Timestamp = "2026-11-21T14:03:00Z".parse().unwrap();
        let window = |hours| Window {
            start: end - SignedDuration::from_hours(hours),
            end,
            step: SignedDuration::from_mins(15),
        };
        let labels = |hours, count_max| -> Vec<_> {
            instants(&window(hours), count_max)
                .into_iter()
                .map(|(_, label)| label)
                .collect()
        };
        assert_eq!(labels(24, 4), ["18:00", "21 Nov", "06:00", "12:00"]);
        assert_eq!(labels(24, 8).len(), 8);
        assert_eq!(labels(7 * 24, 8)[0], "15 Nov");
        assert!(labels(90 * 24, 8).len() <= 8);
    }
}
