//! Numbers and times as people read them.
//!
//! Nothing here rounds in the site's favour: an uptime below 100 % never reads "100 %".

use std::fmt;
use std::time::Duration;

use askama::filters::HtmlSafe;
use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Says how long something took or lasts: "45 ms", "1.2 s", "3 min", "2 h 5 min", "4 days".
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..MINUTE => millis(duration.as_secs_f64() * 1000.0),
        MINUTE..HOUR => pair((seconds / MINUTE, "min"), (seconds % MINUTE, "s")),
        HOUR..DAY => pair((seconds / HOUR, "h"), (seconds % HOUR / MINUTE, "min")),
        _ => {
            let days = seconds / DAY;
            let unit = if days == 1 { "day" } else { "days" };
            pair((days, unit), (seconds % DAY / HOUR, "h"))
        }
    }
}

fn pair(large: (u64, &str), small: (u64, &str)) -> String {
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

/// Says a response time: "0.4 ms", "1.5 ms", "45 ms", "1.2 s".
pub(crate) fn millis(millis: f64) -> String {
    if millis >= 999.5 {
        let seconds = trimmed(millis / 1000.0, 1);
        format!("{seconds} s")
    } else if millis > 0.0 && millis < 9.95 {
        format!("{} ms", trimmed(millis.max(0.1), 1))
    } else {
        format!("{millis:.0} ms")
    }
}

fn trimmed(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// Says a share of checks that were up, from 0 to 1, rounded down: "100 %", "99.98 %", "no data".
pub(crate) fn percentage(share: Option<f64>) -> String {
    // The small addend undoes what binary fractions lose: 0.9998 is stored a little below itself.
    match share.map(|share| (share * 10_000.0 + 1e-6).floor() / 100.0) {
        None => "no data".to_owned(),
        Some(percent) if percent >= 100.0 => "100 %".to_owned(),
        Some(percent) if percent <= 0.0 => "0 %".to_owned(),
        Some(percent) => format!("{percent:.2} %"),
    }
}

/// Says an instant: "21 Nov 2026, 14:03 UTC".
pub(crate) fn instant(at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::UTC);
    format!("{}, {} UTC", at.strftime("%-d %b %Y"), at.strftime("%H:%M"))
}

/// Says the time of a day: "14:03:12".
pub(crate) fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%H:%M:%S").to_string()
}

/// Says a day: "21 Nov 2026".
pub(crate) fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%-d %b %Y").to_string()
}

/// Says how long ago something was: "12 s ago", "3 min ago", "4 days ago".
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now
        .duration_since(at)
        .max(SignedDuration::ZERO)
        .as_secs()
        .unsigned_abs();
    let (count, unit) = match seconds {
        0 => return "just now".to_owned(),
        1..MINUTE => (seconds, "s"),
        MINUTE..HOUR => (seconds / MINUTE, "min"),
        HOUR..DAY => (seconds / HOUR, "h"),
        _ if seconds / DAY == 1 => (1, "day"),
        _ => (seconds / DAY, "days"),
    };
    format!("{count} {unit} ago")
}

/// Says a number of things: "1 check", "2 checks".
pub(crate) fn count(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// A `<time>` element, readable by people and by programs.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    at: Timestamp,
    words: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fixed,
    Ago,
}

impl Time {
    /// Shows the instant: "21 Nov 2026, 14:03 UTC".
    pub(crate) fn instant(at: Timestamp) -> Self {
        Self {
            at,
            words: instant(at),
            kind: Kind::Fixed,
        }
    }

    /// Shows the time of day with seconds: "14:03:12 UTC".
    pub(crate) fn clock(at: Timestamp) -> Self {
        let words = format!("{} UTC", clock(at));
        Self {
            at,
            words,
            kind: Kind::Fixed,
        }
    }

    /// Shows the instant to the second: "21 Nov, 14:03:12".
    pub(crate) fn second(at: Timestamp) -> Self {
        let words = at
            .to_zoned(TimeZone::UTC)
            .strftime("%-d %b, %H:%M:%S")
            .to_string();
        Self {
            at,
            words,
            kind: Kind::Fixed,
        }
    }

    /// Shows how long ago it was; the page's script keeps it true.
    pub(crate) fn ago(at: Timestamp, now: Timestamp) -> Self {
        Self {
            at,
            words: ago(at, now),
            kind: Kind::Ago,
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, words, kind } = self;
        match kind {
            Kind::Fixed => write!(f, r#"<time datetime="{at:.0}">{words}</time>"#),
            Kind::Ago => write!(
                f,
                r#"<time datetime="{at:.0}" title="{}" data-ago>{words}</time>"#,
                instant(*at),
            ),
        }
    }
}

// Digits, month names and units only: nothing in it needs escaping.
impl HtmlSafe for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let said = |millis| duration(Duration::from_millis(millis));
        assert_eq!(millis(1.5), "1.5 ms");
        assert_eq!(millis(9.96), "10 ms");
        assert_eq!(said(0), "0 ms");
        assert_eq!(said(45), "45 ms");
        assert_eq!(said(999), "999 ms");
        assert_eq!(said(1_000), "1 s");
        assert_eq!(said(1_234), "1.2 s");
        assert_eq!(said(180_000), "3 min");
        assert_eq!(said(200_000), "3 min 20 s");
        assert_eq!(said(7_500_000), "2 h 5 min");
        assert_eq!(said(86_400_000), "1 day");
        assert_eq!(said(4 * 86_400_000 + 3_600_000), "4 days 1 h");
    }

    #[test]
    fn less_than_a_millisecond_is_not_nothing() {
        assert_eq!(duration(Duration::from_micros(400)), "0.4 ms");
        assert_eq!(duration(Duration::from_micros(3)), "0.1 ms");
        assert_eq!(duration(Duration::from_micros(960)), "1 ms");
    }

    #[test]
    fn a_share_is_never_rounded_up() {
        assert_eq!(percentage(None), "no data");
        assert_eq!(percentage(Some(1.0)), "100 %");
        assert_eq!(percentage(Some(0.99996)), "99.99 %");
        assert_eq!(percentage(Some(1.0 - 1.0 / 260_000.0)), "99.99 %");
        assert_eq!(percentage(Some(0.9998)), "99.98 %");
        assert_eq!(percentage(Some(0.5)), "50.00 %");
        assert_eq!(percentage(Some(0.0)), "0 %");
    }

    #[test]
    fn instants_are_in_utc_and_readable_by_programs() {
        let time = at("2026-11-21T14:03:12.345Z");
        assert_eq!(instant(time), "21 Nov 2026, 14:03 UTC");
        assert_eq!(
            Time::instant(time).to_string(),
            r#"<time datetime="2026-11-21T14:03:12Z">21 Nov 2026, 14:03 UTC</time>"#,
        );
    }

    #[test]
    fn ago_counts_in_the_largest_unit() {
        let now = at("2026-11-21T14:00:00Z");
        let said = |text| ago(at(text), now);
        assert_eq!(said("2026-11-21T13:59:48Z"), "12 s ago");
        assert_eq!(said("2026-11-21T13:57:01Z"), "2 min ago");
        assert_eq!(said("2026-11-21T12:00:00Z"), "2 h ago");
        assert_eq!(said("2026-11-20T13:00:00Z"), "1 day ago");
        assert_eq!(said("2026-11-17T14:00:00Z"), "4 days ago");
        assert_eq!(said("2026-11-21T14:00:05Z"), "just now");
    }
}
