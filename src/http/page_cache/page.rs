//! A page as it is written: the record that the cache has of it.

use std::collections::HashSet;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;
use axum::http::response;
use bytes::Bytes;
use jiff::Timestamp;
use ring::digest;
use serde::Deserialize;
use serde::Serialize;

use crate::digits::hex;
use crate::http::Error;
use crate::http::coding::Coding;
use crate::http::coding::add_vary;
use crate::http::coding::copy;
use crate::http::error::REQUEST_ID;
use crate::http::error::text;
use crate::http::page_cache::directives::age;
use crate::http::page_cache::place::Varies;

/// What is kept under the key of an address, or of a variant of it.
///
/// Borrowed from the bytes that the cache has: headers and bodies are not copied for an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    #[serde(borrow)]
    Page(Page<'a>),
    /// It depends on these headers: the page is under the key of a variant.
    Varies(Varies),
    /// Its answers are not to be kept, so nobody needs to wait for another's.
    Never,
}

/// One page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Page<'a> {
    /// In milliseconds since 1970.
    pub(super) made_at: i64,
    pub(super) status: u16,
    #[serde(borrow)]
    pub(super) headers: Vec<(&'a str, Blob<'a>)>,
    /// As it is first, and then compressed, where that is of use.
    #[serde(borrow)]
    pub(super) copies: Vec<Copy<'a>>,
    /// What the framework's page says of an error, where it makes the page.
    pub(super) error: Option<&'a str>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Copy<'a> {
    pub(super) coding: Coding,
    /// Empty for none.
    #[serde(borrow)]
    pub(super) tag: Blob<'a>,
    #[serde(borrow)]
    pub(super) body: Blob<'a>,
}

/// Bytes that stay where they are: serde's own are a list of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob<'a>(pub(super) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

impl<'a> Record<'a> {
    /// `None` for what an older program kept.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }

    /// Only numbers, texts and bytes: there is nothing in it that could not be written.
    pub(super) fn write(&self) -> Bytes {
        rmp_serde::to_vec_named(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }
}

/// What ends at the connection or is made anew for each answer.
const NOT_KEPT: [HeaderName; 11] = [
    header::AGE,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::ETAG,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    REQUEST_ID,
];

/// The record of a page that a handler has made.
pub(super) async fn record(parts: &response::Parts, body: Bytes, now: Timestamp) -> Bytes {
    let error = parts.extensions.get::<Error>();
    let mut headers = parts.headers.clone();
    let has_tag = parts.status.is_success();
    let tag = has_tag.then(|| tag(&headers, &body));
    let mut bodies = vec![(Coding::Identity, body.clone())];
    if has_tag {
        for coding in Coding::COMPRESSED {
            if let Some(body) = copy(&headers, &body, coding).await {
                bodies.push((coding, body));
            }
        }
    }
    if bodies.len() > 1 {
        add_vary(&mut headers);
    }
    let tags: Vec<Vec<u8>> = bodies
        .iter()
        .map(|(coding, _)| {
            let tag = tag.as_ref().map_or(&[][..], |tag| tag.as_bytes());
            tag_of_copy(tag, *coding)
        })
        .collect();
    let named = named_by_connection(&headers);
    let kept = |name: &HeaderName| !NOT_KEPT.contains(name) && !named.contains(name.as_str());
    let headers = headers.iter().filter(|(name, _)| kept(name));
    let made_at =
        now.as_millisecond() - i64::try_from(age(&parts.headers).as_millis()).unwrap_or(0);
    let page = Page {
        made_at,
        status: parts.status.as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str(), Blob(value.as_bytes())))
            .collect(),
        copies: bodies
            .iter()
            .zip(&tags)
            .map(|((coding, body), tag)| Copy {
                coding: *coding,
                tag: Blob(tag),
                body: Blob(body),
            })
            .collect(),
        error: error.map(Error::detail),
    };
    Record::Page(page).write()
}

/// The handler's own tag, or one that is strong: it is of the whole body.
fn tag(headers: &HeaderMap, body: &[u8]) -> HeaderValue {
    if let Some(tag) = headers.get(header::ETAG) {
        return tag.clone();
    }
    let hash = digest::digest(&digest::SHA256, body);
    let tag = format!("\"{}\"", hex(&hash.as_ref()[..16]));
    HeaderValue::from_maybe_shared(Bytes::from(tag)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A strong tag says that every byte is the same, so each copy has one of its own.
fn tag_of_copy(tag: &[u8], coding: Coding) -> Vec<u8> {
    match (tag.strip_suffix(b"\""), coding) {
        (Some(start), Coding::Gzip | Coding::Brotli) if !tag.starts_with(b"W/") => {
            [start, b"-", coding.name().as_bytes(), b"\""].concat()
        }
        _ => tag.to_vec(),
    }
}

fn named_by_connection(headers: &HeaderMap) -> HashSet<String> {
    let named = text(headers, &header::CONNECTION).unwrap_or_default();
    let named = named
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase());
    named.collect()
}
