//! What is done to a whole file: migrations, checks, copies, counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::database::Backup;
use crate::database::Damage;
use crate::database::Database;
use crate::database::Depth;
use crate::database::Error;
use crate::database::Inner;
use crate::database::Migrations;
use crate::database::Progress;
use crate::database::Report;
use crate::database::Result;
use crate::database::Settings;
use crate::database::Stats;
use crate::database::Step;
use crate::database::Target;
use crate::database::backup;
use crate::database::check;
use crate::database::connection;
use crate::database::connection::Role;
use crate::database::error;
use crate::database::migrate;
use crate::database::options;
use crate::database::place;
use crate::database::stats;
use crate::database::wal;

/// Who asks how things are does not wait for long where they are bad.
const PAGES_TIME: Duration = Duration::from_secs(1);

impl Database {
    /// Applies what the file lacks of each set, in one transaction, and says what that was.
    ///
    /// Where another process migrates, or writes, it is waited for, up to a minute. Before something is applied to a
    /// file that has tables, a copy of it is put beside it (`copy_before_migration`).
    ///
    /// # Errors
    ///
    /// [`Error::Migrate`] when a statement fails, an applied file was changed, the file is newer than the program,
    /// the copy cannot be made, or a foreign key would point nowhere; [`Error::Busy`] when another process holds the
    /// file for longer than a minute; [`Error::Damaged`]. The file is then as it was.
    pub async fn migrate(&self, sets: &[Migrations]) -> Result<Vec<Step>> {
        self.apply(sets, None).await
    }

    /// As [`Database::migrate`], but goes no further than `target` in its set.
    ///
    /// # Errors
    ///
    /// As [`Database::migrate`]; also when there is no such version, or the file is beyond it: there is no way down.
    pub async fn migrate_to(&self, sets: &[Migrations], target: &Target) -> Result<Vec<Step>> {
        self.apply(sets, Some(target.clone())).await
    }

    async fn apply(&self, sets: &[Migrations], target: Option<Target>) -> Result<Vec<Step>> {
        if self.inner.health.is_damaged() {
            let steps = self.migrations(sets).await?;
            let is_pending = steps.iter().any(|step| step.applied_at.is_none());
            return if is_pending {
                Err(Error::Damaged)
            } else {
                Ok(Vec::new())
            };
        }
        let (inner, sets) = (Arc::clone(&self.inner), sets.to_vec());
        blocking(move || {
            inner.trapped("a migration", || {
                migrate::apply(&inner.options, &inner.clock, &sets, target.as_ref())
            })
        })
        .await
    }

    /// Leaves it to a Litestream, or to the process whose file it is, to bring the WAL into the file; or takes it back.
    ///
    /// Litestream keeps its place in the WAL by a read transaction, and gives that up for a moment at each checkpoint of
    /// its own. One of ours in that moment could let the WAL begin anew with frames that are not copied yet.
    pub(crate) fn leave_the_wal(&self, to_others: bool) {
        self.inner.writer.leave_the_wal(to_others);
    }

    /// Tries on a copy what [`Database::migrate`] would do, and says what that was; the file is only read.
    ///
    /// The copy is made beside the file, and removed. A server may run on the file meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Database::migrate_to`]; also when there is no room for the copy.
    pub async fn dry_run(
        settings: &Settings,
        sets: &[Migrations],
        target: Option<&Target>,
    ) -> Result<Vec<Step>> {
        let options = options(settings)?;
        let (sets, target) = (sets.to_vec(), target.cloned());
        blocking(move || migrate::dry_run(&options, &sets, target.as_ref())).await
    }

    /// Lists the migrations of a file that is not open, as [`Database::migrations`] does; the file is only read.
    ///
    /// # Errors
    ///
    /// As [`Database::migrations`]; also when the file cannot be read.
    pub async fn migrations_of(settings: &Settings, sets: &[Migrations]) -> Result<Vec<Step>> {
        let (path, sets) = (place::real(&settings.path), sets.to_vec());
        blocking(move || {
            let connection = connection::open_as_it_is(&path).map_err(|error| Error::Open {
                path,
                reason: error.to_string(),
            })?;
            migrate::status(&connection, &sets)
        })
        .await
    }

    /// Lists the migrations of each set and whether they are applied, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Migrate`] when an applied file was changed, or the file is newer than the program.
    pub async fn migrations(&self, sets: &[Migrations]) -> Result<Vec<Step>> {
        let sets = sets.to_vec();
        self.apart(Role::Reader, move |connection| {
            migrate::status(connection, &sets)
        })
        .await
    }

    /// Reads the file and says what is wrong with it; takes a time that grows with the file.
    ///
    /// It runs on a thread of its own with the lowest priority. A problem that it finds marks the database damaged,
    /// and a full check that finds none takes that mark away.
    ///
    /// # Errors
    ///
    /// When the file is too damaged to be read at all; [`Error::Closed`] when it is closed meanwhile.
    pub async fn check(&self, depth: Depth) -> Result<Report> {
        let stop = Arc::clone(&self.inner.is_closing);
        let health = &self.inner.health;
        let known = health.findings();
        let what = match depth {
            Depth::Quick => "a check (quick)",
            Depth::Full => "a check (full)",
        };
        let report = self
            .aside(what, move |connection| {
                check::check(connection, depth, &stop)
            })
            .await;
        match &report {
            Ok(report) => match report.problems.first() {
                Some(problem) => health.found(Damage {
                    found_at: self.now(),
                    found_by: what.to_owned(),
                    problem: problem.clone(),
                }),
                None if depth == Depth::Full && report.is_complete => health.mended(known),
                None => {}
            },
            Err(_) if self.inner.is_closing.load(Ordering::Relaxed) => return Err(Error::Closed),
            Err(_) => {}
        }
        report
    }

    /// What was found, if the file is damaged: it takes no writes then, and can be read as far as it is sound.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.inner.health.damage()
    }

    /// Tells of damage when it is found, and when it is mended.
    #[must_use]
    pub fn watch_damage(&self) -> watch::Receiver<Option<Damage>> {
        self.inner.health.subscribe()
    }

    /// Waits until the file is not, or no longer, known to be damaged.
    pub async fn mended(&self) {
        if self.inner.health.is_damaged() {
            // The sender lives as long as this handle.
            let _ = self.watch_damage().wait_for(Option::is_none).await;
        }
    }

    /// Looks whether another process has found damage, or mended it; [`Keeper`](super::Keeper) does so every 5 s.
    pub fn look_for_mark(&self) {
        self.inner.health.look();
    }

    /// Makes sure, where the last write found no room on the disk, that there is some now.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] as long as there is none.
    pub(crate) async fn has_room(&self) -> Result<()> {
        if !self.inner.health.is_full() {
            return Ok(());
        }
        // It writes a page, and changes nothing.
        self.write(|tx| {
            let version: i32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok(tx.pragma_update(None, "user_version", version)?)
        })
        .await
    }

    /// How the database has been doing since it was opened, and how large it is.
    pub async fn stats(&self) -> Stats {
        let inner = &self.inner;
        let (commits, checkpoints) = inner.writer.counts();
        let (reads, writes) = (inner.readers.stats(), inner.writer.stats());
        let soon = self.within(PAGES_TIME);
        let pages = soon.read(|connection| Ok(stats::pages(connection)?)).await;
        Stats {
            reads,
            writes,
            commits,
            slow: inner.slow.count(),
            checkpoints,
            wal_bytes: wal::bytes(&inner.options.path),
            pages: pages.ok(),
            damage: self.damage(),
        }
    }

    /// Copies the file as it is at this moment to `to`, a new file, while reads and writes go on.
    ///
    /// The copy is checked before it gets its name: whenever the process dies, there is either no file of that name or
    /// a whole one. It is written as `<to>.partial`, beside which is `<to>.partial.lock`; both are removed on
    /// failure, and taken over by the next backup after a kill. `progress` is told of every step. The copy has no `-wal` beside it and needs none.
    /// It runs on a thread of its own with the lowest priority, to its end even if the caller is dropped.
    /// While it is made the WAL cannot begin anew, and grows with what is written.
    ///
    /// # Errors
    ///
    /// [`Error::Backup`] when `to` exists, its folder is missing or has no room, or the copy shows that
    /// this database is damaged.
    pub async fn backup(
        &self,
        to: &Path,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Backup> {
        let to = to.to_owned();
        self.aside("a backup", move |connection| {
            backup::make(connection, &to, progress)
        })
        .await
    }

    /// Runs `work` on a connection of its own, off the runtime and off the readers.
    async fn apart<F, T>(&self, role: Role, work: F) -> Result<T>
    where
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.trapped("what is done at the start", || {
                work(&mut connection::open(&inner.options, role)?)
            })
        })
        .await
    }

    /// Runs `work` on a connection and a thread of its own, after everything else that this machine has to do.
    async fn aside<F, T>(&self, what: &'static str, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let (reply, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name("sqlite-aside".to_owned())
            .spawn(move || {
                check::go_last();
                let _listed = inner.running.aside(what);
                let done = inner.trapped(what, || {
                    work(&connection::open(&inner.options, Role::Reader)?)
                });
                // Nobody listens any more if the caller left meanwhile.
                let _ = reply.send(done);
            })
            .map_err(Error::abort)?;
        // It has panicked if it does not answer.
        let panicked = |_| Err(Error::Panicked("the work on the whole file".to_owned()));
        answer.await.unwrap_or_else(panicked)
    }
}

impl Inner {
    /// Does something on this thread, and notes it if it meets damage.
    fn trapped<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // What this thread has met before was of another file.
        let _ = error::take_corruption(None);
        let done = work();
        let now = || self.clock.now();
        self.health
            .trap(done.as_ref().err(), now, || what.to_owned());
        done
    }
}

/// Runs `work` off the runtime; a panic in it is an error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Panicked(error.to_string())))
}
