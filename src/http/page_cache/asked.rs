//! What a request asks for, as far as a page that is shared may depend on it.

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::Method;
use axum::http::Uri;
use axum::http::header;
use axum::http::request::Parts;

use crate::http::error::REQUEST_ID;
use crate::http::flash::is_flash;
use crate::http::page_cache::Rules;
use crate::http::page_cache::directives::Directives;

/// A request that a kept page may answer.
#[derive(Debug)]
pub(super) struct Asked {
    /// All of the address that a page depends on, beside the path.
    pub(super) key: String,
    /// `no-cache`: a page that is made now, please.
    pub(super) again: bool,
    pub(super) only_if_cached: bool,
}

/// Each of these makes an answer the visitor's own, or asks for a part of one.
const OWN: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::RANGE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::UPGRADE,
];

/// The cookies of who is signed in, here or almost: a page that is made for one of them is nobody else's, whatever the
/// site says of its cookies.
pub(crate) const SESSION_COOKIES: [&str; 4] =
    ["session", "__Host-session", "second", "__Host-second"];

/// What a handler sees of a request whose answer is shared, beside `Sec-…`: those by which browsers negotiate.
///
/// A header that the handler does not see cannot poison its page for others: no `X-Forwarded-Host` that ends up in a
/// link, no `X-Original-URL`. `Accept-Encoding` is missing, since a page is compressed when it is kept.
const SEEN: [HeaderName; 9] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_LANGUAGE,
    header::DNT,
    header::HOST,
    header::ORIGIN,
    header::USER_AGENT,
    HeaderName::from_static("save-data"),
    REQUEST_ID,
];

impl Asked {
    /// `None` for what goes to the handler as it is, and is not kept; `whole` is the address before any nesting.
    pub(super) fn of(request: &Request, whole: &Uri, rules: &Rules) -> Option<Self> {
        let headers = request.headers();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read
            || OWN.iter().any(|name| headers.contains_key(name))
            || is_personal(headers, rules)
            // A body that is not in the key could decide what others see.
            || !request.body().is_end_stream()
        {
            return None;
        }
        let directives = Directives::of(headers);
        if directives.no_store {
            return None;
        }
        Some(Self {
            key: key(whole, headers, rules)?,
            again: directives.no_cache,
            only_if_cached: directives.only_if_cached,
        })
    }
}

fn is_personal(headers: &HeaderMap, rules: &Rules) -> bool {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let Some(personal) = &rules.personal_cookies else {
        return cookies.next().is_some();
    };
    cookies.any(|value| {
        // A message is shown to one, whatever the other cookies are. What cannot be read could be anything.
        value.to_str().map_or(true, |value| {
            let mut names = value.split(';').map(|cookie| {
                let name = cookie.split_once('=').map_or(cookie, |(name, _)| name);
                name.trim()
            });
            names.any(|name| {
                is_flash(name)
                    || SESSION_COOKIES.contains(&name)
                    || personal.iter().any(|personal| personal == name)
            })
        })
    })
}

/// Scheme, host, query and the headers that always count, each as it came: two requests with one key look the same to
/// the handler. None of the parts can have a line break in it.
fn key(whole: &Uri, headers: &HeaderMap, rules: &Rules) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map_or(Some(""), |host| host.to_str().ok())?;
    if hosts.next().is_some() {
        // Which one counts is a matter of opinion.
        return None;
    }
    let mut key = String::with_capacity(64);
    if let (Some(scheme), Some(authority)) = (whole.scheme_str(), whole.authority()) {
        key.push_str(scheme);
        key.push_str("://");
        key.push_str(authority.as_str());
    }
    key.push('\n');
    key.push_str(host);
    key.push('\n');
    match (whole.query(), &rules.query) {
        (Some(query), None) => {
            key.push('?');
            key.push_str(query);
        }
        (Some(query), Some(names)) => key.push_str(&counted(query, names)),
        (None, _) => {}
    }
    for name in &rules.headers {
        key.push('\n');
        add_values(&mut key, headers, name);
    }
    Some(key)
}

/// The parameters that count, in the order in which they came, with a `?` before them if there are any.
fn counted(query: &str, names: &[String]) -> String {
    let mut counted = String::new();
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if names.iter().any(|counts| counts == name) {
            counted.push(if counted.is_empty() { '?' } else { '&' });
            counted.push_str(pair);
        }
    }
    counted
}

/// The values of a header, so that no two lists of values look the same.
pub(super) fn add_values(key: &mut String, headers: &HeaderMap, name: &HeaderName) {
    for value in headers.get_all(name) {
        key.push('=');
        key.push_str(&value.as_bytes().escape_ascii().to_string());
        key.push('\r');
    }
}

/// The request that the handler gets: what is in the key, what `Vary` may name, and no more.
pub(super) fn reduced(mut parts: Parts, rules: &Rules) -> Request {
    parts.method = Method::GET;
    let is_seen = |name: &HeaderName| {
        SEEN.contains(name) || rules.headers.contains(name) || name.as_str().starts_with("sec-")
    };
    let mut headers = HeaderMap::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        if is_seen(name) {
            headers.append(name, value.clone());
        }
    }
    parts.headers = headers;
    if let (Some(names), Some(query)) = (&rules.query, parts.uri.query()) {
        let query = counted(query, names);
        parts.uri = with_query(&parts.uri, &query);
    }
    Request::from_parts(parts, axum::body::Body::empty())
}

fn with_query(uri: &Uri, query: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    let target = format!("{}{query}", uri.path());
    parts.path_and_query = target.parse().ok();
    // A part of what was valid is valid.
    Uri::from_parts(parts).unwrap_or_default()
}

/// Whether a page may depend on this header, of those that its `Vary` names.
///
/// What the handler did not see its page cannot depend on, whatever a layer around it says.
pub(super) fn counts(name: &HeaderName, rules: &Rules) -> bool {
    let is_counted_anyway = rules.headers.contains(name) || *name == header::HOST;
    !is_counted_anyway && (SEEN.contains(name) || name.as_str().starts_with("sec-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parameters_that_count_are_left_in_their_order() {
        let names = ["page".to_owned(), "sort".to_owned()];
        let cases = [
            ("page=2&utm=x&sort=a", "?page=2&sort=a"),
            ("sort=a&page=2", "?sort=a&page=2"),
            ("page=1&page=2", "?page=1&page=2"),
            ("page", "?page"),
            ("%70age=2", ""),
            ("utm=x", ""),
            ("", ""),
        ];
        for (query, expected) in cases {
            assert_eq!(counted(query, &names), expected, "{query}");
        }
        let uri: Uri = "/a%2Fb?utm=x&page=2".parse().unwrap();
        assert_eq!(with_query(&uri, "?page=2"), "/a%2Fb?page=2");
        assert_eq!(with_query(&uri, ""), "/a%2Fb");
    }
}
