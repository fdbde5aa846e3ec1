//! Where a job stands, and which is first.

use serde::Serialize;

/// Which of a queue's jobs that are due is claimed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others.
    High = 0,
    /// What a job has that says nothing.
    Normal = 1,
    /// When nothing else is due.
    Low = 2,
}

impl Priority {
    /// Every priority, the first to be claimed first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

/// Where a job stands. One that is scheduled is `available` with a time in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It waits for its time, for a worker, or for a limit.
    Available,
    /// No program that runs jobs knows its kind, or can read its arguments: it waits for one that does.
    Parked,
    /// A worker runs it.
    Executing,
    /// It failed and waits for its next attempt.
    Retryable,
    /// It is done.
    Completed,
    /// It failed too often.
    Discarded,
    /// It was not to be done.
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Available,
        Self::Parked,
        Self::Executing,
        Self::Retryable,
        Self::Completed,
        Self::Discarded,
        Self::Cancelled,
    ];

    /// The word in the table, in logs and on pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Parked => "parked",
            Self::Executing => "executing",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a job stays there: it is done, given up or not to be done.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Discarded | Self::Cancelled)
    }
}
