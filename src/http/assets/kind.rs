//! What a file is, by the ending of its name.

use axum::http::HeaderValue;

/// What is sent as the type of a file, and whether it gets smaller when it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    media: &'static str,
    pub(super) is_loose: bool,
}

impl Kind {
    pub(super) fn of(name: &str) -> Self {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let (media, is_loose) = match ending.to_ascii_lowercase().as_str() {
            "css" => ("text/css; charset=utf-8", true),
            "js" | "mjs" => ("text/javascript; charset=utf-8", true),
            "html" => ("text/html; charset=utf-8", true),
            "txt" => ("text/plain; charset=utf-8", true),
            "csv" => ("text/csv; charset=utf-8", true),
            "json" | "map" => ("application/json", true),
            "webmanifest" => ("application/manifest+json", true),
            "xml" => ("application/xml", true),
            "wasm" => ("application/wasm", true),
            "svg" => ("image/svg+xml", true),
            "ico" => ("image/x-icon", true),
            "ttf" => ("font/ttf", true),
            "otf" => ("font/otf", true),
            "woff" => ("font/woff", false),
            "woff2" => ("font/woff2", false),
            "png" => ("image/png", false),
            "jpg" | "jpeg" => ("image/jpeg", false),
            "gif" => ("image/gif", false),
            "webp" => ("image/webp", false),
            "avif" => ("image/avif", false),
            "mp3" => ("audio/mpeg", false),
            "mp4" => ("video/mp4", false),
            "webm" => ("video/webm", false),
            "pdf" => ("application/pdf", false),
            "zip" => ("application/zip", false),
            "gz" => ("application/gzip", false),
            _ => ("application/octet-stream", false),
        };
        Self { media, is_loose }
    }

    pub(super) fn media(self) -> HeaderValue {
        HeaderValue::from_static(self.media)
    }
}
