//! What outlives the process: every run of a job, with its begin and its end.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use houseboat::database;
use houseboat::queue::Attempt;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::Site;

/// What outlives the process.
pub(crate) struct Book {
    pub(crate) file: File,
    pub(crate) runs: AtomicU64,
    /// How far the wall clock is from the system's, in milliseconds.
    pub(crate) offset: AtomicI64,
    pub(crate) is_feeding: AtomicBool,
}

impl Book {
    /// One write, which a kill does not tear.
    pub(crate) fn line(&self, text: &str) {
        let line = format!("{text}\n");
        (&self.file)
            .write_all(line.as_bytes())
            .expect("the disk takes a line");
    }
}

/// Nanoseconds since the machine was started.
fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// One run of a job, written down from its begin to its end, whichever that is.
pub(crate) struct Run {
    book: Arc<Book>,
    number: u64,
    is_open: bool,
}

impl Run {
    pub(crate) fn begin(attempt: &Attempt<Site>, tag: i64) -> Self {
        let book = Arc::clone(&attempt.book);
        let number = book.runs.fetch_add(1, Ordering::Relaxed);
        let (id, attempt) = (attempt.id(), attempt.number());
        book.line(&format!("B {} {number} {id} {attempt} {tag}", since_boot()));
        Self {
            book,
            number,
            is_open: true,
        }
    }

    /// From here on another may run it: what comes completes it.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.book
                .line(&format!("E {} {}", since_boot(), self.number));
        }
    }

    /// Writes down when the table says that it was claimed, by the wall clock.
    pub(crate) async fn note_start(&self, attempt: &Attempt<Site>) -> database::Result<()> {
        let id = attempt.id();
        let read = attempt.database.read(move |conn| {
            let mut query = conn.prepare_cached("SELECT started_at FROM jobs WHERE id = ?1")?;
            Ok(query.query_row([id], |row| row.get::<_, i64>(0))?)
        });
        let started = read.await?;
        let wall = Timestamp::now().as_millisecond();
        self.book
            .line(&format!("S {} {started} {wall}", self.number));
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}
