//! Another container of the same site, and what can be asked of it.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::Request;
use axum::http::Response;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::uri::Authority;
use axum::http::uri::PathAndQuery;
use axum::http::uri::Scheme;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::http::handover::control;
use crate::http::handover::headers;

/// On one machine, or in one data centre, who does not answer within it is not there.
const CONNECT: Duration = Duration::from_secs(2);
/// What a short question may take.
const SHORT: Duration = Duration::from_secs(2);
/// How long the other side of a long question may be silent: five of its signs of life.
const SILENCE: Duration = control::BEAT.saturating_mul(5);
/// An idle connection is closed after this; the other side never closes one while it runs.
const IDLE: Duration = Duration::from_mins(1);
/// And those above so many at once: a burst is no reason to keep its connections.
const IDLE_MAX: usize = 256;
/// A longer answer to a question is none of ours.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Another container of this site: where it may be reached, and the key to it. Clones are cheap.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    addresses: Vec<String>,
    key: HeaderValue,
    /// The address that is known to be this peer's.
    found: ArcSwapOption<Authority>,
    /// When the last search ended in vain.
    search: Mutex<Option<Instant>>,
    client: Client<HttpConnector, Body>,
}

/// Why another container gave no answer. Its key is in none of the texts.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// None of its addresses leads to it.
    #[error("no address of the other container leads to it: {}", .addresses.join(", "))]
    Unreachable {
        /// Those that were tried.
        addresses: Vec<String>,
    },
    /// It has another key, and so is another container.
    #[error("another container answers at {address}")]
    Stranger {
        /// Where.
        address: String,
    },
    /// It is there, and does not take the question now.
    #[error("the other container does not answer the question: status {0}")]
    Refused(StatusCode),
    /// It was silent for too long.
    #[error("the other container is silent for {0:?}")]
    Silent(Duration),
    /// The connection broke, or it did not answer after all.
    #[error("the other container did not answer: {0}")]
    Broken(String),
}

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: PeerError,
    /// Whether it is certain that the other container has not seen it.
    pub(super) unseen: bool,
}

impl Peer {
    /// A container that is reached at one of `addresses`, each `host:port`, and takes what shows `key`.
    #[must_use]
    pub fn new(addresses: Vec<String>, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            // Visitors' own goes on.
            .set_host(false)
            .build(connector);
        // An empty key opens nothing, and neither would one that cannot be sent.
        let mut key = HeaderValue::from_str(key).unwrap_or(HeaderValue::from_static(""));
        key.set_sensitive(true);
        Self(Arc::new(Inner {
            addresses,
            key,
            found: ArcSwapOption::empty(),
            search: Mutex::new(None),
            client,
        }))
    }

    /// Asks with `question` and waits for as long as it takes: until the other container lets go of the lease.
    ///
    /// It gives a sign of life every second; five seconds without one are an error.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, does not take the question, falls silent, or ends without an answer.
    pub async fn wait(&self, question: String) -> Result<String, PeerError> {
        let response = self.ask_for(control::WAIT, question).await?;
        read(response.into_body(), SILENCE).await
    }

    /// Asks what the other container is doing; within 2 s, and 2 s more if it has to be found first.
    ///
    /// # Errors
    ///
    /// As of [`wait`](Self::wait).
    pub async fn ask(&self) -> Result<String, PeerError> {
        let answer = async {
            let response = self.ask_for(control::ASK, String::new()).await?;
            read(response.into_body(), SHORT).await
        };
        let all = CONNECT + SHORT;
        timeout(all, answer)
            .await
            .unwrap_or(Err(PeerError::Silent(all)))
    }

    async fn ask_for(
        &self,
        what: HeaderValue,
        body: String,
    ) -> Result<Response<Incoming>, PeerError> {
        let address = self.address().await?;
        let request = self.question(&address, what, body);
        let sent = timeout(SHORT, self.send(&address, request)).await;
        let response = sent.unwrap_or_else(|_| {
            self.forget();
            Err(seen(PeerError::Silent(SHORT)))
        });
        let response = response.map_err(|unanswered| unanswered.error)?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
            status => Err(PeerError::Refused(status)),
        }
    }

    fn question(&self, address: &Authority, what: HeaderValue, body: String) -> Request<Body> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri(address, None);
        request.headers_mut().insert(headers::CONTROL, what);
        request
            .headers_mut()
            .insert(headers::KEY, self.0.key.clone());
        request
    }

    /// Whether it is the same value, or a clone of it.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Passes a visitor's request on, for which `make` knows all but the address and the key.
    pub(super) async fn pass(
        &self,
        path: Option<PathAndQuery>,
        make: impl FnOnce() -> Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let address = self.address().await.map_err(unseen)?;
        let mut request = make();
        *request.uri_mut() = uri(&address, path);
        request
            .headers_mut()
            .insert(headers::KEY, self.0.key.clone());
        self.send(&address, request).await
    }

    async fn send(
        &self,
        address: &Authority,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        match self.0.client.request(request).await {
            Ok(response) if response.headers().contains_key(headers::REFUSED) => {
                self.forget();
                let address = address.to_string();
                Err(unseen(PeerError::Stranger { address }))
            }
            Ok(response) => Ok(response),
            Err(error) => {
                let unseen = was_not_sent(&error);
                if unseen {
                    self.forget();
                }
                let error = PeerError::Broken(chain(&error));
                Err(Unanswered { error, unseen })
            }
        }
    }

    fn forget(&self) {
        self.0.found.store(None);
    }

    /// Finds the address at which it is really this container that answers, and remembers it.
    async fn address(&self) -> Result<Arc<Authority>, PeerError> {
        if let Some(found) = self.0.found.load_full() {
            return Ok(found);
        }
        let asked = Instant::now();
        // One search for all who need it now.
        let mut failed = self.0.search.lock().await;
        if let Some(found) = self.0.found.load_full() {
            return Ok(found);
        }
        if failed.is_none_or(|failed| failed < asked) {
            if let Some(found) = self.search().await {
                let found = Arc::new(found);
                self.0.found.store(Some(Arc::clone(&found)));
                return Ok(found);
            }
            *failed = Some(Instant::now());
        }
        let addresses = self.0.addresses.clone();
        Err(PeerError::Unreachable { addresses })
    }

    /// Knocks at every address at once; the first that opens is it.
    ///
    /// In two networks one address can be of two machines, and a container can have got the address of one before it.
    async fn search(&self) -> Option<Authority> {
        let addresses = self.0.addresses.iter();
        let mut knocks: FuturesUnordered<_> =
            addresses.map(|address| self.knock(address)).collect();
        while let Some(found) = knocks.next().await {
            if found.is_some() {
                return found;
            }
        }
        None
    }

    async fn knock(&self, address: &str) -> Option<Authority> {
        let address: Authority = address.parse().ok()?;
        let question = self.question(&address, control::KNOCK, String::new());
        let answer = timeout(SHORT, self.0.client.request(question)).await;
        let opened = matches!(answer, Ok(Ok(answer)) if answer.status() == StatusCode::NO_CONTENT);
        opened.then_some(address)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Peer")
            .field("addresses", &self.0.addresses)
            .field("found", &self.0.found.load())
            .finish_non_exhaustive()
    }
}

/// Reads an answer that may come in pieces, with signs of life before it.
async fn read(mut body: Incoming, silence: Duration) -> Result<String, PeerError> {
    let mut text = Vec::new();
    loop {
        let frame = timeout(silence, body.frame()).await;
        let Some(frame) = frame.map_err(|_| PeerError::Silent(silence))? else {
            break;
        };
        let frame = frame.map_err(|error| PeerError::Broken(chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            text.extend_from_slice(data.as_ref());
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            text.clear();
        }
        if text.len() > ANSWER_BYTES_MAX {
            return Err(PeerError::Broken("its answer is too long".to_owned()));
        }
    }
    String::from_utf8(text).map_err(|_| PeerError::Broken("its answer is no text".to_owned()))
}

fn uri(address: &Authority, path: Option<PathAndQuery>) -> Uri {
    let mut parts = axum::http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(address.clone());
    parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("a scheme, an authority and a path are a whole address")
}

/// Whether not a byte of the request has left this machine.
fn was_not_sent(error: &legacy::Error) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<hyper::Error>());
    error.is_connect() || source.is_some_and(hyper::Error::is_canceled)
}

fn seen(error: PeerError) -> Unanswered {
    let unseen = false;
    Unanswered { error, unseen }
}

fn unseen(error: PeerError) -> Unanswered {
    let unseen = true;
    Unanswered { error, unseen }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::database::chain(error)
}
