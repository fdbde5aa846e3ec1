//! A request's body, lent to another container, and taken back if nothing of it was read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use hyper::body::Frame;
use hyper::body::SizeHint;

/// The side of who lends.
pub(super) struct Loan(Arc<Mutex<Lent>>);

/// The side of who reads.
struct Borrowed(Arc<Mutex<Lent>>);

struct Lent {
    body: Option<Body>,
    begun: bool,
}

/// Lends a body: what may be taken back, and what can be sent.
pub(super) fn lend(body: Body) -> (Loan, Body) {
    let body = Some(body);
    let lent = Arc::new(Mutex::new(Lent { body, begun: false }));
    let borrowed = Body::new(Borrowed(Arc::clone(&lent)));
    (Loan(lent), borrowed)
}

impl Loan {
    /// Takes the body back, unless something of it is gone. Who borrowed it meets an error from now on.
    pub(super) fn take_back(self) -> Option<Body> {
        let mut lent = lock(&self.0);
        if lent.begun { None } else { lent.body.take() }
    }
}

impl HttpBody for Borrowed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut lent = lock(&self.0);
        let Some(body) = &mut lent.body else {
            let taken = io::Error::other("the body was taken back");
            return Poll::Ready(Some(Err(axum::Error::new(taken))));
        };
        let frame = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(_)) = &frame {
            lent.begun = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let lent = lock(&self.0);
        lent.body
            .as_ref()
            .map_or_else(SizeHint::new, Body::size_hint)
    }
}

fn lock(lent: &Mutex<Lent>) -> MutexGuard<'_, Lent> {
    // A body that panicked is broken for whoever reads on, and says so itself.
    lent.lock().unwrap_or_else(PoisonError::into_inner)
}
