//! Tags in the headers of conditions (RFC 9110, 8.8.3 and 13.1).

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;

/// Whether a list of tags in a header, such as `If-None-Match`, has this one, weakly compared; `*` is any.
pub(super) fn names(asked: &HeaderMap, header: &HeaderName, tag: Option<&HeaderValue>) -> bool {
    let tag = tag.map(|tag| opaque(tag.as_bytes()));
    let mut values = asked.get_all(header).iter();
    values.any(|value| value == "*" || tag.is_some_and(|tag| list_has(value.as_bytes(), tag)))
}

/// A tag without the mark of a weak one: that is all the weak comparison is.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of tags has this one. A tag may have a comma in it.
fn list_has(mut list: &[u8], tag: &[u8]) -> bool {
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
