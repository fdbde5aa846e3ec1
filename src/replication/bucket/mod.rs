//! A folder in a bucket of an S3 server.

mod answer;
mod client;
mod store;
mod transfer;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use object_store::ObjectStore as _;
use object_store::ObjectStoreExt as _;
use object_store::PutMode;
use object_store::PutOptions;
use object_store::PutResult;
use object_store::UpdateVersion;
use object_store::aws::AmazonS3;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;

use crate::replication::Error;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::SnapshotSettings;

pub use self::store::Place;
pub use self::transfer::Transfer;

use self::answer::Answer;
use self::answer::is_missing;
use self::client::Patience;
use self::store::host;
use self::store::retries;
use self::store::store;

/// The largest object that is read into memory, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The most objects that a list holds.
const LIST_MAX: usize = 100_000;

/// One request for a small object.
const REQUEST_TIME: Duration = Duration::from_secs(4);

/// A small operation with all its tries; a conditional write takes this long at most, and its reading back again.
const OPERATION_TIME: Duration = Duration::from_millis(4_900);

/// Between two bytes of a large object; a part of 8 MiB has this long, too.
const STALL_TIME: Duration = Duration::from_mins(1);

/// How many objects are deleted at once.
const DELETES: usize = 8;

/// A folder in a bucket, with one key; what is in it has a name relative to it.
///
/// Cloning is cheap. No operation on a small object takes longer than 10 s.
#[derive(Clone)]
pub struct Bucket {
    /// For small objects: an answer soon, or none.
    small: AmazonS3,
    /// For large ones: as long as bytes flow.
    large: AmazonS3,
    name: String,
    folder: String,
    host: String,
}

/// What an object was when it was read or written; it changes with each write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Relative to the bucket's folder.
    pub name: String,
    /// How large it is, in bytes.
    pub bytes: u64,
    /// When it was written, by the server's clock.
    pub modified: Timestamp,
}

impl Bucket {
    /// The bucket and folder of the replica. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the settings make no address, or this machine has no certificates for https.
    pub fn replica(settings: &Settings) -> Result<Self> {
        Self::open(Place {
            bucket: &settings.bucket,
            path: &settings.path,
            endpoint: &settings.endpoint,
            region: &settings.region,
            access_key_id: &settings.access_key_id,
            secret_access_key: &settings.secret_access_key,
        })
    }

    /// The bucket and folder of the snapshots. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// As [`Bucket::replica`].
    pub fn snapshots(settings: &SnapshotSettings) -> Result<Self> {
        Self::open(Place {
            bucket: &settings.bucket,
            path: &settings.path,
            endpoint: &settings.endpoint,
            region: &settings.region,
            access_key_id: &settings.access_key_id,
            secret_access_key: &settings.secret_access_key,
        })
    }

    /// The bucket and folder at `place`. Nothing is asked yet; the environment has no say.
    ///
    /// # Errors
    ///
    /// As [`Bucket::replica`].
    pub fn open(place: Place<'_>) -> Result<Self> {
        let large = AmazonS3Builder::new().with_retry(retries(3, Duration::from_mins(1)));
        let small = AmazonS3Builder::new().with_retry(retries(2, Duration::from_secs(2)));
        Ok(Self {
            small: store(small, place, Patience::Whole(REQUEST_TIME))?,
            large: store(large, place, Patience::Stall(STALL_TIME))?,
            name: place.bucket.to_owned(),
            folder: place.path.trim_matches('/').to_owned(),
            host: host(place.endpoint),
        })
    }

    /// Reads a small object; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`], also for an object of more than 1 MiB.
    pub async fn get(&self, name: &str) -> Result<Option<(Bytes, Version)>> {
        let key = self.key(name)?;
        let read = async {
            let found = match self.small.get(&key).await {
                Ok(found) => found,
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) => return Err(self.failed(name, &error)),
            };
            if found.meta.size > BYTES_MAX {
                return Err(Error::Refused(format!(
                    "{name} has {} bytes, and at most {BYTES_MAX} are read",
                    found.meta.size
                )));
            }
            let version = self.version(found.meta.e_tag.clone())?;
            let bytes = found.bytes().await;
            let bytes = bytes.map_err(|error| self.failed(name, &error))?;
            Ok(Some((bytes, version)))
        };
        self.in_time(read).await
    }

    /// Writes an object that must not be there.
    ///
    /// Where the answer to the write is lost, it is read back: so `bytes` must be unlike what anybody else writes.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when it is there; [`Error::Unreachable`], after which it may have been written, or still be
    /// when what was sent arrives late; [`Error::Refused`]; [`Error::NoConditionalWrites`].
    pub async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<Version> {
        let bytes = bytes.into();
        let written = self.write(name, bytes.clone(), PutMode::Create).await;
        self.settled(name, &bytes, written).await
    }

    /// Writes an object that must be as it was in `version`.
    ///
    /// # Errors
    ///
    /// As [`Bucket::create`]; [`Error::Conflict`] when it has changed, or is gone.
    pub async fn replace(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
        version: &Version,
    ) -> Result<Version> {
        let bytes = bytes.into();
        let written = self.write(name, bytes.clone(), update(version)).await;
        self.settled(name, &bytes, written).await
    }

    /// Writes an object, whatever is there.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<Version> {
        self.write(name, bytes.into(), PutMode::Overwrite).await
    }

    /// Deletes an object; it is no error when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn delete(&self, name: &str) -> Result<()> {
        let key = self.key(name)?;
        let delete = async {
            match self.small.delete(&key).await {
                Err(error) if !is_missing(&error) => Err(self.failed(name, &error)),
                _ => Ok(()),
            }
        };
        self.in_time(delete).await
    }

    /// Deletes objects, several at once, until one cannot be.
    ///
    /// # Errors
    ///
    /// As [`Bucket::delete`].
    pub async fn delete_all(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let deletes = names
            .into_iter()
            .map(|name| async move { self.delete(&name).await });
        let mut deletes = stream::iter(deletes).buffer_unordered(DELETES);
        while deletes.try_next().await?.is_some() {}
        Ok(())
    }

    /// Lists what is in a folder and its folders, by name; empty for all there is.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`], also for more than 100 000 objects.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let mut found = self.list_some(folder, LIST_MAX + 1).await?;
        if found.len() > LIST_MAX {
            return Err(Error::Refused(format!(
                "there are more than {LIST_MAX} objects in {folder}"
            )));
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Lists `max` objects of a folder and its folders, or all where there are fewer.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn list_some(&self, folder: &str, max: usize) -> Result<Vec<Object>> {
        let mut objects = self.small.list(Some(&self.key(folder)?)).take(max);
        let mut found = Vec::new();
        let next = async |objects: &mut stream::Take<_>| {
            let next = objects.try_next().await;
            next.map_err(|error| self.failed(folder, &error))
        };
        while let Some(object) = self.in_time(next(&mut objects)).await? {
            found.extend(self.object(&object));
        }
        Ok(found)
    }

    /// Lists the folders that are in a folder, by name, without what is in them.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let key = self.key(folder)?;
        let list = async {
            let found = self.small.list_with_delimiter(Some(&key)).await;
            found.map_err(|error| self.failed(folder, &error))
        };
        let found = self.in_time(list).await?.common_prefixes;
        let names = found.iter().filter_map(|key| key.filename());
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Tries whether the provider keeps two writers apart, with an object that it deletes again.
    ///
    /// # Errors
    ///
    /// [`Error::NoConditionalWrites`] when it does not; [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn probe_conditional_writes(&self) -> Result<()> {
        let name = format!("probe-{:016x}", fastrand::u64(..));
        let probed = self.probe(&name).await;
        let deleted = self.delete(&name).await;
        probed.and(deleted)
    }

    async fn probe(&self, name: &str) -> Result<()> {
        let version = self.create(name, "one").await?;
        let refused = self.write(name, "two".into(), PutMode::Create).await;
        must_conflict(refused, "it has created an object that was there")?;
        let other = Version("\"00000000000000000000000000000000\"".to_owned());
        let refused = self.write(name, "three".into(), update(&other)).await;
        must_conflict(refused, "it has replaced an object of another version")?;
        self.replace(name, "four", &version).await.map(drop)
    }

    /// Finds out whether a conditional write that failed was done nevertheless: its answer may have been lost on the
    /// way, and the store's second try then meets its own first one.
    async fn settled(
        &self,
        name: &str,
        bytes: &Bytes,
        written: Result<Version>,
    ) -> Result<Version> {
        let error = match written {
            Err(error @ (Error::Conflict(_) | Error::Unreachable(_))) => error,
            settled => return settled,
        };
        match self.get(name).await {
            Ok(Some((found, version))) if found == bytes => Ok(version),
            Ok(_) => Err(error),
            Err(unknown) => Err(unknown),
        }
    }

    async fn write(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<Version> {
        let key = self.key(name)?;
        let is_conditional = !matches!(mode, PutMode::Overwrite);
        let options = PutOptions::from(mode);
        let write = async {
            match self.small.put_opts(&key, bytes.into(), options).await {
                Ok(PutResult { e_tag, .. }) => self.version(e_tag),
                Err(error) if is_conditional => Err(self.not_written(name, &error)),
                Err(error) => Err(self.failed(name, &error)),
            }
        };
        self.in_time(write).await
    }

    fn not_written(&self, name: &str, error: &object_store::Error) -> Error {
        match Answer::of(error) {
            Some(Answer { status: 501, code }) => {
                Error::NoConditionalWrites(format!("it answers 501 {code}"))
            }
            Some(Answer {
                status: 304 | 409 | 412,
                ..
            }) => Error::Conflict(name.to_owned()),
            Some(_) if is_missing(error) => Error::Conflict(name.to_owned()),
            _ => self.failed(name, error),
        }
    }

    fn failed(&self, name: &str, error: &object_store::Error) -> Error {
        answer::meaning(error, &self.host, &self.name, name)
    }

    /// Bounds an operation, its tries and pauses included.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::time::timeout(OPERATION_TIME, work).await;
        done.unwrap_or_else(|_| {
            Err(Error::Unreachable(format!(
                "{}: no answer in {} s",
                self.host,
                OPERATION_TIME.as_secs_f32()
            )))
        })
    }

    fn key(&self, name: &str) -> Result<Key> {
        let key = format!("{}/{name}", self.folder);
        Key::parse(key.trim_matches('/'))
            .map_err(|_| Error::Refused(format!("{name:?} is no name for an object")))
    }

    fn object(&self, meta: &object_store::ObjectMeta) -> Option<Object> {
        let path = meta.location.as_ref().strip_prefix(&self.folder)?;
        let modified = meta.last_modified.timestamp_millis();
        Some(Object {
            name: path.trim_start_matches('/').to_owned(),
            bytes: meta.size,
            modified: Timestamp::from_millisecond(modified).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    fn version(&self, e_tag: Option<String>) -> Result<Version> {
        let missing = || Error::NoConditionalWrites(format!("{} gives no ETag", self.host));
        e_tag.map(Version).ok_or_else(missing)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

fn update(version: &Version) -> PutMode {
    PutMode::Update(UpdateVersion {
        e_tag: Some(version.0.clone()),
        version: None,
    })
}

fn must_conflict(written: Result<Version>, otherwise: &str) -> Result<()> {
    match written {
        Err(Error::Conflict(_)) => Ok(()),
        Ok(_) => Err(Error::NoConditionalWrites(otherwise.to_owned())),
        Err(error) => Err(error),
    }
}
