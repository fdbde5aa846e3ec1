//! What proxies say of a visitor: `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;

use crate::http::proxies::Proxies;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a trusted proxy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) address: IpAddr,
    pub(super) is_https: bool,
    pub(super) host: Option<String>,
}

/// What the trusted proxy at `peer` says of the visitor.
///
/// Each header is read from its end, where the nearest proxy writes; for the address, past all that are trusted. What
/// cannot be read ends that: then the visitor is the proxy. Where both kinds of headers are there, what both say counts
/// and nothing else: one of them may be the visitor's own, and nobody can say which.
pub(super) fn said(headers: &HeaderMap, peer: IpAddr, proxies: &Proxies) -> Said {
    let mut said = Said {
        address: peer,
        is_https: false,
        host: None,
    };
    let scheme = last(headers, &PROTO).map(is_https);
    let host = last(headers, &HOST).map(str::to_owned);
    let address = headers
        .contains_key(&FOR)
        .then(|| walk(entries(headers, &FOR).map(address), peer, proxies));
    let has_old = address.is_some() || headers.contains_key(&PROTO) || headers.contains_key(&HOST);
    if !headers.contains_key(header::FORWARDED) {
        said.address = address.unwrap_or(peer);
        said.is_https = scheme.unwrap_or(false);
        said.host = host;
        return said;
    }
    let Some(elements) = elements(headers) else {
        return said;
    };
    let nodes = elements.iter().rev().map(|element| {
        let node = element.node.as_deref();
        node.and_then(address_of)
    });
    let nearest = elements.last();
    let other = walk(nodes, peer, proxies);
    let other_scheme = nearest.and_then(|element| element.proto.as_deref());
    let other_scheme = other_scheme.map(is_https);
    let other_host = nearest.and_then(|element| element.host.clone());
    if has_old {
        said.address = agreed(address, Some(&other)).unwrap_or(peer);
        said.is_https = agreed(scheme, other_scheme.as_ref()).unwrap_or(false);
        said.host = agreed(host, other_host.as_ref());
    } else {
        said.address = other;
        said.is_https = other_scheme.unwrap_or(false);
        said.host = other_host;
    }
    said
}

/// What both say.
fn agreed<T: PartialEq>(one: Option<T>, other: Option<&T>) -> Option<T> {
    one.filter(|one| other == Some(one))
}

/// From the nearest to the farthest: the first that is not trusted, or else the farthest.
fn walk(
    nearest_first: impl Iterator<Item = Option<IpAddr>>,
    peer: IpAddr,
    proxies: &Proxies,
) -> IpAddr {
    let mut farthest = peer;
    for address in nearest_first {
        let Some(address) = address else { return peer };
        farthest = address;
        if !proxies.trusts(address) {
            break;
        }
    }
    farthest
}

/// The entries of a list, over all headers of the name, from the last to the first; `None` is not text.
fn entries<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
    let values = headers.get_all(name).iter().rev();
    values.flat_map(|value| {
        let entries = value.as_bytes().rsplit(|byte| *byte == b',');
        entries.map(|entry| std::str::from_utf8(entry).ok().map(str::trim))
    })
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    entries(headers, name).next().flatten()
}

fn is_https(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

fn address(entry: Option<&str>) -> Option<IpAddr> {
    address_of(entry?)
}

/// An address, perhaps with a port, and an IPv6 one perhaps in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
        .map(IpAddr::from);
    let address = text.parse::<IpAddr>().ok().or(bare);
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    address.map(|address| address.to_canonical())
}

/// One element of `Forwarded`: what one proxy says.
#[derive(Debug, Default)]
struct Element {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// All elements, the farthest first; `None` if there is one that cannot be read.
fn elements(headers: &HeaderMap) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for value in headers.get_all(header::FORWARDED) {
        let text = HeaderValue::to_str(value).ok()?;
        for element in split(text, ',')? {
            elements.push(Element::parse(element)?);
        }
    }
    Some(elements)
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let mut element = Self::default();
        for pair in split(text, ';')? {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=')?;
            let value = unquoted(value)?;
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "for" => &mut element.node,
                "proto" => &mut element.proto,
                "host" => &mut element.host,
                _ => continue,
            };
            // Once at most, says the standard.
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

/// Splits where the separator is not quoted; `None` where a quotation does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && c == '\\' {
            is_escaped = true;
        } else if c == '"' {
            is_quoted = !is_quoted;
        } else if c == separator && !is_quoted {
            parts.push(text[start..at].trim());
            start = at + 1;
        }
    }
    parts.push(text[start..].trim());
    (!is_quoted).then_some(parts)
}

fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        let is_token = !value.is_empty() && !value.contains(['"', ' ', '\\']);
        return is_token.then(|| value.to_owned());
    };
    let inner = rest.strip_suffix('"')?;
    let (mut text, mut is_escaped) = (String::new(), false);
    for c in inner.chars() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return None,
            c => {
                is_escaped = false;
                text.push(c);
            }
        }
    }
    (!is_escaped).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(texts: &[&str]) -> Proxies {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Proxies::parse(&texts).unwrap()
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    const PEER: &str = "10.0.0.1";

    fn address_by(lines: &[(&str, &str)]) -> String {
        let peer = PEER.parse().unwrap();
        said(&headers(lines), peer, &proxies(&["private"]))
            .address
            .to_string()
    }

    #[test]
    fn the_address_is_the_first_from_the_end_that_is_not_trusted() {
        let cases = [
            (vec!["203.0.113.7"], "203.0.113.7"),
            (vec!["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            (vec!["1.1.1.1, 203.0.113.7, 10.0.0.9"], "203.0.113.7"),
            (vec!["1.1.1.1", "203.0.113.7,10.0.0.9"], "203.0.113.7"),
            (vec!["garbage, 203.0.113.7"], "203.0.113.7"),
            (vec!["203.0.113.7:4711"], "203.0.113.7"),
            (vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            (vec!["[2001:db8::1]"], "2001:db8::1"),
            (vec!["2001:db8::1"], "2001:db8::1"),
            (vec!["::ffff:203.0.113.7"], "203.0.113.7"),
            // All are trusted: a visitor of this network.
            (vec!["192.168.0.5, 10.0.0.9"], "192.168.0.5"),
            // What nobody can read.
            (vec![""], PEER),
            (vec!["203.0.113.7, garbage"], PEER),
            (vec!["203.0.113.7, unknown, 10.0.0.9"], PEER),
            (vec!["203.0.113.7,"], PEER),
            (vec!["203.0.113.7, \u{fc}"], PEER),
            (vec!["203.0.113.777"], PEER),
            (vec!["[10.0.0.1]"], PEER),
        ];
        for (values, expected) in cases {
            let lines: Vec<_> = values
                .iter()
                .map(|value| ("x-forwarded-for", *value))
                .collect();
            assert_eq!(address_by(&lines), expected, "{values:?}");
        }
        assert_eq!(address_by(&[]), PEER);
    }

    #[test]
    fn forwarded_is_read_as_the_standard_has_it() {
        let cases = [
            ("for=203.0.113.7", "203.0.113.7"),
            (
                "For=\"203.0.113.7:80\";proto=https;by=10.0.0.1",
                "203.0.113.7",
            ),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=1.1.1.1, for=203.0.113.7, for=10.0.0.9", "203.0.113.7"),
            (
                "for=1.1.1.1;x=\"a,for=2.2.2.2\", for=203.0.113.7",
                "203.0.113.7",
            ),
            ("for=203.0.113.7, for=unknown", PEER),
            ("for=_hidden", PEER),
            ("for=203.0.113.7;for=1.1.1.1", PEER),
            ("for=\"203.0.113.7", PEER),
            ("for", PEER),
            ("", PEER),
        ];
        for (value, expected) in cases {
            assert_eq!(address_by(&[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn two_that_differ_are_not_believed() {
        let both = |x: &str, forwarded: &str| {
            address_by(&[("x-forwarded-for", x), ("forwarded", forwarded)])
        };
        assert_eq!(both("203.0.113.7", "for=203.0.113.7"), "203.0.113.7");
        assert_eq!(both("203.0.113.7", "for=1.1.1.1"), PEER);
        assert_eq!(both("203.0.113.7", "garbage"), PEER);
        let headers = headers(&[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "site.example"),
            ("forwarded", "for=1.1.1.1;proto=http;host=evil.example"),
        ]);
        let said_by = |headers| said(headers, PEER.parse().unwrap(), &proxies(&["private"]));
        let both = said_by(&headers);
        assert_eq!((both.is_https, both.host), (false, None));
        // What one of them alone says, neither.
        let mut headers = HeaderMap::new();
        headers.append(FOR, HeaderValue::from_static("203.0.113.7"));
        let forged = "for=203.0.113.7;proto=https;host=evil.example";
        headers.append(header::FORWARDED, HeaderValue::from_static(forged));
        let one = said_by(&headers);
        assert_eq!((one.is_https, one.host), (false, None));
        assert_eq!(one.address.to_string(), "203.0.113.7");
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys() {
        let cases = [
            (("x-forwarded-proto", "https"), (true, None)),
            (("x-forwarded-proto", "HTTPS"), (true, None)),
            (("x-forwarded-proto", "wss"), (true, None)),
            (("x-forwarded-proto", "http, https"), (true, None)),
            (("x-forwarded-proto", "https, http"), (false, None)),
            (("x-forwarded-proto", "garbage"), (false, None)),
            (
                ("x-forwarded-host", "evil, site.example"),
                (false, Some("site.example")),
            ),
            (
                ("forwarded", "proto=https;host=\"site.example:8443\""),
                (true, Some("site.example:8443")),
            ),
        ];
        for (line, (is_https, host)) in cases {
            let said = said(
                &headers(&[line]),
                PEER.parse().unwrap(),
                &proxies(&["private"]),
            );
            assert_eq!(
                (said.is_https, said.host.as_deref()),
                (is_https, host),
                "{line:?}"
            );
        }
    }
}
