//! Whole copies of the database in a second bucket.
//!
//! A snapshot is two objects: the packed database, and a note that tells of it, which is written last. Without the note
//! it does not count, and so one that was cut off is none.

mod files;
mod packing;
mod schedule;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use futures_util::stream;
use jiff::SignedDuration;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::database::Database;
use crate::database::Migrations;
use crate::database::Progress;
use crate::replication::Bucket;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::SnapshotSettings;
use crate::replication::Transfer;
use crate::replication::stamp;

use self::files::Files;
use self::packing::Packed;

/// The folder that they are in.
const FOLDER: &str = "snapshots";

/// The ending of the packed database.
const DATA: &str = ".sqlite3.gz";

/// The ending of the note.
const NOTE: &str = ".json";

/// How this program writes a note.
const FORMAT: u32 = 1;

/// How many notes are read at once.
const READS: usize = 8;

/// How old data without a note is before it is deleted: its upload may be going on.
const UNFINISHED: SignedDuration = SignedDuration::from_hours(48);

/// A snapshot, as its note tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this layout.
    pub format: u32,
    /// Its name, such as `20261121T073214Z-09af`.
    pub name: String,
    /// The moment whose state it has.
    pub made_at: Timestamp,
    /// How large the database is, in bytes.
    pub bytes: u64,
    /// How large it is packed, in bytes.
    pub packed_bytes: u64,
    /// The checksum of what is packed, in hexadecimal digits.
    pub sha256: String,
    /// The last migration of each set that it has.
    pub schema: BTreeMap<String, String>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The database is copied.
    Copying(Progress),
    /// The copy is packed.
    Packing(Transfer),
    /// It is sent to the bucket.
    Sending(Transfer),
    /// It is fetched from there.
    Fetching(Transfer),
    /// It is unpacked.
    Unpacking(Transfer),
}

/// What is known of the snapshots without asking the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// When the youngest one was made.
    pub last: Option<Timestamp>,
    /// Why the last try failed, if it did.
    pub error: Option<String>,
}

/// The snapshots of one site.
///
/// Cloning is cheap, and clones share the status.
#[derive(Clone, Debug)]
pub struct Snapshots {
    bucket: Bucket,
    settings: SnapshotSettings,
    sets: Vec<Migrations>,
    status: Arc<Mutex<SnapshotStatus>>,
}

impl Snapshots {
    /// Those in the bucket of the settings. `sets` are what a note tells of the schema by. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when the settings name no bucket; else as [`Bucket::snapshots`].
    pub fn new(settings: &SnapshotSettings, sets: &[Migrations]) -> Result<Self> {
        if !settings.is_on() {
            return Err(Error::Snapshot(
                "there is no bucket for them: set snapshots.bucket".to_owned(),
            ));
        }
        Ok(Self {
            bucket: Bucket::snapshots(settings)?,
            settings: settings.clone(),
            sets: sets.to_vec(),
            status: Arc::default(),
        })
    }

    /// What is known without asking the bucket.
    #[must_use]
    pub fn status(&self) -> SnapshotStatus {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes one of the database as it is now, while reads and writes go on, and deletes those whose time is over.
    ///
    /// It takes twice the size of the database beside it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] as from [`Database::backup`]; [`Error::Snapshot`] when there is no room, or another
    /// process makes one; [`Error::Unreachable`]; [`Error::Refused`]. There is no new one then.
    pub async fn make(
        &self,
        database: &Database,
        progress: impl Fn(Stage) + Send + Sync + 'static,
    ) -> Result<Snapshot> {
        let progress = Arc::new(progress);
        let path = database.path();
        let files = Files::begin(path, size(database).await?.saturating_mul(2))?;
        let made_at = database.now();
        let schema = self.schema(database).await;
        let told = Arc::clone(&progress);
        let copied = database.backup(&files.plain, move |step| told(Stage::Copying(step)));
        copied.await?;
        let told = Arc::clone(&progress);
        let (plain, packed) = (files.plain.clone(), files.packed.clone());
        let packed = packing::pack(plain, packed, move |stage| told(stage)).await?;
        let snapshot = Snapshot {
            format: FORMAT,
            name: format!("{}-{:04x}", stamp::write(made_at), fastrand::u16(..)),
            made_at,
            bytes: packed.bytes_before,
            packed_bytes: packed.bytes,
            sha256: packed.sha256,
            schema,
        };
        let sending = |step| progress(Stage::Sending(step));
        let data = snapshot.data();
        self.bucket.upload(&data, &files.packed, sending).await?;
        self.bucket.put(&snapshot.note(), snapshot.json()?).await?;
        self.note_status(|status| {
            *status = SnapshotStatus {
                last: Some(made_at),
                error: None,
            };
        });
        if let Err(error) = self.prune(database.now()).await {
            tracing::warn!("old snapshots could not be deleted: {error}");
        }
        Ok(snapshot)
    }

    /// Lists those there are, the youngest first.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`]; [`Error::Snapshot`] when a note cannot be read.
    pub async fn list(&self) -> Result<Vec<Snapshot>> {
        let names = self.names().await?;
        let notes = names
            .iter()
            .map(|name| async move { self.note(name).await });
        stream::iter(notes).buffered(READS).try_collect().await
    }

    /// Finds one by its name, or the youngest by `latest`.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when there is none; [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn find(&self, name: &str) -> Result<Snapshot> {
        if name != "latest" {
            return self.note(name).await;
        }
        let names = self.names().await?;
        let none = || Error::Snapshot("there is none in the bucket".to_owned());
        self.note(names.first().ok_or_else(none)?).await
    }

    /// Brings one to this disk as the new file `<beside>.snapshot`, if it is what it was when it was made, and gives
    /// that to `take`; the file is removed then.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when it is damaged, or there is no room; [`Error::Unreachable`]; [`Error::Refused`];
    /// what `take` returns.
    pub async fn fetch<T, E: From<Error>>(
        &self,
        snapshot: &Snapshot,
        beside: &Path,
        progress: impl Fn(Stage) + Send + Sync + 'static,
        take: impl AsyncFnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let progress = Arc::new(progress);
        let bytes = snapshot.bytes.saturating_add(snapshot.packed_bytes);
        let files = Files::begin(beside, bytes)?;
        let told = Arc::clone(&progress);
        let fetching = move |step| told(Stage::Fetching(step));
        let (data, limit) = (snapshot.data(), snapshot.packed_bytes);
        let fetched = self.bucket.download(&data, &files.packed, limit, fetching);
        fetched.await?;
        let (plain, packed) = (files.plain.clone(), files.packed.clone());
        packing::unpack(packed, plain, snapshot.packed(), move |stage| {
            progress(stage);
        })
        .await?;
        // Room for what `take` makes of it.
        let _ = std::fs::remove_file(&files.packed);
        take(&files.plain).await
    }

    /// Deletes those whose time is over by `keep` and `keep_days`, and what was left unfinished.
    async fn prune(&self, now: Timestamp) -> Result<()> {
        let objects = self.bucket.list(FOLDER).await?;
        let names = objects.iter().map(|object| object.name.as_str());
        let (whole, unfinished) = sorted(names);
        let keep = usize::try_from(self.settings.keep).unwrap_or(usize::MAX);
        let days = SignedDuration::from_hours(24 * i64::from(self.settings.keep_days));
        for name in expired(&whole, keep, days, now) {
            tracing::info!("the snapshot {name} is deleted: its time is over");
            // In this order: what is half deleted does not count.
            self.bucket.delete(&path(name, NOTE)).await?;
            self.bucket.delete(&path(name, DATA)).await?;
        }
        for name in expired(&unfinished, 0, UNFINISHED, now) {
            self.bucket.delete(&path(name, DATA)).await?;
        }
        Ok(())
    }

    /// The names of those there are, the youngest first.
    async fn names(&self) -> Result<Vec<String>> {
        let objects = self.bucket.list(FOLDER).await?;
        let names = objects.iter().map(|object| object.name.as_str());
        Ok(sorted(names).0)
    }

    async fn note(&self, name: &str) -> Result<Snapshot> {
        if time(name).is_none() {
            return Err(Error::Snapshot(format!(
                "{name:?} is no name of one: it is like 20261121T073214Z-09af, or latest"
            )));
        }
        let Some((bytes, _)) = self.bucket.get(&path(name, NOTE)).await? else {
            return Err(Error::Snapshot(format!(
                "there is no {name}: it was never finished, or is deleted; `backup --list` names those there are"
            )));
        };
        let unreadable = |reason| Error::Snapshot(format!("the note of {name} is {reason}"));
        let snapshot: Snapshot = serde_json::from_slice(&bytes)
            .map_err(|error| unreadable(format!("damaged: {error}")))?;
        if snapshot.format != FORMAT {
            return Err(unreadable("of a newer program".to_owned()));
        }
        if snapshot.name != name {
            return Err(unreadable("that of another one".to_owned()));
        }
        Ok(snapshot)
    }

    /// The last migration of each set; of none where they cannot be read, which is no reason to have no snapshot.
    async fn schema(&self, database: &Database) -> BTreeMap<String, String> {
        let steps = database.migrations(&self.sets).await.unwrap_or_default();
        let applied = steps.into_iter().filter(|step| step.applied_at.is_some());
        applied
            .map(|step| (step.set.to_owned(), step.name))
            .collect()
    }

    fn note_status(&self, change: impl FnOnce(&mut SnapshotStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Snapshot {
    fn data(&self) -> String {
        path(&self.name, DATA)
    }

    fn note(&self) -> String {
        path(&self.name, NOTE)
    }

    fn packed(&self) -> Packed {
        Packed {
            bytes_before: self.bytes,
            bytes: self.packed_bytes,
            sha256: self.sha256.clone(),
        }
    }

    fn json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Snapshot(format!("its note cannot be written: {error}")))
    }
}

/// How large a copy of the database is, in bytes: what is in the WAL is in the copy.
async fn size(database: &Database) -> Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let size = database.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?));
    Ok(size.await?)
}

fn path(name: &str, ending: &str) -> String {
    format!("{FOLDER}/{name}{ending}")
}

/// The time in a name, if it is one of ours.
fn time(name: &str) -> Option<Timestamp> {
    let (time, random) = name.split_once('-')?;
    let is_random = random.len() == 4 && random.chars().all(|c| c.is_ascii_hexdigit());
    stamp::read(time).filter(|_| is_random)
}

/// The names of those with a note, and of the data without one; the youngest first.
fn sorted<'a>(objects: impl Iterator<Item = &'a str>) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut data) = (Vec::new(), Vec::new());
    for object in objects {
        let name = object.rsplit('/').next().unwrap_or(object);
        let of = |ending| {
            name.strip_suffix(ending)
                .filter(|name| time(name).is_some())
        };
        if let Some(name) = of(NOTE) {
            whole.push(name.to_owned());
        } else if let Some(name) = of(DATA) {
            data.push(name.to_owned());
        }
    }
    data.retain(|name| !whole.contains(name));
    for names in [&mut whole, &mut data] {
        names.sort_unstable_by(|one, other| other.cmp(one));
    }
    (whole, data)
}

/// Those after the `keep` youngest that are older than `age`.
fn expired(names: &[String], keep: usize, age: SignedDuration, now: Timestamp) -> Vec<&str> {
    let is_old = |name: &&String| time(name).is_some_and(|time| now.duration_since(time) > age);
    let old = names.iter().skip(keep).filter(is_old);
    old.map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn made(days: i64) -> String {
        let time = now() - SignedDuration::from_hours(24 * days);
        format!("{}-09af", stamp::write(time))
    }

    #[test]
    fn both_the_number_and_the_age_must_be_over() {
        let names: Vec<_> = [0, 1, 10, 30, 31, 400].map(made).to_vec();
        let gone = |keep, days: i64| {
            let age = SignedDuration::from_hours(24 * days);
            expired(&names, keep, age, now())
        };
        assert_eq!(gone(2, 30), [made(31), made(400)]);
        assert_eq!(gone(5, 30), [made(400)]);
        assert_eq!(gone(6, 30), [""; 0]);
        assert_eq!(gone(100, 0), [""; 0]);
        assert_eq!(gone(1, 0), [1, 10, 30, 31, 400].map(made));
        assert_eq!(gone(1, 3650), [""; 0]);
    }

    #[test]
    fn only_what_has_a_note_counts() {
        let objects = [
            "snapshots/20261119T120000Z-0001.json",
            "snapshots/20261119T120000Z-0001.sqlite3.gz",
            "snapshots/20261121T120000Z-0003.sqlite3.gz",
            "snapshots/20261120T120000Z-0002.json",
            "snapshots/20261120T120000Z-0002.sqlite3.gz",
            "snapshots/20261118T120000Z-0000.sqlite3.gz",
            "snapshots/readme.json",
            "snapshots/20261122T120000Z.json",
        ];
        let (whole, unfinished) = sorted(objects.into_iter());
        assert_eq!(whole, ["20261120T120000Z-0002", "20261119T120000Z-0001"]);
        assert_eq!(
            unfinished,
            ["20261121T120000Z-0003", "20261118T120000Z-0000"]
        );
    }
}
