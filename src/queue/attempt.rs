//! One run of a job: what it is given, and what it can say.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::database;
use crate::database::Database;
use crate::database::Transaction;
use crate::queue::Error;
use crate::queue::job::ARGUMENTS_BYTES_MAX;
use crate::queue::progress::Progress;
use crate::queue::store;
use crate::queue::store::claim::Limit;
use crate::queue::store::finish;

/// What a job's run is given: the site's context, to which it derefs, and the job's own place in the queue.
///
/// ```
/// use houseboat::database::BoxError;
/// use houseboat::queue::{Attempt, Job, Outcome};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Import {
///     file: i64,
/// }
///
/// impl Job for Import {
///     const NAME: &'static str = "import";
///     type Context = houseboat::Context;
///
///     async fn run(self, attempt: Attempt<Self::Context>) -> Result<Outcome, BoxError> {
///         // An attempt that was broken off has left where it was.
///         let first = attempt.cursor::<u32>()?.unwrap_or(0);
///         for page in first..30 {
///             attempt.progress(f64::from(page) / 30.0, format!("page {page} of 30")).await?;
///             let here = attempt.clone();
///             attempt.database.write(move |tx| Ok(here.save(tx, &(page + 1))?)).await?;
///         }
///         // The effect and the end of the job are one commit.
///         let here = attempt.clone();
///         attempt.database.write(move |tx| Ok(here.finish(tx)?)).await?;
///         Ok(Outcome::Complete)
///     }
/// }
/// ```
pub struct Attempt<C> {
    context: C,
    claim: Arc<Claim>,
}

/// The claim that an attempt runs by.
pub(super) struct Claim {
    pub(super) id: i64,
    pub(super) claims: i64,
    pub(super) number: u32,
    pub(super) is_plain: bool,
    pub(super) limit: Option<Limit>,
    pub(super) cursor: Option<String>,
    pub(super) database: Database,
    pub(super) stop: CancellationToken,
    pub(super) is_finished: Arc<AtomicBool>,
    pub(super) progress: Arc<Progress>,
}

impl<C> Attempt<C> {
    pub(super) fn new(context: C, claim: Arc<Claim>) -> Self {
        Self { context, claim }
    }

    /// The site's context.
    #[must_use]
    pub fn context(&self) -> &C {
        &self.context
    }

    /// The job's id.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.claim.id
    }

    /// Which attempt this is, from 1; those that were put back or snoozed do not count.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.claim.number
    }

    /// Cancelled when the job is to end soon: the process stops, an operator cancels it, or it is not ours any more.
    ///
    /// At a stop it has `queue.stop_ms` from then on; what has not ended is broken off and runs again. A job that goes
    /// on later is one that saves its cursor and gives [`Outcome::Snooze`](crate::queue::Outcome::Snooze).
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.claim.stop
    }

    /// Says how far the job is, 0 to 1, for whoever looks at the queue; in a write of its own.
    ///
    /// It may be called in a loop: within 500 ms of the last write nothing is written, and what was said last is kept.
    /// That is written with the next heartbeat (each third of `queue.lease_ms`), or at the end of the attempt.
    ///
    /// # Errors
    ///
    /// Those of [`Database::write`].
    pub async fn progress(&self, part: f64, text: impl Into<String>) -> database::Result<()> {
        let Some(word) = self.claim.progress.say(part, text.into()) else {
            return Ok(());
        };
        let token = (self.claim.id, self.claim.claims);
        self.claim
            .database
            .write(move |tx| Ok(store::save_progress(tx, token, &word)?))
            .await
    }

    /// What the last attempt saved; `None` before the first time.
    ///
    /// # Errors
    ///
    /// [`Error::Cursor`] when it is not a `T`: another version of the program may have saved it.
    pub fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let id = self.claim.id;
        let cursor = self.claim.cursor.as_deref().map(serde_json::from_str);
        cursor
            .transpose()
            .map_err(|source| Error::Cursor { id, source })
    }

    /// Saves where the next attempt goes on, in the transaction that did the part before it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the job is not this attempt's any more: the transaction is to be given up.
    /// [`Error::Cursor`] when it cannot be written as JSON, [`Error::TooLarge`] when that has more than
    /// [`ARGUMENTS_BYTES_MAX`] bytes.
    pub fn save<T: Serialize>(&self, tx: &Transaction<'_>, cursor: &T) -> Result<(), Error> {
        let (id, claims) = (self.claim.id, self.claim.claims);
        let cursor =
            serde_json::to_string(cursor).map_err(|source| Error::Cursor { id, source })?;
        if cursor.len() > ARGUMENTS_BYTES_MAX {
            return Err(Error::TooLarge {
                kind: "the cursor",
                bytes: cursor.len(),
                bytes_max: ARGUMENTS_BYTES_MAX,
            });
        }
        if store::save_cursor(tx, id, claims, &cursor)? {
            Ok(())
        } else {
            Err(Error::Lost { id })
        }
    }

    /// Completes the job in this transaction: its last effect and its end are one commit, and nothing in between can be
    /// done twice. What the job enqueues in the same transaction follows it for certain.
    ///
    /// What `run` returns after that changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the job is not this attempt's any more: the transaction is to be given up.
    pub fn finish(&self, tx: &Transaction<'_>) -> Result<(), Error> {
        let claim = &self.claim;
        if let Some(word) = claim.progress.last() {
            store::save_progress(tx, (claim.id, claim.claims), &word)?;
        }
        let token = (claim.id, claim.claims, claim.is_plain);
        if !finish::complete(tx, token, claim.limit.as_ref())? {
            return Err(Error::Lost { id: claim.id });
        }
        let is_finished = Arc::clone(&claim.is_finished);
        tx.after_commit(move || is_finished.store(true, Ordering::Release));
        Ok(())
    }
}

impl<C> Deref for Attempt<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.context
    }
}

impl<C: Clone> Clone for Attempt<C> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            claim: Arc::clone(&self.claim),
        }
    }
}

impl<C> fmt::Debug for Attempt<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Attempt")
            .field("id", &self.claim.id)
            .field("number", &self.claim.number)
            .finish_non_exhaustive()
    }
}
