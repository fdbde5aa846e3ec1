//! How far a job is, by its own word.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// It is written no more often than that.
const PAUSE: Duration = Duration::from_millis(500);

/// What a job has said last, until that is written.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// When it was written by a write of its own.
    at: Option<Instant>,
    count: u64,
    last: Option<Word>,
}

/// How far a job is: 0 to 1, and a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    /// Which of all that the attempt has said.
    number: u64,
    pub(super) part: f64,
    pub(super) text: String,
}

impl Progress {
    /// Takes a word, and gives it back if it is to be written now; if not, it is kept.
    pub(super) fn say(&self, part: f64, text: String) -> Option<Word> {
        let mut said = self.said();
        said.count += 1;
        let word = Word {
            number: said.count,
            part: part.clamp(0.0, 1.0),
            text,
        };
        let now = Instant::now();
        if said.at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            said.last = Some(word);
            return None;
        }
        // What was kept is said no more, and must not be written after this one.
        said.last = None;
        said.at = Some(now);
        Some(word)
    }

    /// The last word, if it is not written yet.
    pub(super) fn last(&self) -> Option<Word> {
        self.said().last.clone()
    }

    /// This word is written, and need not be again.
    pub(super) fn is_written(&self, word: &Word) {
        let mut said = self.said();
        said.last.take_if(|last| last.number == word.number);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
