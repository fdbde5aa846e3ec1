//! `If-None-Match` and `If-Modified-Since` (RFC 9110, 13): whether the visitor has the page already.

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::header;

use crate::http::etag::names;
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
        return names(asked, &header::IF_NONE_MATCH, page.get(header::ETAG));
    }
    let since = date_in(asked, &header::IF_MODIFIED_SINCE);
    let modified = date_in(page, &header::LAST_MODIFIED);
    since
        .zip(modified)
        .is_some_and(|(since, modified)| modified <= since)
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
