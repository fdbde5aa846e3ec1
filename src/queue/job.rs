//! What a job is, how it can end, and how it is asked for.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::UnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::database::BoxError;
use crate::queue::Attempt;
use crate::queue::Concurrency;
use crate::queue::Error;
use crate::queue::Priority;
use crate::queue::Rate;
use crate::queue::Unique;
use crate::queue::backoff::jittered;
use crate::queue::store::claim::Claimed;

/// The most bytes of JSON that a job's fields may make: 64 KiB.
///
/// A job is copied at each claim and kept for days; what is larger belongs in a table, and its id in the job.
pub const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;

/// A unit of work that survives a restart. Its fields are its arguments, kept as JSON.
///
/// It runs at least once: after a crash it runs again, so what it does should bear being done twice.
///
/// ```
/// use houseboat::database::BoxError;
/// use houseboat::queue::{Attempt, Job, Outcome};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct SendWelcome {
///     user: i64,
/// }
///
/// impl Job for SendWelcome {
///     const NAME: &'static str = "send_welcome";
///     type Context = houseboat::Context;
///
///     async fn run(self, attempt: Attempt<Self::Context>) -> Result<Outcome, BoxError> {
///         attempt.database.read(|conn| Ok(conn.is_autocommit())).await?;
///         Ok(Outcome::Complete)
///     }
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// The job's name in the table: it stays when the type is renamed.
    const NAME: &'static str;
    /// The queue that it waits in, unless it is asked for in another.
    const QUEUE: &'static str = "default";
    /// How often it is tried before it is discarded.
    const ATTEMPTS_MAX: u32 = 20;
    /// How long one attempt may take; then it is stopped at its next `await` and tried again.
    const TIMEOUT: Duration = Duration::from_mins(5);
    /// Which of the jobs that are due is claimed first.
    const PRIORITY: Priority = Priority::Normal;

    /// What the job is given to work with: the site's [`Context`](crate::Context).
    type Context: Clone + Send + Sync + 'static;

    /// Does the work. An `Err`, a panic or a timeout is tried again, later and later.
    fn run(
        self,
        attempt: Attempt<Self::Context>,
    ) -> impl Future<Output = Result<Outcome, BoxError>> + Send;

    /// Whether another like it may wait already; by default any number may.
    fn unique(&self) -> Option<Unique> {
        None
    }

    /// How many like it may run at the same time; by default as many as there are workers.
    fn concurrency(&self) -> Option<Concurrency> {
        None
    }

    /// How many like it may be started within a time; by default any number.
    fn rate(&self) -> Option<Rate> {
        None
    }

    /// How long to wait after the given attempt (from 1) failed, before the next.
    ///
    /// By default 15 s + 2ⁿ s and up to a tenth more by chance, n at most 20: the first eight tries are within
    /// ten minutes, twenty take 13 days (Oban's figures). A request may have a [backoff](crate::queue::Request::backoff)
    /// of its own.
    #[must_use]
    fn backoff(attempt: u32) -> Duration {
        jittered(Duration::from_secs(15 + (1 << attempt.min(20))))
    }
}

/// How a job ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Complete,
    /// It is to run again after this time; the attempt is not counted.
    Snooze(Duration),
    /// It is not to be done, for this reason.
    Cancel(String),
}

pub(super) fn arguments<J: Job>(job: &J) -> Result<String, Error> {
    let json = serde_json::to_string(job).map_err(|source| Error::Arguments {
        kind: J::NAME,
        source,
    })?;
    if json.len() > ARGUMENTS_BYTES_MAX {
        return Err(Error::TooLarge {
            kind: J::NAME,
            bytes: json.len(),
            bytes_max: ARGUMENTS_BYTES_MAX,
        });
    }
    Ok(json)
}

/// A job on its way.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

/// How the worker runs jobs of one kind.
#[derive(Clone)]
pub(super) struct Kind<C> {
    pub(super) start: fn(&str, Attempt<C>) -> Result<Running, serde_json::Error>,
    pub(super) timeout: Duration,
    pub(super) backoff: fn(u32) -> Duration,
}

impl<C> Kind<C> {
    /// How long a job waits after an attempt: as its request says, else as its type does.
    pub(super) fn backoff_of(
        &self,
        job: &Claimed,
    ) -> impl Fn(u32) -> Duration + Send + UnwindSafe + use<C> {
        let (own, of_type) = (job.backoff, self.backoff);
        move |attempt| own.map_or_else(|| of_type(attempt), |own| own.wait(attempt))
    }
}

/// The kinds of job that a site can run, by name.
#[derive(Clone)]
pub struct Jobs<C> {
    kinds: HashMap<&'static str, Kind<C>>,
}

impl<C: Clone + Send + Sync + 'static> Jobs<C> {
    /// Adds the jobs of type `J`.
    ///
    /// # Panics
    ///
    /// When another type of the same [`Job::NAME`] is there already: its rows could not be told apart.
    #[must_use]
    pub fn register<J: Job<Context = C>>(mut self) -> Self {
        let kind = Kind {
            start: start::<J>,
            timeout: J::TIMEOUT,
            backoff: J::backoff,
        };
        self.insert(J::NAME, kind);
        self
    }

    /// Adds the jobs of `others`.
    #[must_use]
    pub(crate) fn merge(mut self, others: Self) -> Self {
        for (name, kind) in others.kinds {
            self.insert(name, kind);
        }
        self
    }

    fn insert(&mut self, name: &'static str, kind: Kind<C>) {
        let before = self.kinds.insert(name, kind);
        assert!(before.is_none(), "two jobs are named {name:?}");
    }

    /// Whether there is a job of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.kinds.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Kind<C>> {
        self.kinds.get(name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.kinds.keys().map(|name| (*name).to_owned()).collect()
    }
}

fn start<J: Job>(
    arguments: &str,
    attempt: Attempt<J::Context>,
) -> Result<Running, serde_json::Error> {
    let job: J = serde_json::from_str(arguments)?;
    Ok(Box::pin(job.run(attempt)))
}

impl<C> Default for Jobs<C> {
    fn default() -> Self {
        Self {
            kinds: HashMap::new(),
        }
    }
}

impl<C> fmt::Debug for Jobs<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.kinds.keys()).finish()
    }
}
