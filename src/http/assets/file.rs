//! One static file, and the answer that is made of it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::http::Error;
use crate::http::assets::copies::Copies;
use crate::http::assets::kind::Kind;
use crate::http::assets::range::Part;
use crate::http::coding::Coding;
use crate::http::etag;

/// What is behind a name with a hash of the content never changes.
pub(super) const FOREVER: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable");

/// What is behind any other name is asked for each time, and answered with 304 as a rule.
pub(super) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

const BYTES: HeaderValue = HeaderValue::from_static("bytes");

const BY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// In the extensions of an answer that is not to be compressed any more.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct AsItIs;

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Its name with the hash of its content.
    pub(super) address: String,
    pub(super) content: Bytes,
    pub(super) copies: Copies,
    kind: Kind,
    /// Whether copies are made of it.
    is_kept: bool,
    tags: Tags,
}

/// A strong tag says that every byte is the same, so each copy has one of its own.
#[derive(Debug)]
struct Tags {
    plain: HeaderValue,
    gzip: HeaderValue,
    brotli: HeaderValue,
    /// Of what a layer above may compress.
    weak: HeaderValue,
}

/// What a visitor gets, before conditions and ranges are looked at.
struct Chosen<'a> {
    body: &'a Bytes,
    tag: &'a HeaderValue,
    coding: Coding,
    is_final: bool,
}

impl File {
    /// A file of the program.
    pub(super) fn embedded(name: &str, content: &'static [u8]) -> Self {
        let address = address(name, content);
        Self::new(name, address, Bytes::from_static(content), true)
    }

    /// A file of an earlier build, by the name with the hash.
    pub(super) fn kept(address: &str, content: Bytes) -> Self {
        Self::new(address, address.to_owned(), content, true)
    }

    /// A file that is there for a moment: the layer above compresses it like a page.
    pub(super) fn passing(name: &str, content: Bytes) -> Self {
        let address = address(name, &content);
        Self::new(name, address, content, false)
    }

    fn new(name: &str, address: String, content: Bytes, is_kept: bool) -> Self {
        Self {
            tags: Tags::of(&content),
            kind: Kind::of(name),
            copies: Copies::default(),
            address,
            content,
            is_kept,
        }
    }

    /// Answers GET and HEAD with these headers.
    pub(super) fn answer(
        self: &Arc<Self>,
        method: &Method,
        asked: &HeaderMap,
        cache_control: HeaderValue,
    ) -> Response {
        let part = match *method {
            Method::GET => Part::asked(asked, self.content.len(), &self.tags.plain),
            _ => Part::Whole,
        };
        let chosen = self.choose(asked, part);
        let mut headers = self.headers(cache_control, chosen.tag);
        if asked.contains_key(header::IF_MATCH) && !has_strong(asked, chosen.tag) {
            return refused(StatusCode::PRECONDITION_FAILED, "It has changed meanwhile.");
        }
        if etag::names(asked, &header::IF_NONE_MATCH, Some(chosen.tag)) {
            headers.remove(header::CONTENT_TYPE);
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let (status, body) = match part {
            Part::Whole => (StatusCode::OK, chosen.body.clone()),
            Part::Of(first, end) => {
                let range = format!("bytes {first}-{}/{}", end - 1, self.content.len());
                insert(&mut headers, header::CONTENT_RANGE, range);
                (StatusCode::PARTIAL_CONTENT, chosen.body.slice(first..end))
            }
            Part::Beyond => return beyond(self.content.len()),
        };
        if chosen.coding != Coding::Identity {
            let coding = HeaderValue::from_static(chosen.coding.name());
            headers.insert(header::CONTENT_ENCODING, coding);
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // It costs an allocation, and without this header nothing is compressed.
        let may_be_compressed = chosen.coding == Coding::Identity
            && status == StatusCode::OK
            && asked.contains_key(header::ACCEPT_ENCODING);
        if chosen.is_final && may_be_compressed {
            response.extensions_mut().insert(AsItIs);
        }
        response
    }

    /// Parts are of the file as it is: which copy of it there is may change from one request to the next.
    fn choose(self: &Arc<Self>, asked: &HeaderMap, part: Part) -> Chosen<'_> {
        let plain = Chosen {
            body: &self.content,
            tag: &self.tags.plain,
            coding: Coding::Identity,
            is_final: true,
        };
        if !self.kind.is_loose || part != Part::Whole {
            return plain;
        }
        let coding = Coding::preferred(asked);
        if coding == Coding::Identity {
            return plain;
        }
        let Some(made) = self.copies.made() else {
            if self.is_kept {
                self.copies.begin(self);
            }
            return Chosen {
                tag: &self.tags.weak,
                is_final: false,
                ..plain
            };
        };
        match made.copy(coding) {
            None => plain,
            Some(body) => Chosen {
                body,
                tag: self.tags.of_copy(coding),
                coding,
                is_final: true,
            },
        }
    }

    fn headers(&self, cache_control: HeaderValue, tag: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, self.kind.media());
        headers.insert(header::CACHE_CONTROL, cache_control);
        headers.insert(header::ETAG, tag.clone());
        headers.insert(header::ACCEPT_RANGES, BYTES);
        if self.kind.is_loose {
            headers.insert(header::VARY, BY_CODING);
        }
        headers
    }
}

impl Tags {
    fn of(content: &[u8]) -> Self {
        let hash = xxh3_64(content);
        let tag = |text: String| {
            HeaderValue::from_maybe_shared(Bytes::from(text))
                .expect("quotes, letters and digits are a value of a header")
        };
        Self {
            plain: tag(format!("\"{hash:016x}\"")),
            gzip: tag(format!("\"{hash:016x}-gzip\"")),
            brotli: tag(format!("\"{hash:016x}-br\"")),
            weak: tag(format!("W/\"{hash:016x}\"")),
        }
    }

    fn of_copy(&self, coding: Coding) -> &HeaderValue {
        match coding {
            Coding::Identity => &self.plain,
            Coding::Gzip => &self.gzip,
            Coding::Brotli => &self.brotli,
        }
    }
}

/// The name with the hash of the content before its ending. The hash is the same on all machines.
fn address(name: &str, content: &[u8]) -> String {
    let hash = xxh3_64(content);
    let (folder, file) = match name.rfind('/') {
        Some(slash) => name.split_at(slash + 1),
        None => ("", name),
    };
    match file.rsplit_once('.') {
        Some((stem, ending)) => format!("{folder}{stem}.{hash:016x}.{ending}"),
        None => format!("{name}.{hash:016x}"),
    }
}

/// The strong comparison: a weak tag is equal to none.
fn has_strong(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let is_weak = |tag: &HeaderValue| tag.as_bytes().starts_with(b"W/");
    let has_weak = asked.get_all(header::IF_MATCH).iter().any(is_weak);
    let is_any = asked
        .get(header::IF_MATCH)
        .is_some_and(|value| value == "*");
    is_any || !is_weak(tag) && !has_weak && etag::names(asked, &header::IF_MATCH, Some(tag))
}

fn beyond(length: usize) -> Response {
    let mut response = refused(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "There is no such part of this file.",
    );
    insert(
        response.headers_mut(),
        header::CONTENT_RANGE,
        format!("bytes */{length}"),
    );
    response
}

fn refused(status: StatusCode, detail: &str) -> Response {
    Error::new(status, detail).into_response()
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(name, value);
    }
}
