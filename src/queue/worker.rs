//! What runs jobs.
//!
//! One loop: in a single transaction it records what ended and claims what is due, then it waits for the first of:
//! a commit that brings a job, the end of a job, the time of the next one, the stop.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::database;
use crate::queue::Attempt;
use crate::queue::Queue;
use crate::queue::Settings;
use crate::queue::attempt::Claim;
use crate::queue::entering::name;
use crate::queue::hands::Grip;
use crate::queue::job::Jobs;
use crate::queue::job::Kind;
use crate::queue::passed::Passed;
use crate::queue::pulse::Pulse;
use crate::queue::round::Round;
use crate::queue::run::failed;
use crate::queue::run::run;
use crate::queue::settings::QueueSettings;
use crate::queue::shares::Shares;
use crate::queue::store::claim::Claimed;
use crate::queue::store::finish;
use crate::queue::store::finish::End;
use crate::queue::store::workers;

/// How long to wait before the queue is asked again after the database refused.
pub(super) const REFUSED_WAIT: Duration = Duration::from_millis(500);

/// How often the end of the jobs is tried to be recorded at the stop.
const RECORD_TRIES: u32 = 5;

/// So often the other tasks are let run before the next round.
const GATHER: u32 = 4;

/// Runs the jobs of a queue, so many at a time.
#[derive(Debug)]
pub struct Worker<C> {
    pub(super) queue: Queue,
    jobs: Jobs<C>,
    context: C,
    settings: Settings,
    /// The names of the jobs it knows, and the same as JSON.
    kinds: Arc<[String]>,
    kinds_json: Arc<str>,
    /// The queues that it works on; all, if none are named.
    only: Option<Arc<[String]>>,
    only_json: Option<Arc<str>>,
    queues: Arc<BTreeMap<String, QueueSettings>>,
}

/// What the loop holds between two rounds.
#[derive(Default)]
pub(super) struct Held {
    tasks: JoinSet<End>,
    running: HashMap<tokio::task::Id, (Claimed, Arc<Grip>)>,
    /// What ended and is not recorded yet.
    ended: Arc<Vec<(Claimed, End)>>,
    /// Whether what runs is a suspect, beside which nothing else may run.
    is_alone: bool,
    is_mixed: bool,
    /// How far the worker has got past what is left to others.
    passed: Passed,
    /// What each queue has had lately.
    shares: Shares,
    /// When the last round was, in milliseconds since 1970.
    last: i64,
    /// Whether the answer of a round was lost, and with it what it may have claimed.
    is_in_doubt: bool,
}

impl<C: Clone + Send + Sync + 'static> Worker<C> {
    /// A worker for the jobs given; each gets a clone of `context`.
    #[must_use]
    pub fn new(queue: Queue, jobs: Jobs<C>, context: C, settings: Settings) -> Self {
        let kinds = jobs.names();
        let kinds_json = serde_json::Value::from(kinds.clone()).to_string().into();
        Self {
            queue,
            jobs,
            context,
            kinds: kinds.into(),
            kinds_json,
            only: None,
            only_json: None,
            queues: settings.queues.clone().into(),
            settings,
        }
    }

    /// Runs the jobs of these queues alone.
    #[must_use]
    pub fn only(self, queues: Vec<String>) -> Self {
        let only_json = serde_json::Value::from(queues.clone()).to_string().into();
        Self {
            only: Some(queues.into()),
            only_json: Some(only_json),
            ..self
        }
    }

    /// Runs jobs until `stop`; then lets those that run end, or puts them back after `queue.stop_ms`.
    ///
    /// What processes have left that died is put back first: all of it when nobody else runs jobs of this database,
    /// else what the dead one has left, once it has given no sign of life for `queue.lease_ms`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some((presence, worker)) = stop.run_until_cancelled(self.enter()).await else {
            return;
        };
        let pulse = Arc::new(self.pulse(worker));
        let beating = CancellationToken::new();
        let thread = pulse.start(beating.clone());
        // Also when this future is dropped.
        let beating = beating.drop_guard();
        if let Err(error) = &thread {
            tracing::error!(%error, "no heartbeat: other processes may take this one for dead");
        }
        let listening = async {
            tokio::select! {
                () = self.queue.wake.listen() => {}
                () = self.work(&pulse, &stop) => {}
            }
        };
        listening.await;
        drop(beating);
        let id = pulse.worker.load(Ordering::Acquire);
        let left = self
            .queue
            .database
            .write(move |tx| Ok(workers::leave(tx, id)?));
        if let Err(error) = left.await {
            tracing::debug!(%error, "the worker is still entered; nothing of it runs");
        }
        drop(presence);
    }

    async fn work(&self, pulse: &Arc<Pulse>, stop: &CancellationToken) {
        let mut held = Held::default();
        let mended = || stop.run_until_cancelled(self.queue.database.mended());
        while mended().await.is_some() {
            match self.round(pulse, &mut held).await {
                Ok(_) if self.settings.workers == 0 => self.watch(pulse, stop).await,
                Ok(wait) => self.wait(&mut held, wait, stop).await,
                Err(error) => {
                    tracing::warn!(%error, "the queue could not be asked");
                    held.is_in_doubt = true;
                    stop.run_until_cancelled(tokio::time::sleep(REFUSED_WAIT))
                        .await;
                }
            }
        }
        self.end(pulse, held).await;
    }

    fn pulse(&self, worker: i64) -> Pulse {
        let kinds = Arc::clone(&self.kinds_json);
        Pulse::new(&self.queue, worker, kinds, self.settings.lease())
    }

    /// What the next round is to do.
    fn plan(&self, held: &Held) -> Round {
        let mut running: HashMap<String, usize> = HashMap::new();
        for (job, _) in held.running.values() {
            match running.get_mut(&job.queue) {
                Some(count) => *count += 1,
                None => {
                    running.insert(job.queue.clone(), 1);
                }
            }
        }
        Round {
            worker: 0,
            name: name(),
            kinds: Arc::clone(&self.kinds),
            kinds_json: Arc::clone(&self.kinds_json),
            only: self.only.clone(),
            only_json: self.only_json.clone(),
            queues: Arc::clone(&self.queues),
            workers: self.settings.workers,
            running,
            is_alone: held.is_alone,
            is_mixed: held.is_mixed,
            passed: held.passed.clone(),
            shares: held.shares.clone(),
            last: held.last,
            ended: Arc::clone(&held.ended),
            in_doubt: held.is_in_doubt.then(|| Arc::new(held.known())),
        }
    }

    /// Records what ended, claims what is due, and says how long nothing more will be.
    async fn round(&self, pulse: &Arc<Pulse>, held: &mut Held) -> database::Result<Duration> {
        let round = Round {
            worker: pulse.worker.load(Ordering::Acquire),
            ..self.plan(held)
        };
        let was_idle = held.running.is_empty();
        let brings = held.ended.iter().any(|(job, end)| end.brings(job));
        let write = self
            .queue
            .database
            .write(move |tx| Ok((Instant::now(), round.run(tx)?)));
        let (at, outcome) = write.await?;
        self.let_go(held);
        held.is_in_doubt = false;
        held.is_mixed = outcome.is_mixed;
        held.passed = outcome.passed;
        held.shares = outcome.shares;
        held.last = outcome.now;
        held.is_alone = outcome.is_alone || (held.is_alone && !held.running.is_empty());
        // In this order: what was claimed by the entry before is not ours any more.
        pulse.worker.store(outcome.worker, Ordering::Release);
        pulse.gave_sign(at);
        self.queue.wake.has_others(outcome.has_others);
        let begins = was_idle && !outcome.jobs.is_empty();
        if outcome.has_others && (begins || brings) {
            // They watch over what runs here, and may have a hand free for what waits again.
            self.queue.wake.tell();
        }
        pulse.leaves.store(outcome.leaves, Ordering::Release);
        let is_active = outcome.has_others || begins;
        for job in outcome.jobs {
            self.start(pulse, held, (outcome.worker, job));
        }
        if is_active {
            pulse.active.notify_one();
        }
        // Short jobs end before there is time to wait for them.
        self.gather(held).await;
        Ok(self.until(outcome.due))
    }

    /// Runs nothing, and has the pulse watch over those who do: they tell when they begin.
    ///
    /// Nobody else may live who could put back what they leave when they are killed.
    async fn watch(&self, pulse: &Pulse, stop: &CancellationToken) {
        let told = || stop.run_until_cancelled(self.queue.wake.notified());
        while told().await.is_some() {
            pulse.active.notify_one();
            // Every job that is enqueued here wakes it as well.
            let pause = tokio::time::sleep(pulse.pause());
            stop.run_until_cancelled(pause).await;
        }
    }

    async fn wait(&self, held: &mut Held, wait: Duration, stop: &CancellationToken) {
        // With no hand free, what a commit or the clock brings cannot be claimed anyway.
        let running = held.tasks.len();
        let free = running < self.settings.workers && !(held.is_alone && running > 0);
        if !held.ended.is_empty() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.queue.wake.notified(), if free => {}
            () = tokio::time::sleep(wait), if free => {}
            Some(ended) = held.tasks.join_next_with_id() => self.collect(held, ended),
        }
        self.gather(held).await;
    }

    /// Takes what has ended, and what ends in the same moment: one transaction for many costs little more than for one.
    async fn gather(&self, held: &mut Held) {
        for _ in 0..GATHER {
            let before = held.tasks.len();
            while let Some(ended) = held.tasks.try_join_next_with_id() {
                self.collect(held, ended);
            }
            let is_quiet = held.tasks.len() == before && !held.ended.is_empty();
            if held.tasks.is_empty() || is_quiet {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn until(&self, due: Option<i64>) -> Duration {
        let poll = self.settings.poll();
        due.map_or(poll, |due| {
            let wait = due.saturating_sub(self.queue.database.now().as_millisecond());
            Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(poll)
        })
    }

    fn start(&self, pulse: &Arc<Pulse>, held: &mut Held, (worker, job): (i64, Claimed)) {
        let Some(kind) = self.jobs.get(&job.kind) else {
            tracing::error!(job.kind, job.id, "a job of an unknown kind was claimed");
            return;
        };
        let span = tracing::info_span!("job", job.id, job.kind, job.attempt);
        let grip = Arc::new(Grip::new(job.claims, pulse.owner));
        let before = self.queue.hands.take(job.id, Arc::clone(&grip));
        let over = grip.over.clone().drop_guard();
        let run = run(kind, &job, self.attempt(&job, &grip), Arc::clone(&grip));
        let pulse = Arc::clone(pulse);
        let run = async move {
            let _over = over;
            if let Some(before) = before {
                // It was taken from this process, and is claimed here again: never two at a time.
                before.break_off();
                before.over.cancelled().await;
            }
            if pulse.holds(worker) {
                return run.await;
            }
            tracing::warn!("not begun: for too long after it was claimed this process did not run");
            End::PutBack {
                wait: Duration::ZERO,
            }
        };
        let handle = held.tasks.spawn(run.instrument(span));
        held.running.insert(handle.id(), (job, grip));
    }

    /// Claims the one job that is to be run next, where nothing else runs any.
    pub(super) async fn claim_one(&self, worker: &AtomicI64) -> database::Result<Option<Claimed>> {
        let round = Round {
            worker: worker.load(Ordering::Acquire),
            workers: 1,
            ..self.plan(&Held::default())
        };
        let outcome = self.queue.database.write(move |tx| round.run(tx)).await?;
        worker.store(outcome.worker, Ordering::Release);
        Ok(outcome.jobs.into_iter().next())
    }

    pub(super) fn kinds_json(&self) -> Arc<str> {
        Arc::clone(&self.kinds_json)
    }

    pub(super) fn kind(&self, job: &Claimed) -> Option<&Kind<C>> {
        self.jobs.get(&job.kind)
    }

    pub(super) fn attempt(&self, job: &Claimed, grip: &Grip) -> Attempt<C> {
        let claim = Claim {
            id: job.id,
            claims: job.claims,
            number: job.attempt,
            is_plain: job.is_plain(),
            limit: job.limit.clone(),
            cursor: job.cursor.clone(),
            database: self.queue.database.clone(),
            stop: grip.stop.clone(),
            is_finished: Arc::clone(&grip.is_finished),
            progress: Arc::clone(&grip.progress),
        };
        Attempt::new(self.context.clone(), Arc::new(claim))
    }

    fn collect(&self, held: &mut Held, ended: Result<(tokio::task::Id, End), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, end)) => (id, Ok(end)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((mut job, grip)) = held.running.remove(&id) else {
            return;
        };
        if !grip.is_to_be_there() {
            // It is recorded: the job did that itself.
            self.queue.hands.let_go(job.id, job.claims);
            return;
        }
        job.last_word = grip.progress.last();
        let end = ended.unwrap_or_else(|error| self.panicked(&job, error));
        Arc::make_mut(&mut held.ended).push((job, end));
    }

    pub(super) fn panicked(&self, job: &Claimed, error: JoinError) -> End {
        let text = match error.try_into_panic() {
            Ok(panic) => format!("it panicked: {}", database::panic_text(panic.as_ref())),
            // It was broken off by the stop.
            Err(_) => {
                return End::PutBack {
                    wait: Duration::ZERO,
                };
            }
        };
        let backoff = self.jobs.get(&job.kind).map(|kind| kind.backoff_of(job));
        let backoff = move |attempt| {
            backoff
                .as_ref()
                .map_or(Duration::ZERO, |wait| wait(attempt))
        };
        let span = tracing::info_span!("job", job.id, job.kind, job.attempt);
        span.in_scope(|| failed(job.attempt, job.attempts_max, backoff, text))
    }

    /// Gives what runs its grace and puts back what does not end in it.
    async fn end(&self, pulse: &Pulse, mut held: Held) {
        for (_, grip) in self.queue.hands.of(pulse.owner) {
            grip.stop.cancel();
        }
        let worker = pulse.worker.load(Ordering::Acquire);
        let grace = tokio::time::sleep(self.settings.stop());
        tokio::pin!(grace);
        while !held.tasks.is_empty() {
            // At once: what is not recorded when the process is killed runs again.
            self.record(worker, &mut held).await;
            tokio::select! {
                () = &mut grace => break,
                Some(ended) = held.tasks.join_next_with_id() => self.collect(&mut held, ended),
            }
        }
        held.tasks.abort_all();
        let mut put_back = 0;
        // Each goes back when it has ended, and not before: one that blocks its thread does not notice that it is aborted.
        while let Some(ended) = held.tasks.join_next_with_id().await {
            put_back += usize::from(ended.as_ref().is_err_and(JoinError::is_cancelled));
            self.collect(&mut held, ended);
            self.record(worker, &mut held).await;
        }
        for attempt in 1..=RECORD_TRIES {
            if self.record(worker, &mut held).await {
                tracing::info!(put_back, "the worker has stopped");
                break;
            }
            tokio::time::sleep(REFUSED_WAIT / RECORD_TRIES * attempt).await;
        }
        if put_back > 0 {
            self.queue.wake.tell();
        }
    }

    /// Records what ended; says whether that is done.
    async fn record(&self, worker: i64, held: &mut Held) -> bool {
        if held.ended.is_empty() && !held.is_in_doubt {
            return true;
        }
        let ended = Arc::clone(&held.ended);
        let in_doubt = held.is_in_doubt.then(|| (worker, held.known()));
        let recorded = self.queue.database.write(move |tx| {
            for (job, end) in ended.iter() {
                finish::finish(tx, job, end)?;
            }
            if let Some((worker, known)) = &in_doubt {
                finish::put_back_unknowns(tx, *worker, known)?;
            }
            Ok(())
        });
        match recorded.await {
            Ok(()) => {
                self.let_go(held);
                held.is_in_doubt = false;
                true
            }
            Err(error) => {
                tracing::error!(%error, "what the jobs did could not be recorded");
                false
            }
        }
    }

    /// What ended is recorded.
    fn let_go(&self, held: &mut Held) {
        for (job, _) in held.ended.iter() {
            self.queue.hands.let_go(job.id, job.claims);
        }
        held.ended = Arc::default();
    }
}

impl Held {
    /// The claims that are known here, running or ended.
    fn known(&self) -> HashSet<(i64, i64)> {
        let ended = self.ended.iter().map(|(job, _)| job);
        let running = self.running.values().map(|(job, _)| job);
        let all = running.chain(ended);
        all.map(|job| (job.id, job.claims)).collect()
    }
}
