//! Forms: read from whatever a browser sends, checked, and on a mistake shown again as they were entered.

mod errors;
mod input;
mod json;
mod pairs;
mod parts;
mod password;
mod query;
mod reading;
mod rules;
mod value;

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use garde::Validate;
use serde::de::DeserializeOwned;

use crate::http::Error;
use crate::http::Once;
use crate::http::error::text;
use crate::http::once;
use crate::http::once::Print;

pub use self::errors::Errors;
pub use self::input::Input;
pub use self::json::Json;
pub use self::password::Password;
pub use self::query::Path;
pub use self::query::Query;

pub(super) use self::pairs::Pairs;
pub(super) use self::parts::Parts;
pub(super) use self::parts::Taken;
pub(super) use self::parts::multipart;

use self::reading::Read;

/// The fields of a form, `application/x-www-form-urlencoded` or `multipart/form-data` without files.
///
/// ```
/// use garde::Validate;
/// use houseboat::axum::http::StatusCode;
/// use houseboat::axum::response::{Html, IntoResponse, Redirect, Response};
/// use houseboat::http::{Form, Result, Wrong};
///
/// #[derive(serde::Deserialize, Validate)]
/// struct NewMonitor {
///     #[garde(length(chars, min = 1, max = 100))]
///     name: String,
///     #[garde(range(min = 30, max = 86_400))]
///     interval_s: u32,
///     #[garde(skip)]
///     paused: bool,
///     #[garde(skip)]
///     tags: Vec<String>,
/// }
///
/// async fn create(form: Form<NewMonitor>) -> Result<Response> {
///     let new = match form.check() {
///         Ok(new) => new,
///         Err(wrong) => return Ok(page(&wrong)),
///     };
///     if new.name == "Shop" {
///         return Ok(page(&form.wrong("name", "There is one of this name already.")));
///     }
///     Ok(Redirect::to("/").into_response())
/// }
///
/// /// As a rule a template: it escapes, and it has a place beside each field.
/// fn page(wrong: &Wrong) -> Response {
///     let name = wrong.errors.get("name").unwrap_or_default();
///     (StatusCode::UNPROCESSABLE_ENTITY, Html(name.to_owned())).into_response()
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/", houseboat::axum::routing::post(create));
/// ```
///
/// **Types.** A name that comes more than once is a `Vec`. A box that is not checked is `false`, and a list of which
/// nothing is chosen is empty. A field that is left empty is `None` for an `Option`. Numbers are trimmed. A type that
/// says in its `TryFrom<String>` what is wrong is heard, if what it says is a sentence: a capital first, a full stop
/// last. Fields have no fields of their own, and `#[serde(flatten)]` reads texts only.
///
/// **Mistakes.** All of them are told at once, also where one field is no number and another one too long: something
/// stands in its place while the others are checked, the zero of its type. Rules are those of `garde`, which knows
/// fields by their names in Rust: to rename one, say so to both (`#[serde(rename)]`, `#[garde(rename)]`).
///
/// **What cannot be read** at all is no mistake of a visitor and is answered with an error page: 400 for a wrong escape,
/// what is not UTF-8, a NUL, or parts that break off; 413 for more than 1 000 fields, names over 200 bytes and bodies
/// over `server.body_bytes_max`; 415 for what is no form, and for files: those are for [`Upload`](crate::http::Upload).
pub struct Form<T> {
    pairs: Pairs,
    print: Print,
    of: PhantomData<fn() -> T>,
}

/// A form that is not as it must be: what was entered, and what is wrong with it.
///
/// By `?` it becomes a page, or JSON, that lists what is wrong (422).
#[derive(Clone, Debug)]
pub struct Wrong {
    /// What was entered, but for passwords.
    pub input: Input,
    /// What is wrong, by field.
    pub errors: Errors,
}

impl<T: DeserializeOwned> Form<T> {
    /// The fields as their type, if they are as they must be.
    ///
    /// It may be called as often as one likes.
    ///
    /// # Errors
    ///
    /// What is wrong, and what was entered.
    pub fn check(&self) -> Result<T, Wrong>
    where
        T: Validate<Context: Default>,
    {
        self.check_with(&T::Context::default())
    }

    /// The same for rules that need to know something, `garde`'s context.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_with(&self, context: &T::Context) -> Result<T, Wrong>
    where
        T: Validate,
    {
        self.check_beside(context, Errors::default())
    }

    pub(super) fn check_beside(&self, context: &T::Context, others: Errors) -> Result<T, Wrong>
    where
        T: Validate,
    {
        let Read {
            value,
            mut errors,
            secrets,
            lists,
            order,
        } = self.read();
        if let Some(value) = &value {
            let rules = rules::wrong(value, context, &lists);
            for (field, text) in rules.iter() {
                // What stands in the place of a field is not to be judged.
                if errors.get(field).is_none() {
                    errors.add(field, text);
                }
            }
        }
        errors.extend(others);
        if let Some(value) = value.filter(|_| errors.is_empty()) {
            return Ok(value);
        }
        errors.sort(order);
        let input = self.input_without(|name| secrets.contains(name));
        Err(Wrong { input, errors })
    }

    /// A mistake that only the handler can find, such as a name that is taken.
    #[must_use]
    pub fn wrong(&self, field: &str, text: impl Into<String>) -> Wrong {
        let secrets = self.read().secrets;
        let mut errors = Errors::default();
        errors.add(field, text);
        Wrong {
            input: self.input_without(|name| secrets.contains(name)),
            errors,
        }
    }

    /// By what this form, sent twice, is known: see [`Once`].
    ///
    /// # Errors
    ///
    /// 428 if its hidden field is missing, or is none of ours.
    pub fn once(&self) -> crate::http::Result<Once> {
        Once::of(&self.pairs, &self.print)
    }

    fn read(&self) -> Read<T> {
        reading::read(&self.pairs, once::FIELD)
    }

    fn input_without(&self, is_secret: impl Fn(&str) -> bool) -> Input {
        let kept = self.pairs.iter().filter(|(name, _)| {
            !is_secret(name) && !password::is_secret(name) && name != once::FIELD
        });
        Input::new(kept.cloned().collect())
    }
}

impl<T> Form<T> {
    pub(super) fn new(pairs: Pairs, print: Print) -> Self {
        Self {
            pairs,
            print,
            of: PhantomData,
        }
    }
}

impl<T> Clone for Form<T> {
    fn clone(&self) -> Self {
        Self::new(self.pairs.clone(), self.print.clone())
    }
}

/// Without what was entered: it may be a password.
impl<T> fmt::Debug for Form<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Form")
            .field("fields", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Form<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let mut print = Print::of(&request);
        let pairs = match media(request.headers()) {
            Media::Multipart(boundary) => {
                multipart(request, &boundary, Parts::fields()).await?.pairs
            }
            Media::Urlencoded => urlencoded(request, state).await?,
            Media::Other if !has_body(request.method()) => pairs::urlencoded(query(&request))?,
            Media::Other => return Err(not_a_form()),
        };
        print.add_pairs(&pairs);
        Ok(Self::new(pairs, print))
    }
}

/// How a form is sent.
pub(super) enum Media {
    Urlencoded,
    /// With what is between its parts.
    Multipart(String),
    Other,
}

pub(super) fn media(headers: &HeaderMap) -> Media {
    let Some(media) = text(headers, &header::CONTENT_TYPE) else {
        return Media::Other;
    };
    let name = media.split(';').next().unwrap_or_default().trim();
    if name.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Media::Urlencoded;
    }
    multer::parse_boundary(media).map_or(Media::Other, Media::Multipart)
}

pub(super) async fn urlencoded<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Pairs, Error> {
    let body = Bytes::from_request(request, state).await;
    pairs::urlencoded(&body.map_err(unread)?)
}

pub(super) fn not_a_form() -> Error {
    Error::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "What was sent is no form that this address understands.",
    )
}

/// A form that is sent by GET is in the address.
fn has_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

fn query(request: &Request) -> &[u8] {
    request.uri().query().unwrap_or_default().as_bytes()
}

/// A body that did not come, or is too large.
fn unread(rejection: axum::extract::rejection::BytesRejection) -> Error {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Error::new(
            StatusCode::BAD_REQUEST,
            "What was sent did not arrive in full.",
        )
        .because(rejection),
    }
}

fn too_large() -> Error {
    Error::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "What was sent is larger than this site accepts.",
    )
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        Self::refused(wrong.errors.into_list())
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}
