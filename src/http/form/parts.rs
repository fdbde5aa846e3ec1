//! `multipart/form-data`: fields, and files where the route takes them, as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::LengthLimitError;
use multer::Field;
use multer::Multipart;

use crate::database::BoxError;
use crate::http::Error;
use crate::http::Result;
use crate::http::body_limit::BodyLimit;
use crate::http::form::Errors;
use crate::http::form::Pairs;
use crate::http::form::pairs;
use crate::http::form::pairs::FIELDS_MAX;
use crate::http::form::too_large;
use crate::http::upload::Place;
use crate::http::upload::Receiving;
use crate::http::upload::Rules;
use crate::http::upload::UploadedFile;

/// Bytes of the head of a part: a name, a file's name and a media type.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes of all fields beside files; without files the site's own limit for bodies is there.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What a form of parts may have.
pub(in crate::http) struct Parts {
    rules: Option<(Arc<Rules>, Place)>,
}

impl Parts {
    /// Fields alone.
    pub(in crate::http) fn fields() -> Self {
        Self { rules: None }
    }

    /// Files as well, by these rules, and kept in this place while the request lasts.
    pub(in crate::http) fn files(rules: Arc<Rules>, place: Place) -> Self {
        Self {
            rules: Some((rules, place)),
        }
    }
}

/// What came.
#[derive(Debug, Default)]
pub(in crate::http) struct Taken {
    pub(in crate::http) pairs: Pairs,
    pub(in crate::http) files: Vec<UploadedFile>,
    /// What is wrong with the files.
    pub(in crate::http) errors: Errors,
    text_bytes: usize,
    parts: usize,
}

/// Reads a form of parts to its end.
pub(in crate::http) async fn multipart(
    request: Request,
    boundary: &str,
    parts: Parts,
) -> Result<Taken> {
    if parts.rules.is_none()
        && let Some(limit) = request.extensions().get::<BodyLimit>()
    {
        // A layer for files may be around the route: what is no file is not to fill the memory.
        limit.lower_to_sites();
    }
    let head = Arc::new(AtomicUsize::new(0));
    let body = Pieces::new(request.into_body(), Arc::clone(&head));
    let mut multipart = Multipart::new(body, boundary);
    let mut taken = Taken::default();
    loop {
        head.store(HEAD_BYTES_MAX, Ordering::Relaxed);
        let field = multipart.next_field().await.map_err(unreadable)?;
        head.store(usize::MAX, Ordering::Relaxed);
        let Some(field) = field else {
            return Ok(taken);
        };
        taken.parts += 1;
        if taken.parts > FIELDS_MAX {
            let text = format!("A form has at most {FIELDS_MAX} fields.");
            return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        match (field.file_name(), &parts.rules) {
            (None, _) => taken.field(field, parts.rules.is_some()).await?,
            (Some(_), Some((rules, place))) => taken.file(field, rules, place).await?,
            (Some(_), None) => no_file(field).await?,
        }
    }
}

impl Taken {
    /// Fields alone.
    pub(in crate::http) fn fields(pairs: Pairs) -> Self {
        Self {
            pairs,
            ..Self::default()
        }
    }

    async fn field(&mut self, mut field: Field<'_>, beside_files: bool) -> Result<()> {
        let name = name(&field, self.parts)?;
        let mut value = Vec::new();
        while let Some(bytes) = field.chunk().await.map_err(unreadable)? {
            self.text_bytes += bytes.len();
            if beside_files && self.text_bytes > TEXT_BYTES_MAX {
                return Err(too_large());
            }
            value.extend_from_slice(&bytes);
        }
        let value = pairs::plain(value, self.parts)?;
        pairs::add(&mut self.pairs, name, value)
    }

    /// A file that is refused is read to its end all the same, so that the page with the form can say so.
    async fn file(
        &mut self,
        mut field: Field<'_>,
        rules: &Arc<Rules>,
        place: &Place,
    ) -> Result<()> {
        let name = name(&field, self.parts)?;
        let file_name = field.file_name().unwrap_or_default().to_owned();
        let mut file = Receiving::new(&name, &file_name, Arc::clone(rules), place.room.clone());
        while let Some(bytes) = field.chunk().await.map_err(unreadable)? {
            file.take(&bytes, &place.folder).await?;
        }
        if !file.is_chosen() {
            return Ok(());
        }
        let is_over = self.files.len() >= rules.files_max;
        match file.end().await? {
            Err(text) => self.errors.add(name, text),
            Ok(_) if is_over => self.errors.add(name, rules.too_many()),
            Ok(file) => self.files.push(file),
        }
        Ok(())
    }
}

/// A browser sends an empty part where no file was chosen.
async fn no_file(mut field: Field<'_>) -> Result<()> {
    let is_named = field.file_name().is_some_and(|name| !name.is_empty());
    let mut is_empty = true;
    while let Some(bytes) = field.chunk().await.map_err(unreadable)? {
        is_empty &= bytes.is_empty();
    }
    if is_named || !is_empty {
        let text = "This form takes no files.";
        return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

fn name(field: &Field<'_>, number: usize) -> Result<String> {
    let name = field.name().ok_or_else(|| {
        let text = format!("What was sent cannot be read: field {number} has no name.");
        Error::new(StatusCode::BAD_REQUEST, text)
    })?;
    pairs::check_name(name)?;
    pairs::plain(name.as_bytes().to_vec(), number)
}

/// The pieces of a body, one each time that somebody asks.
///
/// `multer` takes all there is before it looks at any of it; so a quick sender would have its whole body in memory. And
/// while it looks for the end of a part's head, there is no limit but this one.
struct Pieces {
    body: BodyDataStream,
    has_given: bool,
    head: Arc<AtomicUsize>,
}

impl Pieces {
    fn new(body: Body, head: Arc<AtomicUsize>) -> Self {
        Self {
            body: body.into_data_stream(),
            has_given: false,
            head,
        }
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.head.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(Some(Err("the head of a part is too long".into())));
        }
        let Poll::Ready(piece) = Pin::new(&mut self.body).poll_next(context) else {
            return Poll::Pending;
        };
        let Some(piece) = piece else {
            return Poll::Ready(None);
        };
        self.has_given = true;
        if let Ok(bytes) = &piece {
            let left = self.head.load(Ordering::Relaxed);
            if left != usize::MAX {
                let left = left.saturating_sub(bytes.len());
                self.head.store(left, Ordering::Relaxed);
            }
        }
        Poll::Ready(Some(piece.map_err(BoxError::from)))
    }
}

fn unreadable(error: multer::Error) -> Error {
    if is_too_large(&error) {
        return too_large();
    }
    let text = match error {
        multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteStream
        | multer::Error::StreamReadFailed(_) => "What was sent did not arrive in full.",
        _ => "The parts of the form cannot be read.",
    };
    Error::new(StatusCode::BAD_REQUEST, text).because(error)
}

fn is_too_large(error: &multer::Error) -> bool {
    let mut link: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = link {
        if error.is::<LengthLimitError>() {
            return true;
        }
        link = error.source();
    }
    false
}
