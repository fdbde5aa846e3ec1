//! The database out of the bucket.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use hyper::Uri;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::database;
use crate::database::Clock;
use crate::database::Restore;
use crate::database::Vacancy;
use crate::replication::Error;
use crate::replication::Lineage;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::lines::Lines;
use crate::replication::program::Program;
use crate::replication::scratch::Scratch;

/// How often the size of the new file is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long is looked for the reason why nothing comes.
const REASON: Duration = Duration::from_secs(3);

/// The longest summary that is read, in bytes; it has some 150.
const SUMMARY_MAX: u64 = 64 * 1024;

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreProgress {
    /// So many bytes of the database are there; how many there will be is not known.
    Fetching {
        /// The size of the file so far.
        bytes: u64,
    },
    /// All of it is there, and is read once more.
    Checking {
        /// The size of the file.
        bytes: u64,
    },
}

/// What came out of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How large the database is, in bytes.
    pub bytes: u64,
    /// How long it took to fetch.
    pub took_restore: Duration,
    /// How long it took to check; nothing for a scratch file, which is not.
    pub took_check: Duration,
    /// The last transaction that it has, in hexadecimal digits, as Litestream counts them in this generation.
    pub txid: String,
}

#[derive(Deserialize)]
struct Summary {
    txid: String,
}

/// Restores a generation into the place of the database, where there is none: as it was last, or `at` a time.
///
/// An empty file in the place is removed, and a `-wal` without its database kept under another name, and the log says
/// so. The new file is checked in full, and noted as of this generation ([`Lineage`]), before it is in the place.
/// Killed at any step, a second try works. The caller holds the lock on the database.
///
/// # Errors
///
/// Nothing is changed then but what stood in the way. [`Error::Database`] when there is a database;
/// [`Error::Unreachable`] when the bucket does not answer, or sends nothing for `restore_stall_ms`; [`Error::Refused`]
/// when it knows neither the key nor the bucket; [`Error::Restore`] when the replica is damaged or has nothing.
pub async fn restore(
    settings: &Settings,
    database: &database::Settings,
    generation: &str,
    at: Option<Timestamp>,
    progress: impl Fn(RestoreProgress),
) -> Result<Restored> {
    let vacancy = Vacancy::of(database, Clock::system().now())?;
    let program = Program::new(settings, &database.path, generation)?;
    let fetch = Fetch {
        settings,
        program: &program,
        generation,
        until: at.map_or(Until::Last, Until::Time),
        to: vacancy.file(),
    };
    let mut restored = fetch.run(&progress).await?;
    progress(RestoreProgress::Checking {
        bytes: restored.bytes,
    });
    let start = Instant::now();
    let report = tokio::task::spawn_blocking(vacancy.check())
        .await
        .map_err(|error| Error::Restore(format!("the check failed: {error}")))?;
    if let Some(first) = report?.problems.first() {
        return Err(fetch.damaged(first));
    }
    restored.took_check = start.elapsed();
    Lineage::add(&database.path, generation, epoch(generation))?;
    restored.bytes = vacancy.fill()?;
    tracing::info!(
        generation,
        at = at.map(tracing::field::display),
        bytes = restored.bytes,
        txid = restored.txid,
        took_restore = ?restored.took_restore,
        took_check = ?restored.took_check,
        "the database is restored"
    );
    Ok(restored)
}

/// Restores a generation of `database` into `to`, a new file, and checks nothing: for a drill.
///
/// The database may be in use. What is left at `to` on failure is for the caller to remove.
///
/// # Errors
///
/// As [`restore`]; also when there is a file already.
pub async fn restore_to(
    settings: &Settings,
    database: &Path,
    generation: &str,
    at: Option<Timestamp>,
    to: &Path,
) -> Result<Restored> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::Restore(format!("{} exists already", to.display())));
    }
    let until = at.map_or(Until::Last, Until::Time);
    fetch(settings, (database, generation, until), to, &|_| {}).await
}

/// As [`restore_to`], and the file has exactly what was there once this transaction was copied.
pub(super) async fn restore_txid(
    settings: &Settings,
    database: &Path,
    generation: &str,
    txid: u64,
    to: &Path,
) -> Result<Restored> {
    let what = (database, generation, Until::Transaction(txid));
    fetch(settings, what, to, &|_| {}).await
}

async fn fetch(
    settings: &Settings,
    (database, generation, until): (&Path, &str, Until),
    to: &Path,
    progress: &impl Fn(RestoreProgress),
) -> Result<Restored> {
    let program = Program::new(settings, database, generation)?;
    let fetch = Fetch {
        settings,
        program: &program,
        generation,
        until,
        to,
    };
    fetch.run(progress).await
}

/// As [`restore`], also where there is a database: that one is kept aside, and where it is now is told.
///
/// `ready` runs when the place is known to be free, or the new file to be sound; nothing is changed before. The caller
/// notes the generation where there was a database.
///
/// # Errors
///
/// As [`restore`], without a database being one; the one that is there stays where it is then.
pub(crate) async fn restore_over(
    (settings, database): (&Settings, &database::Settings),
    generation: &str,
    at: Option<Timestamp>,
    progress: &impl Fn(RestoreProgress),
    ready: &impl AsyncFn(),
) -> Result<(Restored, Vec<PathBuf>)> {
    if database.path.metadata().map_or(0, |file| file.len()) == 0 {
        ready().await;
        let restored = restore(settings, database, generation, at, progress).await?;
        return Ok((restored, Vec::new()));
    }
    let scratch = Scratch::new(&database.path, "fetched");
    let until = at.map_or(Until::Last, Until::Time);
    let what = (database.path.as_path(), generation, until);
    let mut restored = fetch(settings, what, scratch.path(), progress).await?;
    let bytes = restored.bytes;
    progress(RestoreProgress::Checking { bytes });
    let start = Instant::now();
    let report = scratch.check(database).await?;
    if let Some(first) = report.problems.first() {
        return Err(damaged(generation, first));
    }
    restored.took_check = start.elapsed();
    let (own, from) = (database.clone(), scratch.path().to_owned());
    let prepared = blocking(move || Restore::prepare(&own, &from, Clock::system().now(), |_| {}));
    let prepared = prepared.await?;
    ready().await;
    let done = blocking(move || prepared.finish()).await?;
    restored.bytes = done.bytes;
    Ok((restored, done.kept))
}

/// Works on files on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> database::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Error::Restore(format!("it was broken off: {error}"))),
    }
}

/// Up to where a generation is restored.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// As far as it goes.
    Last,
    /// As it was at a time.
    Time(Timestamp),
    /// As it was once a transaction was copied, by Litestream's number.
    Transaction(u64),
}

/// One run of `litestream restore`.
struct Fetch<'a> {
    settings: &'a Settings,
    program: &'a Program,
    generation: &'a str,
    until: Until,
    to: &'a Path,
}

impl Fetch<'_> {
    /// Tries a second time what looks damaged: so does a file that the one who writes this generation has just
    /// replaced by another. A connection that was cut Litestream takes up by itself.
    async fn run(&self, progress: &impl Fn(RestoreProgress)) -> Result<Restored> {
        let start = Instant::now();
        let timeout = Duration::from_millis(self.settings.restore_timeout_ms);
        let both = async {
            match self.once(progress).await {
                Err(Error::Restore(reason)) => {
                    tracing::warn!(reason, "the restore failed, and is tried once more");
                    self.once(progress).await
                }
                done => done,
            }
        };
        let done = tokio::time::timeout(timeout, both).await;
        let mut restored = done.unwrap_or_else(|_| Err(self.too_late()))?;
        restored.took_restore = start.elapsed();
        Ok(restored)
    }

    async fn once(&self, progress: &impl Fn(RestoreProgress)) -> Result<Restored> {
        let mut command = self.program.command("restore");
        command.arg("-json").arg("-o").arg(self.to);
        match self.until {
            Until::Last => &mut command,
            Until::Time(at) => command.arg("-timestamp").arg(at.to_string()),
            Until::Transaction(txid) => command.arg("-txid").arg(format!("{txid:016x}")),
        };
        command.arg(&self.program.database);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.program.not_started(&error))?;
        let summary = child.stdout.take();
        let lines = Lines::of(self.program, &mut child);
        let run = async {
            let mut text = Vec::new();
            if let Some(summary) = summary {
                // What it cannot say it does not say; the exit code decides.
                let _ = summary.take(SUMMARY_MAX).read_to_end(&mut text).await;
            }
            (child.wait().await, text)
        };
        let (status, summary) = tokio::select! {
            ended = run => ended,
            bytes = self.watch(progress) => return Err(self.stalled(bytes).await),
        };
        let status = status.map_err(|error| Error::Io("litestream restore".to_owned(), error))?;
        if !status.success() {
            let said = lines.end().await;
            return Err(self.explain(&said, &status.to_string()));
        }
        let summary: Summary = serde_json::from_slice(&summary)
            .map_err(|error| Error::Litestream(format!("cannot read its summary: {error}")))?;
        Ok(Restored {
            bytes: self.bytes(),
            took_restore: Duration::ZERO,
            took_check: Duration::ZERO,
            txid: summary.txid,
        })
    }

    /// Ends when the file has not grown for too long; tells of its size meanwhile.
    async fn watch(&self, progress: &impl Fn(RestoreProgress)) -> u64 {
        let patience = Duration::from_millis(self.settings.restore_stall_ms);
        let (mut bytes, mut since) = (0, Instant::now());
        while since.elapsed() < patience {
            tokio::time::sleep(LOOK.min(patience)).await;
            let now = self.bytes();
            if now != bytes {
                (bytes, since) = (now, Instant::now());
                progress(RestoreProgress::Fetching { bytes });
            }
        }
        bytes
    }

    /// How much is there; Litestream writes under another name until it is all there.
    fn bytes(&self) -> u64 {
        let size = |path: &Path| path.metadata().map(|file| file.len());
        let partial = self.to.with_added_extension("tmp");
        size(&partial).or_else(|_| size(self.to)).unwrap_or(0)
    }

    async fn stalled(&self, bytes: u64) -> Error {
        let patience = Duration::from_millis(self.settings.restore_stall_ms);
        Error::Unreachable(format!(
            "nothing came for {patience:?} (replication.restore_stall_ms), after {bytes} bytes: {}",
            self.reachable().await
        ))
    }

    fn too_late(&self) -> Error {
        let timeout = Duration::from_millis(self.settings.restore_timeout_ms);
        Error::Unreachable(format!(
            "the restore was not done within {timeout:?} (replication.restore_timeout_ms); {} bytes came",
            self.bytes()
        ))
    }

    /// Why nothing may have come: Litestream says nothing of it for minutes.
    async fn reachable(&self) -> String {
        let endpoint = &self.program.endpoint;
        let Ok(uri) = endpoint.parse::<Uri>() else {
            return endpoint.clone();
        };
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("http") => 80,
            _ => 443,
        });
        let Some(host) = uri.host() else {
            return endpoint.clone();
        };
        let host = host.trim_matches(['[', ']']);
        match tokio::time::timeout(REASON, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => format!("{endpoint} takes connections, and does not answer"),
            Ok(Err(error)) => format!("{endpoint}: {error}"),
            Err(_) => format!("{endpoint} takes no connection within {REASON:?}"),
        }
    }

    /// Says what is wrong by what Litestream has said.
    fn explain(&self, said: &str, status: &str) -> Error {
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let (endpoint, bucket) = (&self.program.endpoint, &self.settings.bucket);
        if has(&["NoSuchBucket"]) {
            return Error::Refused(format!("there is no bucket {bucket} at {endpoint}"));
        }
        if has(&["StatusCode: 403", "StatusCode: 401"]) {
            return Error::Refused(format!(
                "{endpoint} does not take the key for the bucket {bucket} (replication.access_key_id): {said}"
            ));
        }
        if has(&[
            "request send failed",
            "dial tcp",
            "read tcp",
            "StatusCode: 5",
        ]) {
            return Error::Unreachable(format!("{endpoint}: {said}"));
        }
        if has(&["operation error S3"]) && !has(&["NoSuchKey"]) {
            return Error::Refused(format!("{endpoint}: {said}"));
        }
        if has(&["no space left on device"]) {
            return Error::Restore(format!(
                "there is no room for the database on the disk of {}: {said}",
                self.to.display()
            ));
        }
        if has(&["no matching backup files available"]) {
            return self.nothing_there();
        }
        self.damaged(&format!("{said} ({status})"))
    }

    fn nothing_there(&self) -> Error {
        let generation = self.generation;
        Error::Restore(match self.until {
            Until::Time(at) => format!(
                "generation {generation} has nothing of {at} or before: choose a later time (replication.restore_at, or --at)"
            ),
            _ => format!(
                "generation {generation} has nothing that a database can be made of, in whole; {WAYS_OUT}"
            ),
        })
    }

    fn damaged(&self, reason: &str) -> Error {
        damaged(self.generation, reason)
    }
}

fn damaged(generation: &str, reason: &str) -> Error {
    Error::Restore(format!(
        "generation {generation} is damaged ({reason}); {WAYS_OUT}"
    ))
}

/// What to do when there is no way to the latest state.
const WAYS_OUT: &str = "go back to an earlier point in time (`restore --at`, or replication.restore_at at a start), restore \
     a snapshot or another copy (`restore --from-snapshot`, `restore FILE`), or, when all is lost, start empty with replication.allow_empty = true";

/// The number that the name of a generation begins with.
fn epoch(generation: &str) -> u64 {
    let digits = generation.split('-').next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
