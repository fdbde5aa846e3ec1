//! What the layers of single routes need to know of a request, and of the site.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Uri;
use jiff::Timestamp;

use crate::cache::Cache;
use crate::database::Clock;
use crate::http::Pages;

/// In a request's extensions: how it came, before any router took a part of its path away, and the site's cache.
///
/// A layer of a route is made before the cache is open, so it finds it here.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) uri: Uri,
    pub(super) site: Handles,
}

/// What of a site such layers use.
#[derive(Clone, Debug)]
pub(super) struct Handles {
    /// The folder of the database, where uploads wait; `None` where only a cache is known.
    pub(super) folder: Option<Arc<Path>>,
    pub(super) cache: Cache,
    pub(super) pages: Pages,
    pub(super) clock: Clock,
    /// How long a request may take.
    pub(super) time: Duration,
}

impl Handles {
    /// Puts itself beside a request that arrives.
    pub(super) fn arrive(&self, mut request: Request) -> Request {
        let arrival = Arrival {
            uri: request.uri().clone(),
            site: self.clone(),
        };
        request.extensions_mut().insert(arrival);
        request
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
