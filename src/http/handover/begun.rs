//! How many requests the site has in hand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use axum::response::Response;
use hyper::body::Frame;
use hyper::body::SizeHint;
use tokio::sync::Notify;

/// A count of requests, and who waits for it to be zero.
#[derive(Debug, Default)]
pub(super) struct Count {
    count: AtomicUsize,
    zero: Notify,
}

/// One request that counts, until this is dropped.
#[derive(Debug)]
pub(super) struct Begun(Arc<Count>);

impl Count {
    /// Counts one more. What is loaded afterwards is no older than what others stored before they looked at the count.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Begun(Arc::clone(self))
    }

    pub(super) fn get(&self) -> usize {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until none is left.
    pub(super) async fn zero(&self) {
        loop {
            let mut zero = std::pin::pin!(self.zero.notified());
            // From here on none is missed.
            zero.as_mut().enable();
            if self.get() == 0 {
                return;
            }
            zero.await;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.zero.notify_waiters();
        }
    }
}

/// Lets a request count until the body of its answer has ended.
pub(super) fn until_sent(response: Response, begun: Begun) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| {
        let begun = Some(begun);
        Body::new(Counted { body, begun })
    })
}

/// A body of an answer that is not sent yet.
struct Counted {
    body: Body,
    begun: Option<Begun>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = &frame {
            self.begun = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
