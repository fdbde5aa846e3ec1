//! A cache in a SQLite file of its own, which may be deleted at any time.
//!
//! Whatever goes wrong with the file is a miss and a warning, never an error: one that is missing, damaged or of
//! another version is made anew, and while it cannot be, the site runs without. A file that is no cache is left alone.
//! Values are kept as `MessagePack` with the names of their fields, so a value whose type has changed is a miss as
//! well, and not garbage.
//!
//! The file is bounded (`cache.bytes_max`): what was put first goes first.

mod eviction;
mod settings;
mod store;

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::settings::Settings;

use self::store::Generation;
use self::store::Store;
use crate::database;
use crate::database::Clock;

/// How long a caller waits for the cache file before it goes on without.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// A handle to the cache. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Store,
}

impl Cache {
    /// Opens the cache file, or makes it anew if it is missing, damaged or of another version.
    ///
    /// Never fails: where no file can be made, the cache is empty and stays so, and a warning says why;
    /// it is tried again every 30 s.
    pub async fn open(settings: &Settings, clock: Clock) -> Self {
        let store = Store::new(settings.clone(), clock);
        store.database().await;
        Self { store }
    }

    /// The value of a key, if it is there, has not expired, and is of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let found = self.store.get(key.to_owned());
        let bytes = self.within(key, found).await??;
        match rmp_serde::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::debug!(key, %error, "a value of another type is a miss");
                None
            }
        }
    }

    /// Empties the cache at a path, if there is one, and nobody has it open.
    pub(crate) async fn clear_at(settings: &Settings, clock: Clock) {
        if settings.path.exists() {
            let cache = Self::open(settings, clock).await;
            cache.clear().await;
            cache.close().await;
        }
    }

    /// Keeps a value under a key, for so long (`None`: until it is evicted), in place of what was there.
    ///
    /// A value over `cache.value_bytes_max` is not kept, with a warning.
    pub async fn put<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
        ttl: impl Into<Option<Duration>>,
    ) {
        self.keep(key, value, ttl.into(), None).await;
    }

    async fn keep<T: Serialize + Sync>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
        generation: Option<Generation>,
    ) {
        let bytes = match rmp_serde::to_vec_named(value) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(key, %error, "a value cannot be encoded and is not cached");
                return;
            }
        };
        let bytes_max = self.store.value_bytes_max();
        if bytes.len() > bytes_max {
            let bytes = bytes.len();
            tracing::warn!(
                key,
                bytes,
                bytes_max,
                "a value is too large and is not cached"
            );
            return;
        }
        let put = self.store.put(key.to_owned(), bytes, ttl, generation);
        self.within(key, put).await;
    }

    /// The value of a key, or what `compute` gives, which is then kept for `ttl`.
    ///
    /// If something is deleted from the cache by this process meanwhile, the value is returned and not kept:
    /// it may be of before.
    ///
    /// # Errors
    ///
    /// What `compute` returns; that is not kept.
    pub async fn fetch<T, E, F>(
        &self,
        key: &str,
        ttl: impl Into<Option<Duration>>,
        compute: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Sync,
        F: Future<Output = Result<T, E>>,
    {
        let generation = self.store.generation();
        if let Some(value) = self.get(key).await {
            return Ok(value);
        }
        let value = compute().await?;
        self.keep(key, &value, ttl.into(), Some(generation)).await;
        Ok(value)
    }

    /// Forgets a key.
    pub async fn delete(&self, key: &str) {
        // Not bounded in time: a value that should be gone must not be served.
        if let Err(error) = self.store.delete(key.to_owned()).await {
            tracing::warn!(key, %error, "a value could not be deleted from the cache");
        }
    }

    /// Forgets everything.
    pub async fn clear(&self) {
        if let Err(error) = self.store.clear().await {
            tracing::warn!(%error, "the cache could not be cleared");
        }
    }

    /// Reads the whole cache file as it is and says what is wrong with it; nothing is made anew.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or is too damaged to be read at all.
    pub async fn check(settings: &Settings) -> database::Result<database::Report> {
        store::check(settings).await
    }

    /// Closes the file; later calls find nothing and keep nothing.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// What the file answers, unless it fails or keeps the caller waiting.
    async fn within<T>(
        &self,
        key: &str,
        answer: impl Future<Output = database::Result<T>>,
    ) -> Option<T> {
        match tokio::time::timeout(WAIT_MAX, answer).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(database::Error::Closed)) => None,
            Ok(Err(error)) => {
                tracing::warn!(key, %error, "the cache failed; going on without");
                None
            }
            Err(_) => {
                tracing::warn!(key, "the cache is slow; going on without");
                None
            }
        }
    }
}
