//! How the writer waits for another process.
//!
//! SQLite's own wait sleeps for up to a tenth of a second at a time, and whoever comes often gets in before it.
//! This one looks every millisecond.

use std::cell::Cell;
use std::time::Duration;
use std::time::Instant;

use rusqlite::Connection;

const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    /// How long this thread waits.
    static PATIENCE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Since when it does.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Waits on this thread for up to `time` wherever another process has the file; in place of `busy_timeout`.
pub(super) fn set(connection: &Connection, time: Duration) -> rusqlite::Result<()> {
    PATIENCE.set(time);
    connection.busy_handler(Some(wait))
}

/// Does something with another patience.
pub(super) fn with<T>(time: Duration, work: impl FnOnce() -> T) -> T {
    let usual = PATIENCE.replace(time);
    let done = work();
    PATIENCE.set(usual);
    done
}

/// Called with 0 at first, and again and again while the file is held.
fn wait(count: i32) -> bool {
    let since = match SINCE.get() {
        Some(since) if count > 0 => since,
        _ => Instant::now(),
    };
    SINCE.set(Some(since));
    if since.elapsed() >= PATIENCE.get() {
        return false;
    }
    std::thread::park_timeout(PAUSE);
    true
}
