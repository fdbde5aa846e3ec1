//! The body of an answer: all of it, or untouched.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody;
use bytes::Bytes;
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::body::SizeHint;

type Next = Result<Frame<Bytes>, axum::Error>;

/// The whole body if it has at most `bytes_max` bytes and comes in `time`; otherwise one that still has all of them.
pub(super) async fn whole(mut body: Body, bytes_max: usize, time: Duration) -> Result<Bytes, Body> {
    if HttpBody::size_hint(&body).lower() > bytes_max as u64 {
        return Err(body);
    }
    let mut first = VecDeque::new();
    let mut length = 0;
    let read = async {
        while let Some(next) = body.frame().await {
            let data = next.as_ref().ok().and_then(Frame::data_ref);
            // Trailers and failures are passed on, and not kept.
            let is_fit = data.is_some_and(|data| length + data.len() <= bytes_max);
            length += data.map_or(0, Bytes::len);
            first.push_back(next);
            if !is_fit {
                return false;
            }
        }
        true
    };
    if tokio::time::timeout(time, read).await.unwrap_or(false) {
        return Ok(joined(first));
    }
    Err(Body::new(Begun { first, rest: body }))
}

fn joined(frames: VecDeque<Next>) -> Bytes {
    let mut pieces = frames
        .into_iter()
        .filter_map(|frame| frame.ok()?.into_data().ok());
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else {
        return first;
    };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    pieces.for_each(|piece| all.extend_from_slice(&piece));
    all.freeze()
}

/// A body of which something has been read.
struct Begun {
    first: VecDeque<Next>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Next>> {
        let body = self.get_mut();
        match body.first.pop_front() {
            Some(next) => Poll::Ready(Some(next)),
            None => Pin::new(&mut body.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.first.iter().flatten().filter_map(Frame::data_ref);
        let read = read.map(|data| data.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(rest.lower() + read);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use futures_util::stream;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn pieces(count: usize) -> Body {
        let pieces = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"abcd")));
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read() {
        assert_eq!(whole(pieces(2), 8, LONG).await.unwrap(), "abcdabcd");
        assert_eq!(whole(Body::empty(), 0, LONG).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_longer_one_loses_nothing() {
        let body = whole(pieces(3), 8, LONG).await.unwrap_err();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(body, "abcdabcdabcd");
        assert!(whole(Body::from("abc"), 2, LONG).await.is_err());
    }

    #[tokio::test]
    async fn a_failure_comes_after_what_was_read() {
        let pieces = [Ok("abcd"), Err(std::io::Error::other("gone"))];
        let mut body = whole(Body::from_stream(stream::iter(pieces)), 8, LONG)
            .await
            .unwrap_err();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "abcd");
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_passed_on() {
        let endless = stream::iter([Ok::<_, std::io::Error>("abcd")]).chain(stream::pending());
        let endless = Body::from_stream(endless);
        let short = Duration::from_millis(1);
        let mut body = whole(endless, 8, short).await.unwrap_err();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "abcd");
    }
}
