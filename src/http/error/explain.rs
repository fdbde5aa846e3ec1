//! The layer that gives errors their pages.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header;
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::Service;

use crate::http::Error;
use crate::http::ErrorPage;
use crate::http::error::Look;
use crate::http::error::REQUEST_ID;
use crate::http::error::text;
use crate::http::error::words::words;
use crate::http::personal::Personal;

/// How the texts of axum's own extractors begin: they speak to programmers, and go to the log.
const AXUMS: [&str; 7] = [
    "Cannot parse",
    "Expected request with",
    "Failed to",
    "Form requests must",
    "Invalid URL",
    "Wrong number of path",
    "length limit exceeded",
];

/// A longer text of a handler is not put on the page.
const TEXT_BYTES_MAX: usize = 1_000;

/// Gives every error answer a body that says what happened, a page or JSON, and every answer what its request asks for.
///
/// What the site's handlers made themselves as HTML or JSON stays as it is; a short plain text goes on the page.
#[derive(Clone, Debug)]
pub(in crate::http) struct Explain(Arc<Look>);

impl Explain {
    pub(in crate::http) fn new(look: Look) -> Self {
        Self(Arc::new(look))
    }
}

impl<S> Layer<S> for Explain {
    type Service = Explained<S>;

    fn layer(&self, inner: S) -> Explained<S> {
        Explained {
            inner,
            look: Arc::clone(&self.0),
        }
    }
}

/// What has its errors explained.
#[derive(Clone, Debug)]
pub(in crate::http) struct Explained<S> {
    inner: S,
    look: Arc<Look>,
}

impl<S> Service<Request> for Explained<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Explaining<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let asked = Asked {
            look: Arc::clone(&self.look),
            wants_json: wants_json(request.headers()),
            id: request.headers().get(REQUEST_ID).cloned(),
            uri: request.uri().clone(),
            personal: Personal::begin(&mut request, self.look.is_development),
        };
        Explaining::Asks {
            future: self.inner.call(request),
            asked: Some(asked),
        }
    }
}

/// What is known of a request when its answer comes.
struct Asked {
    look: Arc<Look>,
    wants_json: bool,
    id: Option<HeaderValue>,
    uri: Uri,
    personal: Personal,
}

pin_project! {
    /// An answer, and then its page if it is an error.
    #[project = ExplainingProjected]
    pub(in crate::http) enum Explaining<F> {
        Asks {
            #[pin]
            future: F,
            asked: Option<Asked>,
        },
        Explains {
            page: Pin<Box<dyn Future<Output = Response> + Send>>,
        },
    }
}

impl<F> Future for Explaining<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let page = match self.as_mut().project() {
                ExplainingProjected::Asks { future, asked } => {
                    let Ok(response) = ready!(future.poll(context));
                    let asked = asked.take().expect("a future is not asked after its end");
                    if !is_error(response.status()) {
                        return Poll::Ready(Ok(asked.personal.finish(response)));
                    }
                    Box::pin(asked.explain(response))
                }
                ExplainingProjected::Explains { page } => {
                    return page.as_mut().poll(context).map(Ok);
                }
            };
            self.set(Self::Explains { page });
        }
    }
}

impl Asked {
    async fn explain(self, response: Response) -> Response {
        let response = match failed(response).await {
            Ok(response) => response,
            Err((error, response)) => {
                log(&error);
                let id = self.id.as_ref().and_then(|id| id.to_str().ok());
                let page = ErrorPage {
                    status: error.status,
                    title: words(error.status).0,
                    detail: error.detail,
                    errors: error.errors,
                    request_id: id.unwrap_or_default().to_owned(),
                    path: self.uri.path().to_owned(),
                };
                let cause = error.cause.as_deref();
                self.look.answer(&page, cause, self.wants_json, response)
            }
        };
        self.personal.finish(response)
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The error that is to be explained, unless the answer does so itself.
async fn failed(response: Response) -> Result<Response, (Error, Response)> {
    match response.extensions().get::<Error>().cloned() {
        Some(error) => Err((error, response)),
        None if has_body_of_its_own(response.headers()) => Ok(response),
        None => Err(plain(response).await),
    }
}

/// What a handler or an extractor said as plain text goes on the page, if it is short.
async fn plain(response: Response) -> (Error, Response) {
    let status = response.status();
    let own_words = words(status).1;
    if !status.is_client_error()
        || media(response.headers()).is_none_or(|media| !media.starts_with("text/plain"))
    {
        return (Error::new(status, own_words), response);
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, TEXT_BYTES_MAX)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let is_axums = AXUMS.iter().any(|start| text.starts_with(start));
    if is_axums {
        tracing::debug!(text, "an extractor refused the request");
    }
    let detail = if text.is_empty() || is_axums {
        own_words.to_owned()
    } else {
        text
    };
    (
        Error::new(status, detail),
        Response::from_parts(parts, axum::body::Body::empty()),
    )
}

fn log(error: &Error) {
    let status = error.status.as_u16();
    match &error.cause {
        Some(cause) if error.status.is_server_error() => {
            tracing::error!(status, place = cause.place(), error = cause.line());
        }
        Some(cause) => tracing::debug!(status, place = cause.place(), error = cause.line()),
        None => {}
    }
}

/// Who says so, and who sends JSON and says nothing of pages.
fn wants_json(headers: &HeaderMap) -> bool {
    let accept = text(headers, &header::ACCEPT).unwrap_or_default();
    let sends_json = media(headers).is_some_and(|media| media.contains("json"));
    !accept.contains("text/html") && (sends_json || accept.contains("json"))
}

fn has_body_of_its_own(headers: &HeaderMap) -> bool {
    media(headers).is_some_and(|media| media.starts_with("text/html") || media.contains("json"))
}

fn media(headers: &HeaderMap) -> Option<&str> {
    text(headers, &header::CONTENT_TYPE)
}
