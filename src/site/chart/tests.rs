//! What a chart shows, read from its markup.

use super::*;

const END: &str = "2026-11-21T14:00:00Z";

fn window() -> Window {
    let end: Timestamp = END.parse().unwrap();
    Window {
        start: end - SignedDuration::from_hours(24),
        end,
        step: SignedDuration::from_mins(15),
    }
}

fn point(bucket: i32, mean_ms: f64, failures: u32) -> Point {
    let window = window();
    let at = window.start + window.step * bucket;
    Point {
        at,
        mean_ms,
        max_ms: mean_ms * 2.0,
        failures,
        checks: 15,
    }
}

fn attribute<'a>(svg: &'a str, class: &str) -> &'a str {
    let start = svg.find(&format!("class=\"{class}\"")).unwrap();
    svg[start..].split('"').nth(3).unwrap()
}

#[test]
fn the_title_says_what_is_drawn() {
    let points = [point(0, 40.0, 0), point(1, 45.0, 3), point(2, 160.0, 0)];
    let svg = Chart::new(window(), &points).svg(Size::Wide).to_string();
    let title = "<title>Response time, last 24 hours: \
                 median 45 ms, slowest 320 ms, 3 failed checks</title>";
    assert!(svg.contains(title), "{svg}");
}

#[test]
fn a_missing_bucket_is_a_gap() {
    let points = [
        point(0, 40.0, 0),
        point(1, 45.0, 0),
        point(3, 50.0, 0),
        point(4, 55.0, 0),
    ];
    let chart = Chart::new(window(), &points);
    let svg = chart.svg(Size::Small).to_string();
    let line = attribute(&svg, "chart-line");
    assert_eq!(
        (line.matches('M').count(), line.matches('L').count()),
        (2, 2),
        "{line}"
    );
    let svg = Chart::new(window(), &points[..2])
        .svg(Size::Small)
        .to_string();
    assert_eq!(attribute(&svg, "chart-line").matches('M').count(), 1);
}

#[test]
fn a_bucket_of_failures_only_has_a_mark_and_no_time() {
    let failed = Point {
        failures: 15,
        mean_ms: 9_000.0,
        ..point(1, 0.0, 0)
    };
    let chart = Chart::new(window(), &[point(0, 40.0, 0), failed, point(2, 40.0, 0)]);
    assert_eq!(
        chart.summary(),
        "median 40 ms, slowest 80 ms, 15 failed checks"
    );
    let svg = chart.svg(Size::Wide).to_string();
    assert_eq!(attribute(&svg, "chart-line").matches('M').count(), 2);
    assert_eq!(svg.matches("chart-fail").count(), 1);
}

#[test]
fn failures_in_a_row_share_a_mark() {
    let points = [point(0, 40.0, 1), point(1, 40.0, 1), point(9, 40.0, 1)];
    let svg = Chart::new(window(), &points).svg(Size::Wide).to_string();
    assert_eq!(svg.matches("chart-cross").count(), 2);
}

#[test]
fn a_single_point_is_a_dot() {
    let svg = Chart::new(window(), &[point(5, 40.0, 0)])
        .svg(Size::Small)
        .to_string();
    assert!(attribute(&svg, "chart-line").ends_with("a1.5 1.5 0 1 0-3 0"));
}

#[test]
fn a_point_outside_the_window_is_left_out() {
    let points = [
        point(-2, 9_999.0, 0),
        point(96, 9_999.0, 0),
        point(95, 40.0, 0),
    ];
    let chart = Chart::new(window(), &points);
    assert_eq!(
        chart.summary(),
        "median 40 ms, slowest 80 ms, no failed checks"
    );
}

#[test]
fn nothing_to_draw_is_said() {
    let chart = Chart::new(window(), &[]);
    assert_eq!(chart.summary(), "no checks yet");
    assert!(
        chart
            .svg(Size::Wide)
            .to_string()
            .contains(">No checks yet</text>")
    );
    let failed = Point {
        failures: 15,
        ..point(1, 0.0, 0)
    };
    let svg = Chart::new(window(), &[failed])
        .svg(Size::Narrow)
        .to_string();
    assert!(svg.contains(">No answers</text>"));
}

#[test]
fn everything_stays_inside_the_view_box() {
    let points: Vec<_> = (0..96).map(|bucket| point(bucket, 500.0, 1)).collect();
    let svg = Chart::new(window(), &points).svg(Size::Small).to_string();
    let numbers = attribute(&svg, "chart-line").replace(['M', 'L'], " ");
    for pair in numbers.split_whitespace().collect::<Vec<_>>().chunks(2) {
        let [x, y]: [f64; 2] = [pair[0].parse().unwrap(), pair[1].parse().unwrap()];
        assert!(
            (0.0..=200.0).contains(&x) && (0.0..=44.0).contains(&y),
            "{x} {y}"
        );
    }
}

#[test]
fn a_strip_says_each_day_and_all_of_them() {
    let cells = [None, Some(1.0), Some(0.9998), Some(0.0)].map(|uptime| Cell {
        start: window().start,
        uptime,
    });
    let svg = strip(&cells, SignedDuration::from_hours(24)).to_string();
    let title = "Uptime, last 4 days: 1 up, 1 partly down, 1 down, 1 without data";
    assert!(svg.contains(title), "{svg}");
    for (class, words) in [
        ("unknown", "20 Nov 2026: no data"),
        ("up", "20 Nov 2026: 100 %"),
        ("partly", "20 Nov 2026: 99.98 %"),
        ("down", "20 Nov 2026: 0 %"),
    ] {
        let (_, cell) = svg.split_once(&format!("class=\"strip-{class}\"")).unwrap();
        assert!(
            cell.split('>').nth(2).unwrap().starts_with(words),
            "{class}: {cell}"
        );
    }
}
