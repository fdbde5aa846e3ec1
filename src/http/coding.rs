//! How an answer is compressed: what a visitor can read, and copies that are made once, and not for each visitor.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Request;
use axum::http::Response;
use axum::http::header;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;
use tower::ServiceExt;
use tower::service_fn;
use tower_http::CompressionLevel;
use tower_http::compression::Compression;

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

/// The body, compressed, if the layer that compresses other answers would do it to one with these headers.
pub(super) async fn compress(headers: &HeaderMap, body: &Bytes, coding: Coding) -> Option<Bytes> {
    // `no-transform` binds who passes an answer on, and this is the origin; the layer does not ask either.
    let (plain, all) = (headers.clone(), body.clone());
    let plain = service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::from(all.clone()));
        response.headers_mut().clone_from(&plain);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        ready(Ok::<_, Infallible>(response))
    });
    let mut request = Request::new(Body::empty());
    let accepted = HeaderValue::from_static(coding.name());
    request
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    let layer = Compression::new(plain).quality(CompressionLevel::Fastest);
    let Ok(compressed) = layer.oneshot(request).await;
    let is_compressed = compressed
        .headers()
        .get(header::CONTENT_ENCODING)
        .is_some_and(|name| name == coding.name());
    if !is_compressed || headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    axum::body::to_bytes(Body::new(compressed.into_body()), usize::MAX)
        .await
        .ok()
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
}
