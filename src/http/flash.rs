//! A message for the next page: what was done, told once, after the redirect.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Uri;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponseParts;
use axum::response::ResponseParts;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_decode_str;
use percent_encoding::utf8_percent_encode;

use crate::http::arrival::Arrival;
use crate::http::nonce;
use crate::http::personal::Personal;

/// How the cookies' names begin; after it comes a word by chance, so that two tabs do not take each other's.
const HOST_PREFIX: &str = "__Host-flash-";
/// The same in development, where there is no TLS.
const PREFIX: &str = "flash-";

/// Digits of that word.
const WORD: usize = 8;

/// Bytes of a cookie, with its name.
const BYTES_MAX: usize = 1_024;

/// So many messages may wait; more are taken away unread.
const WAITING_MAX: usize = 8;

/// A message that nobody comes for is gone after so many seconds.
const AGE_S: u32 = 300;

/// What stands for itself in a value; `~` is between its parts.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'/');

/// Messages that are shown once, on the page that a redirect leads to.
///
/// ```
/// use houseboat::axum::response::{IntoResponse, Redirect};
/// use houseboat::http::Flash;
///
/// async fn create() -> impl IntoResponse {
///     (Flash::notice("The monitor is saved."), Redirect::to("/monitors"))
/// }
///
/// async fn list(flash: Flash) -> String {
///     flash.messages().iter().map(|message| message.text.as_str()).collect()
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/monitors", houseboat::axum::routing::get(list).post(create));
/// ```
///
/// They travel in a cookie (`__Host-flash-…`; in the environment `development`, without TLS, `flash-…`), one for each
/// answer, which knows the path of its page: what one tab did is not told in another one. The handler that takes them
/// shows them: its answer takes the cookie away, and no cache has it. Texts are plain, and for a template to escape;
/// what is beyond 1 KiB is cut off. A cookie that is none of ours is no message.
#[derive(Clone, Debug, Default)]
pub struct Flash(Vec<Message>);

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `notice` or `error`: a name for its class in CSS.
    pub kind: &'static str,
    /// What it says.
    pub text: String,
}

impl Flash {
    /// Something was done.
    pub fn notice(text: impl Into<String>) -> Self {
        Self(vec![Message::new("notice", text)])
    }

    /// Something was not done.
    pub fn error(text: impl Into<String>) -> Self {
        Self(vec![Message::new("error", text)])
    }

    /// Adds others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// What is to be shown, in the order in which it was said.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.0
    }

    /// The cookie for the page at `target`; without one, for the next page that asks.
    pub(super) fn cookie(
        &self,
        target: Option<&HeaderValue>,
        is_development: bool,
    ) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        let name = format!("{}{}", prefix(is_development), &nonce::fresh()[..WORD]);
        let target = target.and_then(|target| target.to_str().ok()?.parse::<Uri>().ok());
        let path = target.as_ref().map_or("", Uri::path);
        let path = utf8_percent_encode(path, PLAIN).to_string();
        // One that leaves no room for a text is shown anywhere.
        let mut value = if path.len() > BYTES_MAX / 4 {
            String::new()
        } else {
            path
        };
        for message in &self.0 {
            let room = BYTES_MAX.saturating_sub(name.len() + 1 + value.len());
            value.push_str(&message.encode(room));
        }
        set(&name, &value, AGE_S, is_development)
    }
}

impl Message {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// As a part of a value, shortened to so many bytes; nothing where there is no room.
    fn encode(&self, room: usize) -> String {
        let mut part = format!("~{}", &self.kind[..1]);
        for char in self.text.chars().filter(|char| !char.is_control()) {
            let mut bytes = [0; 4];
            let text: &str = char.encode_utf8(&mut bytes);
            let escaped = utf8_percent_encode(text, PLAIN).to_string();
            if part.len() + escaped.len() > room {
                break;
            }
            part.push_str(&escaped);
        }
        if part.len() > room {
            String::new()
        } else {
            part
        }
    }

    fn decode(part: &str) -> Option<Self> {
        let (kind, text) = part.split_at_checked(1)?;
        let kind = match kind {
            "n" => "notice",
            "e" => "error",
            _ => return None,
        };
        let text = percent_decode_str(text).decode_utf8().ok()?;
        let is_plain = !text.is_empty() && !text.contains(char::is_control);
        is_plain.then(|| Self::new(kind, text))
    }
}

/// The cookie by which one of this name is taken away.
pub(super) fn gone(name: &str, is_development: bool) -> Option<HeaderValue> {
    set(name, "", 0, is_development)
}

/// Whether a cookie of this name may hold a message: such a request gets no page that others had.
pub(super) fn is_flash(name: &str) -> bool {
    name.starts_with(HOST_PREFIX) || name.starts_with(PREFIX)
}

fn prefix(is_development: bool) -> &'static str {
    if is_development { PREFIX } else { HOST_PREFIX }
}

fn set(name: &str, value: &str, age_s: u32, is_development: bool) -> Option<HeaderValue> {
    let secure = if is_development { "" } else { "; Secure" };
    let cookie = format!("{name}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).ok()
}

impl<S: Sync> FromRequestParts<S> for Flash {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let personal = Personal::of(&parts.extensions);
        let arrival = parts.extensions.get::<Arrival>();
        let uri = arrival.map_or(&parts.uri, |arrival| &arrival.uri);
        let mut flash = Self::default();
        let cookies = cookies(&parts.headers, prefix(personal.is_development()));
        for (index, (name, value)) in cookies.enumerate() {
            match read(value, uri.path()) {
                Found::Messages(messages) if index < WAITING_MAX => flash.0.extend(messages),
                // It waits for its own page.
                Found::Elsewhere if index < WAITING_MAX => continue,
                _ => {}
            }
            personal.shows(name.to_owned());
        }
        Ok(flash)
    }
}

/// The cookies of ours, by name and value.
fn cookies<'a>(
    headers: &'a HeaderMap,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let headers = headers.get_all(header::COOKIE).iter();
    let texts = headers.filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(name, _)| {
        let word = name.strip_prefix(prefix);
        word.is_some_and(|word| word.len() == WORD && word.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// What a cookie has for a page.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Messages(Vec<Message>),
    Elsewhere,
    /// None of ours.
    Malformed,
}

fn read(value: &str, path: &str) -> Found {
    let (target, messages) = value.split_once('~').unwrap_or((value, ""));
    let target = percent_decode_str(target).decode_utf8();
    if value.len() > BYTES_MAX || target.is_err() {
        return Found::Malformed;
    }
    let messages: Option<Vec<_>> = messages.split('~').map(Message::decode).collect();
    match messages {
        None => Found::Malformed,
        Some(_) if target.is_ok_and(|target| !target.is_empty() && target != path) => {
            Found::Elsewhere
        }
        Some(messages) => Found::Messages(messages),
    }
}

impl IntoResponseParts for Flash {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let extensions = parts.extensions_mut();
        let earlier: Self = extensions.remove().unwrap_or_default();
        extensions.insert(earlier.and(self));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read at `path` of the cookie for `target`.
    fn back(flash: &Flash, target: &'static str, path: &str) -> Found {
        let cookie = flash.cookie(Some(&HeaderValue::from_static(target)), false);
        let cookie = cookie.unwrap();
        let (pair, rest) = cookie.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(rest, "Path=/; Max-Age=300; HttpOnly; SameSite=Lax; Secure");
        assert!(pair.len() <= BYTES_MAX, "{}", pair.len());
        read(pair.split_once('=').unwrap().1, path)
    }

    #[test]
    fn a_message_comes_back_as_it_was_on_its_own_page() {
        let text = "Saved “<b>é</b>”; a=b, ~ % \"";
        let flash = Flash::notice(text).and(Flash::error("Not sent."));
        let messages = flash.0.clone();
        // What is no address leaves it to any page.
        assert_eq!(
            back(&flash, "/a b", "/any"),
            Found::Messages(messages.clone())
        );
        assert_eq!(
            back(&flash, "/monitors/5?c=d", "/monitors/5"),
            Found::Messages(messages.clone())
        );
        assert_eq!(back(&flash, "/monitors/5", "/monitors/6"), Found::Elsewhere);
        assert_eq!(
            back(&flash, "https://site.test/x", "/x"),
            Found::Messages(messages)
        );
    }

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_line_breaks() {
        let flash = Flash::notice("é".repeat(600));
        let Found::Messages(messages) = back(&flash, "/", "/") else {
            panic!("it is ours");
        };
        assert!(messages[0].text.len() > 200 && messages[0].text.chars().all(|c| c == 'é'));
        let flash = Flash::notice("a\r\nSet-Cookie: b=c\0");
        let Found::Messages(messages) = back(&flash, "/", "/") else {
            panic!("it is ours");
        };
        assert_eq!(messages[0].text, "aSet-Cookie: b=c");
    }

    #[test]
    fn what_is_none_of_ours_is_no_message() {
        for value in [
            "", "~", "~x", "~n", "/~n%ff", "~n%00", "/a~n%0a", "%ff~na", "~na~", "~é",
        ] {
            assert_eq!(read(value, "/a"), Found::Malformed, "{value}");
        }
        assert_eq!(
            read(&format!("~n{}", "a".repeat(1_024)), "/"),
            Found::Malformed
        );
    }
}
