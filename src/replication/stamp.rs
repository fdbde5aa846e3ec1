//! The time in a name: to the second, in UTC, in the order of text.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Writes a time as `20261121T073214Z`.
pub(super) fn write(time: Timestamp) -> String {
    time.strftime(FORMAT).to_string()
}

/// Reads one that [`write()`] has written; nothing else.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let time = DateTime::strptime(FORMAT, text).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (write(time) == text).then_some(time)
}

/// A time without what a name does not tell.
pub(super) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let time = "2026-11-21T07:32:14.789Z".parse().unwrap();
        assert_eq!(write(time), "20261121T073214Z");
        assert_eq!(read("20261121T073214Z"), Some(seconds(time)));
        for text in [
            "",
            "20261321T073214Z",
            "20261121T073214",
            "2026-11-21T07:32:14Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
