//! What containers ask one another.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Is it you?
pub(super) const KNOCK: HeaderValue = HeaderValue::from_static("knock");
/// What are you doing?
pub(super) const ASK: HeaderValue = HeaderValue::from_static("ask");
/// Tell me when you let go.
pub(super) const WAIT: HeaderValue = HeaderValue::from_static("wait");

/// How often who is waited for says that it lives: a process that hangs keeps its connections.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// How long the answer to a short question may take.
const SHORT: Duration = Duration::from_secs(2);
/// A question is short.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// What another container asks this one.
///
/// An answer that is dropped is an error there. When the other container is gone, `answer.is_closed()` says so,
/// a second later at most.
#[derive(Debug)]
pub enum Control {
    /// It waits for the lease: answer when it is released.
    Wait {
        /// What it says of itself.
        question: String,
        /// Where the answer goes, however late.
        answer: oneshot::Sender<String>,
    },
    /// It wants to know what this one is doing: answer within 2 s.
    Ask {
        /// Where the answer goes.
        answer: oneshot::Sender<String>,
    },
}

/// Answers a question of another container.
pub(super) async fn answer(
    what: &HeaderValue,
    request: Request,
    control: &mpsc::Sender<Control>,
    stop: &CancellationToken,
) -> Response {
    if what == KNOCK {
        return StatusCode::NO_CONTENT.into_response();
    }
    let question = axum::body::to_bytes(request.into_body(), QUESTION_BYTES_MAX);
    let question = timeout(SHORT, question).await.ok().and_then(Result::ok);
    let question = question.and_then(|bytes| String::from_utf8(bytes.into()).ok());
    let Some(question) = question else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (answer, answered) = oneshot::channel();
    let (question, is_long) = if what == WAIT {
        (Control::Wait { question, answer }, true)
    } else if what == ASK {
        (Control::Ask { answer }, false)
    } else {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    };
    if control.try_send(question).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if is_long {
        return Body::from_stream(in_time(answered, stop.clone())).into_response();
    }
    match timeout(SHORT, answered).await {
        Ok(Ok(answer)) => answer.into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The answer, however late, with signs of life before it.
fn in_time(
    answered: oneshot::Receiver<String>,
    stop: CancellationToken,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(answered), move |answered| {
        let stop = stop.clone();
        async move {
            let mut answered = answered?;
            tokio::select! {
                biased;
                answer = &mut answered => Some((answer.map(Bytes::from).map_err(io::Error::other), None)),
                () = stop.cancelled() => Some((Err(io::Error::other("stopping")), None)),
                () = tokio::time::sleep(BEAT) => Some((Ok(Bytes::from_static(b"\n")), Some(answered))),
            }
        }
    })
}
