//! What is kept, as it is read: a page is one clone of its headers away from its answer.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;

use crate::http::Error;
use crate::http::coding::Coding;
use crate::http::page_cache::condition::KEPT_IN_304;
use crate::http::page_cache::condition::is_known;
use crate::http::page_cache::page::Copy;
use crate::http::page_cache::page::Page;
use crate::http::page_cache::page::Record;
use crate::http::page_cache::place::Varies;

/// What is under the key of an address, or of a variant of it.
#[derive(Debug)]
pub(super) enum Kept {
    Page(KeptPage),
    /// It depends on these headers: the page is under the key of a variant.
    Varies(Varies),
    /// Its answers are not to be kept, so nobody needs to wait for another's.
    Never,
}

/// A page. Its texts lie where the cache has them.
#[derive(Debug)]
pub(super) struct KeptPage {
    /// In milliseconds since 1970.
    made_at: i64,
    status: StatusCode,
    /// As it is first, and then compressed.
    copies: Vec<KeptCopy>,
    /// What the framework's page says of an error, where it makes the page.
    error: Option<String>,
}

#[derive(Debug)]
struct KeptCopy {
    coding: Coding,
    /// All of them, with a place for the age.
    headers: HeaderMap,
    body: Bytes,
}

/// What a header takes in memory beside its text, with its place in the index.
const HEADER_BYTES: usize = 112;

/// What a copy of a page takes beside its headers and its body, and a page beside its copies.
const COPY_BYTES: usize = 256;

impl Kept {
    /// `None` for what an older program kept.
    pub(super) fn read(record: &Bytes) -> Option<Self> {
        Some(match Record::read(record)? {
            Record::Page(page) => Self::Page(KeptPage::read(&page, record)?),
            Record::Varies(varies) => Self::Varies(varies),
            Record::Never => Self::Never,
        })
    }

    /// What it takes in memory beside the record that it was read from.
    pub(super) fn bytes(&self) -> usize {
        let copies = match self {
            Self::Page(page) => &page.copies[..],
            Self::Varies(varies) => return COPY_BYTES + varies.bytes(),
            Self::Never => &[],
        };
        let copies = copies
            .iter()
            .map(|copy| COPY_BYTES + copy.headers.len() * HEADER_BYTES);
        COPY_BYTES + copies.sum::<usize>()
    }
}

impl KeptPage {
    fn read(page: &Page<'_>, record: &Bytes) -> Option<Self> {
        let copies = page.copies.iter();
        let copies = copies.map(|copy| KeptCopy::read(copy, page, record));
        Some(Self {
            made_at: page.made_at,
            status: StatusCode::from_u16(page.status).ok()?,
            copies: copies.collect::<Option<_>>()?,
            error: page.error.map(str::to_owned),
        })
    }

    /// The answer to a visitor who asks with `asked`.
    pub(super) fn answer(&self, asked: &HeaderMap, now: Timestamp) -> Option<Response> {
        let coding = Coding::preferred(asked);
        let mut copies = self.copies.iter();
        let copy = copies
            .find(|copy| copy.coding == coding)
            .or(self.copies.first())?;
        let age = self.age(now).into();
        if self.status.is_success() && is_known(asked, &copy.headers) {
            return Some(not_modified(&copy.headers, age));
        }
        let mut response = match &self.error {
            Some(detail) => Error::new(self.status, detail).into_response(),
            None => Response::new(Body::from(copy.body.clone())),
        };
        let mut headers = copy.headers.clone();
        headers.insert(header::AGE, age);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        Some(response)
    }

    /// The same for the visitor for whom it was made: it has no age, since it was not kept before (RFC 9111, 5.1).
    pub(super) fn first_answer(&self, asked: &HeaderMap, now: Timestamp) -> Option<Response> {
        let mut response = self.answer(asked, now)?;
        if self.made_at >= now.as_millisecond() {
            response.headers_mut().remove(header::AGE);
        }
        Some(response)
    }

    /// In whole seconds.
    fn age(&self, now: Timestamp) -> u64 {
        let age = now.as_millisecond().saturating_sub(self.made_at);
        u64::try_from(age / 1_000).unwrap_or(0)
    }
}

impl KeptCopy {
    fn read(copy: &Copy<'_>, page: &Page<'_>, record: &Bytes) -> Option<Self> {
        let value = |text: &[u8]| HeaderValue::from_maybe_shared(record.slice_ref(text)).ok();
        let mut headers = HeaderMap::with_capacity(page.headers.len() + 3);
        for (name, text) in &page.headers {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                value(text.0)?,
            );
        }
        if !copy.tag.0.is_empty() {
            headers.insert(header::ETAG, value(copy.tag.0)?);
        }
        if copy.coding != Coding::Identity {
            let coding = HeaderValue::from_static(copy.coding.name());
            headers.insert(header::CONTENT_ENCODING, coding);
        }
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        Some(Self {
            coding: copy.coding,
            headers,
            body: record.slice_ref(copy.body.0),
        })
    }
}

fn not_modified(page: &HeaderMap, age: HeaderValue) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    for name in &KEPT_IN_304 {
        for value in page.get_all(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response.headers_mut().insert(header::AGE, age);
    response
}
