//! What goes when the file is full: the expired, then what was put first.

use rusqlite::params;

use crate::database;
use crate::database::Transaction;

/// So many entries go at a time.
const BATCH: i64 = 16;

/// No single put makes more room than this: the rest is left to the next.
const BATCHES_MAX: usize = 64;

/// Deletes entries until those that are left take no more than `bytes_max`.
///
/// It rides on a put, in its transaction: a cache that nobody writes to does not grow.
pub(super) fn make_room(tx: &Transaction<'_>, bytes_max: u64) -> database::Result<()> {
    for _ in 0..BATCHES_MAX {
        if used_bytes(tx)? <= bytes_max {
            break;
        }
        let expired = tx
            .prepare_cached(
                "DELETE FROM entries
                 WHERE id IN (SELECT id FROM entries WHERE expires_at <= ?1 LIMIT ?2)",
            )?
            .execute(params![tx.now_ms(), BATCH])?;
        if expired == 0 {
            tx.prepare_cached(
                "DELETE FROM entries
                 WHERE id IN (SELECT id FROM entries ORDER BY id LIMIT ?1)",
            )?
            .execute([BATCH])?;
        }
    }
    Ok(())
}

/// The pages in use, in bytes; those that are free are filled before the file grows.
fn used_bytes(tx: &Transaction<'_>) -> database::Result<u64> {
    let read = |name| tx.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let pages = read("page_count")?.saturating_sub(read("freelist_count")?);
    Ok(pages * read("page_size")?)
}
