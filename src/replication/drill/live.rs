//! The database that a replica is of, while it is in use.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::database;
use crate::database::Clock;
use crate::database::Database;
use crate::replication::Control;
use crate::replication::Error;
use crate::replication::Lineage;
use crate::replication::Position;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::drill::marks::Mark;
use crate::replication::drill::sums::Sums;
use crate::replication::program::Program;

/// How long the mark may take into the bucket; with the bucket near it takes milliseconds.
const SYNC: Duration = Duration::from_secs(30);

/// Until it is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// A database that Litestream copies to a generation at this moment.
#[derive(Clone, Debug)]
pub struct Live {
    database: Database,
    control: Control,
    generation: String,
}

/// A moment of the database that is in the bucket as a transaction, and the moments around it.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) mark: Mark,
    pub(super) txid: u64,
    before: Reading,
    after: Reading,
}

impl Live {
    pub(super) fn new(database: Database, control: Control, generation: String) -> Self {
        Self {
            database,
            control,
            generation,
        }
    }

    /// Finds out whether another process of this machine replicates the database; opens it then.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or the note beside it not read.
    pub async fn beside(
        settings: &Settings,
        database: &database::Settings,
    ) -> Result<Option<Self>> {
        if !database.path.exists() {
            return Ok(None);
        }
        let Some(generation) =
            Lineage::read(&database.path)?.and_then(|note| note.generations().last().cloned())
        else {
            return Ok(None);
        };
        let program = Program::new(settings, &database.path, &generation)?;
        let control = Control::new(&program.socket, &program.database);
        if control.last_sync().await.is_err() {
            return Ok(None);
        }
        let database = Database::open(database, Clock::system())?;
        database.leave_the_wal(true);
        Ok(Some(Self::new(database, control, generation)))
    }

    /// The generation that it is copied to.
    #[must_use]
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Closes the database; for who has opened it by [`Live::beside`].
    pub async fn close(self) {
        self.database.close().await;
    }

    pub(super) fn path(&self) -> &Path {
        self.database.path()
    }

    /// While others write, Litestream may be a transaction further than the bucket when it answers.
    async fn synced(&self) -> Result<Position> {
        let start = Instant::now();
        loop {
            match self.control.sync(SYNC).await {
                Err(_) if start.elapsed() < SYNC => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    /// The last transaction that Litestream knows of; it can have uploaded none after that.
    pub(super) async fn last(&self) -> Result<u64> {
        Ok(self.synced().await?.txid)
    }

    /// Writes a mark, and waits until it is in the bucket; reads of the content run on, for `time` at most.
    pub(super) async fn moment(&self, time: Duration) -> Result<Moment> {
        let mark = Mark::write(&self.database).await?;
        let before = Reading::begin(&self.database, time).await?;
        let position = self.synced().await?;
        let after = Reading::begin(&self.database, time).await?;
        Ok(Moment {
            mark,
            txid: position.replicated_txid,
            before,
            after,
        })
    }
}

impl Moment {
    /// What was there before it, and after it.
    pub(super) async fn sums(&mut self) -> Result<(Sums, Sums)> {
        Ok((self.before.sums().await?, self.after.sums().await?))
    }
}

/// A read of the whole content as of its beginning; broken off when it is dropped.
#[derive(Debug)]
struct Reading(JoinSet<database::Result<Sums>>);

impl Reading {
    /// Returns once the moment that it reads is fixed.
    async fn begin(database: &Database, time: Duration) -> Result<Self> {
        let (begun, has_begun) = oneshot::channel();
        let database = database.within(time);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let read = database.read(move |connection| {
                let moment = connection.unchecked_transaction()?;
                // The first read fixes it.
                moment.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
                let _ = begun.send(());
                Sums::of(&moment)
            });
            read.await
        });
        let mut reading = Self(task);
        if has_begun.await.is_err() {
            // It says why.
            reading.sums().await?;
        }
        Ok(reading)
    }

    async fn sums(&mut self) -> Result<Sums> {
        match self.0.join_next().await {
            Some(Ok(sums)) => Ok(sums?),
            Some(Err(error)) => Err(Error::Drill(format!(
                "the database could not be read: {error}"
            ))),
            None => Err(Error::Drill("the database was read already".to_owned())),
        }
    }
}
