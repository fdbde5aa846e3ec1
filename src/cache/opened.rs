//! The open cache file, as the writer has it: its transactions, and what other processes did in between.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rusqlite::Connection;

use crate::cache::bell::Reason;
use crate::cache::file::Failure;
use crate::cache::rows;
use crate::cache::rows::Counts;
use crate::cache::tiers::Tiers;
use crate::cache::waiting::Write;
use crate::database::connection::beside;

/// So many entries at most are expired with each transaction.
const EXPIRE: u32 = 256;

/// So many rounds of eviction at most go with each transaction, beyond what its puts call for.
const EVICT: usize = 8;

/// So long readers may be kept waiting for a checkpoint; and where the WAL has grown to four times its length.
const STILL: Duration = Duration::from_millis(5);
const STILL_LONG: Duration = Duration::from_millis(25);

/// The open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) others: Others,
    /// Which file it is, to notice that it was deleted.
    pub(super) identity: Option<[u64; 4]>,
}

/// What is known of the other processes on the file.
#[derive(Debug)]
pub(super) struct Others {
    /// Changes when one of them has written.
    data_version: i64,
    /// As it is in the file: another one was put there by one of them, which has cleared it.
    pub(super) seed: u64,
    /// Who this process is, to them.
    pub(super) process: i64,
    /// The last deletion by one of them.
    deletion: i64,
}

impl Others {
    /// Begins to watch, with a file that has this seed.
    pub(super) fn new(
        connection: &Connection,
        tiers: &Tiers,
        seed: u64,
        process: i64,
    ) -> rusqlite::Result<Self> {
        let (last, deletion) = rows::last_deletions(connection, process)?;
        tiers.set_deletion(last);
        Ok(Self {
            data_version: data_version(connection)?,
            seed,
            process,
            deletion,
        })
    }

    /// Sees what they have written since the last time, and says whether they have cleared it all.
    pub(super) fn look(
        &mut self,
        connection: &Connection,
        tiers: &Tiers,
    ) -> rusqlite::Result<bool> {
        let version = data_version(connection)?;
        let is_changed = version != self.data_version;
        let mut is_cleared = false;
        if is_changed {
            is_cleared = self.adopt_seed(connection, tiers)?;
            let (last, deletion) = rows::last_deletions(connection, self.process)?;
            self.deletion = deletion;
            tiers.set_deletion(last);
        }
        self.data_version = version;
        tiers.looked(is_changed);
        Ok(is_cleared)
    }

    /// Forgets everything, if one of them has cleared the file; says whether that is so.
    fn adopt_seed(&mut self, connection: &Connection, tiers: &Tiers) -> rusqlite::Result<bool> {
        let seed = rows::seed(connection)?;
        if seed == self.seed {
            return Ok(false);
        }
        self.seed = seed;
        // If this process is about to clear it as well, its own will be in the file.
        if !tiers.bell.is_rung(Reason::Clear) {
            tiers.set_seed(seed);
        }
        Ok(true)
    }
}

impl Opened {
    /// Writes some of what waits, and makes room for it.
    pub(super) fn transaction(
        &mut self,
        tiers: &Tiers,
        writes: &[(u64, Write)],
    ) -> Result<(), Failure> {
        let Self {
            connection, others, ..
        } = &mut *self;
        in_transaction(connection, |connection| {
            if others.look(connection, tiers)? {
                // What waits was put before that, as far as anybody can tell.
                return Ok(());
            }
            let mut counts = Counts::default();
            for (hash, write) in writes {
                match write {
                    // It may be of before what another process has deleted since.
                    Write::Put(entry, Some(deletion))
                        if *deletion < others.deletion
                            && rows::was_deleted_since(
                                connection,
                                *hash,
                                *deletion,
                                others.process,
                            )? =>
                    {
                        tiers.refuse(*hash, entry);
                    }
                    Write::Put(entry, _) => {
                        rows::put(connection, *hash, entry, &tiers.marks, &mut counts)?;
                    }
                    Write::Delete => rows::delete(connection, *hash, others.process, &mut counts)?,
                }
            }
            rows::prune_deletions(connection)?;
            rows::expire(connection, tiers.now(), EXPIRE, &mut counts)?;
            for _ in 0..EVICT + writes.len() {
                if rows::sizes(connection)?.0 <= tiers.shape.pages_bytes_max
                    || !rows::evict(connection, &tiers.marks, &mut counts)?
                {
                    break;
                }
            }
            Ok(rows::add(connection, counts)?)
        })?;
        self.written(tiers)
    }

    /// After anything was written: readers see it, and a WAL that has grown long is brought home.
    pub(super) fn written(&self, tiers: &Tiers) -> Result<(), Failure> {
        tiers.readers.renew();
        if WAL_PAGES.get() < tiers.shape.wal_pages.cast_signed() {
            return Ok(());
        }
        self.checkpoint(tiers)
    }

    /// Brings the WAL home; the next transaction begins it anew.
    pub(super) fn checkpoint(&self, tiers: &Tiers) -> Result<(), Failure> {
        rows::checkpoint(&self.connection)?;
        // Nearly all is home. The rest while nobody reads: who reads then needs nothing of the WAL, and does not keep
        // it from beginning anew.
        let is_long = WAL_PAGES.get() > tiers.shape.wal_pages.cast_signed() * 4;
        let time = if is_long { STILL_LONG } else { STILL };
        let rest = tiers
            .readers
            .while_still(time, || rows::checkpoint(&self.connection));
        Ok(rest.unwrap_or(Ok(()))?)
    }
}

thread_local! {
    /// So many pages the WAL had after the last commit.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// Takes the checkpoints over, from SQLite, which would make them while readers look at the file as it was.
pub(super) fn keep_wal(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        WAL_PAGES.set(pages);
        Ok(())
    }));
}

pub(super) fn in_transaction(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work(connection).and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if done.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// Which file is at the path, and which WAL beside it.
pub(super) fn identity(tiers: &Tiers) -> Option<[u64; 4]> {
    let path = &tiers.settings.path;
    let file = std::fs::metadata(path).ok()?;
    // From its first moment on it has a page.
    if file.len() == 0 {
        return None;
    }
    let wal = std::fs::metadata(beside(path, "-wal")).ok()?;
    Some([file.dev(), file.ino(), wal.dev(), wal.ino()])
}
