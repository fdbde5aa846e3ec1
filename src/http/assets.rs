//! Static files, embedded in the binary, with a hash of their content in their names.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hasher;

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;

use crate::http::Error;

/// A name holds the content's hash, so what is behind it never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The static files of a site.
///
/// A browser may keep them for a year, since a file that changes gets another name.
///
/// ```
/// use houseboat::http::Assets;
///
/// let assets = Assets::new(&[("site.css", b"body { margin: 0 }")]);
/// assert!(assets.url("site.css").starts_with("/assets/site."));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Assets {
    /// By name, the name with the hash.
    names: HashMap<&'static str, String>,
    /// By the name with the hash, the content.
    files: HashMap<String, (HeaderValue, &'static [u8])>,
}

impl Assets {
    /// The files given: name with ending, and content (`include_bytes!`).
    #[must_use]
    pub fn new(files: &[(&'static str, &'static [u8])]) -> Self {
        let mut assets = Self::default();
        for (name, content) in files {
            let hashed = hashed_name(name, content);
            let file = (content_type(name), *content);
            assets.names.insert(name, hashed.clone());
            assets.files.insert(hashed, file);
        }
        assets
    }

    /// Where a file is served, such as `/assets/site.0123456789abcdef.css`.
    ///
    /// For a name that is not among the files it is an address that answers 404.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let hashed = self.names.get(name).map_or(name, String::as_str);
        format!("/assets/{hashed}")
    }

    /// Adds the files of `others`.
    #[must_use]
    pub(crate) fn merge(mut self, others: Self) -> Self {
        self.names.extend(others.names);
        self.files.extend(others.files);
        self
    }

    /// The route `/assets/{name}`.
    pub(super) fn routes(self) -> Router {
        let answer = async move |Path(name): Path<String>| -> Result<Response, Error> {
            let (content_type, content) = self.files.get(&name).ok_or_else(Error::not_found)?;
            let headers = [
                (header::CONTENT_TYPE, content_type.clone()),
                (header::CACHE_CONTROL, FOREVER),
            ];
            Ok((headers, *content).into_response())
        };
        Router::new().route("/assets/{name}", get(answer))
    }
}

fn hashed_name(name: &str, content: &[u8]) -> String {
    // Its result may differ between two compilers, which costs a browser one download.
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    let hash = hasher.finish();
    match name.rsplit_once('.') {
        Some((stem, ending)) => format!("{stem}.{hash:016x}.{ending}"),
        None => format!("{name}.{hash:016x}"),
    }
}

fn content_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
