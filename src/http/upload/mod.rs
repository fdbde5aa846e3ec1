//! Files that visitors send: within limits, of allowed types by what is in them, and gone with the request.

mod content;
mod download;
mod file;
mod receiving;
mod room;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use garde::Validate;
use serde::de::DeserializeOwned;
use tower::Layer;
use tower::Service;

use crate::http::Error;
use crate::http::Errors;
use crate::http::Form;
use crate::http::Once;
use crate::http::Wrong;
use crate::http::arrival::Arrival;
use crate::http::body_limit::BodyLimit;
use crate::http::form;
use crate::http::form::Media;
use crate::http::form::Parts;
use crate::http::once::Print;

pub use self::download::Download;
pub use self::file::UploadedFile;

pub(super) use self::receiving::Receiving;
pub(super) use self::room::Room;

/// Where files are while they are on their way, and how much room is there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) folder: Arc<Path>,
    pub(super) room: Room,
}

const MIB: usize = 1 << 20;

/// Beside its files a form may have so much, in bytes: its fields, and what is around its parts.
const BESIDE: usize = MIB;

/// A layer for routes that take files: how many, how large, and of which types.
///
/// ```
/// use garde::Validate;
/// use houseboat::axum::{Router, extract::State, response::Redirect, routing::post};
/// use houseboat::database::Database;
/// use houseboat::http::{Result, Upload, Uploads};
/// use houseboat::{Context, rusqlite::params};
///
/// #[derive(serde::Deserialize, Validate)]
/// struct NewPhoto {
///     #[garde(length(chars, min = 1, max = 100))]
///     title: String,
/// }
///
/// async fn create(State(db): State<Database>, upload: Upload<NewPhoto>) -> Result<Redirect> {
///     let new = upload.check()?;
///     let Some(photo) = upload.file("photo") else {
///         return Err(upload.wrong("photo", "Choose a file.").into());
///     };
///     let (media, bytes) = (photo.media(), photo.bytes().await?);
///     db.write(move |tx| {
///         let sql = "INSERT INTO photos (title, media, bytes) VALUES (?1, ?2, ?3)";
///         tx.execute(sql, params![new.title, media, &*bytes])?;
///         Ok(())
///     })
///     .await?;
///     Ok(Redirect::to("/photos"))
/// }
///
/// let uploads = Uploads::new(&["image/png", "image/jpeg"]).file_bytes_max(5 << 20);
/// let routes: Router<Context> = Router::new().route("/photos", post(create).layer(uploads));
/// # let _ = routes;
/// ```
///
/// The body's limit for these routes is what this layer says, in place of `server.body_bytes_max`; for a [`Form`] among
/// them, which takes no files, it is not raised. Files of all requests together may take `server.uploads_bytes_max`
/// until their handlers are done with them; beyond it the answer is 503.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Rules>);

/// What a site says of the files that it takes.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) types: Vec<&'static str>,
    pub(super) file_bytes_max: usize,
    pub(super) files_max: usize,
    bytes_max: Option<usize>,
}

impl Uploads {
    /// Takes one file of these media types, up to 10 MiB.
    ///
    /// The type is found by what is in a file, never by its name or by what the browser says. `text/plain` is text in
    /// UTF-8 that is no HTML and no script; any other type under `text/` is taken for it.
    #[must_use]
    pub fn new(types: &[&'static str]) -> Self {
        Self(Arc::new(Rules {
            types: types.to_vec(),
            file_bytes_max: 10 * MIB,
            files_max: 1,
            bytes_max: None,
        }))
    }

    /// Sets the largest file, in bytes.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.0).file_bytes_max = bytes;
        self
    }

    /// Sets how many files there may be.
    #[must_use]
    pub fn files_max(mut self, count: usize) -> Self {
        Arc::make_mut(&mut self.0).files_max = count;
        self
    }

    /// Sets the largest body, in bytes: all files and fields together; by default what the other limits come to.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.0).bytes_max = Some(bytes);
        self
    }
}

impl Rules {
    fn body_bytes_max(&self) -> usize {
        let all = self.file_bytes_max.saturating_mul(self.files_max);
        self.bytes_max.unwrap_or(all.saturating_add(BESIDE))
    }

    pub(super) fn too_many(&self) -> String {
        match self.files_max {
            1 => "Choose one file only.".to_owned(),
            count => format!("Choose at most {count} files."),
        }
    }

    pub(super) fn too_large(&self) -> String {
        let bytes = self.file_bytes_max;
        let size = match bytes {
            bytes if bytes >= MIB => format!("{} MiB", bytes / MIB),
            bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
            bytes => format!("{bytes} bytes"),
        };
        format!("This file is larger than {size}.")
    }

    pub(super) fn wrong_type(&self) -> String {
        format!("Choose a file of the type {}.", self.types.join(" or "))
    }
}

impl<S> Layer<S> for Uploads {
    type Service = Uploading<S>;

    fn layer(&self, handler: S) -> Uploading<S> {
        Uploading {
            rules: Arc::clone(&self.0),
            handler,
        }
    }
}

/// What stands in front of a route that takes files.
#[derive(Clone, Debug)]
pub struct Uploading<S> {
    rules: Arc<Rules>,
    handler: S,
}

impl<S> Service<Request> for Uploading<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.handler.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> S::Future {
        if let Some(limit) = request.extensions().get::<BodyLimit>() {
            limit.set(self.rules.body_bytes_max());
        }
        request.extensions_mut().insert(Arc::clone(&self.rules));
        self.handler.call(request)
    }
}

/// A form with files; a route with it needs the layer [`Uploads`].
///
/// Files are streamed into files without a name beside the database, so whatever happens, also a kill, nothing of them is
/// left behind that was not kept. One that is too large, of a wrong type or one too many is a mistake of its field.
#[derive(Debug)]
pub struct Upload<T> {
    form: Form<T>,
    files: Vec<UploadedFile>,
    errors: Errors,
}

impl<T: DeserializeOwned> Upload<T> {
    /// As [`Form::check`]; it fails as well where a file is not as it must be.
    ///
    /// # Errors
    ///
    /// What is wrong, and what was entered. Files have to be chosen again: browsers let no page do that.
    pub fn check(&self) -> Result<T, Wrong>
    where
        T: Validate<Context: Default>,
    {
        self.check_with(&T::Context::default())
    }

    /// As [`Form::check_with`].
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_with(&self, context: &T::Context) -> Result<T, Wrong>
    where
        T: Validate,
    {
        self.form.check_beside(context, self.errors.clone())
    }

    /// As [`Form::wrong`].
    #[must_use]
    pub fn wrong(&self, field: &str, text: impl Into<String>) -> Wrong {
        self.form.wrong(field, text)
    }

    /// As [`Form::once`]; other files are another form.
    ///
    /// # Errors
    ///
    /// As [`Form::once`].
    pub fn once(&self) -> crate::http::Result<Once> {
        self.form.once()
    }

    /// The file of a field, the first if there are more.
    #[must_use]
    pub fn file(&self, field: &str) -> Option<&UploadedFile> {
        self.files.iter().find(|file| file.field() == field)
    }

    /// All files, in the order in which they came.
    #[must_use]
    pub fn files(&self) -> &[UploadedFile] {
        &self.files
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Upload<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let mut print = Print::of(&request);
        let taken = match form::media(request.headers()) {
            Media::Multipart(boundary) => {
                let (rules, place) = rules(&request)?;
                form::multipart(request, &boundary, Parts::files(rules, place)).await?
            }
            Media::Urlencoded => form::Taken::fields(form::urlencoded(request, state).await?),
            Media::Other => return Err(form::not_a_form()),
        };
        print.add_pairs(&taken.pairs);
        for file in &taken.files {
            print.add(file.field().as_bytes());
            print.add(file.digest());
        }
        Ok(Self {
            form: Form::new(taken.pairs, print),
            files: taken.files,
            errors: taken.errors,
        })
    }
}

fn rules(request: &Request) -> Result<(Arc<Rules>, Place), Error> {
    let extensions = request.extensions();
    let rules = extensions.get::<Arc<Rules>>().cloned();
    let arrival = extensions.get::<Arrival>();
    let place = arrival.and_then(|arrival| arrival.site.as_ref()?.place.clone());
    match (rules, place) {
        (Some(rules), Some(place)) => Ok((rules, place)),
        (None, _) => Err(Error::internal(
            "a handler takes an `Upload` on a route without the layer `Uploads`",
        )),
        (_, None) => Err(Error::internal(
            "a handler takes an `Upload` in a router that is not served by `App`",
        )),
    }
}

/// What could not be stored.
pub(super) fn not_stored(error: std::io::Error) -> Error {
    use std::io::ErrorKind;

    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "The site cannot store anything just now. Please try again later.",
        )
        .because(error),
        _ => Error::internal(error),
    }
}
