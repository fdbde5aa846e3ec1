//! Who asks: the extractor [`Client`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::http::Extensions;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::header;
use axum::http::request::Parts;
use axum::http::uri::Authority;

use crate::http::arrival::Arrival;
use crate::http::forwarded::said;
use crate::http::hosts::normal;
use crate::http::proxies::Proxies;

/// Where a request comes from, and how its sender sees this site.
///
/// ```
/// use houseboat::Context;
/// use houseboat::axum::{Router, routing::get};
/// use houseboat::http::Client;
///
/// async fn address(client: Client) -> String {
///     format!("You come from {}.", client.address)
/// }
///
/// let routes: Router<Context> = Router::new().route("/address", get(address));
/// ```
///
/// Behind a proxy that `server.trusted_proxies` names, it is what the proxy says by `X-Forwarded-For`, `-Proto` and
/// `-Host`, or by `Forwarded` (RFC 7239); nobody else is believed. `X-Forwarded-For` is read from its end, past all
/// trusted addresses. What cannot be read counts as nothing said, and where there are both kinds of headers, so does what
/// they do not agree on: then the client is the proxy itself.
///
/// Do not take it for a page that is kept for all (`PageCache`): its first visitor's would be shown to others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// Its address; `0.0.0.0` for a request that came over no connection, as in a test that asks the router.
    pub address: IpAddr,
    /// Whether it came by https.
    pub is_https: bool,
    /// The host it asked for, in small letters, with its port unless that is the scheme's own; empty if it named none.
    pub host: String,
}

impl Client {
    /// The client of a request that arrives.
    pub(super) fn of(request: &Request, proxies: &Proxies) -> Self {
        let peer = peer(request.extensions());
        // What CONNECT has for an address is where it would like to go.
        let is_tunnel = *request.method() == Method::CONNECT;
        let authority = request.uri().authority().filter(|_| !is_tunnel);
        let named = host(authority, request.headers());
        let mut client = Self {
            address: peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            is_https: false,
            host: String::new(),
        };
        let mut forwarded = None;
        if let Some(peer) = peer.filter(|peer| proxies.trusts(*peer)) {
            let said = said(request.headers(), peer, proxies);
            client.address = said.address;
            client.is_https = said.is_https;
            forwarded = said.host;
        }
        let host = match &forwarded {
            Some(host) => normal(host),
            None => named.and_then(normal),
        };
        client.host = host.unwrap_or_default();
        client.drop_default_port();
        client
    }

    fn drop_default_port(&mut self) {
        let port = if self.is_https { ":443" } else { ":80" };
        if self.host.ends_with(port) {
            let end = self.host.len() - port.len();
            self.host.truncate(end);
        }
    }
}

/// The client of a request, by what its arrival left there; `None` if it came over no connection.
pub(super) fn address(extensions: &Extensions) -> Option<IpAddr> {
    let client = extensions.get::<Arrival>().map(|it| &it.client);
    let address = client.map(|client| client.address);
    let address = address.or_else(|| peer(extensions));
    address.filter(|address| !address.is_unspecified())
}

/// The other end of the connection.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// The host that a request names; `None` if it names none, or two.
fn host<'a>(authority: Option<&'a Authority>, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut all = headers.get_all(header::HOST).iter();
    let header = match (all.next(), all.next()) {
        (first, None) => first.and_then(|value| value.to_str().ok()),
        _ => return None,
    };
    match (authority, header) {
        (Some(one), Some(other)) if !one.as_str().eq_ignore_ascii_case(other) => None,
        (Some(authority), _) => Some(authority.as_str()),
        (None, header) => header,
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if let Some(arrival) = parts.extensions.get::<Arrival>() {
            return Ok(arrival.client.clone());
        }
        // A router without the layers: nobody is trusted.
        let mut request = Request::new(axum::body::Body::empty());
        request.method_mut().clone_from(&parts.method);
        *request.uri_mut() = parts.uri.clone();
        request.headers_mut().clone_from(&parts.headers);
        if let Some(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            request.extensions_mut().insert(*peer);
        }
        Ok(Self::of(&request, &Proxies::default()))
    }
}
