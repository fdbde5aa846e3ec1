//! How a job comes into the table.

use rusqlite::params;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::Value;

use crate::database::Transaction;
use crate::queue::Backoff;
use crate::queue::Enqueued;
use crate::queue::Error;
use crate::queue::request::Conflict;
use crate::queue::request::Request;
use crate::queue::request::Scope;
use crate::queue::request::Unique;
use crate::queue::request::When;
use crate::queue::store::millis;

const INSERT: &str =
    "INSERT INTO jobs (kind, queue, arguments, priority, attempts_max, timeout_ms, run_at, enqueued_at,
                       unique_key, unique_scope, unique_until, binds, limit_key, limit_max, rate_key, rate_max, rate_ms,
                       unique_states, backoff)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
     ON CONFLICT DO NOTHING";

/// Stores a job, or does with the one that holds its unique key what the request says.
pub(in crate::queue) fn insert(tx: &Transaction<'_>, request: Request) -> Result<Enqueued, Error> {
    request.check()?;
    if request.is_plain() {
        return insert_plain(tx, request);
    }
    let now = tx.now_ms();
    let run_at = run_at(&request, now);
    let arguments = request.arguments?;
    let key = request
        .unique
        .as_ref()
        .map(|it| unique_key(request.kind, it));
    let bound = request.unique.as_ref().map(|it| bound(it, now));
    let states = request.unique.as_ref().and_then(states);
    let backoff = request.backoff.as_ref().map(backoff);
    let limit = request.concurrency.as_ref();
    let rate = request.rate.as_ref();
    let mut statement = tx.prepare_cached(INSERT)?;
    let mut insert = || {
        let values = params![
            request.kind,
            request.queue,
            arguments,
            request.priority as u8,
            request.attempts_max,
            request.timeout.map(millis),
            run_at,
            now,
            key,
            bound.map(|(scope, _)| scope),
            bound.and_then(|(_, until)| until),
            bound.map(|_| 1),
            limit.map(|it| &it.key),
            limit.map(|it| it.at_most),
            rate.map(|it| &it.key),
            rate.map(|it| it.at_most),
            rate.map(|it| millis(it.per)),
            states,
            backoff,
        ];
        let rows = statement.execute(values)?;
        Ok::<_, rusqlite::Error>((rows == 1).then(|| tx.last_insert_rowid()))
    };
    if let Some(id) = insert()? {
        return Ok(Enqueued::New(id));
    }
    let (Some(unique), Some(key)) = (&request.unique, &key) else {
        // Only a unique key can be in the way.
        return Err(rusqlite::Error::QueryReturnedNoRows.into());
    };
    let period = bound.and_then(|(_, until)| until).map(|until| until - now);
    let (holder, is_over) = holder(tx, key, period)?;
    if is_over {
        release(tx, holder)?;
        let id = insert()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        return Ok(Enqueued::New(id));
    }
    let run_at = (unique.on_conflict == Conflict::Postpone).then_some(run_at);
    let is_changed = match unique.on_conflict {
        Conflict::Keep => false,
        Conflict::Replace | Conflict::Postpone => replace(tx, holder, &arguments, run_at)?,
    };
    Ok(match (is_changed, unique.on_conflict) {
        (true, Conflict::Replace) => Enqueued::Replaced(holder),
        (true, Conflict::Postpone) => Enqueued::Postponed(holder),
        _ => Enqueued::Kept(holder),
    })
}

/// Most have no key and no limit: half as many values.
fn insert_plain(tx: &Transaction<'_>, request: Request) -> Result<Enqueued, Error> {
    let now = tx.now_ms();
    let run_at = run_at(&request, now);
    tx.prepare_cached(
        "INSERT INTO jobs (kind, queue, arguments, priority, attempts_max, run_at, enqueued_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        request.kind,
        request.queue,
        request.arguments?,
        request.priority as u8,
        request.attempts_max,
        run_at,
        now
    ])?;
    Ok(Enqueued::New(tx.last_insert_rowid()))
}

/// So many rows go into one statement.
const ROWS: usize = 64;

/// Stores jobs in the order given: as one statement each 64 of them, where none is unique or has a backoff of its own.
pub(in crate::queue) fn insert_many(
    tx: &Transaction<'_>,
    requests: Vec<Request>,
) -> Result<Vec<Enqueued>, Error> {
    let mut enqueued = Vec::with_capacity(requests.len());
    let mut plain = Vec::with_capacity(ROWS);
    for request in requests {
        if request.unique.is_some() || request.backoff.is_some() {
            // In their order: what stands before it goes first.
            flush(tx, &mut plain, &mut enqueued)?;
            enqueued.push(insert(tx, request)?);
            continue;
        }
        plain.push(request);
        if plain.len() == ROWS {
            insert_rows(tx, &mut plain, &mut enqueued)?;
        }
    }
    flush(tx, &mut plain, &mut enqueued)?;
    Ok(enqueued)
}

fn flush(
    tx: &Transaction<'_>,
    plain: &mut Vec<Request>,
    enqueued: &mut Vec<Enqueued>,
) -> Result<(), Error> {
    for request in plain.drain(..) {
        enqueued.push(insert(tx, request)?);
    }
    Ok(())
}

/// Stores exactly so many rows as the statement has.
fn insert_rows(
    tx: &Transaction<'_>,
    plain: &mut Vec<Request>,
    enqueued: &mut Vec<Enqueued>,
) -> Result<(), Error> {
    let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut statement = tx.prepare_cached(&format!(
        "INSERT INTO jobs (kind, queue, arguments, priority, attempts_max, timeout_ms, run_at, enqueued_at,
                           limit_key, limit_max, rate_key, rate_max, rate_ms)
         VALUES {row}{}",
        format!(", {row}").repeat(ROWS - 1)
    ))?;
    let now = tx.now_ms();
    let mut at = 0;
    let mut bind = |value: ToSqlOutput<'_>| {
        at += 1;
        statement.raw_bind_parameter(at, value)
    };
    for request in plain.drain(..) {
        request.check()?;
        let run_at = run_at(&request, now);
        let (limit, rate) = (request.concurrency, request.rate);
        bind(request.kind.into())?;
        bind(request.queue.into())?;
        bind(request.arguments?.into())?;
        bind((request.priority as u8).into())?;
        bind(request.attempts_max.into())?;
        bind(optional(request.timeout.map(millis)))?;
        bind(run_at.into())?;
        bind(now.into())?;
        bind(optional(limit.as_ref().map(|it| it.key.clone())))?;
        bind(optional(limit.map(|it| it.at_most)))?;
        bind(optional(rate.as_ref().map(|it| it.key.clone())))?;
        bind(optional(rate.as_ref().map(|it| it.at_most)))?;
        bind(optional(rate.map(|it| millis(it.per))))?;
    }
    statement.raw_execute()?;
    let rows = i64::try_from(ROWS).unwrap_or(0);
    // They get ids without a gap, since it is one statement.
    let last = tx.last_insert_rowid();
    enqueued.extend((last - rows + 1..=last).map(Enqueued::New));
    Ok(())
}

fn optional<'a, T: Into<Value>>(value: Option<T>) -> ToSqlOutput<'a> {
    ToSqlOutput::Owned(value.map_or(Value::Null, Into::into))
}

fn run_at(request: &Request, now: i64) -> i64 {
    match request.when {
        When::Now => now,
        When::In(delay) => now.saturating_add(millis(delay)),
        When::At(at) => at.as_millisecond(),
    }
}

/// As it is in the table: kinds do not get in each other's way.
fn unique_key(kind: &str, unique: &Unique) -> String {
    format!("{kind}:{}", unique.key)
}

fn bound(unique: &Unique, now: i64) -> (u8, Option<i64>) {
    let until = |period| Some(now.saturating_add(millis(period)));
    match unique.scope {
        Scope::UntilEnded => (0, None),
        Scope::UntilStarted => (1, None),
        Scope::For(period) => (2, until(period)),
        Scope::WhileIn(_, period) => (3, period.and_then(until)),
    }
}

/// The words of the states in which a key binds, if those were chosen.
fn states(unique: &Unique) -> Option<String> {
    let Scope::WhileIn(states, _) = &unique.scope else {
        return None;
    };
    let words: Vec<_> = states.iter().map(|state| state.as_str()).collect();
    Some(words.join(","))
}

fn backoff(backoff: &Backoff) -> String {
    serde_json::to_string(backoff).expect("two whole numbers and a finite one are JSON")
}

/// Whether a job that has its unique key holds it no longer, at the time `?2`: nobody has taken it away yet.
///
/// No state's word is part of another's.
pub(in crate::queue) const IS_OVER: &str =
    "(coalesce(unique_until <= ?2, 0) OR coalesce(instr(unique_states, state) = 0, 0))";

/// Who has a unique key, and whether it is over with that.
///
/// One that was enqueued at a time that has not come yet binds for a period from now on: the clock was set back.
fn holder(tx: &Transaction<'_>, key: &str, period: Option<i64>) -> rusqlite::Result<(i64, bool)> {
    if let Some(period) = period {
        tx.prepare_cached(
            "UPDATE jobs SET unique_until = ?2 + ?3
             WHERE unique_key = ?1 AND binds = 1 AND enqueued_at > ?2 AND unique_until > ?2 + ?3",
        )?
        .execute(params![key, tx.now_ms(), period])?;
    }
    tx.prepare_cached(&format!(
        "SELECT id, {IS_OVER} FROM jobs WHERE unique_key = ?1 AND binds = 1"
    ))?
    .query_row(params![key, tx.now_ms()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

fn release(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE jobs SET binds = 0 WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Changes a job that waits or is parked; says whether it does.
fn replace(
    tx: &Transaction<'_>,
    id: i64,
    arguments: &str,
    run_at: Option<i64>,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            // What was parked may have been so for its arguments.
            "UPDATE jobs SET arguments = ?2, run_at = coalesce(?3, run_at), cursor = NULL, unread_by = NULL,
                 state = CASE WHEN state <> 'parked' THEN state WHEN attempt > 0 THEN 'retryable' ELSE 'available' END
             WHERE id = ?1 AND state IN ('available', 'retryable', 'parked')",
        )?
        .execute(params![id, arguments, run_at])?;
    Ok(changed == 1)
}
