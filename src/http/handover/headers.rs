//! Headers between containers, and those that end at each connection.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;

use crate::http::error::text;

/// What shows that a request comes from another container of this site.
pub(super) const KEY: HeaderName = HeaderName::from_static("houseboat-key");
/// What a request between containers wants, if it is none of a visitor's.
pub(super) const CONTROL: HeaderName = HeaderName::from_static("houseboat-control");
/// How often a request was passed on.
pub(super) const HOPS: HeaderName = HeaderName::from_static("houseboat-hops");
/// Where the visitor is whose request is passed on.
pub(super) const ADDRESS: HeaderName = HeaderName::from_static("houseboat-address");
/// On the answer of a container that did not accept the key, and so has done nothing.
pub(super) const REFUSED: HeaderName = HeaderName::from_static("houseboat-refused");

const OWN: &str = "houseboat-";

/// Those of RFC 9110, 7.6.1, that end at the connection whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes what only containers say to one another.
pub(super) fn drop_own(headers: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| name.as_str().starts_with(OWN);
    // Nearly always there is none, and finding that out must be cheap.
    while let Some(name) = headers.keys().find(is_own).cloned() {
        headers.remove(name);
    }
}

/// Removes what is of one connection only, and returns the protocol that an upgrade asks for or agrees to.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // What a proxy says of the visitor is for who answers, and no visitor can name it away.
        .filter(|name| !is_of_client(name))
        .collect();
    let upgrade = headers.get(header::UPGRADE).cloned();
    let upgrade = upgrade.filter(|_| named.contains(&header::UPGRADE));
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // Both at once is what smuggled requests are made of.
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    upgrade
}

fn is_of_client(name: &HeaderName) -> bool {
    *name == header::HOST || *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Asks for an upgrade, or agrees to one.
pub(super) fn upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether a request shows `key`. It takes as long for a wrong one, wherever that differs.
pub(super) fn shows_key(headers: &HeaderMap, key: &str) -> bool {
    let shown = headers.get(KEY).map_or(&[][..], HeaderValue::as_bytes);
    let key = key.as_bytes();
    let difference = shown.iter().zip(key).fold(0, |difference, (one, other)| {
        std::hint::black_box(difference | (one ^ other))
    });
    !key.is_empty() && shown.len() == key.len() && difference == 0
}

/// Where the visitor is whose request another container passes on; one of an older build does not say.
pub(super) fn address(headers: &HeaderMap) -> Option<SocketAddr> {
    text(headers, &ADDRESS)?.parse().ok()
}

/// How often a request of another container was passed on, which is once at least.
pub(super) fn hops(headers: &HeaderMap) -> u16 {
    let hops = text(headers, &HOPS).and_then(|hops| hops.parse().ok());
    hops.unwrap_or(1).max(1)
}
