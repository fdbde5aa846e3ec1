//! One job from its claim to its end.

use std::panic::UnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use crate::database;
use crate::database::BoxError;
use crate::queue::Attempt;
use crate::queue::hands::Grip;
use crate::queue::job::Kind;
use crate::queue::job::Outcome;
use crate::queue::store::claim::Claimed;
use crate::queue::store::finish::End;

/// The pause before a job whose `backoff` panics.
const BACKOFF_WAIT: Duration = Duration::from_hours(1);

/// Runs one job to its end.
pub(super) fn run<C: Clone + Send + Sync + 'static>(
    kind: &Kind<C>,
    job: &Claimed,
    attempt: Attempt<C>,
    grip: Arc<Grip>,
) -> impl Future<Output = End> + Send + use<C> {
    let (start, backoff) = (kind.start, kind.backoff_of(job));
    let timeout = job.timeout_ms.map_or(kind.timeout, Duration::from_millis);
    let (number, attempts_max) = (job.attempt, job.attempts_max);
    let arguments = job.arguments.clone();
    async move {
        let work = match start(&arguments, attempt) {
            Ok(work) => work,
            Err(error) => return parked(&error),
        };
        let ended = tokio::select! {
            biased;
            () = grip.lost.cancelled() => {
                tracing::warn!("broken off: it is not this worker's any more, or is cancelled");
                return End::PutBack { wait: Duration::ZERO };
            }
            ended = tokio::time::timeout(timeout, work) => ended,
        };
        if !grip.is_to_be_there() {
            tracing::debug!("completed by itself");
            return End::Complete;
        }
        let result: Result<Outcome, BoxError> =
            ended.unwrap_or_else(|_| Err(format!("it took longer than {timeout:?}").into()));
        match result {
            Ok(outcome) => succeeded(outcome),
            Err(error) => failed(
                number,
                attempts_max,
                backoff,
                database::chain(error.as_ref()),
            ),
        }
    }
}

fn succeeded(outcome: Outcome) -> End {
    match outcome {
        Outcome::Complete => {
            tracing::debug!("completed");
            End::Complete
        }
        Outcome::Snooze(wait) => {
            tracing::debug!(?wait, "snoozed");
            End::PutBack { wait }
        }
        Outcome::Cancel(reason) => {
            tracing::info!(reason, "cancelled");
            End::Cancel { reason }
        }
    }
}

pub(super) fn failed(
    attempt: u32,
    attempts_max: u32,
    backoff: impl Fn(u32) -> Duration + UnwindSafe,
    error: String,
) -> End {
    if attempt >= attempts_max {
        tracing::error!(error, "discarded: it has no attempt left");
        return End::Discard { error };
    }
    // The site's code, which may panic; the worker must not.
    let wait = catch_unwind(move || backoff(attempt)).unwrap_or(BACKOFF_WAIT);
    tracing::warn!(error, ?wait, "failed and will be tried again");
    End::Retry { wait, error }
}

/// The arguments do not fit the type: another version of the program may know them.
fn parked(error: &serde_json::Error) -> End {
    let error = format!("its arguments cannot be read: {error}");
    tracing::error!(error, "parked: it waits for a program that knows it");
    End::Park { error }
}
