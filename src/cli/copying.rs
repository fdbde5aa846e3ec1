//! A line that shows how far a copy is.

use std::io::IsTerminal as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::database::Progress;
use crate::replication::RestoreProgress;
use crate::replication::Stage;
use crate::replication::Transfer;

/// Often enough to be seen moving.
const EVERY: Duration = Duration::from_millis(100);

/// A line on stderr that is written anew as the copy goes on; nothing where stderr is no terminal.
///
/// The line is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Meter {
    is_shown: bool,
    start: Instant,
    last: Option<Instant>,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            start: Instant::now(),
            last: None,
        }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        let is_done = progress.pages_done == progress.pages;
        self.write(is_done, |time| line(progress, time));
    }

    /// Shows how far a part of the work is that is no copy of a database.
    fn show_transfer(&mut self, what: &str, step: Transfer) {
        let is_done = step.done == step.bytes;
        self.write(is_done, |_| transfer_line(what, step));
    }

    fn write(&mut self, is_done: bool, line: impl FnOnce(Duration) -> String) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if !self.is_shown || !(is_due || is_done) {
            return;
        }
        self.last = Some(Instant::now());
        write(&line(self.start.elapsed()));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.last.is_some() {
            write("");
        }
    }
}

/// The same for work that several threads do, one after another.
#[derive(Debug)]
pub(super) struct SharedMeter(Mutex<Meter>);

impl SharedMeter {
    pub(super) fn start() -> Self {
        Self(Mutex::new(Meter::start()))
    }

    /// Shows how far the replica is restored; nobody knows how large it will be.
    pub(super) fn show_restore(&self, progress: RestoreProgress) {
        let mut meter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            RestoreProgress::Fetching { bytes } => {
                meter.write(false, |_| format!("{:>10} fetching", megabytes(bytes)));
            }
            RestoreProgress::Checking { bytes } => {
                meter.write(true, |_| format!("{:>10} checking", megabytes(bytes)));
            }
        }
    }

    pub(super) fn show(&self, stage: Stage) {
        let mut meter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stage {
            Stage::Copying(progress) => meter.show(progress),
            Stage::Packing(step) => meter.show_transfer("packing", step),
            Stage::Sending(step) => meter.show_transfer("sending", step),
            Stage::Fetching(step) => meter.show_transfer("fetching", step),
            Stage::Unpacking(step) => meter.show_transfer("unpacking", step),
        }
    }
}

/// The size as people say it: `1.5 MB`.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn line(progress: Progress, time: Duration) -> String {
    if progress.pages_done == progress.pages {
        return "copied; checking the copy".to_owned();
    }
    let done = progress.pages_done.saturating_mul(progress.page_bytes);
    let percent = progress.pages_done.saturating_mul(100) / progress.pages.max(1);
    let a_second = u128::from(done) * 1_000 / time.as_millis().max(1);
    format!(
        "{percent:>3} % {:>10} {:>12}/s",
        megabytes(done),
        megabytes(u64::try_from(a_second).unwrap_or(u64::MAX))
    )
}

fn transfer_line(what: &str, step: Transfer) -> String {
    let percent = step.done.saturating_mul(100) / step.bytes.max(1);
    format!("{percent:>3} % {:>10} {what}", megabytes(step.done))
}

/// Writes over the line that stands there.
fn write(line: &str) {
    // What cannot be shown is no reason to stop.
    let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let progress = |pages_done| Progress {
            pages_done,
            pages: 1_000,
            page_bytes: 4_096,
        };
        assert_eq!(
            line(progress(500), Duration::from_secs(2)),
            " 50 %     2.0 MB       1.0 MB/s"
        );
        assert_eq!(
            line(progress(0), Duration::ZERO),
            "  0 %     0.0 MB       0.0 MB/s"
        );
        assert_eq!(
            line(progress(1_000), Duration::ZERO),
            "copied; checking the copy"
        );
    }

    #[test]
    fn the_line_of_a_part_says_which_it_is() {
        let step = Transfer {
            done: 1_500_000,
            bytes: 3_000_000,
        };
        assert_eq!(transfer_line("sending", step), " 50 %     1.5 MB sending");
    }
}
