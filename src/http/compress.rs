//! The layer that compresses answers on their way out.
//!
//! tower-http compresses, and is asked only where there is something to compress: a body of its layer has room for the
//! state of each coding, 6 KB, which every layer around it would move for every answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use axum::extract::Request;
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::Service;

use crate::http::assets::AsItIs;
use crate::http::coding::Coding;
use crate::http::coding::add_vary;
use crate::http::coding::compressed;
use crate::http::coding::gains;

/// The layer. Static files are compressed already, or do not get smaller by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compress;

impl<S> Layer<S> for Compress {
    type Service = Compressed<S>;

    fn layer(&self, inner: S) -> Compressed<S> {
        Compressed(inner)
    }
}

/// What has its answers compressed.
#[derive(Clone, Debug)]
pub(super) struct Compressed<S>(S);

impl<S> Service<Request> for Compressed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Compressing<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Compressing {
            coding: Coding::preferred(request.headers()),
            future: self.0.call(request),
        }
    }
}

pin_project! {
    /// An answer that may be compressed.
    pub(super) struct Compressing<F> {
        #[pin]
        future: F,
        coding: Coding,
    }
}

impl<F> Future for Compressing<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.future.poll(context));
        let has_use = response.extensions().get::<AsItIs>().is_none() && gains(&response);
        Poll::Ready(Ok(match *this.coding {
            _ if !has_use => response,
            Coding::Identity => {
                add_vary(response.headers_mut());
                response
            }
            coding => compressed(response, coding),
        }))
    }
}
