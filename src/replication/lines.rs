//! What Litestream prints, in our log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::replication::program::Program;

/// So many lines are kept, to be told when it dies.
const LAST: usize = 6;

/// A longer line is cut, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// A line that is told in an error is cut there, in characters.
const TOLD_MAX: usize = 400;

/// How many complaints are logged as such in each window; an outage has one a second.
const COMPLAINTS_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_mins(1);

/// How long the last lines of a dead process are waited for; they are in the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// Reads what a process prints until it ends, or this is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    last: Arc<Mutex<VecDeque<String>>>,
    readers: JoinSet<()>,
}

impl Lines {
    /// Takes what is left to take of the process's standard output and error.
    pub(super) fn of(program: &Program, child: &mut Child) -> Self {
        let mut lines = Self {
            last: Arc::default(),
            readers: JoinSet::new(),
        };
        if let Some(stream) = child.stdout.take() {
            lines.read(program, stream);
        }
        if let Some(stream) = child.stderr.take() {
            lines.read(program, stream);
        }
        lines
    }

    fn read(&mut self, program: &Program, stream: impl AsyncRead + Send + Unpin + 'static) {
        let (program, last) = (program.clone(), Arc::clone(&self.last));
        self.readers.spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut limit = Limit::default();
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                let mut line = (&mut stream).take(LINE_BYTES_MAX);
                if !matches!(line.read_until(b'\n', &mut bytes).await, Ok(1..)) {
                    break;
                }
                let line = program.redacted(String::from_utf8_lossy(&bytes).trim());
                if line.is_empty() {
                    continue;
                }
                let (level, text) = parts(&line);
                keep(&last, level, text);
                log(level, text, &mut limit);
            }
        });
    }

    /// The last lines of a process that has ended, the complaints if it had any.
    pub(super) async fn end(mut self) -> String {
        let all = async { while self.readers.join_next().await.is_some() {} };
        // Who holds the pipe open yet says nothing that matters.
        let _ = tokio::time::timeout(DRAIN, all).await;
        self.so_far()
    }

    /// The last lines so far.
    pub(super) fn so_far(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = last.iter().map(String::as_str).collect();
        lines.join("; ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Complaint,
    Quiet,
}

/// Cuts the time and the level off; what has none is a complaint, such as `Error: …`.
fn parts(line: &str) -> (Level, &str) {
    let json = ["\"level\":\"INFO\"", "\"level\":\"DEBUG\""];
    if json.iter().any(|level| line.contains(level)) {
        return (Level::Quiet, line);
    }
    let Some((_, rest)) = line.split_once("level=") else {
        return (Level::Complaint, line);
    };
    match rest.split_once(' ') {
        Some(("INFO" | "DEBUG", text)) => (Level::Quiet, text),
        Some((_, text)) => (Level::Complaint, text),
        None => (Level::Complaint, line),
    }
}

/// Keeps complaints; they stay when quiet lines come, which are kept for want of any.
fn keep(last: &Mutex<VecDeque<String>>, level: Level, text: &str) {
    if level == Level::Quiet {
        return;
    }
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.len() == LAST {
        last.pop_front();
    }
    last.push_back(text.chars().take(TOLD_MAX).collect());
}

fn log(level: Level, text: &str, limit: &mut Limit) {
    if level == Level::Quiet {
        tracing::debug!("litestream: {text}");
        return;
    }
    match limit.admit(Instant::now()) {
        Admitted::Yes { held_back: 0 } => tracing::warn!("litestream: {text}"),
        Admitted::Yes { held_back } => {
            tracing::warn!(held_back, "litestream: {text}");
        }
        Admitted::No => tracing::debug!("litestream: {text}"),
    }
}

/// Lets some complaints through in each window.
#[derive(Debug, Default)]
struct Limit {
    since: Option<Instant>,
    admitted: u32,
    held_back: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// With the number of those that were held back since the last one.
    Yes {
        held_back: u32,
    },
    No,
}

impl Limit {
    fn admit(&mut self, now: Instant) -> Admitted {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= WINDOW)
        {
            self.since = Some(now);
            self.admitted = 0;
        }
        if self.admitted == COMPLAINTS_MAX {
            self.held_back = self.held_back.saturating_add(1);
            return Admitted::No;
        }
        self.admitted += 1;
        Admitted::Yes {
            held_back: std::mem::take(&mut self.held_back),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_found_and_cut_off() {
        for (line, level, text) in [
            (
                "time=2026-11-21T07:52:27.601Z level=INFO msg=litestream",
                Level::Quiet,
                "msg=litestream",
            ),
            (
                "time=x level=ERROR msg=\"sync error\"",
                Level::Complaint,
                "msg=\"sync error\"",
            ),
            ("time=x level=WARN msg=slow", Level::Complaint, "msg=slow"),
            ("Error: no bucket", Level::Complaint, "Error: no bucket"),
            (
                "{\"level\":\"INFO\",\"msg\":\"x\"}",
                Level::Quiet,
                "{\"level\":\"INFO\",\"msg\":\"x\"}",
            ),
        ] {
            assert_eq!(parts(line), (level, text), "{line}");
        }
    }

    #[test]
    fn five_complaints_a_minute_and_then_the_number_of_the_others() {
        let mut limit = Limit::default();
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(limit.admit(start), Admitted::Yes { held_back: 0 });
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start), Admitted::No);
        }
        assert_eq!(limit.admit(start + WINDOW), Admitted::Yes { held_back: 7 });
        assert_eq!(limit.admit(start + WINDOW), Admitted::Yes { held_back: 0 });
    }
}
