//! The tables of the cache file: every statement on them.
//!
//! `entries` grows at its end, so that what was put first is at its beginning; `keys` finds an entry by its hash. An
//! entry that is put again stays in its place, and is spared when eviction comes by, as one is that was asked for.

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::cache::entry::Entry;
use crate::cache::entry::Spot;
use crate::cache::marks::Marks;
use crate::cache::ttl::NEVER;
use crate::cache::ttl::Times;

/// The layout below; a cache of another one is made anew.
pub(super) const VERSION: i32 = 2;

/// `PRAGMA application_id` of a cache: the letters `hbch`. No other file is ever overwritten.
pub(super) const APPLICATION: i32 = 0x6862_6368;

pub(super) const LAYOUT: &str = "
    CREATE TABLE entries (
        id          INTEGER PRIMARY KEY,  -- grows: the smallest was put first
        hash        INTEGER NOT NULL,     -- of the namespace and the key
        space       INTEGER NOT NULL,     -- the namespace; 0: none
        key         BLOB    NOT NULL,
        put_at      INTEGER NOT NULL,     -- milliseconds since 1970, like the next two
        fresh_until INTEGER,              -- NULL: for ever
        expires_at  INTEGER,              -- NULL: never
        look_at     INTEGER,              -- no later than that: when to look whether it is over
        checksum    INTEGER NOT NULL,     -- of all that is served
        value       BLOB    NOT NULL
    ) STRICT;
    CREATE TABLE keys (
        hash INTEGER PRIMARY KEY,
        id   INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX entries_look_at ON entries (look_at) WHERE look_at IS NOT NULL;
    CREATE TABLE deletions (
        id   INTEGER PRIMARY KEY,  -- grows; only the last of them are kept
        hash INTEGER NOT NULL,
        by   INTEGER NOT NULL      -- the process
    ) STRICT;
    CREATE INDEX deletions_hash ON deletions (hash);
    CREATE TABLE state (
        id      INTEGER PRIMARY KEY CHECK (id = 1),
        seed    INTEGER NOT NULL,  -- of the hashes; another one, and all that was put is out of reach
        entries INTEGER NOT NULL,
        evicted INTEGER NOT NULL,  -- since the file was made, like the next
        expired INTEGER NOT NULL
    ) STRICT;
    PRAGMA application_id = 0x68626368;
    PRAGMA user_version = 2;";

/// What one transaction did to the counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: i64,
    pub(super) evicted: i64,
    pub(super) expired: i64,
}

/// What the file says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) counts: Counts,
    /// When the oldest entry was put.
    pub(super) oldest_put_at: Option<i64>,
}

/// Makes the tables in an empty file.
pub(super) fn make(connection: &Connection, seed: u64) -> rusqlite::Result<()> {
    connection.execute_batch(LAYOUT)?;
    connection.execute(
        "INSERT INTO state (id, seed, entries, evicted, expired) VALUES (1, ?1, 0, 0, 0)",
        [seed.cast_signed()],
    )?;
    Ok(())
}

/// The entry at a spot, of whatever age; one whose checksum is wrong is not there.
pub(super) fn read(
    connection: &Connection,
    spot: Spot<'_>,
    epoch: u64,
) -> rusqlite::Result<Option<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT entries.space, entries.key, put_at, fresh_until, expires_at, checksum, value
         FROM keys JOIN entries ON entries.id = keys.id WHERE keys.hash = ?1",
    )?;
    let mut rows = statement.query([spot.hash.cast_signed()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let is_it = row.get_ref(0)?.as_i64()? == spot.space.cast_signed()
        && row.get_ref(1)?.as_blob()? == spot.key;
    if !is_it {
        return Ok(None);
    }
    let times = Times {
        fresh_until: row.get::<_, Option<i64>>(3)?.unwrap_or(NEVER),
        expires_at: row.get::<_, Option<i64>>(4)?.unwrap_or(NEVER),
    };
    let value = Bytes::copy_from_slice(row.get_ref(6)?.as_blob()?);
    let entry = Entry::new(spot, value, row.get(2)?, times, epoch);
    let checksum: i64 = row.get(5)?;
    if entry.checksum(spot.hash) != checksum {
        tracing::warn!(
            "an entry in the cache file is damaged; it is a miss, and is overwritten when it is put again"
        );
        return Ok(None);
    }
    Ok(Some(entry))
}

/// Keeps an entry, in the place of the one that was there.
pub(super) fn put(
    connection: &Connection,
    hash: u64,
    entry: &Entry,
    marks: &Marks,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let optional = |at: i64| (at != NEVER).then_some(at);
    let (space, key, value) = (entry.space.cast_signed(), &*entry.key, &*entry.value);
    let (fresh_until, expires_at) = (
        optional(entry.times.fresh_until),
        optional(entry.times.expires_at),
    );
    let (put_at, checksum) = (entry.put_at, entry.checksum(hash));
    let hash = hash.cast_signed();
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM keys WHERE hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        // As long as it is not to be looked at earlier than it was, no index changes.
        let mut changed = connection
            .prepare_cached(
                "UPDATE entries SET space = ?2, key = ?3, put_at = ?4, fresh_until = ?5, expires_at = ?6,
                                    checksum = ?7, value = ?8
                 WHERE id = ?1 AND hash = ?9 AND (?6 IS NULL OR look_at <= ?6)",
            )?
            .execute(params![
                id, space, key, put_at, fresh_until, expires_at, checksum, value, hash
            ])?;
        if changed == 0 {
            changed = connection
                .prepare_cached(
                    "UPDATE entries SET space = ?2, key = ?3, put_at = ?4, fresh_until = ?5, expires_at = ?6,
                                        checksum = ?7, value = ?8, look_at = ?6 WHERE id = ?1 AND hash = ?9",
                )?
                .execute(params![
                    id, space, key, put_at, fresh_until, expires_at, checksum, value, hash
                ])?;
        }
        if changed == 1 {
            marks.set(hash.cast_unsigned());
            return Ok(());
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO entries (hash, space, key, put_at, fresh_until, expires_at, look_at, checksum, value)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
        )?
        .execute(params![
            hash, space, key, put_at, fresh_until, expires_at, checksum, value
        ])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO keys (hash, id) VALUES (?1, ?2)")?
        .execute([hash, connection.last_insert_rowid()])?;
    counts.entries += 1;
    Ok(())
}

/// Deletes the entry with a hash, if there is one, and says so to other processes, who may be computing it.
pub(super) fn delete(
    connection: &Connection,
    hash: u64,
    by: i64,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let hash = hash.cast_signed();
    connection
        .prepare_cached("INSERT INTO deletions (hash, by) VALUES (?1, ?2)")?
        .execute([hash, by])?;
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM keys WHERE hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        delete_entry(connection, id, hash, counts)?;
    }
    Ok(())
}

/// So many deletions are remembered: a computation during which more come is not kept.
const DELETIONS_MAX: i64 = 4_096;

/// Forgets the deletions that are long past.
pub(super) fn prune_deletions(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM deletions WHERE id <= (SELECT max(id) FROM deletions) - ?1")?
        .execute([DELETIONS_MAX])?;
    Ok(())
}

/// The last deletion, and the last by another process than `by`; 0 without one.
pub(super) fn last_deletions(connection: &Connection, by: i64) -> rusqlite::Result<(i64, i64)> {
    let last = |sql, values: &[i64]| {
        connection
            .prepare_cached(sql)?
            .query_row(rusqlite::params_from_iter(values), |row| row.get(0))
            .optional()
            .map(Option::unwrap_or_default)
    };
    Ok((
        last("SELECT id FROM deletions ORDER BY id DESC LIMIT 1", &[])?,
        last(
            "SELECT id FROM deletions WHERE by <> ?1 ORDER BY id DESC LIMIT 1",
            &[by],
        )?,
    ))
}

/// Whether another process than `by` has deleted a hash after a deletion, as far as is remembered; else that too.
pub(super) fn was_deleted_since(
    connection: &Connection,
    hash: u64,
    since: i64,
    by: i64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deletions WHERE hash = ?1 AND id > ?2 AND by <> ?3)
                 OR (SELECT min(id) FROM deletions) > ?2 + 1",
        )?
        .query_row([hash.cast_signed(), since, by], |row| row.get(0))
}

/// Looks at up to `limit` entries whose time may be over, and deletes those of which it is.
pub(super) fn expire(
    connection: &Connection,
    now: i64,
    limit: u32,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let due: Vec<(i64, i64, bool)> = connection
        .prepare_cached(
            "SELECT id, hash, coalesce(expires_at <= ?1, 0) FROM entries
             WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2",
        )?
        .query_map(params![now, limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, hash, is_over) in due {
        if is_over {
            delete_entry(connection, id, hash, counts)?;
            counts.expired += 1;
        } else {
            connection
                .prepare_cached("UPDATE entries SET look_at = expires_at WHERE id = ?1")?
                .execute([id])?;
        }
    }
    Ok(())
}

/// So many entries are looked at in one go by [`evict`]; no more than half of them are spared.
const BATCH: u32 = 64;

/// Looks at the entries that were put first: deletes those that nobody has asked for since it last came by, and puts
/// the others at the end. At least half of them go.
///
/// That is the clock algorithm, or FIFO with a second chance; returns whether there was anything.
pub(super) fn evict(
    connection: &Connection,
    marks: &Marks,
    counts: &mut Counts,
) -> rusqlite::Result<bool> {
    let first: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT id, hash FROM entries ORDER BY id LIMIT ?1")?
        .query_map([BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut spared = 0;
    for &(id, hash) in &first {
        // The mark is used up in any case.
        if marks.take(hash.cast_unsigned()) && spared < BATCH / 2 {
            spared += 1;
            move_to_the_end(connection, id, hash)?;
            continue;
        }
        delete_entry(connection, id, hash, counts)?;
        counts.evicted += 1;
    }
    Ok(!first.is_empty())
}

fn move_to_the_end(connection: &Connection, id: i64, hash: i64) -> rusqlite::Result<()> {
    let last: i64 = connection
        .prepare_cached("SELECT coalesce(max(id), 0) FROM entries")?
        .query_row([], |row| row.get(0))?;
    connection
        .prepare_cached("UPDATE entries SET id = ?2 WHERE id = ?1")?
        .execute([id, last + 1])?;
    connection
        .prepare_cached("UPDATE keys SET id = ?3 WHERE hash = ?1 AND id = ?2")?
        .execute([hash, id, last + 1])?;
    Ok(())
}

fn delete_entry(
    connection: &Connection,
    id: i64,
    hash: i64,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let deleted = connection
        .prepare_cached("DELETE FROM entries WHERE id = ?1")?
        .execute([id])?;
    connection
        .prepare_cached("DELETE FROM keys WHERE hash = ?1 AND id = ?2")?
        .execute([hash, id])?;
    counts.entries -= i64::try_from(deleted).unwrap_or(0);
    Ok(())
}

/// Puts all that is there out of reach.
pub(super) fn set_seed(connection: &Connection, seed: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE state SET seed = ?1")?
        .execute([seed.cast_signed()])?;
    Ok(())
}

/// Deletes all entries.
pub(super) fn delete_all(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM entries;
         DELETE FROM keys;
         UPDATE state SET entries = 0;",
    )
}

pub(super) fn add(connection: &Connection, counts: Counts) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE state SET entries = entries + ?1, evicted = evicted + ?2, expired = expired + ?3",
        )?
        .execute([counts.entries, counts.evicted, counts.expired])?;
    Ok(())
}

pub(super) fn seed(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT seed FROM state")?
        .query_row([], |row| row.get(0).map(i64::cast_unsigned))
}

pub(super) fn state(connection: &Connection) -> rusqlite::Result<State> {
    connection.query_row(
        "SELECT entries, evicted, expired, (SELECT put_at FROM entries ORDER BY id LIMIT 1) FROM state",
        [],
        |row| {
            Ok(State {
                counts: Counts {
                    entries: row.get(0)?,
                    evicted: row.get(1)?,
                    expired: row.get(2)?,
                },
                oldest_put_at: row.get(3)?,
            })
        },
    )
}

/// The pages in use, and those that are free, in bytes.
pub(super) fn sizes(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let read = |sql| {
        connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get::<_, u64>(0))
    };
    let (pages, free, size) = (
        read("PRAGMA page_count")?,
        read("PRAGMA freelist_count")?,
        read("PRAGMA page_size")?,
    );
    Ok((pages.saturating_sub(free) * size, free * size))
}

/// Gives so many free pages back to the disk.
pub(super) fn shrink(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // It frees a page with each step.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Brings the WAL into the file.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |_| Ok(()))
}
