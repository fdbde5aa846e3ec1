//! What an answer has that is for one visitor alone, and what follows from that for its headers.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::extract::Request;
use axum::http::Extensions;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Response;

use crate::http::flash;
use crate::http::flash::Flash;
use crate::http::nonce;

/// In a request's extensions: what its handlers took that no other visitor may get.
#[derive(Clone, Debug, Default)]
pub(super) struct Personal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_development: bool,
    /// Set by whatever an extractor gave that must be on one answer only.
    is_taken: AtomicBool,
    nonce: OnceLock<String>,
    /// The names of the cookies whose messages are shown.
    shown: Mutex<Vec<String>>,
}

impl Personal {
    /// Puts one beside a request.
    pub(super) fn begin(request: &mut Request, is_development: bool) -> Self {
        let personal = Self(Arc::new(Inner {
            is_development,
            ..Inner::default()
        }));
        request.extensions_mut().insert(personal.clone());
        personal
    }

    /// The one of a request; where there is none, in a router without our layers, what is taken has no effect.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    pub(super) fn is_development(&self) -> bool {
        self.0.is_development
    }

    /// Says that the answer is for this visitor alone.
    pub(super) fn take(&self) {
        self.0.is_taken.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is for this visitor alone.
    pub(super) fn is_taken(&self) -> bool {
        self.0.is_taken.load(Ordering::Relaxed)
    }

    /// The request's nonce, made at the first call.
    pub(super) fn nonce(&self) -> &str {
        self.take();
        self.0.nonce.get_or_init(nonce::fresh)
    }

    /// Says that the message in a cookie is shown.
    pub(super) fn shows(&self, cookie: String) {
        self.take();
        self.shown().push(cookie);
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the headers that follow.
    pub(super) fn finish(self, mut response: Response) -> Response {
        let status = response.status();
        let flash = response.extensions_mut().remove::<Flash>();
        let headers = response.headers_mut();
        if let Some(flash) = flash {
            let target = headers.get(header::LOCATION).cloned();
            if let Some(cookie) = flash.cookie(target.as_ref(), self.0.is_development) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        // A page that could not be made has not shown anything.
        if !status.is_server_error() {
            for name in self.shown().drain(..) {
                if let Some(cookie) = flash::gone(&name, self.0.is_development) {
                    headers.append(header::SET_COOKIE, cookie);
                }
            }
        }
        if self.is_taken() {
            self.keep_from_others(status, headers);
        }
        response
    }

    /// No cache may have it, and no 304 may bring its body back to life under another nonce.
    fn keep_from_others(&self, status: StatusCode, headers: &mut HeaderMap) {
        const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        for name in [header::ETAG, header::LAST_MODIFIED, header::EXPIRES] {
            headers.remove(name);
        }
        // The page that the browser has was made with another one.
        let is_own = status != StatusCode::NOT_MODIFIED;
        if let Some(nonce) = self.0.nonce.get().filter(|_| is_own) {
            headers
                .entry(header::CONTENT_SECURITY_POLICY)
                .or_insert_with(|| nonce::policy(nonce));
        }
    }
}
