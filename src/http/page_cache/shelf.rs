//! Where pages are in the cache, and how they are forgotten.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::cache::Cache;
use crate::cache::Ttl;
use crate::database::Transaction;
use crate::digits::hex;
use crate::http::page_cache::kept::Kept;

/// The namespace of all pages.
const PAGES: &str = "page";

/// The pages that [`PageCache`](crate::http::PageCache) keeps, to forget them. Cloning is cheap.
///
/// ```
/// use houseboat::cache::Cache;
/// use houseboat::database::{Database, Result};
/// use houseboat::http::Pages;
///
/// async fn rename(database: Database, cache: Cache) -> Result<()> {
///     let pages = Pages::of(&cache);
///     database.write(move |tx| {
///         tx.execute("UPDATE news SET title = 'New' WHERE id = 7", [])?;
///         pages.forget(tx, "/news/7");
///         Ok(())
///     }).await
/// }
/// ```
///
/// A path is one as it stands in the address, without the query; its pages are forgotten for every query, host and
/// variant. A page that is being made meanwhile is given to those who asked before, and to nobody else.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Under each path a mark, by chance, and under keys that begin with the mark the pages: where the mark is gone,
    /// they are out of reach.
    cache: Cache,
}

impl Pages {
    /// The pages in this cache.
    #[must_use]
    pub fn of(cache: &Cache) -> Self {
        let cache = cache.namespace(PAGES);
        Self { cache }
    }

    /// Forgets the pages of a path when the transaction has been committed, and not if it is rolled back.
    pub fn forget(&self, tx: &Transaction<'_>, path: &str) {
        self.cache.forget(tx, mark_key(path));
    }

    /// Forgets all pages when the transaction has been committed, and not if it is rolled back.
    pub fn forget_all(&self, tx: &Transaction<'_>) {
        self.cache.forget_all(tx);
    }

    /// Forgets the pages of a path now.
    pub async fn delete(&self, path: &str) {
        self.cache.delete(mark_key(path)).await;
    }

    /// Forgets all pages now.
    pub async fn clear(&self) {
        self.cache.clear().await;
    }

    /// The mark of a path, if it can have pages.
    pub(super) async fn mark(&self, path: &str) -> Option<u64> {
        self.cache.get(mark_key(path)).await
    }

    /// The mark of a path, or a new one. Before a page is made, so that it is not found if it is forgotten meanwhile.
    pub(super) async fn mark_or_new(&self, path: &str) -> u64 {
        let (key, new) = (mark_key(path), fastrand::u64(..));
        // A number can be encoded.
        let _ = self.cache.put_if_absent(&key, &new, Ttl::forever()).await;
        self.cache.get(&key).await.unwrap_or(new)
    }

    /// What is under a key, if it is fresh.
    pub(super) async fn get(&self, key: &str) -> Option<Arc<Kept>> {
        let parse = |packed: &Bytes| {
            let record: &[u8] = rmp_serde::from_slice(packed).ok()?;
            // Where it lies already: nothing of a page is copied.
            let kept = Kept::read(&packed.slice_ref(record))?;
            let bytes = kept.bytes();
            Some((kept, bytes))
        };
        self.cache.get_parsed(key.as_bytes(), parse).await
    }

    pub(super) async fn put(&self, key: &str, record: Bytes, ttl: impl Into<Ttl>) {
        if let Err(error) = self.cache.put(key, &Packed(record), ttl).await {
            tracing::warn!(%error, "a page is not kept");
        }
    }

    pub(super) async fn remove(&self, key: &str) {
        self.cache.delete(key).await;
    }

    /// What is under a key, also while it is stale, or what `make` gives; with `again` always that.
    pub(super) async fn fetch<E, F>(
        &self,
        key: &str,
        again: bool,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Bytes, E>
    where
        E: Send + 'static,
        F: Future<Output = Result<(Bytes, Ttl), E>> + Send + 'static,
    {
        let make = async move || make().await.map(|(bytes, ttl)| (Packed(bytes), ttl));
        let kept = self.cache.fetch_as(key.as_bytes(), again, make).await;
        kept.map(|Packed(bytes)| bytes)
    }
}

fn mark_key(path: &str) -> String {
    ["=", path].concat()
}

/// The key of something whose path has this mark.
pub(super) fn marked(mark: u64, key: &str) -> String {
    let mark = hex(&mark.to_be_bytes());
    [&mark, "\n", key].concat()
}

/// Bytes as one value: serde's own are a list of numbers.
struct Packed(Bytes);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}
