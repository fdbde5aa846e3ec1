//! Visitors of a ledger, who write and read all the time and hold it to its word.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use reqwest::Client;
use tokio::task::JoinSet;

use crate::support::client::client;
use crate::support::ledger::Container;
use crate::support::ledger::SOON;
use crate::support::waiting::wait_for;

const WRITERS: usize = 4;
const READERS: usize = 2;

/// Between two requests of a visitor; the machine is shared.
const PAUSE: Duration = Duration::from_millis(5);

/// Visitors; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Visitors {
    book: Arc<Book>,
    tasks: JoinSet<()>,
}

/// What they have seen.
#[derive(Debug, Default)]
struct Book {
    /// Where they go, as a proxy would send them: to each in turn.
    targets: Mutex<Vec<String>>,
    is_over: AtomicBool,
    next: AtomicU64,
    acknowledged: Mutex<Vec<Row>>,
    failures: Mutex<Vec<String>>,
    /// How many answers came from each target.
    answers: Mutex<BTreeMap<String, u64>>,
    longest: Mutex<Duration>,
}

/// A row that a site has said it stored.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    id: i64,
    pub(crate) text: String,
    /// When that was said.
    pub(crate) at: Instant,
}

impl Visitors {
    /// They come to these containers from now on.
    pub(crate) fn come(containers: &[&Container]) -> Self {
        let visitors = Self {
            book: Arc::default(),
            tasks: JoinSet::new(),
        };
        visitors.go_to(containers);
        let mut visitors = visitors;
        for number in 0..WRITERS + READERS {
            let book = Arc::clone(&visitors.book);
            let visit = async move {
                let client = client();
                while !book.is_over.load(Ordering::Relaxed) {
                    book.visit(&client, number < WRITERS).await;
                    tokio::time::sleep(PAUSE).await;
                }
            };
            visitors.tasks.spawn(visit);
        }
        visitors
    }

    /// From now on they go here.
    pub(crate) fn go_to(&self, containers: &[&Container]) {
        let targets = containers.iter().map(|container| container.url(""));
        *self.book.targets.lock().unwrap() = targets.collect();
    }

    /// Waits until each of these has answered so many more requests.
    pub(crate) async fn are_answered(&self, containers: &[&Container], times: u64) {
        for container in containers {
            let end = self.answers(container) + times;
            let answered = async || (self.answers(container) >= end).then_some(());
            let what = format!("{times} answers of {}", container.address());
            wait_for(&what, SOON, answered).await;
        }
    }

    fn answers(&self, container: &Container) -> u64 {
        let answers = self.book.answers.lock().unwrap();
        answers.get(&container.url("")).copied().unwrap_or(0)
    }

    /// What was acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Vec<Row> {
        self.book.acknowledged.lock().unwrap().clone()
    }

    /// What did not get the answer that it should have had, so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.book.failures.lock().unwrap().clone()
    }

    /// The longest that an answer took.
    pub(crate) fn longest(&self) -> Duration {
        *self.book.longest.lock().unwrap()
    }

    /// Waits until each has its last answer.
    pub(crate) async fn leave(&mut self) {
        self.book.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Makes sure that all that was acknowledged is in `rows`.
    pub(crate) fn are_in(&self, rows: &BTreeSet<String>, what: &str) {
        missing(self.acknowledged().iter(), rows, what);
    }
}

/// Fails where one of these is not in `rows`.
pub(crate) fn missing<'a>(
    acknowledged: impl Iterator<Item = &'a Row>,
    rows: &BTreeSet<String>,
    what: &str,
) {
    let mut count = 0;
    let missing: Vec<_> = acknowledged
        .inspect(|_| count += 1)
        .filter(|row| !rows.contains(&row.text))
        .collect();
    assert!(count > 0, "nothing was acknowledged");
    assert!(
        missing.is_empty(),
        "{what}: {} of {count} acknowledged rows are missing, the first {:?}, the last {:?}",
        missing.len(),
        missing.first(),
        missing.last(),
    );
}

impl Book {
    async fn visit(&self, client: &Client, is_write: bool) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let target = {
            let targets = self.targets.lock().unwrap();
            targets[usize::try_from(number).unwrap() % targets.len()].clone()
        };
        let begun = Instant::now();
        let seen = if is_write {
            self.write(client, &target, format!("row {number}")).await
        } else {
            self.read(client, &target).await
        };
        let took = begun.elapsed();
        {
            let mut longest = self.longest.lock().unwrap();
            *longest = took.max(*longest);
        }
        match seen {
            Ok(()) => {
                let mut answers = self.answers.lock().unwrap();
                *answers.entry(target).or_default() += 1;
            }
            Err(failure) => {
                let kind = if is_write { "write" } else { "read" };
                let failure = format!("{kind} at {target} after {took:?}: {failure}");
                self.failures.lock().unwrap().push(failure);
            }
        }
    }

    async fn write(&self, client: &Client, target: &str, text: String) -> Result<(), String> {
        let request = client.post(format!("{target}/rows")).body(text.clone());
        let request = request.header("sec-fetch-site", "same-origin");
        let answer = send(request).await?;
        let id = answer.parse().map_err(|_| format!("answer {answer:?}"))?;
        let at = Instant::now();
        let row = Row { id, text, at };
        self.acknowledged.lock().unwrap().push(row);
        Ok(())
    }

    async fn read(&self, client: &Client, target: &str) -> Result<(), String> {
        let row = {
            let rows = self.acknowledged.lock().unwrap();
            if rows.is_empty() {
                return Ok(());
            }
            // Now the last one, now any.
            let back = if fastrand::bool() { 1 } else { rows.len() };
            rows[rows.len() - fastrand::usize(1..=back)].clone()
        };
        let answer = send(client.get(format!("{target}/rows/{}", row.id))).await?;
        if answer == row.text {
            Ok(())
        } else {
            Err(format!("{row:?} reads {answer:?}"))
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<String, String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status == 200 {
        return Ok(text);
    }
    let brief: String = text.chars().take(200).collect();
    Err(format!("{status}: {brief}"))
}
