//! Computations that a test holds up, and those who fetch what they give.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::cache::Ttl;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::waiting::wait_for;

/// What takes longer than this hangs, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// A computation that counts itself, and waits until it is let go.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    begun: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            begun: Arc::default(),
            running: Arc::default(),
            peak: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// Gives its number, from 1 on, once it is let go.
    pub(crate) async fn run(&self) -> usize {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        number
    }

    pub(crate) fn let_go(&self, number: usize) {
        self.gate.add_permits(number);
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The most that there ever were at the same time.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    pub(crate) async fn has_begun(&self, number: usize) {
        let begun = async || (self.begun() >= number).then_some(());
        wait_for("computation", SOON, begun).await;
    }
}

pub(crate) type Answer = Result<usize, String>;

/// So many tasks that want the same at once; `compute` is what each would do for it.
pub(crate) fn visitors<F>(
    tasks: usize,
    cache: &Cache,
    ttl: impl Into<Ttl>,
    compute: impl Fn() -> F + Clone + Send + 'static,
) -> JoinSet<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let ttl = ttl.into();
    let mut visitors = JoinSet::new();
    for _ in 0..tasks {
        let (cache, compute) = (cache.clone(), compute.clone());
        visitors.spawn(async move { cache.fetch("k", ttl, compute).await });
    }
    visitors
}

/// What they were given, which nobody waits for in vain.
pub(crate) async fn answers(visitors: JoinSet<Answer>) -> Vec<Answer> {
    tokio::time::timeout(SOON, visitors.join_all())
        .await
        .unwrap()
}

/// Computes, when it is let go.
pub(crate) fn computing(
    work: &Work,
) -> impl Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Clone + use<> {
    let work = work.clone();
    move || {
        let work = work.clone();
        Box::pin(async move { Ok(work.run().await) })
    }
}
