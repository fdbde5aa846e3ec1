//! `Range`: a part of a file (RFC 9110, 14).

use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header;

/// What part of a file a visitor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it; or what is no range that we give, which is answered with all of it.
    Whole,
    /// From the first of these bytes up to, and without, the second.
    Of(usize, usize),
    /// There is nothing there.
    Beyond,
}

impl Part {
    /// What of a file of so many bytes is asked for. Several ranges at once are answered with the whole file.
    ///
    /// `tag` is that of the file as it is, without any compression: a part is always of that.
    pub(super) fn asked(headers: &HeaderMap, length: usize, tag: &HeaderValue) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else {
            return Self::Whole;
        };
        // A part is wanted only if the file is still the one that the visitor has the rest of. We give no dates.
        let mut conditions = headers.get_all(header::IF_RANGE).iter();
        if conditions.any(|condition| condition != tag) {
            return Self::Whole;
        }
        let range = range.to_str().ok().and_then(|range| parse(range, length));
        range.unwrap_or(Self::Whole)
    }
}

/// `None` for what is to be taken as if it were not there.
fn parse(range: &str, length: usize) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    if first.is_empty() {
        let count = number(last)?.min(length);
        return Some(part(length - count, length));
    }
    let first = number(first)?;
    let end = match last {
        "" => length,
        last => match number(last)? {
            last if last < first => return None,
            last => last.saturating_add(1).min(length),
        },
    };
    Some(part(first, end))
}

fn part(first: usize, end: usize) -> Part {
    if first < end {
        Part::Of(first, end)
    } else {
        Part::Beyond
    }
}

/// A number too large to be one is beyond every file.
fn number(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_of_bytes_or_none() {
        let cases = [
            ("bytes=0-0", Part::Of(0, 1)),
            ("bytes=2-4", Part::Of(2, 5)),
            ("bytes=2-", Part::Of(2, 10)),
            ("bytes=2-999", Part::Of(2, 10)),
            ("bytes=9-9", Part::Of(9, 10)),
            ("bytes=-3", Part::Of(7, 10)),
            ("bytes=-99", Part::Of(0, 10)),
            ("BYTES = 1 - 2", Part::Of(1, 3)),
            ("bytes=0-99999999999999999999999", Part::Of(0, 10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=10-12", Part::Beyond),
            ("bytes=99999999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=,0-1", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=1--2", Part::Whole),
            ("bytes=0x1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("", Part::Whole),
        ];
        let tag = HeaderValue::from_static("\"a\"");
        for (range, expected) in cases {
            let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
            assert_eq!(Part::asked(&headers, 10, &tag), expected, "{range}");
        }
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-"))]);
        assert_eq!(Part::asked(&headers, 0, &tag), Part::Beyond);
    }

    #[test]
    fn a_part_is_of_the_file_that_the_visitor_has() {
        let tag = HeaderValue::from_static("\"a\"");
        let part = Part::Of(0, 1);
        let cases = [
            ("\"a\"", part),
            ("\"b\"", Part::Whole),
            ("W/\"a\"", Part::Whole),
            ("\"a-br\"", Part::Whole),
            ("*", Part::Whole),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Part::Whole),
        ];
        for (condition, expected) in cases {
            let headers = HeaderMap::from_iter([
                (header::RANGE, HeaderValue::from_static("bytes=0-0")),
                (header::IF_RANGE, HeaderValue::from_static(condition)),
            ]);
            assert_eq!(Part::asked(&headers, 10, &tag), expected, "{condition}");
        }
    }
}
