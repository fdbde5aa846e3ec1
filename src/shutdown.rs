//! The stop signal: one token that everything long-lived listens to.

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

/// Gives a token that SIGINT (Ctrl-C) or SIGTERM cancels.
///
/// Must be called on a tokio runtime; a task of that runtime waits for the signals.
///
/// # Errors
///
/// When the operating system refuses a signal handler.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        token.cancel();
        tracing::info!(signal = name, "stopping");
    });
    Ok(stop)
}
