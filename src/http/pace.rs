//! Bodies that come too slowly.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::body::HttpBody;
use hyper::body::Frame;
use hyper::body::SizeHint;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::http::Settings;

/// A body is not called slow before.
const GRACE: Duration = Duration::from_secs(5);

/// How fast a body has to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long it may go on without a byte.
    stall: Duration,
    bytes_per_s_min: u64,
}

impl Pace {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            stall: Duration::from_millis(settings.body_timeout_ms),
            bytes_per_s_min: settings.body_bytes_per_s_min,
        }
    }
}

/// A request's body that ends with an error when it comes too slowly.
///
/// Only the time counts in which somebody waits for it. One that is there needs no timer.
#[derive(Debug)]
pub(super) struct Paced {
    body: Body,
    pace: Pace,
    is_late: Arc<AtomicBool>,
    bytes: u64,
    /// How long it was waited for, in all.
    waited: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The body came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
struct Late;

impl Paced {
    /// `is_late` is set when it is too late.
    pub(super) fn new(body: Body, pace: Pace, is_late: Arc<AtomicBool>) -> Self {
        Self {
            body,
            pace,
            is_late,
            bytes: 0,
            waited: Duration::ZERO,
            since: None,
            timer: None,
        }
    }

    /// How long it may be waited for now.
    fn patience(&self) -> Duration {
        let Some(seconds) = self.bytes.checked_div(self.pace.bytes_per_s_min) else {
            return self.pace.stall;
        };
        let all = GRACE.saturating_add(Duration::from_secs(seconds));
        all.saturating_sub(self.waited).min(self.pace.stall)
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            let deadline = now + self.patience();
            self.since = Some(now);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_late.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(axum::Error::new(Late))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_late(context).map(|()| {
                self.is_late.store(true, Ordering::Relaxed);
                Some(Err(axum::Error::new(Late)))
            });
        };
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
