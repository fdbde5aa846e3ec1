//! The way of one request: to a page that is there, or to one that is made for all who wait.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::http::Error;
use crate::http::arrival::Arrival;
use crate::http::arrival::Handles;
use crate::http::page_cache::Handler;
use crate::http::page_cache::Inner;
use crate::http::page_cache::Rules;
use crate::http::page_cache::asked::Asked;
use crate::http::page_cache::kept::Kept;
use crate::http::page_cache::making::Made;
use crate::http::page_cache::making::Making;
use crate::http::page_cache::place::Place;
use crate::http::page_cache::shelf::marked;

/// An address leads to its variant, and that to its page; once more where it was forgotten on the way.
const STEPS: usize = 4;

/// What a visitor is told when the page was not made in time.
const BUSY: &str = "The page could not be made just now. Please try again in a moment.";

/// A request that a page may answer.
struct Visit {
    site: Arc<Handles>,
    asked: Asked,
    /// The key of the address.
    address: String,
}

/// What a place in the cache has for a visitor.
enum Found {
    Answer(Response),
    /// Look there.
    Variant(Place),
    Missing,
    /// There is nothing to keep here.
    Never,
}

pub(super) async fn answer<S>(inner: Arc<Inner<S>>, request: Request) -> Response
where
    S: Handler,
{
    let Some(site) = handles(&inner.rules, &request) else {
        return inner.ask(request).await;
    };
    let Some(asked) = Asked::of(&request, whole_uri(&request), &inner.rules) else {
        return inner.ask_around(request).await;
    };
    let path = whole_uri(&request).path();
    let mark = match site.pages.mark(path).await {
        Some(mark) => mark,
        None if asked.only_if_cached => return StatusCode::GATEWAY_TIMEOUT.into_response(),
        None => site.pages.mark_or_new(path).await,
    };
    let visit = Visit {
        site: Arc::clone(site),
        address: marked(mark, &asked.key),
        asked,
    };
    visit.answer(inner, request).await
}

fn handles<'a>(rules: &'a Rules, request: &'a Request) -> Option<&'a Arc<Handles>> {
    let arrival = || request.extensions().get::<Arrival>();
    rules.handles.as_ref().or_else(|| arrival()?.site.as_ref())
}

/// The path and the query as they came.
fn whole_uri(request: &Request) -> &axum::http::Uri {
    let arrival = request.extensions().get::<Arrival>();
    arrival.map_or(request.uri(), |arrival| &arrival.uri)
}

impl<S> Inner<S>
where
    S: Handler,
{
    pub(super) async fn ask(&self, request: Request) -> Response {
        let Ok(response) = self.handler.clone().oneshot(request).await;
        response
    }

    /// What changes something at an address ends the pages of it (RFC 9111, 4.4).
    async fn ask_around(&self, request: Request) -> Response {
        let site = handles(&self.rules, &request).filter(|_| !request.method().is_safe());
        let changes = site.map(|site| (site.pages.clone(), whole_uri(&request).path().to_owned()));
        let response = self.ask(request).await;
        let status = response.status();
        if let Some((pages, path)) = changes
            && (status.is_success() || status.is_redirection())
        {
            pages.delete(&path).await;
        }
        response
    }
}

impl Visit {
    async fn answer<S>(self, inner: Arc<Inner<S>>, request: Request) -> Response
    where
        S: Handler,
    {
        let (parts, body) = request.into_parts();
        let mut place = Place::address(self.address.clone());
        let mut again = self.asked.again;
        for _ in 0..STEPS {
            let kept = self.site.pages.get(&place.key).await;
            let mut found = self.read(kept.as_deref(), &parts.headers);
            if again && matches!(found, Found::Answer(_)) {
                found = Found::Missing;
            }
            if matches!(found, Found::Missing) {
                if self.asked.only_if_cached {
                    return StatusCode::GATEWAY_TIMEOUT.into_response();
                }
                // Not a part of this future, which would be large for all that find their page.
                found = match Box::pin(self.make(&inner, &place, again, &parts)).await {
                    Made::Kept(record) => self.read(Kept::read(&record).as_ref(), &parts.headers),
                    Made::Own(response) => return response,
                    Made::Panicked(panic) => std::panic::resume_unwind(panic),
                    Made::Failed => return Error::later(BUSY, 1).into_response(),
                };
                again = false;
            }
            match found {
                Found::Answer(response) => return response,
                Found::Variant(there) => place = there,
                Found::Missing => {}
                Found::Never => break,
            }
        }
        inner.ask(Request::from_parts(parts, body)).await
    }

    fn read(&self, kept: Option<&Kept>, headers: &HeaderMap) -> Found {
        match kept {
            Some(Kept::Page(page)) => page
                .answer(headers, self.site.now())
                .map_or(Found::Missing, Found::Answer),
            Some(Kept::Varies(varies)) => Found::Variant(varies.place(&self.address, headers)),
            Some(Kept::Never) => Found::Never,
            None => Found::Missing,
        }
    }

    /// Has the page made, once for all who want it now.
    async fn make<S>(
        &self,
        inner: &Arc<Inner<S>>,
        place: &Place,
        again: bool,
        parts: &Parts,
    ) -> Made
    where
        S: Handler,
    {
        let (own, mine) = oneshot::channel();
        let making = Making {
            site: Arc::clone(&self.site),
            address: self.address.clone(),
            place: place.clone(),
            parts: parts.clone(),
            own,
        };
        let inner = Arc::clone(inner);
        let run = move || making.run(inner);
        let kept = self.site.pages.fetch(&place.key, again, run).await;
        // What was made for this visitor is there, or never will be.
        match (own_of(mine), kept) {
            (Some(own), _) => own,
            (None, Ok(record)) => Made::Kept(record),
            (None, Err(_)) => Made::Failed,
        }
    }
}

fn own_of(mut mine: oneshot::Receiver<Made>) -> Option<Made> {
    mine.try_recv().ok()
}
