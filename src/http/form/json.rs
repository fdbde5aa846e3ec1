//! JSON from programs, within limits, and answered by what is wrong with it.

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use garde::Validate;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::http::Error;
use crate::http::FieldError;
use crate::http::error::text;
use crate::http::form::rules;
use crate::http::form::unread;

/// Lists and objects within one another; no program that means well needs more.
const DEPTH_MAX: usize = 32;

/// JSON: of a request, checked by the rules of its type; or an answer.
///
/// What is wrong is answered as a problem (RFC 9457) with a pointer to each part in `errors`: 400 for what is no JSON or
/// has lists and objects more than 32 deep, 415 for another media type, 422 for what does not fit the type or its rules.
///
/// ```
/// use garde::Validate;
/// use houseboat::http::Json;
///
/// #[derive(serde::Deserialize, serde::Serialize, Validate)]
/// struct Check {
///     #[garde(length(chars, min = 1, max = 100))]
///     name: String,
/// }
///
/// async fn echo(Json(check): Json<Check>) -> Json<Check> {
///     Json(check)
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/", houseboat::axum::routing::post(echo));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context: Default>,
{
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if !is_json(text(request.headers(), &header::CONTENT_TYPE).unwrap_or_default()) {
            return Err(Error::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "This address takes JSON: send it with Content-Type: application/json.",
            ));
        }
        let body = Bytes::from_request(request, state).await;
        let value = read(&body.map_err(unread)?)?;
        check(value)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(media: &str) -> bool {
    let name = media.split(';').next().unwrap_or_default().trim();
    let name = name.to_ascii_lowercase();
    name == "application/json" || name.starts_with("application/") && name.ends_with("+json")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if !is_shallow(body) {
        let text = format!("The JSON has lists and objects more than {DEPTH_MAX} deep.");
        return Err(Error::new(StatusCode::BAD_REQUEST, text));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|error| refused(error.inner(), error.path()))?;
    json.end()
        .map_err(|error| refused(&error, &serde_path_to_error::Track::new().path()))?;
    Ok(value)
}

fn check<T: Validate<Context: Default>>(value: T) -> Result<Json<T>, Error> {
    let broken = rules::broken(&value, &T::Context::default());
    if broken.is_empty() {
        return Ok(Json(value));
    }
    let errors = broken.into_iter().map(|(path, detail)| FieldError {
        field: pointer(
            path.split(['.', '['])
                .map(|part| part.trim_end_matches(']')),
        ),
        detail,
    });
    Err(Error::refused(errors.collect()))
}

/// Counted before it is read, so that what is too deep costs nothing.
fn is_shallow(body: &[u8]) -> bool {
    let mut depth = 0_usize;
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

fn refused(error: &serde_json::Error, path: &serde_path_to_error::Path) -> Error {
    if !error.is_data() {
        let (line, column) = (error.line(), error.column());
        let text = format!("What was sent is no JSON: line {line}, column {column}.");
        return Error::new(StatusCode::BAD_REQUEST, text);
    }
    let parts = path.iter().map(|part| match part {
        Segment::Seq { index } => index.to_string(),
        Segment::Map { key } => key.clone(),
        Segment::Enum { variant } => variant.clone(),
        Segment::Unknown => "?".to_owned(),
    });
    let detail = plain(&error.to_string());
    let field = pointer(parts);
    Error::refused(vec![FieldError { field, detail }])
}

/// A pointer as a fragment (RFC 6901, 6), but for the escapes of addresses, which nobody would read.
fn pointer(parts: impl Iterator<Item = impl AsRef<str>>) -> String {
    parts.fold("#".to_owned(), |pointer, part| {
        let part = part.as_ref().replace('~', "~0").replace('/', "~1");
        pointer + "/" + &part
    })
}

/// What serde says, without where (the pointer says that) and without names of types: those are the site's own.
fn plain(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or_default();
    let text = match text.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected an object"),
        None => text.to_owned(),
    };
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str().trim_end_matches('.') + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_texts() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_shallow(nested(32).as_bytes()));
        assert!(!is_shallow(nested(33).as_bytes()));
        let text = format!(r#"["{}\"{}"]"#, "[".repeat(50), "{".repeat(50));
        assert!(is_shallow(text.as_bytes()));
        assert!(!is_shallow(format!(r#""\\"{}"#, "[".repeat(50)).as_bytes()));
    }

    #[test]
    fn a_pointer_has_its_signs_escaped() {
        assert_eq!(pointer(["a/b", "c~d", "0"].iter()), "#/a~1b/c~0d/0");
        assert_eq!(pointer(std::iter::empty::<&str>()), "#");
    }
}
