//! What handlers and jobs are given: one of each handle.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRef;

use crate::cache::Cache;
use crate::database::Database;
use crate::queue::Queue;
use crate::replication::Replica;
use crate::settings::NoSettings;

/// One of each handle, and the site's own settings. Cloning is cheap.
///
/// A job gets all of it; a handler asks for the part it needs: `State(db): State<Database>`.
#[non_exhaustive]
pub struct Context<S = NoSettings> {
    /// The site's database.
    pub database: Database,
    /// The cache.
    pub cache: Cache,
    /// The queue in the database.
    pub queue: Queue,
    /// The copy of the database in a bucket, if there is one.
    pub replica: Replica,
    /// The site's own settings, `[site]`.
    pub settings: Arc<S>,
    /// The address that visitors know, `server.url` without a slash at its end; empty where it is not known.
    pub url: Arc<str>,
}

impl<S> Context<S> {
    /// Puts the handles together.
    #[must_use]
    pub fn new(database: Database, cache: Cache, queue: Queue, settings: Arc<S>) -> Self {
        Self {
            database,
            cache,
            queue,
            replica: Replica::default(),
            settings,
            url: Arc::default(),
        }
    }

    /// Says at which address visitors know the site.
    #[must_use]
    pub fn with_url(mut self, url: &str) -> Self {
        self.url = url.trim_end_matches('/').into();
        self
    }
}

// By hand: a derive would ask for `S: Clone`.
impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            cache: self.cache.clone(),
            queue: self.queue.clone(),
            replica: self.replica.clone(),
            settings: Arc::clone(&self.settings),
            url: Arc::clone(&self.url),
        }
    }
}

impl<S> fmt::Debug for Context<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl<S> FromRef<Context<S>> for Database {
    fn from_ref(context: &Context<S>) -> Self {
        context.database.clone()
    }
}

impl<S> FromRef<Context<S>> for Cache {
    fn from_ref(context: &Context<S>) -> Self {
        context.cache.clone()
    }
}

impl<S> FromRef<Context<S>> for Queue {
    fn from_ref(context: &Context<S>) -> Self {
        context.queue.clone()
    }
}

impl<S> FromRef<Context<S>> for Replica {
    fn from_ref(context: &Context<S>) -> Self {
        context.replica.clone()
    }
}

impl<S> FromRef<Context<S>> for Arc<S> {
    fn from_ref(context: &Context<S>) -> Self {
        Self::clone(&context.settings)
    }
}
