//! The content security policy, and the one word by which a page may have a script or a style of its own in it.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;

use crate::digits::hex;
use crate::digits::random;
use crate::http::personal::Personal;

/// Bytes of a nonce: 128 bits, which nobody guesses in the time of one answer.
const BYTES: usize = 16;

/// What pages may load: what this site serves, and of all other things nothing.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; media-src 'self'; manifest-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A word by which the content security policy knows the scripts and styles that stand in the page itself.
///
/// It is fresh and random for each request. A handler that takes it puts it on the page, and the answer's policy has it
/// in `script-src` and `style-src`; `unsafe-inline` is never there. Such an answer is `no-store`: the page cache does
/// not keep it, and neither does a browser.
///
/// ```
/// use houseboat::axum::response::Html;
/// use houseboat::http::Nonce;
///
/// async fn page(nonce: Nonce) -> Html<String> {
///     Html(format!(r#"<script nonce="{nonce}">document.title = "ready"</script>"#))
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/", houseboat::axum::routing::get(page));
/// ```
///
/// Where the handler sets a `Content-Security-Policy` itself, that one stands, and the nonce is for it to put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// The word, of letters and digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Nonce {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Personal::of(&parts.extensions).nonce().to_owned()))
    }
}

/// A word that nobody can guess, in hexadecimal digits, which are base64 as the policy's grammar has it.
pub(super) fn fresh() -> String {
    hex(&random::<BYTES>())
}

/// The policy of an answer with this nonce on it.
pub(super) fn policy(nonce: &str) -> HeaderValue {
    let policy = POLICY
        .replace(
            "script-src 'self'",
            &format!("script-src 'self' 'nonce-{nonce}'"),
        )
        .replace(
            "style-src 'self'",
            &format!("style-src 'self' 'nonce-{nonce}'"),
        );
    HeaderValue::try_from(policy).expect("it is made of letters, digits and signs")
}
