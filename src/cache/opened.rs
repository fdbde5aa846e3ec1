//! The open cache file, as the writer has it: its transactions, and what other processes did in between.

use std::os::unix::fs::MetadataExt as _;

use rusqlite::Connection;

use crate::cache::bell::Reason;
use crate::cache::file;
use crate::cache::file::Failure;
use crate::cache::rows;
use crate::cache::rows::Counts;
use crate::cache::tiers::Tiers;
use crate::cache::waiting::Write;

/// So many entries at most are expired with each transaction.
const EXPIRE: u32 = 256;

/// So many rounds of eviction at most go with each transaction, beyond what its puts call for.
const EVICT: usize = 8;

/// The open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Changes when another process has written.
    pub(super) data_version: i64,
    /// As it is in the file: another one was put there by another process, which has cleared it.
    pub(super) seed: u64,
    /// Who this is, to the others.
    pub(super) process: i64,
    /// The last deletion by one of them.
    pub(super) deletion_of_others: i64,
    /// Which file it is, to notice that it was deleted.
    pub(super) identity: Option<[u64; 4]>,
}

impl Opened {
    /// Writes some of what waits, and makes room for it.
    pub(super) fn transaction(
        &mut self,
        tiers: &Tiers,
        writes: &[(u64, Write)],
    ) -> Result<(), Failure> {
        let Self {
            connection,
            data_version: seen,
            seed,
            process,
            deletion_of_others,
            ..
        } = self;
        in_transaction(connection, |connection| {
            let version = data_version(connection)?;
            let is_changed = version != *seen;
            *seen = version;
            tiers.looked(is_changed);
            if is_changed && adopt_seed(connection, seed, tiers)? {
                // What waits was put before that, as far as anybody can tell.
                return Ok(());
            }
            if is_changed {
                let (last, of_others) = rows::last_deletions(connection, *process)?;
                *deletion_of_others = of_others;
                tiers.set_deletion(last);
            }
            let mut counts = Counts::default();
            for (hash, write) in writes {
                match write {
                    // It may be of before what another process has deleted since.
                    Write::Put(entry, Some(deletion))
                        if deletion < deletion_of_others
                            && rows::was_deleted_since(connection, *hash, *deletion, *process)? =>
                    {
                        tiers.refuse(*hash, entry);
                    }
                    Write::Put(entry, _) => {
                        rows::put(connection, *hash, entry, &tiers.marks, &mut counts)?;
                    }
                    Write::Delete => rows::delete(connection, *hash, *process, &mut counts)?,
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
        })
    }
}

impl Opened {
    pub(super) fn adopt_seed(&mut self, tiers: &Tiers) -> rusqlite::Result<()> {
        adopt_seed(&self.connection, &mut self.seed, tiers).map(drop)
    }
}

/// Forgets everything, if another process has cleared the file; says whether it has.
fn adopt_seed(connection: &Connection, known: &mut u64, tiers: &Tiers) -> rusqlite::Result<bool> {
    let seed = rows::seed(connection)?;
    if seed == *known {
        return Ok(false);
    }
    *known = seed;
    // If this process is about to clear it as well, its own will be in the file.
    if !tiers.bell.is_rung(Reason::Clear) {
        tiers.set_seed(seed);
    }
    Ok(true)
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

pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
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
    let wal = std::fs::metadata(file::with_suffix(path, "-wal")).ok()?;
    Some([file.dev(), file.ino(), wal.dev(), wal.ino()])
}
