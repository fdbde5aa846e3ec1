//! Several workers, and what happens to them.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::database;
use crate::database::Clock;
use crate::database::Database;
use crate::database::Settings;
use crate::database::Transaction;
use crate::queue::Enqueued;
use crate::queue::MIGRATIONS;
use crate::queue::Queue;
use crate::queue::State;
use crate::queue::model_tests::requests;
use crate::queue::model_tests::requests::PERIOD;
use crate::queue::model_tests::requests::PROCESSES;
use crate::queue::model_tests::requests::kinds;
use crate::queue::model_tests::requests::kinds_json;
use crate::queue::model_tests::table;
use crate::queue::passed::Passed;
use crate::queue::round::Outcome;
use crate::queue::round::Round;
use crate::queue::shares::Shares;
use crate::queue::store;
use crate::queue::store::claim::Claimed;
use crate::queue::store::enqueue;
use crate::queue::store::finish;
use crate::queue::store::finish::End;
use crate::queue::store::limits;
use crate::queue::store::workers;

const WORKERS: usize = 3;

/// A process that runs jobs, as `Worker` and `Pulse` do.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are those of `worker::Held`"
)]
struct Process {
    is_alive: bool,
    worker: i64,
    running: Vec<Claimed>,
    ended: Vec<(Claimed, End)>,
    is_alone: bool,
    is_mixed: bool,
    passed: Passed,
    leaves: bool,
    shares: Shares,
    last: i64,
    is_in_doubt: bool,
    /// The beats of the others, and how often each was seen.
    seen: HashMap<i64, (i64, u32)>,
}

pub(super) struct Crew {
    database: Database,
    queue: Queue,
    clock: Clock,
    _folder: TempDir,
    rng: Rng,
    seed: u64,
    processes: [Process; PROCESSES],
    /// Those that were really started.
    started: HashSet<i64>,
    /// The starts of each rate, and until when each key is held.
    starts: HashMap<String, Vec<i64>>,
    held: HashMap<String, i64>,
    log: Vec<String>,
}

impl Crew {
    pub(super) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            path: folder.path().join("site.sqlite3"),
            network_filesystem: database::NetworkFilesystem::Allow,
            ..Settings::default()
        };
        let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
        let database = Database::open(&settings, clock.clone()).unwrap();
        database.migrate(&[MIGRATIONS]).await.unwrap();
        Self {
            queue: Queue::new(database.clone()),
            database,
            clock,
            _folder: folder,
            rng: Rng::with_seed(0),
            seed: 0,
            processes: Default::default(),
            started: HashSet::new(),
            starts: HashMap::new(),
            held: HashMap::new(),
            log: Vec::new(),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> database::Result<T> + Send + 'static,
    ) -> T {
        let done = self.database.write(work).await;
        done.unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    fn fail(&self, what: &str) -> ! {
        panic!("sequence {}: {what}\n{}", self.seed, self.log.join("\n"))
    }

    pub(super) async fn begin(&mut self, seed: u64) {
        self.seed = seed;
        self.rng = Rng::with_seed(seed);
        self.processes = Default::default();
        self.starts.clear();
        self.held.clear();
        self.started.clear();
        self.log.clear();
        self.write(|tx| Ok(table::empty(tx)?)).await;
    }

    pub(super) async fn step(&mut self) {
        let process = self.rng.usize(..PROCESSES);
        let choice = self.rng.u32(..100);
        self.log.push(format!("{process}: {choice}"));
        let is_alive = self.processes[process].is_alive;
        match choice {
            0..22 => self.enqueue().await,
            22..26 => self.pass(),
            26..28 => self.jump(),
            28..32 => self.operate().await,
            32..33 => self.prune().await,
            33..100 if !is_alive => self.start(process).await,
            33..36 => self.kill(process),
            36..38 => self.stop(process).await,
            38..56 => self.end_one(process).await,
            56..60 => self.finish_one(process).await,
            60..72 => self.look(process).await,
            72..74 => self.round(process, false).await,
            _ => self.round(process, true).await,
        }
    }

    /// Fails when something is wrong with the table.
    pub(super) async fn check(&self) {
        let started = self.started.clone();
        let found =
            self.database.read(move |connection| {
                let wrong = table::wrong(connection)?;
                let is_doubled = table::doubled(connection, &started)?;
                Ok(wrong
                    .or_else(|| is_doubled.then(|| "two of a key wait for their start".to_owned())))
            });
        if let Some(wrong) = found.await.unwrap() {
            self.fail(&wrong);
        }
        let mut held = HashSet::new();
        for process in &self.processes {
            let ended = process.ended.iter().map(|(job, _)| job);
            for job in process.running.iter().chain(ended) {
                if !held.insert((job.id, job.claims)) {
                    self.fail(&format!("two hold claim {} of job {}", job.claims, job.id));
                }
            }
        }
    }

    fn pass(&mut self) {
        self.clock
            .advance(Duration::from_millis(self.rng.u64(1..8_000)));
    }

    /// The clock is set.
    fn jump(&mut self) {
        let hour = jiff::SignedDuration::from_hours(1);
        let by = if self.rng.bool() { hour } else { -hour };
        let now = self.clock.now().checked_add(by).unwrap();
        self.clock.set(now);
        // Starts that are in the future now count from now on.
        let now = now.as_millisecond();
        for at in self.starts.values_mut().flatten() {
            *at = (*at).min(now);
        }
        // And so do periods.
        for until in self.held.values_mut() {
            *until = (*until).min(now + store::millis(PERIOD));
        }
    }

    async fn enqueue(&mut self) {
        let request = requests::any(&mut self.rng);
        let is_new_kind = request.kind == "new";
        let unique = request.unique.clone();
        let within = unique.as_ref().filter(|it| it.key == "within");
        let within = within.map(|it| format!("{is_new_kind}{}{}", request.kind, it.key));
        let now = self.clock.now().as_millisecond();
        let done = self
            .write(move |tx| Ok(enqueue::insert(tx, request)?))
            .await;
        self.log.push(format!("  {done:?} {unique:?}"));
        if let (Enqueued::New(_), Some(key)) = (done, within) {
            let until = now + store::millis(PERIOD);
            if let Some(held) = self.held.insert(key, until)
                && now < held
            {
                self.fail("a key was given twice within its period");
            }
        }
    }

    async fn start(&mut self, process: usize) {
        let is_alone = self.processes.iter().all(|one| !one.is_alive);
        let json = kinds_json(process);
        let worker = self.write(move |tx| {
            if is_alone {
                workers::clear(tx)?;
            } else {
                workers::orphans(tx)?;
            }
            Ok(workers::enter(tx, "a process", &json)?)
        });
        let worker = worker.await;
        self.processes[process] = Process {
            is_alive: true,
            worker,
            ..Process::default()
        };
    }

    fn kill(&mut self, process: usize) {
        self.processes[process] = Process::default();
    }

    async fn stop(&mut self, process: usize) {
        let one = std::mem::take(&mut self.processes[process]);
        let wait = Duration::ZERO;
        let known = one.known();
        let running = one
            .running
            .into_iter()
            .map(|job| (job, End::PutBack { wait }));
        let ended: Vec<_> = one.ended.into_iter().chain(running).collect();
        self.write(move |tx| {
            for (job, end) in &ended {
                finish::finish(tx, job, end)?;
            }
            if one.is_in_doubt {
                finish::put_back_unknowns(tx, one.worker, &known)?;
            }
            Ok(workers::leave(tx, one.worker)?)
        })
        .await;
    }

    async fn round(&mut self, process: usize, is_answered: bool) {
        let one = &self.processes[process];
        let mut running = HashMap::new();
        for job in &one.running {
            *running.entry(job.queue.clone()).or_insert(0) += 1;
        }
        let round = Round {
            worker: one.worker,
            name: "a process".into(),
            kinds: kinds(process),
            kinds_json: kinds_json(process),
            only: None,
            only_json: None,
            queues: Arc::default(),
            workers: WORKERS,
            running,
            is_alone: one.is_alone,
            is_mixed: one.is_mixed,
            passed: one.passed.clone(),
            shares: one.shares.clone(),
            last: one.last,
            ended: Arc::new(one.ended.clone()),
            in_doubt: one.is_in_doubt.then(|| Arc::new(one.known())),
        };
        let outcome = self.write(move |tx| round.run(tx)).await;
        self.count(&outcome);
        let one = &mut self.processes[process];
        if !is_answered {
            one.is_in_doubt = true;
            return;
        }
        let was_running = one.running.len();
        one.ended.clear();
        one.is_in_doubt = false;
        one.worker = outcome.worker;
        one.shares = outcome.shares.clone();
        one.last = outcome.now;
        one.is_mixed = outcome.is_mixed;
        one.passed = outcome.passed.clone();
        one.leaves = outcome.leaves;
        let was_alone = one.is_alone && was_running > 0;
        one.is_alone = outcome.is_alone || was_alone;
        one.running.extend(outcome.jobs.iter().cloned());
        let is_one_alone = was_running + outcome.jobs.len() == 1;
        if outcome.is_alone && !is_one_alone || was_alone && !outcome.jobs.is_empty() {
            self.fail("a suspect does not run alone");
        }
    }

    /// Counts the starts that a round has made.
    fn count(&mut self, outcome: &Outcome) {
        let now = self.clock.now().as_millisecond();
        for job in &outcome.jobs {
            self.log
                .push(format!("  claims {} ({})", job.id, job.claims));
            self.started.insert(job.id);
            let Some(rate) = &job.rate else { continue };
            let starts = self.starts.entry(rate.key.clone()).or_default();
            starts.retain(|at| *at > now - rate.per_ms);
            starts.push(now);
            if starts.len() > rate.at_most as usize {
                self.fail("more are started within a time than may");
            }
        }
    }

    /// A job ends somehow.
    async fn end_one(&mut self, process: usize) {
        let one = &mut self.processes[process];
        if one.running.is_empty() {
            return;
        }
        let job = one.running.swap_remove(self.rng.usize(..one.running.len()));
        let error = "no".to_owned();
        let wait = Duration::from_millis(self.rng.u64(..10_000));
        let end = match self.rng.u32(..10) {
            _ if job.kind == "strange" && process + 1 < PROCESSES => End::Park { error },
            0..4 => End::Complete,
            4..7 if job.attempt >= job.attempts_max => End::Discard { error },
            4..7 => End::Retry { wait, error },
            7 => End::Cancel { reason: error },
            _ => End::PutBack { wait },
        };
        self.log
            .push(format!("  ends {} ({}) {end:?}", job.id, job.claims));
        if self.rng.bool() {
            self.processes[process].ended.push((job, end));
            return;
        }
        let (done, is_current, is_changed) = self
            .write(move |tx| {
                let token = (job.id, job.claims);
                let is_current = table::is_current(tx, token)?;
                let before = table::row(tx, job.id)?;
                let done = finish::finish(tx, &job, &end)?;
                Ok((done, is_current, table::row(tx, job.id)? != before))
            })
            .await;
        if done != is_current || is_changed != is_current {
            self.fail("an end counts that is not the claim's, or does not count that is");
        }
    }

    /// A job completes itself, and goes on; whatever it ends with after that changes nothing.
    async fn finish_one(&mut self, process: usize) {
        let one = &self.processes[process];
        let Some(job) = one.running.first().cloned() else {
            return;
        };
        let (done, is_current) = self
            .write(move |tx| {
                let token = (job.id, job.claims);
                let is_current = table::is_current(tx, token)?;
                Ok((
                    finish::complete(tx, (token.0, token.1, job.is_plain()), job.limit.as_ref())?,
                    is_current,
                ))
            })
            .await;
        if done != is_current {
            self.fail("a job completes itself by a claim that is not its own");
        }
    }

    /// What a pulse does.
    async fn look(&mut self, process: usize) {
        let worker = self.processes[process].worker;
        let json = kinds_json(process);
        let others = self
            .write(move |tx| {
                workers::beat(tx, worker)?;
                limits::sweep(tx)?;
                workers::orphans(tx)?;
                workers::unpark(tx, worker, &json)?;
                Ok(workers::others(tx, worker)?)
            })
            .await;
        for other in others {
            let seen = &mut self.processes[process].seen;
            let (beat, looks) = seen.entry(other.id).or_insert((other.beat, 0));
            if *beat != other.beat {
                (*beat, *looks) = (other.beat, 0);
                continue;
            }
            *looks += 1;
            if *looks > 1 {
                *looks = 0;
                // Nobody has to hear a call in time here: what is left to another is said to have called it.
                let is_called = self.processes[process].leaves;
                let buried = self
                    .write(move |tx| Ok(workers::bury(tx, other, is_called)?))
                    .await;
                self.log.push(format!("  buries {}: {buried:?}", other.id));
            }
        }
    }

    /// What an operator does; one who is told that it cannot be done leaves it.
    async fn operate(&mut self) {
        let nth = self.rng.u32(..6);
        let last = self.database.read(move |connection| {
            let sql = "SELECT max(coalesce(max(id), 0) - ?1, 0) FROM jobs";
            Ok(connection.query_row(sql, [nth], |row| row.get(0))?)
        });
        let id = last.await.unwrap();
        let choice = self.rng.u32(..6);
        let done = match choice {
            0 => self.queue.pause("aside").await.map(|()| true),
            1 => self.queue.resume("aside").await.map(|()| true),
            2 | 3 => self.queue.cancel(id, "asked to").await,
            4 => self.queue.discard(id).await,
            _ => self.queue.retry(id).await,
        };
        self.log
            .push(format!("  operates {choice} on {id}: {done:?}"));
    }

    async fn prune(&mut self) {
        let before = self.clock.now().as_millisecond() - 5_000;
        self.write(move |tx| {
            for state in [State::Completed, State::Discarded, State::Cancelled] {
                store::prune(tx, state, before, 100)?;
            }
            Ok(())
        })
        .await;
    }

    /// From here on all goes well, and every program can read the arguments: all comes to its end.
    pub(super) async fn drain(&mut self) {
        self.log.push("drains".to_owned());
        let last = PROCESSES - 1;
        for process in 0..PROCESSES {
            if self.rng.bool() {
                self.kill(process);
            }
        }
        self.kill(last);
        self.queue.resume("aside").await.unwrap();
        self.start(last).await;
        for turn in 0..200 {
            let step = if turn < 150 { 1 } else { 30 };
            self.clock.advance(Duration::from_mins(step));
            for process in (0..PROCESSES).rev() {
                if !self.processes[process].is_alive {
                    continue;
                }
                // What a look has let go on it tells its own worker first.
                self.look(process).await;
                self.round(process, true).await;
                while let Some(job) = self.processes[process].running.pop() {
                    let end = End::Complete;
                    self.processes[process].ended.push((job, end));
                }
                self.check().await;
            }
            let left = self
                .database
                .read(|connection| Ok(table::dump(connection)?));
            if left.await.unwrap().is_empty() {
                return;
            }
        }
        let left = self
            .database
            .read(|connection| Ok(table::dump(connection)?));
        self.fail(&format!(
            "these do not come to their end:\n{}",
            left.await.unwrap()
        ));
    }
}

impl Process {
    fn known(&self) -> HashSet<(i64, i64)> {
        let ended = self.ended.iter().map(|(job, _)| job);
        let all = self.running.iter().chain(ended);
        all.map(|job| (job.id, job.claims)).collect()
    }
}
