//! A page in the making: what the handler answers, and what is kept of it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::cache::Ttl;
use crate::http::arrival::Handles;
use crate::http::coding::vary;
use crate::http::page_cache::Handler;
use crate::http::page_cache::Inner;
use crate::http::page_cache::Rules;
use crate::http::page_cache::asked::counts;
use crate::http::page_cache::asked::reduced;
use crate::http::page_cache::directives::lifetime;
use crate::http::page_cache::kept::Kept;
use crate::http::page_cache::page;
use crate::http::page_cache::page::Record;
use crate::http::page_cache::place::Place;
use crate::http::page_cache::place::Varies;
use crate::http::page_cache::whole::whole;
use crate::http::personal::Personal;

/// Those of RFC 9110 that may be kept where nothing says so, less those that this cache has no use for.
const STATUSES: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::NON_AUTHORITATIVE_INFORMATION,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::PERMANENT_REDIRECT,
    StatusCode::NOT_FOUND,
    StatusCode::GONE,
];

/// A body that takes longer to come is not kept; it may be a stream that has no end.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Which headers a page depends on is learned anew after this.
const VARIES: Duration = Duration::from_hours(24);

/// An address whose answers are not to be kept is tried again after this.
const NEVER: Duration = Duration::from_secs(10);

/// What comes of a page that is to be made.
pub(super) enum Made {
    /// What is in the cache now, for everybody.
    Kept(Bytes),
    /// The answer for the one visitor for whom the handler was asked.
    Own(Response),
    Panicked(Box<dyn Any + Send>),
    Failed,
}

/// All that is needed to make a page, also when its visitor has gone.
pub(super) struct Making {
    pub(super) site: Arc<Handles>,
    /// The key of the address.
    pub(super) address: String,
    /// For which place it is made.
    pub(super) place: Place,
    pub(super) parts: Parts,
    /// Where its visitor waits, if there is one.
    pub(super) own: oneshot::Sender<Made>,
}

/// Nothing to keep, and those who wait ask for themselves.
pub(super) struct NotKept;

type ToKeep = Result<(Bytes, Ttl), NotKept>;

impl Making {
    pub(super) async fn run<S>(self, inner: Arc<Inner<S>>) -> ToKeep
    where
        S: Handler,
    {
        let request = reduced(self.parts.clone(), &inner.rules);
        let asking = AssertUnwindSafe(inner.ask(request)).catch_unwind();
        let response = match tokio::time::timeout(self.site.time, asking).await {
            Ok(Ok(response)) => response,
            Ok(Err(panic)) => return self.gives_up(Made::Panicked(panic)),
            Err(_) => return self.gives_up(Made::Failed),
        };
        // What has a nonce or a message on it is for its own visitor.
        if Personal::of(&self.parts.extensions).is_taken() {
            return self.passes(response);
        }
        let Some(ttl) = ttl(&response, &inner.rules, &self.site) else {
            return self.passes(response);
        };
        let (parts, body) = response.into_parts();
        let body = match whole(body, inner.rules.bytes_max, BODY_TIME).await {
            Ok(body) => body,
            Err(body) => return self.passes(Response::from_parts(parts, body)),
        };
        let names: Vec<HeaderName> = vary(&parts.headers)
            .filter_map(|name| name.parse().ok())
            .filter(|name| counts(name, &inner.rules))
            .collect();
        let page = page::record(&parts, body, self.site.now()).await;
        self.keeps(page, ttl, &names, &inner.rules).await
    }

    async fn keeps(self, page: Bytes, ttl: Ttl, names: &[HeaderName], rules: &Rules) -> ToKeep {
        let known = self.place.knows(names);
        let names = names.iter().map(|name| name.as_str().to_owned());
        let kept = match self.place.varies.clone() {
            None if known => Ok((page.clone(), ttl)),
            // The first answer from this address, and now it is known what it depends on.
            None => {
                let mut varies = Varies::new(names.collect());
                let there = varies.place(&self.address, &self.parts.headers);
                varies.add(&there.key, rules.variants_max);
                self.site.pages.put(&there.key, page.clone(), ttl).await;
                Ok((Record::Varies(varies).write(), VARIES.into()))
            }
            Some(varies) if known => {
                self.counts(varies, rules).await;
                Ok((page.clone(), ttl))
            }
            // It depends on more than was known: from now on all are kept by that, too.
            Some(varies) => {
                let varies = Record::Varies(varies.and(names)).write();
                self.site.pages.put(&self.address, varies, VARIES).await;
                Err(NotKept)
            }
        };
        let own = match Kept::read(&page) {
            Some(Kept::Page(page)) => page.first_answer(&self.parts.headers, self.site.now()),
            _ => None,
        };
        // Nobody waits where a page was made anew behind the old one.
        let _ = self.own.send(own.map_or(Made::Failed, Made::Own));
        kept
    }

    /// Notes a variant at its address; what is over the limit goes.
    async fn counts(&self, mut varies: Varies, rules: &Rules) {
        if varies.has(&self.place.key) {
            return;
        }
        let over = varies.add(&self.place.key, rules.variants_max);
        self.site
            .pages
            .put(&self.address, Record::Varies(varies).write(), VARIES)
            .await;
        for key in over {
            self.site.pages.remove(&key).await;
        }
    }

    /// Gives its visitor the answer as it is. Where it is one that will be the same for others, they need not wait.
    fn passes(self, response: Response) -> ToKeep {
        let status = response.status();
        let is_lasting = status.is_success() || status.is_redirection();
        let _ = self.own.send(Made::Own(response));
        if is_lasting && self.place.varies.is_none() {
            return Ok((Record::Never.write(), NEVER.into()));
        }
        Err(NotKept)
    }

    fn gives_up(self, made: Made) -> ToKeep {
        tracing::debug!(path = self.parts.uri.path(), "a page could not be made");
        let _ = self.own.send(made);
        Err(NotKept)
    }
}

/// How long an answer may be kept; `None` for one that may not.
fn ttl(response: &Response, rules: &Rules, site: &Handles) -> Option<Ttl> {
    const EVENTS: &[u8] = b"text/event-stream";
    let headers = response.headers();
    let media = headers.get(header::CONTENT_TYPE);
    let is_stream = media
        .map(HeaderValue::as_bytes)
        .is_some_and(|media| media.starts_with(EVENTS));
    if !STATUSES.contains(&response.status()) || is_stream || vary(headers).any(|name| name == "*")
    {
        return None;
    }
    lifetime(headers, rules.ttl, site.now())
}
