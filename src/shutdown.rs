//! The stop signals.

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

/// What the operating system's signals cancel.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled by the first SIGINT (Ctrl-C) or SIGTERM: finish what is begun, and end.
    pub soon: CancellationToken,
    /// Cancelled by the second: end now.
    pub now: CancellationToken,
}

/// Listens for SIGINT and SIGTERM from now on.
///
/// Must be called on a tokio runtime; a task of that runtime waits for the signals.
///
/// # Errors
///
/// When the operating system refuses a signal handler.
pub fn on_signals() -> std::io::Result<Stop> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = Stop::default();
    let tokens = stop.clone();
    tokio::spawn(async move {
        let name = either(&mut interrupt, &mut terminate).await;
        tokens.soon.cancel();
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        let name = either(&mut interrupt, &mut terminate).await;
        tokens.now.cancel();
        tracing::warn!(signal = name, "stopping at once");
    });
    Ok(stop)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
