//! Waiting on a condition, and asking whether the slow tests are wanted.

use std::time::Duration;
use std::time::Instant;

const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it gives a value, and fails the test after `deadline`.
pub(crate) async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "no {what} within {deadline:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Whether slow tests are wanted; says that `test` was skipped where they are not.
pub(crate) fn slow(test: &str) -> bool {
    let wanted = all_tests_are_wanted();
    if !wanted {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped {test}: it is slow, and TEST_ALL is not set");
        }
    }
    wanted
}

/// Whether `TEST_ALL` is set.
pub(crate) fn all_tests_are_wanted() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the tests that are configured, not the site"
    )]
    let value = std::env::var_os("TEST_ALL");
    value.is_some_and(|value| value != "0" && !value.is_empty())
}

/// Polls a future once; says whether it is not ready.
pub(crate) async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    so_far(future).await.is_none()
}

/// Polls a future once; gives what it has to say already, if anything.
pub(crate) async fn so_far<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
