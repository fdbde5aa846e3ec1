//! Who asks, as far as it is kept with a session.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use crate::http::address;
use crate::http::network;

/// What a browser says of itself is cut after so many characters.
const AGENT_CHARS_MAX: usize = 200;

/// The address and the browser of who asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) address: Option<IpAddr>,
    pub(super) agent: Option<String>,
}

impl Client {
    /// What stands for all addresses that this client may have; `None` for what came over no connection.
    pub(super) fn network(&self) -> Option<String> {
        Some(network(self.address?).to_string())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT);
        let agent = agent.map(|agent| {
            let text = String::from_utf8_lossy(agent.as_bytes());
            let shown = text.chars().filter(|c| !c.is_control());
            shown.take(AGENT_CHARS_MAX).collect()
        });
        Ok(Self {
            address: address(&parts.extensions),
            agent,
        })
    }
}
