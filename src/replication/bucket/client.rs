//! The HTTP client of a bucket.

use std::time::Duration;

use futures_util::future::BoxFuture;
use object_store::ClientOptions;
use object_store::client::HttpClient;
use object_store::client::HttpConnector;
use object_store::client::HttpError;
use object_store::client::HttpErrorKind;
use object_store::client::HttpRequest;
use object_store::client::HttpResponse;
use object_store::client::HttpService;
use reqwest::redirect::Policy;
use rustls::crypto::ring;

use crate::replication::bucket::answer::Answer;

const USER_AGENT: &str = concat!("houseboat/", env!("CARGO_PKG_VERSION"));

/// Long enough for another continent, and for a second try within the time of an operation.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// This long, from the connection to the last byte of the answer.
    Whole(Duration),
    /// As long as bytes come; this long between two of them, and for the answer to what was sent.
    Stall(Duration),
}

/// Makes the store's client from ours.
#[derive(Debug)]
pub(super) struct Connector(pub(super) reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.clone())))
    }
}

#[derive(Debug)]
struct Client(reqwest::Client);

impl HttpService for Client {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let response = HttpService::call(&self.0, request).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let answer = Answer::read(response).await;
            // The store tries again after an error of the kind `Request`, and does not after `Unknown`.
            let kind = if answer.is_passing() {
                HttpErrorKind::Request
            } else {
                HttpErrorKind::Unknown
            };
            Err(HttpError::new(kind, answer))
        })
    }
}

/// Builds the client. It follows no redirect: what is signed goes to the address in the settings alone.
pub(super) fn build(is_https: bool, patience: Patience) -> Result<reqwest::Client, reqwest::Error> {
    // An error says that the process has one already.
    let _ = ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .http1_only()
        .https_only(is_https)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIME);
    if !is_https {
        // Inside a network of one's own: no proxy, and no certificates, which a small image may not have.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder = match patience {
        Patience::Whole(time) => builder.timeout(time),
        Patience::Stall(time) => builder.read_timeout(time),
    };
    builder.build()
}
