//! What `Cache-Control` says to a shared cache (RFC 9111), and for how long a response is fresh.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::cache::Ttl;
use crate::http::error::text;

/// RFC 9111, 1.2.2: a number that is larger counts as this one.
const SECONDS_MAX: u64 = 1 << 31;

/// The directives of a request or a response that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a directive that is there or is not"
)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    private: bool,
    must_revalidate: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
}

impl Directives {
    /// Those of all `Cache-Control` headers; without one, `Pragma: no-cache` counts as that directive.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            found.no_cache = text(headers, &header::PRAGMA)
                .is_some_and(|pragma| pragma.eq_ignore_ascii_case("no-cache"));
            return found;
        }
        for value in headers.get_all(header::CACHE_CONTROL) {
            match value.to_str() {
                Ok(value) => found.add_all(value),
                // Nobody can say what it asks for, so what is safe.
                Err(_) => found.no_store = true,
            }
        }
        found
    }

    fn add_all(&mut self, value: &str) {
        let mut quoted = false;
        let outside = |c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        };
        for directive in value.split(outside) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            self.add(name.trim(), value.trim().trim_matches('"'));
        }
    }

    /// `private="a"` and `no-cache="a"` name headers only; taking them for all is allowed, and simpler.
    fn add(&mut self, name: &str, value: &str) {
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "only-if-cached" => self.only_if_cached = true,
            "private" => self.private = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "max-age" => shorten(&mut self.max_age, value),
            "s-maxage" => shorten(&mut self.s_maxage, value),
            "stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, value),
            _ => {}
        }
    }

    fn forbid(&self) -> bool {
        self.no_store || self.no_cache || self.private
    }
}

/// Of a directive that stands there twice the shorter one counts, and what is no number is none at all.
fn shorten(time: &mut Option<Duration>, value: &str) {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = match value.parse::<u64>() {
        Ok(seconds) => seconds.min(SECONDS_MAX),
        Err(_) if is_number => SECONDS_MAX,
        Err(_) => 0,
    };
    let said = Duration::from_secs(seconds);
    *time = Some(time.map_or(said, |before| before.min(said)));
}

/// How long a response with these headers may be kept; `default` is for one that does not say.
///
/// `None` for what must not be kept, or is stale from its start.
pub(super) fn lifetime(headers: &HeaderMap, default: Ttl, now: Timestamp) -> Option<Ttl> {
    let said = Directives::of_response(headers);
    if said.forbid() || headers.contains_key(header::SET_COOKIE) {
        return None;
    }
    let expires = headers
        .get(header::EXPIRES)
        .map(|value| until(value, now).unwrap_or_default());
    let ttl = match said.s_maxage.or(said.max_age).or(expires) {
        Some(fresh) => {
            let fresh = fresh.saturating_sub(age(headers));
            if fresh.is_zero() {
                return None;
            }
            Ttl::fresh(fresh)
        }
        None if said.must_revalidate => default.stale(Duration::ZERO),
        None => default,
    };
    Some(match said.stale_while_revalidate {
        Some(stale) => ttl.stale(stale),
        None => ttl,
    })
}

impl Directives {
    /// `Pragma` has no meaning in a response.
    fn of_response(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::CACHE_CONTROL) {
            Self::of(headers)
        } else {
            Self::default()
        }
    }
}

/// How old a response was already when the handler got it from elsewhere.
pub(super) fn age(headers: &HeaderMap) -> Duration {
    let seconds = text(headers, &header::AGE).and_then(|age| age.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(SECONDS_MAX))
}

/// How long until the date that a header has; nothing for one that is over.
fn until(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let until = date(value)?.duration_since(now);
    Some(Duration::try_from(until).unwrap_or_default())
}

/// The date in a header, if there is one that can be read.
pub(super) fn date_in(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    date(headers.get(name)?)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`. The two forms that have been obsolete since 1997 are not read.
fn date(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Ttl = ttl(10, 20);

    const fn ttl(fresh: u64, stale: u64) -> Ttl {
        Ttl::fresh(Duration::from_secs(fresh)).stale(Duration::from_secs(stale))
    }

    fn of(headers: &[(&'static str, &'static str)]) -> Option<Ttl> {
        let now = Timestamp::from_second(784_111_777).unwrap();
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        lifetime(&all, DEFAULT, now)
    }

    #[test]
    fn a_response_says_how_long_it_is_fresh() {
        let cases = [
            ("public", Some(DEFAULT)),
            ("max-age=60", Some(ttl(60, 0))),
            ("MAX-AGE=60 , S-MaxAge=\"30\"", Some(ttl(30, 0))),
            ("max-age=60, max-age=5", Some(ttl(5, 0))),
            ("max-age=1, stale-while-revalidate=7", Some(ttl(1, 7))),
            ("stale-while-revalidate=7", Some(ttl(10, 7))),
            ("must-revalidate", Some(ttl(10, 0))),
            ("max-age=99999999999999999999999", Some(ttl(SECONDS_MAX, 0))),
            ("max-age=soon", None),
            ("max-age=-1", None),
            ("max-age=", None),
            ("max-age=0", None),
            ("s-maxage=0, max-age=60", None),
            ("no-store", None),
            ("max-age=60, No-Cache", None),
            ("private", None),
            ("private=\"x, max-age=60\"", None),
            ("ext=\"a, no-store, b\", max-age=3", Some(ttl(3, 0))),
        ];
        for (said, expected) in cases {
            assert_eq!(of(&[("cache-control", said)]), expected, "{said}");
        }
        let twice = of(&[("cache-control", "max-age=9"), ("cache-control", "private")]);
        assert_eq!(twice, None, "the second header counts as well");
    }

    #[test]
    fn other_headers_have_a_say() {
        let cases = [
            (
                vec![("expires", "Sun, 06 Nov 1994 08:49:47 GMT")],
                Some(ttl(10, 0)),
            ),
            (vec![("expires", "Sun, 06 Nov 1994 08:49:37 GMT")], None),
            (vec![("expires", "0")], None),
            (
                vec![("expires", "0"), ("cache-control", "max-age=4")],
                Some(ttl(4, 0)),
            ),
            (vec![("age", "4")], Some(DEFAULT)),
            (
                vec![("age", "4"), ("cache-control", "max-age=9")],
                Some(ttl(5, 0)),
            ),
            (vec![("age", "9"), ("cache-control", "max-age=9")], None),
            (vec![("set-cookie", "a=b")], None),
            (vec![("pragma", "no-cache")], Some(DEFAULT)),
        ];
        for (headers, expected) in cases {
            assert_eq!(of(&headers), expected, "{headers:?}");
        }
    }
}
