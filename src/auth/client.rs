//! Who asks, as far as it is kept with a session.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use crate::http;
use crate::http::network;

/// What a browser says of itself is cut after so many characters.
const AGENT_CHARS_MAX: usize = 200;

/// The address and the browser of who asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) address: Option<IpAddr>,
    pub(super) agent: Option<String>,
    /// Whether it came without https, so that its browser drops a cookie that is for https alone.
    pub(super) is_open: bool,
}

impl Client {
    /// What stands for all addresses that this client may have; `None` for what came over no connection.
    pub(super) fn network(&self) -> Option<String> {
        Some(network(self.address?).to_string())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent.map(|agent| {
            let text = String::from_utf8_lossy(agent.as_bytes());
            let shown = text.chars().filter(|c| !c.is_control());
            shown.take(AGENT_CHARS_MAX).collect()
        });
        let Ok(client) = http::Client::from_request_parts(parts, state).await;
        Ok(Self {
            address: Some(client.address).filter(|address| !address.is_unspecified()),
            agent,
            is_open: !client.is_https && !is_this_machine(&client.host),
        })
    }
}

/// Browsers trust their own machine as they trust https.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    is_loopback || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_several_names() {
        for host in [
            "localhost",
            "localhost:8000",
            "a.localhost",
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "192.0.2.7:8000",
            "[2001:db8::1]:80",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
