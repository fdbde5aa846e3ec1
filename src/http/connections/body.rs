//! The two bodies of a request in hand, and whom each of them waits for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::body::SizeHint;

use crate::http::connections::pulse::InHand;
use crate::http::connections::pulse::Offer;
use crate::http::connections::pulse::Pulse;

/// So much of an answer is given to HTTP/2 at a time, for what is given is no longer known to be read or not.
const PIECE_BYTES: usize = 16 << 10;

/// So much of a body has to come before it counts as going on.
const STEP_BYTES: usize = 1 << 10;

/// The body of a request, which tells the pulse when it waits for the client.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Incoming,
    pulse: Arc<Pulse>,
    waits: bool,
    /// Bytes since it was last told that the body goes on.
    bytes: usize,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, pulse: &Arc<Pulse>) -> Self {
        pulse.goes_on();
        Self {
            body,
            pulse: Arc::clone(pulse),
            waits: false,
            bytes: 0,
        }
    }

    fn waits(&mut self, waits: bool) {
        if waits != self.waits {
            self.waits = waits;
            self.pulse.waits(waits);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.waits(frame.is_pending());
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len();
            if self.bytes >= STEP_BYTES {
                self.bytes = 0;
                self.pulse.goes_on();
            }
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.waits(false);
    }
}

/// The body of an answer, whose request is in hand until it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    in_hand: Option<InHand>,
    /// Of HTTP/2, where the connection's writes do not show who reads.
    offer: Option<Offer>,
    /// What is there of the last frame.
    rest: Bytes,
}

impl Answer {
    pub(super) fn new(body: Body, in_hand: Option<InHand>, offer: Option<Offer>) -> Self {
        Self {
            body,
            in_hand,
            offer,
            rest: Bytes::new(),
        }
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            let Poll::Ready(Some(Ok(frame))) = frame else {
                return frame;
            };
            match frame.into_data() {
                Ok(data) if self.offer.is_some() => self.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = self.poll_piece(context);
        match &frame {
            Poll::Ready(None | Some(Err(_))) => {
                self.in_hand = None;
                self.offer = None;
            }
            frame => {
                if let Some(offer) = &self.offer {
                    offer.is_given(frame.is_ready());
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut all = SizeHint::new();
        if let Some(upper) = hint.upper() {
            all.set_upper(upper.saturating_add(rest));
        }
        all.set_lower(hint.lower().saturating_add(rest));
        all
    }
}
