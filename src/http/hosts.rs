//! The names that a site answers to: the settings `server.url` and `server.hosts`.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use axum::http::Uri;

use crate::http::Settings;

/// As long as a name may be, and a port.
const HOST_BYTES_MAX: usize = 255 + 6;

/// The hosts that are the site's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Whether it answers to every name.
    is_any: bool,
    names: Vec<String>,
    /// What a name may end with, such as `.example.org`.
    endings: Vec<String>,
}

impl Hosts {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut hosts = Self::default();
        if let Ok(uri) = settings.url.parse::<Uri>()
            && let Some(host) = uri.authority().and_then(|it| normal(it.as_str()))
        {
            hosts.names.push(name(&host).to_owned());
        }
        for text in &settings.hosts {
            match text.strip_prefix('*') {
                Some("") => hosts.is_any = true,
                Some(ending) => hosts.endings.push(ending.to_ascii_lowercase()),
                None => hosts
                    .names
                    .extend(normal(text).map(|host| name(&host).to_owned())),
            }
        }
        let nobody_said = hosts.names.is_empty() && hosts.endings.is_empty();
        hosts.is_any |= settings.is_development || nobody_said;
        hosts
    }

    /// Whether anything is configured, in an environment in which it should be.
    pub(super) fn is_unknown(settings: &Settings) -> bool {
        !settings.is_development && settings.url.is_empty() && settings.hosts.is_empty()
    }

    /// Whether a host in its normal form is one of them; its port does not matter.
    pub(super) fn has(&self, host: &str) -> bool {
        let name = name(host);
        self.is_any
            || self.names.iter().any(|own| own == name)
            || self.endings.iter().any(|ending| {
                let before = name.strip_suffix(ending.as_str());
                before.is_some_and(|before| !before.is_empty())
            })
    }
}

/// Whether it may stand in `server.hosts`: a name, `*.` and a name, or `*`.
pub(super) fn is_pattern(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let ending = text.strip_prefix("*.");
    let has_port = |host: &str| name(host).len() != host.len();
    normal(ending.unwrap_or(text)).is_some_and(|host| {
        let is_address = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
        !(has_port(&host) || ending.is_some() && is_address)
    })
}

/// A host without its port.
fn name(host: &str) -> &str {
    if host.starts_with('[') {
        host.find(']').map_or(host, |end| &host[..=end])
    } else {
        host.split(':').next().unwrap_or(host)
    }
}

/// A host, perhaps with a port, in the one form in which hosts are compared: small letters, no dot at the end.
///
/// `None` for what is none: with a user before it, a path behind it, or a letter that no name has.
pub(super) fn normal(text: &str) -> Option<String> {
    if text.len() > HOST_BYTES_MAX {
        return None;
    }
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']')?;
        let address = text[1..end].parse::<Ipv6Addr>().ok()?;
        (format!("[{address}]"), &text[end + 1..])
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let host = text[..end].strip_suffix('.').unwrap_or(&text[..end]);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
        if !host
            .split('.')
            .all(|label| is_label(label) && label.bytes().all(is_plain))
        {
            return None;
        }
        (host.to_ascii_lowercase(), &text[end..])
    };
    let Some(digits) = port.strip_prefix(':') else {
        return port.is_empty().then_some(host);
    };
    if digits.is_empty() {
        return Some(host);
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse::<u16>().ok().filter(|_| is_number)?;
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form() {
        let cases = [
            ("site.example", Some("site.example")),
            ("SITE.Example.", Some("site.example")),
            ("site.example:8080", Some("site.example:8080")),
            ("site.example.:08080", Some("site.example:8080")),
            ("site.example:", Some("site.example")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("[0:0:0:0:0:0:0:1]", Some("[::1]")),
            ("my_host", Some("my_host")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("site.example..", None),
            ("user@site.example", None),
            ("user:pass@site.example", None),
            ("site.example/path", None),
            ("site.example:80:80", None),
            ("site.example:99999", None),
            ("site.example:+80", None),
            ("site example", None),
            ("s\u{ef}te.example", None),
            ("site.example,evil.example", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[127.0.0.1]", None),
            ("::1", None),
            ("site.example\\@evil", None),
        ];
        for (text, expected) in cases {
            assert_eq!(normal(text).as_deref(), expected, "{text}");
        }
        assert_eq!(normal(&"a.".repeat(200)), None);
        assert_eq!(normal(&"a".repeat(64)), None);
    }

    fn hosts(url: &str, names: &[&str]) -> Hosts {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::new(&Settings {
            url: url.to_owned(),
            hosts: names,
            ..Settings::default()
        })
    }

    #[test]
    fn the_sites_hosts_are_taken_and_others_are_not() {
        let own = hosts(
            "https://Site.example:8443/",
            &["*.example.org", "other.example", "[::1]"],
        );
        for host in [
            "site.example",
            "site.example:1",
            "a.example.org",
            "a.b.example.org",
            "other.example",
            "[::1]:80",
        ] {
            assert!(own.has(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "xsite.example",
            "site.example.evil",
            "example.org",
            ".example.org",
            "xexample.org",
        ] {
            assert!(!own.has(host), "{host}");
        }
        assert!(hosts("", &[]).has("anything"));
        assert!(hosts("https://site.example", &["*"]).has("anything"));
        assert!(!hosts("", &["site.example"]).has("anything"));
    }

    #[test]
    fn what_may_stand_in_the_setting() {
        for text in ["*", "*.example.org", "example.org", "[::1]", "10.0.0.1"] {
            assert!(is_pattern(text), "{text}");
        }
        for text in [
            "",
            "**",
            "*example.org",
            "a.*.org",
            "example.org:80",
            "https://example.org",
            "*.10.0.0.1",
            "*.",
        ] {
            assert!(!is_pattern(text), "{text}");
        }
    }
}
