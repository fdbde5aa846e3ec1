//! What other containers ask this one, and who waits for its place.

use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::database::Fence;
use crate::http::Control;
use crate::http::Front;
use crate::replication::Holder;

/// More than a deploy or two at once do not wait.
const WAITING_MAX: usize = 16;

/// What a container says when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The holder that it is, or would be.
    pub(super) id: String,
    /// Whether it holds the lease, and will go on to.
    pub(super) holds: bool,
    /// Whether it had the lease and writes no more, whatever the record says.
    #[serde(default)]
    pub(super) has_left: bool,
    /// Whether it passes requests on to another one just now.
    #[serde(default)]
    pub(super) passes: bool,
}

/// Answers for one container.
#[derive(Debug)]
pub(super) struct Desk {
    id: String,
    fence: Fence,
    front: Front,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    is_holder: bool,
    has_left: bool,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    holder: Holder,
    answer: oneshot::Sender<String>,
}

impl Desk {
    pub(super) fn new(id: String, fence: Fence, front: Front) -> Self {
        Self {
            id,
            fence,
            front,
            inside: Mutex::default(),
        }
    }

    /// Answers until nobody can ask any more.
    pub(super) async fn run(&self, mut questions: mpsc::Receiver<Control>) {
        while let Some(question) = questions.recv().await {
            match question {
                Control::Ask { answer } => {
                    // Who asked has gone: nothing to tell.
                    let _ = answer.send(self.answer());
                }
                Control::Wait { question, answer } => self.wait(&question, answer),
            }
        }
    }

    fn wait(&self, question: &str, answer: oneshot::Sender<String>) {
        let holder: Holder = match serde_json::from_str(question) {
            Ok(holder) => holder,
            Err(error) => {
                return tracing::debug!(%error, "a container that waits does not say who it is");
            }
        };
        let mut inside = self.inside();
        if !inside.is_holder {
            // Nothing to wait for.
            let _ = answer.send(self.says(&inside));
            return;
        }
        inside
            .waiting
            .retain(|it| !it.answer.is_closed() && it.holder.id != holder.id);
        if inside.waiting.len() < WAITING_MAX {
            tracing::info!(
                container = holder.id,
                "another container waits to take over"
            );
            inside.waiting.push(Waiting { holder, answer });
        }
    }

    /// From now on this container has the lease.
    pub(super) fn holds(&self) {
        self.inside().is_holder = true;
    }

    /// Who will take over, as far as that is known: the one that waits longest.
    pub(super) fn next(&self) -> Option<Holder> {
        let mut inside = self.inside();
        inside.waiting.retain(|it| !it.answer.is_closed());
        inside.waiting.first().map(|it| it.holder.clone())
    }

    /// Tells all who wait that this container writes no more; gives the one that was told first.
    pub(super) fn released(&self) -> Option<Holder> {
        let mut inside = self.inside();
        inside.is_holder = false;
        inside.has_left = true;
        let (says, mut told) = (self.says(&inside), None);
        for waiting in inside.waiting.drain(..) {
            if waiting.answer.send(says.clone()).is_ok() {
                told = told.or(Some(waiting.holder));
            }
        }
        told
    }

    fn answer(&self) -> String {
        self.says(&self.inside())
    }

    fn says(&self, inside: &Inside) -> String {
        let answer = Answer {
            id: self.id.clone(),
            holds: inside.is_holder && self.fence.is_open(),
            has_left: inside.has_left,
            passes: self.front.is_passing(),
        };
        serde_json::to_string(&answer).expect("a name and two words are JSON")
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
