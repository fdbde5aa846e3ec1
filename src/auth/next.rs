//! Where to go after signing in: somewhere on this site, and nowhere else.

use axum::http::Uri;

/// Longer ones are not followed.
const BYTES_MAX: usize = 1_000;

/// The front page, where nothing better is known.
pub(super) const HOME: &str = "/";

const SIGN_IN: &str = "/account/sign-in";

/// The path that was asked for, if it can lead nowhere but to this site.
///
/// A browser takes `//host` and `/\host` for another site, and drops tabs and line ends before it looks.
pub(super) fn local(next: &str) -> Option<&str> {
    let is_plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'\\';
    let mut bytes = next.bytes();
    if next.len() > BYTES_MAX || bytes.next() != Some(b'/') || !next.bytes().all(is_plain) {
        return None;
    }
    if bytes.next() == Some(b'/') {
        return None;
    }
    let uri: Uri = next.parse().ok()?;
    let is_local = uri.scheme().is_none() && uri.authority().is_none();
    // To sign out, or in again, is nothing to come back to.
    (is_local && !uri.path().starts_with("/account/sign-")).then_some(next)
}

/// That path, or the front page.
pub(super) fn or_home(next: &str) -> &str {
    local(next).unwrap_or(HOME)
}

/// The page to sign in at, from which one comes back here.
pub(super) fn sign_in_path(from: &str) -> String {
    match local(from) {
        Some(from) if from != HOME => format!("{SIGN_IN}?next={}", encoded(from)),
        _ => SIGN_IN.to_owned(),
    }
}

/// For a query: everything but letters, digits and a few signs as `%2F`.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write;

    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // A string takes whatever is written to it.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_this_site_is_followed() {
        for path in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fevil",
            "/.//x",
            "/a#b",
            "/account",
        ] {
            assert_eq!(local(path), Some(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(BYTES_MAX));
        for path in [
            "",
            "a",
            "//evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "https:evil.test",
            "javascript:alert(1)",
            "/\t/evil.test",
            "/\n/evil.test",
            "\t//evil.test",
            " //evil.test",
            "/a b",
            "/a\r\nset-cookie: x=y",
            "/\u{0}",
            "/é",
            "/%\\",
            "/account/sign-in",
            "/account/sign-out?x",
            &long,
        ] {
            assert_eq!(local(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_way_back_is_one_parameter() {
        let path = sign_in_path("/monitors/7?a=b&c=d");
        assert_eq!(path, "/account/sign-in?next=/monitors/7%3Fa%3Db%26c%3Dd");
        assert_eq!(sign_in_path("//evil.test"), "/account/sign-in");
        assert_eq!(sign_in_path("/"), "/account/sign-in");
    }
}
