//! How an answer is compressed: what a visitor can read, and copies that are made once, and not for each visitor.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::http::Extensions;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Request;
use axum::http::StatusCode;
use axum::http::Version;
use axum::http::header;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Deserialize;
use serde::Serialize;
use tower::ServiceExt;
use tower::service_fn;
use tower_http::CompressionLevel;
use tower_http::compression::Compression;
use tower_http::compression::DefaultPredicate;
use tower_http::compression::Predicate;

use crate::http::error::text;

/// How a body is compressed, or that it is not. In the order of preference, the best one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

impl Coding {
    pub(super) const COMPRESSED: [Self; 2] = [Self::Gzip, Self::Brotli];

    fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("br") {
            Some(Self::Brotli)
        } else if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("identity") {
            Some(Self::Identity)
        } else {
            None
        }
    }

    /// The value of `Content-Encoding`; empty for none.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    /// What a visitor likes best, by the same rules as the layer that compresses all other answers.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let Some(accepted) = text(headers, &header::ACCEPT_ENCODING) else {
            return Self::Identity;
        };
        // What every browser sends, and nothing to split.
        if accepted.starts_with("gzip, deflate, br") && !accepted.contains(';') {
            return Self::Brotli;
        }
        let all = headers.get_all(header::ACCEPT_ENCODING).iter();
        let all = all.filter_map(|value| value.to_str().ok());
        let mut weights = [None; 3];
        let mut others = None;
        for item in all.flat_map(|value| value.split(',')) {
            let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let weight = thousandths(weight.trim());
            match Self::named(name.trim()) {
                Some(coding) => weights[coding as usize] = weight,
                None if name.trim() == "*" => others = weight,
                None => {}
            }
        }
        let all = [Self::Identity, Self::Gzip, Self::Brotli];
        let weighed = all.map(|coding| (weights[coding as usize].or(others).unwrap_or(0), coding));
        let liked = weighed.into_iter().filter(|(weight, _)| *weight > 0);
        liked.max().map_or(Self::Identity, |(_, coding)| coding)
    }
}

/// `q=0.5` is 500; `None` for what is no weight.
fn thousandths(weight: &str) -> Option<u16> {
    let value = weight
        .strip_prefix("q=")
        .or_else(|| weight.strip_prefix("Q="))?;
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "0" if is_number => format!("{part:0<3}").parse().ok(),
        "1" if is_number => Some(1_000),
        _ => None,
    }
}

/// Whether an answer gets smaller: it is a text of some length, whole, and not compressed yet.
///
/// `no-transform` binds who passes an answer on, and this is the origin.
pub(super) fn gains(response: &Response) -> bool {
    let headers = response.headers();
    !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
        && DefaultPredicate::new().should_compress(response)
}

/// The names in `Vary`.
pub(super) fn vary(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::VARY)
        .iter()
        // What cannot be read could be anything.
        .flat_map(|value| value.to_str().unwrap_or("*").split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Says that there are other copies for who accepts other codings, if the answer does not say so.
pub(super) fn add_vary(headers: &mut HeaderMap) {
    let is_said =
        vary(headers).any(|name| name.eq_ignore_ascii_case(header::ACCEPT_ENCODING.as_str()));
    if !is_said {
        headers.append(header::VARY, header::ACCEPT_ENCODING.into());
    }
}

/// The answer with its body compressed as it is read.
pub(super) fn compressed(response: Response, coding: Coding) -> Response {
    let mut asked = Request::new(());
    let accepted = HeaderValue::from_static(coding.name());
    asked
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    let mut response = Some(response);
    let answer = service_fn(move |_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    });
    let always = |_: StatusCode, _: Version, _: &HeaderMap, _: &Extensions| true;
    let Ok(compressed) = Compression::new(answer)
        .quality(CompressionLevel::Fastest)
        .compress_when(always)
        .oneshot(asked)
        .now_or_never()
        .expect("an answer that is there is not waited for");
    compressed.map(Body::new)
}

/// The body, compressed, if it gets smaller with these headers.
pub(super) async fn copy(headers: &HeaderMap, body: &Bytes, coding: Coding) -> Option<Bytes> {
    let mut response = Response::new(Body::from(body.clone()));
    response.headers_mut().clone_from(headers);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    if !gains(&response) {
        return None;
    }
    let body = compressed(response, coding).into_body();
    axum::body::to_bytes(body, usize::MAX).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_gets_the_coding_that_is_liked_best() {
        let cases = [
            ("", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("gzip, deflate, br, zstd", Coding::Brotli),
            ("br;q=0.5, gzip", Coding::Gzip),
            ("br;q=0, gzip;q=0", Coding::Identity),
            ("identity;q=1, br;q=0.9", Coding::Identity),
            ("GZIP;q=0.001", Coding::Gzip),
            ("gzip, deflate, br;q=0", Coding::Gzip),
            ("gzip;q=high", Coding::Identity),
            ("gzip;q=1.0, br;q=0.55", Coding::Gzip),
            ("*", Coding::Brotli),
            ("br;q=0, *", Coding::Gzip),
            ("*;q=0.5, identity", Coding::Identity),
            ("*;q=0", Coding::Identity),
            ("deflate, zstd", Coding::Identity),
        ];
        for (accepted, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(Coding::preferred(&headers), expected, "{accepted}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new()), Coding::Identity);
    }

    fn answer(headers: &[(&'static str, &'static str)], length: usize) -> Response {
        let mut response = Response::new(Body::from("a".repeat(length)));
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        response
    }

    #[test]
    fn what_is_a_text_of_some_length_and_whole_gains() {
        let text = ("content-type", "text/plain");
        for (headers, length, expected) in [
            (&[text][..], 100, true),
            (&[text], 10, false),
            (&[text, ("content-encoding", "br")], 100, false),
            (&[text, ("content-range", "bytes 0-99/200")], 100, false),
            (&[("content-type", "image/png")], 100, false),
            (&[("content-type", "text/event-stream")], 100, false),
        ] {
            assert_eq!(gains(&answer(headers, length)), expected, "{headers:?}");
        }
    }

    #[test]
    fn vary_is_said_once() {
        for (headers, expected) in [
            (&[][..], &["accept-encoding"][..]),
            (&[("vary", "accept")], &["accept", "accept-encoding"]),
            (&[("vary", "a, Accept-Encoding")], &["a, Accept-Encoding"]),
        ] {
            let mut response = answer(headers, 0);
            add_vary(response.headers_mut());
            let said: Vec<_> = response.headers().get_all("vary").iter().collect();
            assert_eq!(said, expected);
        }
    }

    #[tokio::test]
    async fn what_is_compressed_says_so_and_is_short() {
        for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Brotli, "br")] {
            let plain = answer(
                &[("content-length", "100"), ("accept-ranges", "bytes")],
                100,
            );
            let answer = compressed(plain, coding);
            let headers = answer.headers();
            assert_eq!(headers["content-encoding"], name);
            assert_eq!(headers["vary"], "accept-encoding");
            assert!(!headers.contains_key("content-length"));
            assert!(!headers.contains_key("accept-ranges"));
            let body = axum::body::to_bytes(answer.into_body(), 1_000).await;
            assert!(body.is_ok_and(|body| !body.is_empty()), "it is short");
        }
    }
}
