//! One write: statements that are stored together or not at all.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use rusqlite::Connection;

/// What runs once the commit is done.
pub(super) type AfterCommit = Box<dyn FnOnce() + Send>;

/// A write in progress: a connection with one time and a sequel.
///
/// Everything of [`rusqlite::Connection`] can be used on it, but for beginning and ending transactions,
/// which is [`Database::write`](super::Database::write)'s to do; savepoints of one's own are allowed.
pub struct Transaction<'conn> {
    connection: &'conn Connection,
    now: Timestamp,
    after_commit: RefCell<Vec<AfterCommit>>,
}

impl<'conn> Transaction<'conn> {
    pub(super) fn new(connection: &'conn Connection, now: Timestamp) -> Self {
        Self {
            connection,
            now,
            after_commit: RefCell::default(),
        }
    }

    /// The time of this transaction: the same at every call, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// [`now`](Self::now) as the tables keep it: milliseconds since 1970, UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// Runs `work` once this transaction is committed, and never if it is not.
    ///
    /// It runs on the writer's thread, before the caller of `write` has its answer, in the order of the calls:
    /// it should be short (send on a channel, wake a task). A panic in it is logged and stops nothing.
    pub fn after_commit(&self, work: impl FnOnce() + Send + 'static) {
        self.after_commit.borrow_mut().push(Box::new(work));
    }

    pub(super) fn into_after_commit(self) -> Vec<AfterCommit> {
        self.after_commit.into_inner()
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transaction")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
