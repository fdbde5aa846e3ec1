//! A cache in two tiers, memory before a SQLite file of its own, which may be deleted at any time.
//!
//! A read that memory can answer takes less than a microsecond, one that the file can a few: no other thread is asked.
//! What is put is in memory at once, and in the file a moment later (250 ms at most, while the disk keeps up), so it
//! survives a restart. Both tiers are bounded in bytes; beyond that, what was not asked for goes, oldest first.
//!
//! Whatever goes wrong with the file is a miss and a warning, never an error: one that is missing, damaged or of
//! another version is made anew, and while it cannot be, memory goes on alone. A file that is no cache is left alone.
//! Nothing of it is synced. A killed process loses at most what was put in its last moment; after a power cut the
//! file is made anew, because it may have lost deletions.
//!
//! Values are kept as `MessagePack` with the names of their fields, so a value whose type has changed is a miss as
//! well, and not garbage; each has a checksum.
//!
//! Two processes may share a file. What one writes, the other sees within a second.
//!
//! ```
//! # use std::time::Duration;
//! # use houseboat::cache::{Cache, Settings, Ttl};
//! # use houseboat::database::Clock;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let settings = Settings { path: folder.path().join("cache.sqlite3"), ..Settings::default() };
//! let cache = Cache::open(&settings, Clock::system()).await;
//! cache.put("greeting", "ahoy", Duration::from_secs(60)).await?;
//! assert_eq!(cache.get("greeting").await, Some("ahoy".to_owned()));
//!
//! // Computed once, however many ask for it; for ten minutes more the old value is given while a new one is computed.
//! let ttl = Ttl::fresh(Duration::from_secs(60)).stale(Duration::from_secs(600));
//! let price: Result<u32, std::io::Error> = cache.fetch("price", ttl, async || Ok(42)).await;
//! assert_eq!(price?, 42);
//! # cache.close().await;
//! # Ok(())
//! # }
//! ```

mod atomic;
mod bell;
mod counters;
mod entry;
mod error;
mod fetch;
mod file;
mod flight;
mod forget;
mod marks;
mod memory;
mod namespace;
mod opened;
mod presence;
mod readers;
mod rows;
mod settings;
mod stats;
mod tiers;
mod ttl;
mod waiting;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::atomic::Refused;
pub use self::counters::Timing;
pub use self::error::Error;
pub use self::settings::Settings;
pub use self::stats::Stats;
pub use self::ttl::Ttl;

use self::bell::Reason;
use self::counters::Count;
use self::counters::Counters;
use self::counters::Op;
use self::entry::Entry;
use self::entry::Parsed;
use self::entry::Spot;
use self::flight::Flights;
use self::namespace::Known;
use self::namespace::Namespace;
use self::tiers::Found;
use self::tiers::Tiers;
use self::tiers::WAIT_MAX;
use self::writer::Writer;
use crate::database;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Depth;
use crate::database::Limits;
use crate::database::Synchronous;
use crate::database::connection::Options;

/// A handle to the cache, or to one namespace of it. Cloning is cheap.
///
/// Keys are of any length and any bytes.
#[derive(Clone, Debug)]
pub struct Cache {
    tiers: Arc<Tiers>,
    flights: Arc<Flights>,
    namespace: Option<Arc<Namespace>>,
    _owner: Arc<Owner>,
}

/// Stops the writer when the last handle is gone.
#[derive(Debug)]
struct Owner {
    tiers: Arc<Tiers>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.tiers.bell.ring(Reason::Stop);
    }
}

impl Cache {
    /// Opens the cache file, or makes it anew if it is missing, damaged or of another version.
    ///
    /// Never fails: where no file can be made, the cache is in memory alone, and a warning says why; it is tried again
    /// every 30 s.
    pub async fn open(settings: &Settings, clock: Clock) -> Self {
        let tiers = Arc::new(Tiers::new(settings.clone(), clock));
        match settings.bytes_max {
            0 => tiers.close(),
            _ => start(Arc::clone(&tiers)).await,
        }
        Self {
            flights: Arc::new(Flights::default()),
            namespace: None,
            _owner: Arc::new(Owner {
                tiers: Arc::clone(&tiers),
            }),
            tiers,
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

    /// The value of a key, if it is there, is fresh, and is of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        self.find_fresh(key.as_ref()).await?.decode()
    }

    /// The same as it is kept, encoded; a fresh one of any type.
    pub(crate) async fn get_bytes(&self, key: &[u8]) -> Option<Bytes> {
        Some(self.find_fresh(key).await?.value.clone())
    }

    /// What `parse` makes of a fresh value as it is encoded, and so many bytes beside it: once, while memory has it.
    pub(crate) async fn get_parsed<T: Send + Sync + 'static>(
        &self,
        key: &[u8],
        parse: impl FnOnce(&Bytes) -> Option<(T, usize)>,
    ) -> Option<Arc<T>> {
        let entry = self.find_fresh(key).await?;
        if let Some(parsed) = entry.parsed() {
            return Some(parsed);
        }
        let (parsed, bytes) = parse(&entry.value)?;
        let parsed = Arc::new(parsed);
        let what = Arc::clone(&parsed) as _;
        self.tiers.keep_parsed(&entry, Parsed { what, bytes });
        Some(parsed)
    }

    /// The values of some keys, in their order.
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Vec<Option<T>> {
        let mut values = Vec::new();
        for key in keys {
            values.push(self.get(key).await);
        }
        values
    }

    /// Whether a key has a fresh value, of whatever type.
    pub async fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.find_fresh(key.as_ref()).await.is_some()
    }

    /// Keeps a value under a key, in place of what was there.
    ///
    /// It returns when memory has it. If more waits to be written than `cache.memory_bytes_max` (at least 8 MiB), it
    /// waits for the disk, but no longer than 50 ms: then the value is not kept, and the one before it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if it takes more than `cache.value_bytes_max`, and [`Error::Encode`]; then the value before
    /// it is gone as well, since it is not what the key has any more.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        let (key, ttl) = (key.as_ref(), ttl.into());
        match entry::encode(value, self.tiers.settings.value_bytes_max) {
            Ok(value) => {
                self.put_encoded(key, value, ttl).await;
                Ok(())
            }
            Err(error) => {
                self.remove(key).await;
                Err(error)
            }
        }
    }

    /// Keeps some values, each under its key.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), for the first that cannot be kept; those before it are, those after it are not.
    pub async fn put_many<T: Serialize>(
        &self,
        entries: impl IntoIterator<Item = (impl AsRef<[u8]>, T)>,
        ttl: impl Into<Ttl>,
    ) -> Result<(), Error> {
        let ttl = ttl.into();
        for (key, value) in entries {
            self.put(key, &value, ttl).await?;
        }
        Ok(())
    }

    /// Deletes a key.
    ///
    /// It is gone at once. The call returns when it is gone from the file too, so that it does not come back if the
    /// process is killed; or after 50 ms, if the disk takes longer than that.
    pub async fn delete(&self, key: impl AsRef<[u8]>) {
        if self.remove(key.as_ref()).await {
            self.tiers.settled().await;
        }
    }

    /// Deletes all keys: of this namespace and those within it, or on the cache itself everything.
    ///
    /// It takes as long as [`delete`](Self::delete), however much there is: what was put before is out of reach, and
    /// is removed from the file afterwards.
    pub async fn clear(&self) {
        self.flights.clear();
        match &self.namespace {
            Some(namespace) => namespace.clear(&self.tiers),
            None => self.tiers.clear(),
        }
        self.tiers.settled().await;
    }

    /// The same cache, with keys of its own, which can be cleared together.
    ///
    /// Nothing has to be declared, and there may be any number. A namespace may be within one, and is cleared with it.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        let namespace = Namespace::new(self.namespace.clone(), name);
        Self {
            namespace: Some(Arc::new(namespace)),
            ..self.clone()
        }
    }

    /// Reads the whole cache file as it is and says what is wrong with it; nothing is made anew.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or is too damaged to be read at all.
    pub async fn check(settings: &Settings) -> database::Result<database::Report> {
        file::refuse_others(&settings.path)?;
        let database = Database::open_with(as_database(settings), CHECK_LIMITS, Clock::system())?;
        let report = database.check(Depth::Full).await;
        database.close().await;
        report
    }

    /// Writes what waits, and closes the file; later calls go to memory alone.
    pub async fn close(&self) {
        self.tiers.bell.ring(Reason::Stop);
        self.tiers.closed().await;
    }

    /// The hash and the namespace of a key; `None` if nothing can be in its namespace, or nobody can say.
    async fn spot<'a>(&self, key: &'a [u8]) -> Option<Spot<'a>> {
        match self.space().await {
            Known::Id(space) => Some(self.tiers.spot(space, key)),
            Known::None | Known::No => None,
        }
    }

    /// The same, for something that is to be kept.
    async fn spot_to_keep<'a>(&self, key: &'a [u8]) -> Spot<'a> {
        let space = match (self.space().await, &self.namespace) {
            (Known::Id(space), _) => space,
            (_, None) => namespace::ROOT,
            (_, Some(namespace)) => namespace.id_or_new(&self.tiers),
        };
        self.tiers.spot(space, key)
    }

    async fn space(&self) -> Known {
        let Some(namespace) = &self.namespace else {
            return Known::Id(namespace::ROOT);
        };
        match namespace.id_now(&self.tiers) {
            Known::No => {}
            known => return known,
        }
        let (tiers, namespace) = (Arc::clone(&self.tiers), Arc::clone(namespace));
        let read = within(move || namespace.id(&tiers)).await;
        read.map_or(Known::No, |id| id.map_or(Known::None, Known::Id))
    }

    async fn find_fresh(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let entry = self.find(key).await;
        entry.filter(|entry| entry.is_fresh(self.tiers.now()))
    }

    /// The entry of a key, of whatever age, and counted.
    async fn find(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let Some(spot) = self.spot(key).await else {
            self.tiers.counters.add(Count::Miss);
            return None;
        };
        self.find_at(spot).await
    }

    async fn find_at(&self, spot: Spot<'_>) -> Option<Arc<Entry>> {
        let timer = Counters::sample();
        let (found, op) = self.look_at(spot).await;
        let counters = &self.tiers.counters;
        counters.add(match (&found, op) {
            (None, _) => Count::Miss,
            (Some(_), Op::MemoryGet) => Count::MemoryHit,
            (Some(_), _) => Count::FileHit,
        });
        counters.record(op, timer);
        found
    }

    /// The entry at a spot, of whatever age, and where that was found out; not counted.
    async fn look_at(&self, spot: Spot<'_>) -> (Option<Arc<Entry>>, Op) {
        let guard = match self.tiers.look(spot) {
            Found::Here(entry) => return (Some(entry), Op::MemoryGet),
            Found::Nowhere => return (None, Op::MemoryGet),
            Found::AskFile(guard) => guard,
        };
        let found = if self.tiers.readers.is_slow() {
            let tiers = Arc::clone(&self.tiers);
            let (space, key) = (spot.space, spot.key.to_vec());
            let read = within(move || tiers.read_file(tiers.spot(space, &key), guard));
            read.await.flatten()
        } else {
            self.tiers.read_file(spot, guard)
        };
        (found, Op::FileGet)
    }

    async fn put_encoded(&self, key: &[u8], value: Bytes, ttl: Ttl) {
        if ttl.is_zero() {
            self.remove(key).await;
            return;
        }
        if !self.tiers.has_room().await {
            self.tiers.counters.add(Count::Dropped);
            self.remove(key).await;
            return;
        }
        let times = ttl.times(self.tiers.now());
        self.tiers
            .put(self.spot_to_keep(key).await, value, times, None);
    }

    /// Deletes a key, and says whether there can have been one. On a disk too slow to say where it is, its namespace goes.
    async fn remove(&self, key: &[u8]) -> bool {
        match (self.space().await, &self.namespace) {
            (Known::None, _) => return false,
            (Known::No, Some(namespace)) => {
                self.flights.clear();
                namespace.clear(&self.tiers);
            }
            (Known::No, None) => {}
            (Known::Id(space), _) => {
                let spot = self.tiers.spot(space, key);
                self.flights.forget(spot);
                self.tiers.delete(spot);
            }
        }
        true
    }
}

/// What a slow disk answers, on a thread that may wait for it; it is not waited for beyond a limit.
async fn within<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let read = tokio::task::spawn_blocking(read);
    let answer = tokio::time::timeout(WAIT_MAX, read).await;
    if answer.is_err() {
        tracing::debug!("the cache file is slow; going on without");
    }
    answer.ok()?.ok()
}

/// Starts the writer, and returns when it has opened the file or knows that it cannot.
async fn start(tiers: Arc<Tiers>) {
    let (opened, is_opened) = tokio::sync::oneshot::channel();
    let shared = Arc::clone(&tiers);
    let thread = std::thread::Builder::new()
        .name("cache-writer".to_owned())
        .spawn(move || {
            shared.bell.hang_up(std::thread::current());
            let mut writer = Writer::new(shared);
            writer.open_first();
            let _ = opened.send(());
            writer.run();
        });
    match thread {
        Ok(_) => {
            let _ = is_opened.await;
        }
        Err(error) => {
            tracing::warn!(%error, "there is no thread for the cache file; the cache is in memory alone");
            tiers.close();
        }
    }
}

const CHECK_LIMITS: Limits = Limits {
    readers: 1,
    waiting_max: 1,
    group_max: 1,
    read_time: CHECK_TIME,
    write_time: CHECK_TIME,
    slow_time: Duration::MAX,
    marks_damage: false,
};

const CHECK_TIME: Duration = Duration::from_secs(5);

/// The file as a check opens it.
fn as_database(settings: &Settings) -> Options {
    Options {
        path: settings.path.clone(),
        busy_timeout_ms: 50,
        synchronous: Synchronous::Normal,
        cache_pages: 2_000,
        journal_size_limit_bytes: 16 * 1024 * 1024,
        mmap_bytes: 0,
        copy_before_migration: false,
        warnings: Vec::new(),
    }
}
