//! How large a request's body may be: as the settings say, or as its route does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::body::HttpBody;
use axum::extract::Request;
use bytes::Bytes;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Frame;
use hyper::body::SizeHint;

use crate::database::BoxError;

/// In a request's extensions: how much of its body may be read. A route's layer may set another limit, until it is read.
///
/// The layer of `tower-http` cannot do that: it is around all routes, and does not know yet which one is asked for.
#[derive(Clone, Debug)]
pub(super) struct BodyLimit {
    bytes_max: Arc<AtomicUsize>,
    /// What the settings say.
    site: usize,
}

impl BodyLimit {
    /// Puts a limit around the body of a request.
    pub(super) fn around(mut request: Request, bytes_max: usize) -> Request {
        if request.body().is_end_stream() {
            return request;
        }
        let limit = Self {
            bytes_max: Arc::new(AtomicUsize::new(bytes_max)),
            site: bytes_max,
        };
        request.extensions_mut().insert(limit.clone());
        request.map(|body| Body::new(Bounded::Unread(Some(body), limit)))
    }

    /// Sets another limit.
    pub(super) fn set(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Takes back what a layer has set beyond the settings.
    pub(super) fn lower_to_sites(&self) {
        self.bytes_max.fetch_min(self.site, Ordering::Relaxed);
    }
}

/// A body whose limit is settled when it is read.
enum Bounded {
    Unread(Option<Body>, BodyLimit),
    Read(Limited<Body>),
}

impl Bounded {
    /// The body within its limit. One that says how long it is, and is too long, is not read at all.
    fn read(body: Body, limit: &BodyLimit) -> Limited<Body> {
        let bytes_max = limit.bytes_max.load(Ordering::Relaxed);
        let is_over = usize::try_from(body.size_hint().lower()).is_ok_and(|said| said > bytes_max);
        if is_over {
            // A byte over a limit of none gives the error that axum's extractors know.
            return Limited::new(Body::new(Full::new(Bytes::from_static(b"."))), 0);
        }
        Limited::new(body, bytes_max)
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Self::Unread(body, limit) = &mut *self {
            let read = Self::read(body.take().unwrap_or_default(), limit);
            *self = Self::Read(read);
        }
        match &mut *self {
            Self::Read(body) => Pin::new(body).poll_frame(context),
            Self::Unread(..) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unread(body, _) => body.as_ref().is_none_or(Body::is_end_stream),
            Self::Read(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unread(body, _) => body.as_ref().map_or_else(SizeHint::new, Body::size_hint),
            Self::Read(body) => body.size_hint(),
        }
    }
}
