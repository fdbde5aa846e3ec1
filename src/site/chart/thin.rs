//! Merges points that would share a pixel: a page with many charts stays light.

use jiff::SignedDuration;

use crate::site::chart::Chart;
use crate::site::chart::Point;
use crate::site::chart::Window;

/// Merges neighbours, as many as it takes to have no more than `points_max` of them.
pub(super) fn thin(chart: &Chart, points_max: i64) -> Chart {
    let Window { start, end, step } = chart.window;
    let span_s = end.duration_since(start).as_secs();
    let step_s = step.as_secs().max(1);
    let merged = (span_s / step_s + points_max - 1) / points_max;
    if merged <= 1 {
        return chart.clone();
    }
    let step_s = step_s * merged;
    let index = |point: &Point| point.at.duration_since(start).as_secs().div_euclid(step_s);
    let points = chart
        .points
        .chunk_by(|a, b| index(a) == index(b))
        .map(|points| Point {
            at: start + SignedDuration::from_secs(index(&points[0]) * step_s),
            ..merge(points)
        });
    let points = points.collect();
    let step = SignedDuration::from_secs(step_s);
    Chart {
        window: Window { start, end, step },
        points,
    }
}

fn merge(points: &[Point]) -> Point {
    let mut merged = Point {
        mean_ms: 0.0,
        max_ms: 0.0,
        failures: 0,
        checks: 0,
        ..points[0]
    };
    let mut answers = 0.0;
    for point in points {
        merged.failures += point.failures;
        merged.checks += point.checks;
        if point.is_answered() {
            let weight = f64::from(point.checks - point.failures);
            answers += weight;
            merged.mean_ms += (point.mean_ms - merged.mean_ms) * weight / answers;
            merged.max_ms = merged.max_ms.max(point.max_ms);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn chart(points: &[(i32, f64, u32, u32)]) -> Chart {
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let step = SignedDuration::from_mins(5);
        let point = |&(index, mean_ms, failures, checks): &(i32, f64, u32, u32)| Point {
            at: start + step * index,
            mean_ms,
            max_ms: mean_ms * 2.0,
            failures,
            checks,
        };
        let points: Vec<_> = points.iter().map(point).collect();
        Chart::new(
            Window {
                start,
                end: start + step * 288,
                step,
            },
            &points,
        )
    }

    #[test]
    fn a_chart_with_few_points_stays_as_it_is() {
        let chart = chart(&[(0, 10.0, 0, 5), (1, 20.0, 0, 5)]);
        assert_eq!(thin(&chart, 288).points, chart.points);
    }

    #[test]
    fn merged_points_keep_mean_slowest_and_failures() {
        let chart = chart(&[
            (0, 10.0, 0, 1),
            (1, 40.0, 1, 3),
            (2, 99.0, 5, 5),
            (6, 7.0, 0, 5),
        ]);
        let thin = thin(&chart, 96);
        assert_eq!(thin.window.step, SignedDuration::from_mins(15));
        let [first, second] = thin.points[..] else {
            panic!("{:?}", thin.points)
        };
        assert!((first.mean_ms - 30.0).abs() < 1e-9, "{first:?}");
        assert_eq!((first.failures, first.checks), (6, 9));
        assert!((first.max_ms - 80.0).abs() < 1e-9, "{first:?}");
        assert_eq!(second.at, thin.window.start + SignedDuration::from_mins(30));
        assert_eq!(
            thin.summary().split(", ").last(),
            chart.summary().split(", ").last()
        );
    }

    #[test]
    fn all_failed_stays_all_failed() {
        let chart = chart(&[(0, 0.0, 5, 5), (1, 0.0, 5, 5)]);
        assert!(!thin(&chart, 96).points[0].is_answered());
    }
}
