//! How a job is asked for: what, when, where, and beside which others.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::queue::Backoff;
use crate::queue::Error;
use crate::queue::Job;
use crate::queue::Priority;
use crate::queue::State;
use crate::queue::job::arguments;

/// The most bytes that the name of a queue or the key of a limit may have.
pub const NAME_BYTES_MAX: usize = 200;

/// One job to be enqueued.
///
/// `queue.enqueue(tx, &job)` is enough for most; this is for the rest.
///
/// ```
/// # use houseboat::queue::{Conflict, Job, Request, Unique};
/// # fn example<J: Job>(job: &J) {
/// use std::time::Duration;
/// let in_a_minute = Request::new(job).run_in(Duration::from_secs(60)).unique("digest:7");
/// // The last one of a burst wins, and is run when the burst is over.
/// let quiet = Duration::from_secs(10);
/// let once = Unique::new("index:7").until_started().on_conflict(Conflict::Postpone);
/// let after_the_burst = Request::new(job).run_in(quiet).unique(once);
/// # let _ = (in_a_minute, after_the_burst);
/// # }
/// ```
#[derive(Debug)]
pub struct Request {
    pub(super) kind: &'static str,
    pub(super) queue: String,
    pub(super) arguments: Result<String, Error>,
    pub(super) priority: Priority,
    pub(super) attempts_max: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) backoff: Option<Backoff>,
    pub(super) unique: Option<Unique>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) rate: Option<Rate>,
    pub(super) when: When,
}

/// When a job is due.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    In(Duration),
    At(Timestamp),
}

/// That there be one job of a kind with a key, until it has ended; a unique index holds that, across processes.
///
/// By default a second one is not enqueued, and the first is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    pub(super) key: String,
    pub(super) scope: Scope,
    pub(super) on_conflict: Conflict,
}

/// How long a unique key binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    UntilEnded,
    UntilStarted,
    For(Duration),
    /// In these states; no longer than for a time, if there is one.
    WhileIn(BTreeSet<State>, Option<Duration>),
}

/// What becomes of a request whose unique key another job holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The other one stays as it is.
    Keep,
    /// The other one gets these arguments, if it waits or is parked; one that runs stays as it is.
    Replace,
    /// The other one gets these arguments and this time, if it waits or is parked; one that runs stays as it is.
    Postpone,
}

/// That at most so many jobs with a key run at the same time, in all processes; others wait for their turn.
///
/// It is counted from what runs: nothing can leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub(super) key: String,
    pub(super) at_most: u32,
}

/// That at most so many jobs with a key are started within any stretch of time; others wait for their turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    pub(super) key: String,
    pub(super) at_most: u32,
    pub(super) per: Duration,
}

impl Unique {
    /// One job with this key until it has ended; jobs of other kinds may have the same key.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            scope: Scope::UntilEnded,
            on_conflict: Conflict::Keep,
        }
    }

    /// Binds only until a worker starts it: another may be enqueued while it runs.
    #[must_use]
    pub fn until_started(self) -> Self {
        let scope = Scope::UntilStarted;
        Self { scope, ..self }
    }

    /// Binds for this long after it was enqueued, whatever becomes of it; after [`while_in`](Self::while_in), for no
    /// longer than that.
    #[must_use]
    pub fn within(self, period: Duration) -> Self {
        let scope = match self.scope {
            Scope::WhileIn(states, _) => Scope::WhileIn(states, Some(period)),
            _ => Scope::For(period),
        };
        Self { scope, ..self }
    }

    /// Binds while the job is in one of these states, and when it waits: [`State::Available`] is always among them.
    ///
    /// A state in which a job stays binds until the job is pruned (`queue.keep_completed_hours`,
    /// `queue.keep_discarded_days`); with [`within`](Self::within), for no longer than that.
    ///
    /// One that leaves these states gives its key to whoever is enqueued then. When it comes back into one of them, as
    /// one that runs and fails comes to wait again, it has its key if nobody took it; if another did, both go on, and
    /// the key is the other's. So it is with [`until_started`](Self::until_started): a key keeps jobs from being
    /// enqueued, and none that is there from going on.
    ///
    /// ```
    /// use houseboat::queue::{State, Unique};
    /// // One that waits, or failed and waits again; another may be enqueued while it runs.
    /// let waits = Unique::new("digest:7").while_in(&[State::Available, State::Retryable]);
    /// # let _ = waits;
    /// ```
    #[must_use]
    pub fn while_in(self, states: &[State]) -> Self {
        let period = match self.scope {
            Scope::For(period) | Scope::WhileIn(_, Some(period)) => Some(period),
            _ => None,
        };
        let states = states.iter().copied().chain([State::Available]);
        let scope = Scope::WhileIn(states.collect(), period);
        Self { scope, ..self }
    }

    /// What becomes of a second one.
    #[must_use]
    pub fn on_conflict(self, on_conflict: Conflict) -> Self {
        Self {
            on_conflict,
            ..self
        }
    }
}

impl<K: Into<String>> From<K> for Unique {
    fn from(key: K) -> Self {
        Self::new(key)
    }
}

impl Concurrency {
    /// At most `at_most` jobs with this key at a time; 0 is taken for 1.
    #[must_use]
    pub fn new(key: impl Into<String>, at_most: u32) -> Self {
        Self {
            key: key.into(),
            at_most: at_most.max(1),
        }
    }
}

impl Rate {
    /// At most `at_most` starts of jobs with this key within any `per`; 0 is taken for 1, and for 1 ms.
    ///
    /// The starts of a `per` are kept for each key, so thousands are better said as fewer within a shorter time. Jobs of
    /// a key should agree on it: of several, each start is remembered for the shortest.
    #[must_use]
    pub fn new(key: impl Into<String>, at_most: u32, per: Duration) -> Self {
        Self {
            key: key.into(),
            at_most: at_most.max(1),
            per: per.max(Duration::from_millis(1)),
        }
    }
}

impl Request {
    /// Asks for `job` as its type says: now, with its queue, its priority, its number of attempts and its limits.
    #[must_use]
    pub fn new<J: Job>(job: &J) -> Self {
        Self {
            kind: J::NAME,
            queue: J::QUEUE.to_owned(),
            arguments: arguments(job),
            priority: J::PRIORITY,
            attempts_max: J::ATTEMPTS_MAX.max(1),
            timeout: None,
            backoff: None,
            unique: job.unique(),
            concurrency: job.concurrency(),
            rate: job.rate(),
            when: When::Now,
        }
    }

    /// Runs it no earlier than this long after the transaction's time.
    #[must_use]
    pub fn run_in(self, delay: Duration) -> Self {
        let when = When::In(delay);
        Self { when, ..self }
    }

    /// Runs it no earlier than `at`.
    #[must_use]
    pub fn run_at(self, at: Timestamp) -> Self {
        let when = When::At(at);
        Self { when, ..self }
    }

    /// Puts it into another queue than its type's.
    #[must_use]
    pub fn queue(self, name: impl Into<String>) -> Self {
        let queue = name.into();
        Self { queue, ..self }
    }

    /// Runs it before or after others that are due.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Tries it so often; 0 is taken for 1.
    #[must_use]
    pub fn attempts_max(self, attempts_max: u32) -> Self {
        let attempts_max = attempts_max.max(1);
        Self {
            attempts_max,
            ..self
        }
    }

    /// How long one attempt may take, in place of what the type says.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        let timeout = Some(timeout);
        Self { timeout, ..self }
    }

    /// How long to wait between its attempts, in place of what the type says.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        let backoff = Some(backoff);
        Self { backoff, ..self }
    }

    /// Enqueues it only if no job of its kind with this key waits or runs, or as the [`Unique`] says.
    #[must_use]
    pub fn unique(self, unique: impl Into<Unique>) -> Self {
        let unique = Some(unique.into());
        Self { unique, ..self }
    }

    /// Lets at most `at_most` jobs with this key run at the same time.
    #[must_use]
    pub fn concurrency(self, key: impl Into<String>, at_most: u32) -> Self {
        let concurrency = Some(Concurrency::new(key, at_most));
        Self {
            concurrency,
            ..self
        }
    }

    /// Lets at most `at_most` jobs with this key be started within any `per`.
    #[must_use]
    pub fn rate(self, key: impl Into<String>, at_most: u32, per: Duration) -> Self {
        let rate = Some(Rate::new(key, at_most, per));
        Self { rate, ..self }
    }

    /// Whether it says nothing of others beside it.
    pub(super) fn is_plain(&self) -> bool {
        self.unique.is_none()
            && self.concurrency.is_none()
            && self.rate.is_none()
            && self.timeout.is_none()
            && self.backoff.is_none()
    }

    /// The first of its names and keys that is empty or too long.
    pub(super) fn check(&self) -> Result<(), Error> {
        let keys = [
            ("queue", Some(&self.queue)),
            ("unique key", self.unique.as_ref().map(|it| &it.key)),
            (
                "concurrency key",
                self.concurrency.as_ref().map(|it| &it.key),
            ),
            ("rate key", self.rate.as_ref().map(|it| &it.key)),
        ];
        for (what, name) in keys {
            if name.is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
                return Err(Error::Name {
                    kind: self.kind,
                    what,
                    bytes_max: NAME_BYTES_MAX,
                });
            }
        }
        Ok(())
    }
}

impl<J: Job> From<&J> for Request {
    fn from(job: &J) -> Self {
        Self::new(job)
    }
}

/// What became of a request; each has the id of the job that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is a job of its own.
    New(i64),
    /// Another holds its unique key, and is as it was.
    Kept(i64),
    /// Another holds its unique key, and has its arguments now.
    Replaced(i64),
    /// Another holds its unique key, and has its arguments and its time now.
    Postponed(i64),
}

impl Enqueued {
    /// The job that is there now.
    #[must_use]
    pub fn id(self) -> i64 {
        match self {
            Self::New(id) | Self::Kept(id) | Self::Replaced(id) | Self::Postponed(id) => id,
        }
    }

    /// Whether it was enqueued, and no other was there for it.
    #[must_use]
    pub fn is_new(self) -> bool {
        matches!(self, Self::New(_))
    }
}
