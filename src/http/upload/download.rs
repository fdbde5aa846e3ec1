//! A visitor's file as an answer to others.

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

/// What a browser may show in its own window: pictures, sound and film run nothing.
const SHOWN: [&str; 11] = [
    "audio/mpeg",
    "audio/ogg",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
    "video/mp4",
    "video/webm",
];

/// RFC 8187: what need not be escaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The answer with a file that came from a visitor: saved, and never run as a part of this site.
///
/// ```
/// use houseboat::axum::response::IntoResponse;
/// use houseboat::http::Download;
///
/// let answer = Download::new("Report “3”.pdf", "application/pdf", b"%PDF-".to_vec()).into_response();
/// let name = "attachment; filename=\"Report _3_.pdf\"; filename*=UTF-8''Report%20%E2%80%9C3%E2%80%9D.pdf";
/// assert_eq!(answer.headers()["content-disposition"], name);
/// assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; sandbox");
/// ```
#[derive(Debug)]
pub struct Download {
    name: String,
    media: String,
    body: Body,
    is_shown: bool,
}

impl Download {
    /// A file with the name under which it is saved, its media type, and what is in it.
    pub fn new(name: impl Into<String>, media: impl Into<String>, body: impl Into<Body>) -> Self {
        Self {
            name: name.into(),
            media: media.into(),
            body: body.into(),
            is_shown: false,
        }
    }

    /// Lets the browser show it, if it is a picture, sound, film or plain text; all else is saved.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.is_shown = SHOWN.contains(&self.media.as_str());
        self
    }

    fn disposition(&self) -> HeaderValue {
        let kind = if self.is_shown {
            "inline"
        } else {
            "attachment"
        };
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"\\%;".contains(c) || c == ' ';
        let plain = self.name.chars().map(|c| if is_plain(c) { c } else { '_' });
        let plain: String = plain.collect();
        let whole = utf8_percent_encode(&self.name, PLAIN);
        let text = format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{whole}");
        HeaderValue::try_from(text).expect("it is made of visible ASCII")
    }
}

impl IntoResponse for Download {
    fn into_response(self) -> Response {
        const MEDIA: HeaderValue = HeaderValue::from_static("application/octet-stream");
        let media = match self.media.as_str() {
            "text/plain" => Ok(HeaderValue::from_static("text/plain; charset=utf-8")),
            media => HeaderValue::try_from(media),
        };
        let headers = [
            (header::CONTENT_TYPE, media.unwrap_or(MEDIA)),
            (header::CONTENT_DISPOSITION, self.disposition()),
            (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; sandbox"),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        (headers, self.body).into_response()
    }
}
