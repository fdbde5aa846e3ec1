//! A restore that nobody needs, to know that one that somebody needs will go well.
//!
//! What a drill that went well has shown: the generation that a restore would take now gives a file that SQLite finds
//! sound to the last index, and, where a site runs, that has what was committed at the moment of the drill. For that
//! it writes a mark, waits until it is in the bucket, and restores just that far. The content of each table is summed
//! up before and after; a table that is the same at both must be the same in the copy, row by row, and the mark must
//! be in it. What it does not show: anything of a table that was written in the few milliseconds between, but that its
//! pages and indexes are sound, nor that an earlier point in time can be restored.

mod live;
mod marks;
mod schedule;
mod sums;

use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::database;
use crate::database::Clock;
use crate::database::files;
use crate::database::real_path;
use crate::replication::Bucket;
use crate::replication::Error;
use crate::replication::Generation;
use crate::replication::Restored;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::Source;
use crate::replication::lease;
use crate::replication::restore::restore_txid;
use crate::replication::restore_to;
use crate::replication::scratch::Scratch;

use self::live::Moment;
use self::sums::Comparison;
use self::sums::Sums;

pub use self::live::Live;

/// The object that tells of the last one.
const OBJECT: &str = "drill.json";

/// How this program writes it.
const FORMAT: u32 = 1;

/// What stays free on the disk, in bytes: the site goes on there.
const ROOM_LEFT: u64 = 32 * 1024 * 1024;

/// What came of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Drilled {
    /// The version of this layout.
    pub format: u32,
    /// When it was begun.
    pub at: Timestamp,
    /// What was restored.
    pub generation: String,
    /// The moment whose state that is; where no site runs, when the last object came into the bucket.
    pub state_of: Option<Timestamp>,
    /// How large the database is, in bytes.
    pub bytes: u64,
    /// How long it took in all, in milliseconds.
    pub took_ms: u64,
    /// How much of that was the restore, in milliseconds.
    pub took_restore_ms: u64,
    /// How much of it was the check, in milliseconds.
    pub took_check_ms: u64,
    /// How many tables, the schema among them, are as they are in the database.
    pub tables: u64,
    /// How many rows those have.
    pub rows: u64,
    /// How many tables were written meanwhile, and not compared.
    pub tables_written: u64,
    /// Why nothing was compared, if so.
    pub not_compared: Option<String>,
    /// Rows that break a rule of the schema, which is no fault of the replica; at most 100.
    pub violations: Vec<String>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Drilled {
    /// Whether it went well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    fn new(at: Timestamp) -> Self {
        Self {
            format: FORMAT,
            at,
            generation: String::new(),
            state_of: None,
            bytes: 0,
            took_ms: 0,
            took_restore_ms: 0,
            took_check_ms: 0,
            tables: 0,
            rows: 0,
            tables_written: 0,
            not_compared: None,
            violations: Vec::new(),
            error: None,
        }
    }
}

/// Drills for the replica of one database. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Drill {
    settings: Settings,
    database: database::Settings,
    bucket: Bucket,
}

impl Drill {
    /// Those for the replica in this bucket; the scratch files come beside the database.
    #[must_use]
    pub fn new(settings: &Settings, database: &database::Settings, bucket: Bucket) -> Self {
        Self {
            settings: settings.clone(),
            database: database.clone(),
            bucket,
        }
    }

    /// What came of the last one, by whatever process; none where there never was one.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; [`Error::Refused`].
    pub async fn last(&self) -> Result<Option<Drilled>> {
        let Some((bytes, _)) = self.bucket.get(OBJECT).await? else {
            return Ok(None);
        };
        // One that cannot be read, of a newer program as a rule, is as good as none: the next one replaces it.
        let last = serde_json::from_slice::<Drilled>(&bytes).ok();
        Ok(last.filter(|last| last.format == FORMAT))
    }

    /// Restores the replica to a scratch file and checks it, and compares it with `live`; the bucket keeps what came of
    /// it.
    ///
    /// A replica that is damaged is no error here: [`Drilled::error`] says what is wrong with it.
    ///
    /// # Errors
    ///
    /// Nothing is known of the replica then. [`Error::Drill`] when there is none yet, no room for the copy, or another
    /// drill goes on; [`Error::Unreachable`]; [`Error::Refused`]; [`Error::Litestream`]; [`Error::Database`].
    pub async fn run_once(&self, live: Option<&Live>) -> Result<Drilled> {
        let _lock = lock(&self.database.path)?;
        let start = Instant::now();
        let mut drilled = Drilled::new(Clock::system().now());
        let done = match self.attempt(live, &mut drilled).await {
            // A table that is changed and changed back at the same moment looks so, once.
            Ok(Some(difference)) => {
                tracing::warn!(
                    difference,
                    "the replica is not what the database is: looking once more"
                );
                self.attempt(live, &mut drilled).await
            }
            done => done,
        };
        match done {
            Ok(difference) => drilled.error = difference,
            Err(Error::Restore(reason)) => drilled.error = Some(reason),
            Err(error) => return Err(error),
        }
        drilled.took_ms = millis(start.elapsed());
        let text = serde_json::to_vec_pretty(&drilled)
            .map_err(|error| Error::Drill(format!("its result cannot be written: {error}")))?;
        self.bucket.put(OBJECT, text).await?;
        Ok(drilled)
    }

    /// One restore with all that is looked at; gives the difference to the database, if there is one.
    async fn attempt(&self, live: Option<&Live>, drilled: &mut Drilled) -> Result<Option<String>> {
        let generation = self.generation(live).await?;
        drilled.generation.clone_from(&generation);
        self.refuse_without_room(&generation).await?;
        let scratch = Scratch::new(&self.database.path, "drill");
        let time = Duration::from_millis(self.settings.restore_timeout_ms);
        let mut moment = match live {
            Some(live) => Some(live.moment(time).await?),
            None => None,
        };
        drilled.state_of = match &moment {
            Some(moment) => Some(moment.mark.at),
            None => self.last_object(&generation).await?,
        };
        let txid = moment.as_ref().map(|moment| moment.txid);
        let restored = self.restore(&generation, txid, scratch.path()).await?;
        drilled.bytes = restored.bytes;
        drilled.took_restore_ms = millis(restored.took_restore);
        let start = Instant::now();
        let report = scratch.check(&self.database).await?;
        drilled.took_check_ms = millis(start.elapsed());
        drilled.violations = report.violations;
        if let Some(first) = report.problems.first() {
            return Err(Error::Restore(format!(
                "generation {generation} restores to a damaged file: {first}"
            )));
        }
        let (Some(live), Some(moment)) = (live, &mut moment) else {
            let reason =
                "no litestream copies the database here, so there is nothing to compare with";
            drilled.not_compared = Some(reason.to_owned());
            return Ok(None);
        };
        let compared = self.compare(moment, &scratch, time).await?;
        drilled.tables = compared.tables;
        drilled.rows = compared.rows;
        drilled.tables_written = compared.written;
        match compared.difference {
            Some(difference) => Ok(Some(difference)),
            None => self.foreign(live, &generation).await,
        }
    }

    /// Says so if there is what the Litestream here cannot have written: a restore would take it.
    async fn foreign(&self, live: &Live, generation: &str) -> Result<Option<String>> {
        let folder = generation.parse::<Generation>()?.folder();
        let objects = self.bucket.list(&folder).await?;
        let there = objects
            .iter()
            .filter_map(|object| last_txid(&object.name))
            .max();
        // Asked after the list, so that it is no less than what was uploaded by then.
        let here = live.last().await?;
        Ok(there.filter(|there| *there > here).map(|there| {
            format!(
                "generation {generation} goes on to transaction {there}, and the litestream here has come to {here}: \
                 somebody else writes to it, too"
            )
        }))
    }

    /// The one that a restore would take now.
    async fn generation(&self, live: Option<&Live>) -> Result<String> {
        let record = lease::look(&self.bucket).await?.unwrap_or_default();
        let sources = Source::all(&self.bucket, &record, None).await?;
        let Some(source) = sources.into_iter().next() else {
            return Err(Error::Drill(
                "there is nothing in the bucket yet".to_owned(),
            ));
        };
        match live {
            Some(live) if live.generation() != source.generation => Err(Error::Drill(format!(
                "{} is copied to generation {}, and the data is in {} yet: try again in a moment",
                live.path().display(),
                live.generation(),
                source.generation
            ))),
            _ => Ok(source.generation),
        }
    }

    async fn restore(&self, generation: &str, txid: Option<u64>, to: &Path) -> Result<Restored> {
        let (settings, database) = (&self.settings, &self.database.path);
        match txid {
            Some(txid) => restore_txid(settings, database, generation, txid, to).await,
            None => restore_to(settings, database, generation, None, to).await,
        }
    }

    async fn compare(
        &self,
        moment: &mut Moment,
        scratch: &Scratch,
        time: Duration,
    ) -> Result<Comparison> {
        let copy = scratch.open(&self.database)?;
        let mark = moment.mark.clone();
        let patient = copy.within(time);
        let read =
            patient.read(move |connection| Ok((mark.is_in(connection)?, Sums::of(connection)?)));
        let read = read.await;
        copy.close().await;
        let (has_mark, sums) = read?;
        let (before, after) = moment.sums().await?;
        let mut comparison = Sums::compare(&before, &sums, &after);
        if !has_mark {
            let lacks = "what was written for this drill is not in the replica, though litestream says so: somebody \
                         else writes to this generation, too";
            comparison.difference = Some(lacks.to_owned());
        }
        Ok(comparison)
    }

    async fn last_object(&self, generation: &str) -> Result<Option<Timestamp>> {
        let folder = generation.parse::<Generation>()?.folder();
        let objects = self.bucket.list(&folder).await?;
        Ok(objects.iter().map(|object| object.modified).max())
    }

    /// The copy is as large as the database, and larger than all of its packed objects at the least.
    async fn refuse_without_room(&self, generation: &str) -> Result<()> {
        let bytes = if let Ok(file) = self.database.path.metadata() {
            file.len()
        } else {
            let folder = generation.parse::<Generation>()?.folder();
            let objects = self.bucket.list(&folder).await?;
            objects.iter().map(|object| object.bytes).sum()
        };
        let path = real_path(&self.database.path);
        let folder = files::folder(&path);
        let room =
            files::room(folder).map_err(|error| Error::Io(folder.display().to_string(), error))?;
        if room < bytes.saturating_add(ROOM_LEFT) {
            return Err(Error::Drill(format!(
                "there is no room in {}: it takes {bytes} bytes, {ROOM_LEFT} more have to stay free, and {room} are free",
                folder.display()
            )));
        }
        Ok(())
    }
}

/// Makes this the only drill beside the database.
fn lock(database: &Path) -> Result<File> {
    let path = real_path(database).with_added_extension("drill.lock");
    let failed = |error| Error::Io(path.display().to_string(), error);
    std::fs::create_dir_all(files::folder(&path)).map_err(failed)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true);
    let file = file.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Drill("another one goes on".to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The last transaction in an object, by its name: `…/0000000000000001-0000000000000007.ltx`.
fn last_txid(name: &str) -> Option<u64> {
    let (_, last) = name.strip_suffix(".ltx")?.rsplit_once('-')?;
    u64::from_str_radix(last, 16).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
