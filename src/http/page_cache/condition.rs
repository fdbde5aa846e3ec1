//! `If-None-Match` and `If-Modified-Since` (RFC 9110, 13): whether the visitor has the page already.

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::header;

use crate::http::page_cache::directives::date_in;

/// What a 304 has of the headers of the page (RFC 9110, 15.4.5); `Last-Modified` is for pages without a tag.
pub(super) const KEPT_IN_304: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
];

/// Whether a visitor who asks with `asked` has the page with these headers already.
pub(super) fn is_known(asked: &HeaderMap, page: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        let Some(tag) = page.get(header::ETAG).map(|tag| opaque(tag.as_bytes())) else {
            return asked
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .any(|value| value == "*");
        };
        let mut values = asked.get_all(header::IF_NONE_MATCH).iter();
        return values.any(|value| value == "*" || names(value.as_bytes(), tag));
    }
    let since = date_in(asked, &header::IF_MODIFIED_SINCE);
    let modified = date_in(page, &header::LAST_MODIFIED);
    since
        .zip(modified)
        .is_some_and(|(since, modified)| modified <= since)
}

/// A tag without the mark of a weak one: that is all the weak comparison is.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of tags has this one. A tag may have a comma in it.
fn names(mut list: &[u8], tag: &[u8]) -> bool {
    loop {
        while let [b',' | b' ' | b'\t', rest @ ..] = list {
            list = rest;
        }
        list = opaque(list);
        let Some(rest) = list.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = rest.iter().position(|byte| *byte == b'"') else {
            return false;
        };
        let (found, rest) = list.split_at(end + 2);
        if found == tag {
            return true;
        }
        list = rest;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn one(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn tags_are_compared_weakly() {
        let cases = [
            ("\"a\"", "\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("\"a\"", "W/\"a\"", true),
            ("*", "\"a\"", true),
            ("\"b\", W/\"c\" ,\"a\"", "\"a\"", true),
            ("\"b,\\\"a\"", "\"a\"", false),
            ("\"x, y\", \"a\"", "\"a\"", true),
            ("\"A\"", "\"a\"", false),
            ("a", "\"a\"", false),
            ("\"a", "\"a\"", false),
            ("", "\"a\"", false),
            (",, \"a\"", "\"a\"", true),
        ];
        for (asked, tag, expected) in cases {
            let known = is_known(&one(header::IF_NONE_MATCH, asked), &one(header::ETAG, tag));
            assert_eq!(known, expected, "{asked} against {tag}");
        }
    }

    #[test]
    fn a_date_counts_only_without_tags() {
        const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        let page = one(header::LAST_MODIFIED, DAY);
        for (since, expected) in [(DAY, true), (LATER, true), ("soon", false)] {
            let asked = one(header::IF_MODIFIED_SINCE, since);
            assert_eq!(is_known(&asked, &page), expected, "{since}");
        }
        let newer = one(header::LAST_MODIFIED, LATER);
        assert!(!is_known(&one(header::IF_MODIFIED_SINCE, DAY), &newer));
        let mut asked = one(header::IF_MODIFIED_SINCE, LATER);
        asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"a\""));
        assert!(!is_known(&asked, &page));
    }
}
