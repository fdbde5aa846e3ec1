//! Bodies that come too slowly.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
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

/// How a body comes, for who waits for the answer.
#[derive(Debug)]
pub(super) struct Coming {
    began: Instant,
    is_late: AtomicBool,
    /// How long the client was waited for, in microseconds.
    waited: AtomicU64,
    /// Since when it is waited for now, in microseconds after `began`; [`NOT`] where it is not.
    since: AtomicU64,
}

/// The client is not waited for.
const NOT: u64 = u64::MAX;

impl Coming {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            is_late: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            since: AtomicU64::new(NOT),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(NOT - 1)
    }

    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Relaxed)
    }

    /// How long the client was waited for, until now.
    pub(super) fn waited(&self) -> Duration {
        let since = self.since.load(Relaxed);
        let now = if since == NOT {
            0
        } else {
            self.now().saturating_sub(since)
        };
        Duration::from_micros(self.waited.load(Relaxed).saturating_add(now))
    }

    fn is_waited_for(&self) -> bool {
        self.since.load(Relaxed) != NOT
    }

    fn wait(&self) {
        self.since.store(self.now(), Relaxed);
    }

    fn end_wait(&self) {
        let since = self.since.swap(NOT, Relaxed);
        if since != NOT {
            self.waited
                .fetch_add(self.now().saturating_sub(since), Relaxed);
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
    coming: Arc<Coming>,
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The body came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
struct Late;

impl Paced {
    pub(super) fn new(body: Body, pace: Pace, coming: Arc<Coming>) -> Self {
        Self {
            body,
            pace,
            coming,
            bytes: 0,
            timer: None,
        }
    }

    /// How long it may be waited for now.
    fn patience(&self) -> Duration {
        let Some(seconds) = self.bytes.checked_div(self.pace.bytes_per_s_min) else {
            return self.pace.stall;
        };
        let all = GRACE.saturating_add(Duration::from_secs(seconds));
        all.saturating_sub(self.coming.waited())
            .min(self.pace.stall)
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.coming.is_waited_for() {
            let deadline = Instant::now() + self.patience();
            self.coming.wait();
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
        if self.coming.is_late() {
            return Poll::Ready(Some(Err(axum::Error::new(Late))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_late(context).map(|()| {
                self.coming.is_late.store(true, Relaxed);
                Some(Err(axum::Error::new(Late)))
            });
        };
        self.coming.end_wait();
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

impl Drop for Paced {
    fn drop(&mut self) {
        self.coming.end_wait();
    }
}
