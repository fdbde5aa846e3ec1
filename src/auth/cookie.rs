//! The cookies of who is signed in.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header;

use crate::auth::key::Key;
use crate::auth::key::Ticket;
use crate::auth::settings;
use crate::http::SESSION_COOKIES;

/// Which cookies this site sets, and no others does it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookies {
    is_secure: bool,
}

/// What a cookie is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookie {
    Session,
    /// The half session of who is asked for a code.
    Second,
}

impl Cookies {
    pub(super) fn of(settings: &settings::Settings) -> Self {
        Self {
            is_secure: settings.cookies != settings::Cookies::Plain,
        }
    }

    /// Whether they are for https alone.
    pub(super) fn is_secure(self) -> bool {
        self.is_secure
    }

    pub(super) fn name(self, cookie: Cookie) -> &'static str {
        let [session, host_session, second, host_second] = SESSION_COOKIES;
        match (cookie, self.is_secure) {
            (Cookie::Session, true) => host_session,
            (Cookie::Session, false) => session,
            (Cookie::Second, true) => host_second,
            (Cookie::Second, false) => second,
        }
    }

    /// What is kept of the ticket in a request's cookie; `None` where there is none, or none that could be ours.
    pub(super) fn read(self, cookie: Cookie, headers: &HeaderMap) -> Option<Key> {
        let name = self.name(cookie);
        let values = headers.get_all(header::COOKIE).into_iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let mut pairs = values.flat_map(|value| value.split(';'));
        pairs.find_map(|pair| {
            let (found, value) = pair.split_once('=')?;
            (found.trim() == name).then(|| Key::of_ticket(value.trim()))?
        })
    }

    /// The header that sets it, for so long.
    pub(super) fn set(self, cookie: Cookie, ticket: &Ticket, time: Duration) -> HeaderValue {
        self.header(cookie, ticket.as_str(), time.as_secs())
    }

    /// The header that takes it away.
    pub(super) fn clear(self, cookie: Cookie) -> HeaderValue {
        self.header(cookie, "", 0)
    }

    fn header(self, cookie: Cookie, value: &str, seconds: u64) -> HeaderValue {
        let name = self.name(cookie);
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(text).expect("names, digits and words that we wrote")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(is_secure: bool, lines: &[&str]) -> Option<Key> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(header::COOKIE, value);
        }
        Cookies { is_secure }.read(Cookie::Session, &headers)
    }

    #[test]
    fn a_session_is_found_among_other_cookies() {
        let ticket = Ticket::new();
        let key = Some(ticket.key());
        let ticket = ticket.as_str();
        let plain = format!("theme=dark; session={ticket};x");
        assert_eq!(read(false, &["a=b", &plain]), key);
        // With HTTPS only the one counts that a browser takes from no neighbour.
        assert_eq!(read(true, &[&plain]), None);
        assert_eq!(read(true, &[&format!("__Host-session={ticket}")]), key);
        let garbled = [
            String::new(),
            "session".to_owned(),
            "session=".to_owned(),
            format!("session=\"{ticket}\""),
            format!("Session={ticket}"),
            format!("xsession={ticket}"),
            format!("session={ticket}0"),
            format!("session==={ticket}"),
            format!("é; session={ticket}"),
        ];
        for line in garbled {
            assert_eq!(read(false, &[&line]), None, "{line}");
        }
    }
}
