//! A form that is sent twice is done once.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use ring::digest;
use rusqlite::OptionalExtension;
use rusqlite::params;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::database;
use crate::database::Database;
use crate::database::Transaction;
use crate::http::Error;
use crate::http::Result;
use crate::http::SESSION_COOKIES;
use crate::http::arrival::Arrival;
use crate::http::form::Pairs;
use crate::http::nonce;
use crate::http::personal::Personal;

/// The name of the hidden field.
pub(super) const FIELD: &str = "_once";

/// For so long the first answer is kept, in milliseconds: a day.
const KEEP_MS: i64 = 24 * 60 * 60 * 1_000;

/// Bytes of an answer: it is a number of a row or the like, and not a page.
const ANSWER_BYTES_MAX: usize = 4_096;

/// So many answers are kept, with the limit above 40 MiB at most; beyond it the oldest go.
const ANSWERS_MAX: i64 = 10_000;

/// So many are deleted with each that is added, which is more than come.
const PRUNED_MAX: i64 = 20;

/// The key of a form, for its hidden field: `<input type="hidden" name="_once" value="{{ key }}">`.
///
/// It is random, and a page with it is for one visitor: no cache has it. See [`Once`].
#[derive(Clone, Debug)]
pub struct OnceKey(String);

impl fmt::Display for OnceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for OnceKey {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        Personal::of(&parts.extensions).take();
        Ok(Self(nonce::fresh()))
    }
}

/// A write that happens once, however often its form is sent.
///
/// ```
/// use garde::Validate;
/// use houseboat::axum::{extract::State, response::{Html, Redirect}};
/// use houseboat::database::Database;
/// use houseboat::http::{Form, OnceKey, Result};
///
/// #[derive(serde::Deserialize, Validate)]
/// struct Order {
///     #[garde(range(min = 1, max = 10))]
///     tickets: u32,
/// }
///
/// async fn page(key: OnceKey) -> Html<String> {
///     Html(format!(r#"<form method="post"><input name="tickets"><input type="hidden" name="_once" value="{key}">…"#))
/// }
///
/// async fn order(State(db): State<Database>, form: Form<Order>) -> Result<Redirect> {
///     let order = form.check()?;
///     let write = form.once()?.write(&db, move |tx| {
///         tx.execute("INSERT INTO orders (tickets) VALUES (?1)", [order.tickets])?;
///         Ok(tx.last_insert_rowid())
///     });
///     let id = write.await?;
///     Ok(Redirect::to(&format!("/orders/{id}")))
/// }
/// # let _: houseboat::axum::Router<houseboat::Context> = houseboat::axum::Router::new()
/// #     .route("/", houseboat::axum::routing::get(page).post(order));
/// ```
///
/// What the closure returns is stored in the same transaction as what it wrote. So there is no moment at which one is
/// there without the other, whenever the process is killed. A second post waits for the first, as writes do, and gets
/// what that returned; if the first one failed, nothing of it is stored, and the second runs. After 24 hours, or after
/// 10 000 others, it is forgotten. The same key with other fields, for another path or from another session is refused
/// (422).
///
/// What is done elsewhere, such as a mail, belongs into a job that the closure enqueues.
#[derive(Clone, Debug)]
pub struct Once {
    key: String,
    print: Vec<u8>,
}

/// Why a form with a known key is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the key of a form came again with something else")]
    Differs,
    #[error("the answer of a form takes {0} bytes, and may take {ANSWER_BYTES_MAX}")]
    TooLong(usize),
    #[error("the answer of a form is no JSON, or was of another type before: {0}")]
    Json(#[from] serde_json::Error),
}

impl Once {
    pub(super) fn of(pairs: &Pairs, print: &Print) -> Result<Self> {
        let mut keys = pairs.iter().filter(|(name, _)| name == FIELD);
        let key = keys.next().map(|(_, key)| key);
        let is_ours = |key: &&String| key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit());
        match key.filter(is_ours) {
            Some(key) if keys.next().is_none() => Ok(Self {
                key: key.clone(),
                print: print.clone().end(),
            }),
            _ => Err(Error::new(
                StatusCode::PRECONDITION_REQUIRED,
                "This form lacks something. Open its page again and send it from there.",
            )),
        }
    }

    /// Runs `work` in a transaction, as [`Database::write`] does, and only if this form was not done already.
    ///
    /// What it returns is kept as JSON, up to 4 KiB.
    ///
    /// # Errors
    ///
    /// As [`Database::write`]; as an answer, 422 where the key came before with something else.
    #[track_caller]
    pub fn write<F, T>(
        self,
        database: &Database,
        work: F,
    ) -> impl Future<Output = database::Result<T>> + Send + use<'_, F, T>
    where
        F: FnOnce(&Transaction<'_>) -> database::Result<T> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        database.write(move |tx| {
            if let Some(answer) = self.earlier(tx)? {
                return serde_json::from_str(&answer).map_err(|error| abort(error.into()));
            }
            let answer = work(tx)?;
            self.keep(tx, &answer)?;
            Ok(answer)
        })
    }

    /// What the first one of this key returned.
    fn earlier(&self, tx: &Transaction<'_>) -> database::Result<Option<String>> {
        let sql = "SELECT print, answer FROM once WHERE key = ?1 AND at > ?2";
        let since = tx.now_ms() - KEEP_MS;
        let earlier: Option<(Vec<u8>, String)> = tx
            .prepare_cached(sql)?
            .query_row(params![self.key, since], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match earlier {
            Some((print, answer)) if print == self.print => Ok(Some(answer)),
            Some(_) => Err(abort(Refused::Differs)),
            None => Ok(None),
        }
    }

    fn keep<T: Serialize>(&self, tx: &Transaction<'_>, answer: &T) -> database::Result<()> {
        let answer = serde_json::to_string(answer).map_err(|error| abort(error.into()))?;
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(abort(Refused::TooLong(answer.len())));
        }
        let now = tx.now_ms();
        // One that is too old to count is in the way of its key.
        tx.prepare_cached("DELETE FROM once WHERE key = ?1")?
            .execute([&self.key])?;
        tx.prepare_cached("INSERT INTO once (key, print, answer, at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.key, self.print, answer, now])?;
        // In the order of their numbers: a clock that was set back does not keep them for ever.
        let sql = "DELETE FROM once WHERE id IN (SELECT id FROM once ORDER BY id LIMIT ?1) \
                   AND (at <= ?2 OR id <= ?3)";
        let oldest = tx.last_insert_rowid() - ANSWERS_MAX;
        tx.prepare_cached(sql)?
            .execute([PRUNED_MAX, now - KEEP_MS, oldest])?;
        Ok(())
    }
}

fn abort(refused: Refused) -> database::Error {
    database::Error::abort(refused)
}

/// The answer for a form that cannot be told from another one of the same key.
pub(super) fn refused(error: &database::Error) -> Option<Error> {
    match error.abort_reason::<Refused>() {
        Some(Refused::Differs) => Some(Error::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "This form was sent before, with something else in it. Open its page again and send it from there.",
        )),
        _ => None,
    }
}

/// A checksum of who sent what, and where to: two that are the same are one form, sent twice.
#[derive(Clone)]
pub(super) struct Print(digest::Context);

impl Print {
    pub(super) fn of(request: &Request) -> Self {
        let mut print = Self(digest::Context::new(&digest::SHA256));
        let arrival = request.extensions().get::<Arrival>();
        let uri = arrival.map_or(request.uri(), |arrival| &arrival.uri);
        print.add(request.method().as_str().as_bytes());
        print.add(uri.path().as_bytes());
        for value in request.headers().get_all(header::COOKIE) {
            for pair in value.as_bytes().split(|byte| *byte == b';') {
                let pair = pair.trim_ascii();
                let is_session = |name: &str| {
                    let rest = pair.strip_prefix(name.as_bytes());
                    rest.is_some_and(|rest| rest.starts_with(b"="))
                };
                // They say whose form it is, and change when somebody signs in.
                if SESSION_COOKIES.iter().any(|name| is_session(name)) {
                    print.add(pair);
                }
            }
        }
        print
    }

    /// With its length, so that no two lists look the same.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn add_pairs(&mut self, pairs: &Pairs) {
        for (name, value) in pairs.iter().filter(|(name, _)| name != FIELD) {
            self.add(name.as_bytes());
            self.add(value.as_bytes());
        }
    }

    fn end(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}
