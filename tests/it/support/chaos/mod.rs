//! Processes that work on one queue, `examples/chaos/`, and what is done to them.

pub(crate) mod checks;
pub(crate) mod operator;
pub(crate) mod rows;
pub(crate) mod runs;
pub(crate) mod watch;

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use tempfile::TempDir;

use crate::support::chaos::operator::Act;
use crate::support::chaos::operator::Operator;
use crate::support::chaos::watch::Watch;
use crate::support::ledger::example;
use crate::support::ledger::open;

/// As in `examples/chaos/`.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// So many processes at a time.
const PROCESSES: usize = 4;

/// How long a process may take from SIGTERM to its end: its jobs have half a second, those that hold their thread
/// five, the machine does much else.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

pub(crate) const QUEUES: [&str; 3] = ["default", "mail", "bulk"];

/// How far the wall clock may be off, in seconds; two of them are never nearer than the tests can tell apart.
const OFFSETS: [i64; 8] = [0, -3_600, -60, -7, 9, 60, 3_600, 1_800];

/// Where it is at the end: everything is due there.
const LAST_OFFSET: i64 = 7_200;

/// What is done, by its weight.
const DEEDS: [(Deed, u32); 6] = [
    (Deed::Kill, 30),
    (Deed::Terminate, 18),
    (Deed::Doze, 8),
    (Deed::Faint, 5),
    (Deed::SetClock, 19),
    (Deed::KillAll, 3),
];

/// All of it once, however short the time is.
const FIRST: [Deed; 8] = [
    Deed::Faint,
    Deed::SetClock,
    Deed::Kill,
    Deed::SetClock,
    Deed::Terminate,
    Deed::KillAll,
    Deed::Doze,
    Deed::Faint,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Kill,
    Terminate,
    /// Stopped for less than a lease.
    Doze,
    /// Stopped for longer: the others take over what it runs.
    Faint,
    SetClock,
    KillAll,
}

/// Nanoseconds since the machine was started.
pub(crate) fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap()
}

pub(crate) fn wall() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A process, from its start to its end; times since boot.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) pid: u32,
    pub(crate) spawned: i64,
    pub(crate) ended: Option<i64>,
    /// When it did not run for longer than a lease.
    pub(crate) faints: Vec<(i64, i64)>,
    child: Child,
    knows_rare: bool,
    terminated: Option<Instant>,
}

/// What was done, for the checks; times in milliseconds by the system's wall clock.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) lives: Vec<Life>,
    /// From when on the clock was so many milliseconds off.
    pub(crate) steps: Vec<(i64, i64)>,
    /// Which queue, from when to when.
    pub(crate) pauses: Vec<(&'static str, i64, i64)>,
    /// What the operator did to jobs, in its order.
    pub(crate) acts: Vec<Act>,
    pub(crate) problems: Vec<String>,
    pub(crate) deeds: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Chaos {
    folder: TempDir,
    program: PathBuf,
    random: fastrand::Rng,
    pub(crate) watch: Watch,
    pub(crate) journal: Journal,
    operator: Operator,
    next_start: Instant,
    script: VecDeque<Deed>,
}

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("runs")).unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        // A build that comes meanwhile changes nothing.
        let program = folder.path().join("chaos");
        std::fs::copy(example("chaos"), &program).unwrap();
        let mut chaos = Self {
            watch: Watch::new(&folder.path().join("site.sqlite3")),
            operator: Operator::new(&folder.path().join("site.sqlite3"), seed),
            folder,
            program,
            random: fastrand::Rng::with_seed(seed),
            journal: Journal::default(),
            next_start: Instant::now(),
            script: FIRST.into(),
        };
        chaos.set_clock(0, true);
        chaos
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("site.sqlite3")
    }

    /// Keeps the folder, to be looked at.
    pub(crate) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Kills, stops and starts processes for this long.
    pub(crate) async fn rage(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.tend().await;
        let mut next = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            self.tend().await;
            if Instant::now() > next {
                let deed = self.script.pop_front().unwrap_or_else(|| self.pick());
                self.perform(deed).await;
                next = Instant::now() + Duration::from_millis(self.random.u64(400..3_000));
            }
        }
    }

    /// Lets everything come to its end; says whether it does within this time.
    pub(crate) async fn calm(&mut self, within: Duration) -> Result<Duration, i64> {
        let log = self.operator.end().await;
        self.journal.pauses = log.pauses;
        self.journal.acts = log.acts;
        self.journal.problems.extend(log.problems);
        self.set_clock(LAST_OFFSET * 1_000, false);
        let conn = open(&self.database());
        let count =
            "SELECT count(*) FROM jobs WHERE state NOT IN ('completed', 'discarded', 'cancelled')";
        let start = Instant::now();
        loop {
            self.tend().await;
            let left: i64 = conn.query_row(count, [], |row| row.get(0)).unwrap();
            if left == 0 {
                break;
            }
            if start.elapsed() > within {
                return Err(left);
            }
            // Who does not know them all goes.
            for index in self.alive() {
                if !self.journal.lives[index].knows_rare {
                    self.terminate(index);
                }
            }
        }
        let took = start.elapsed();
        for index in self.alive() {
            self.terminate(index);
        }
        while !self.alive().is_empty() {
            self.reap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(took)
    }

    /// Looks who has ended, and starts another in its place.
    async fn tend(&mut self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.reap();
        let alive = self.alive().len();
        if alive < PROCESSES && Instant::now() > self.next_start {
            self.start();
            self.next_start = Instant::now() + Duration::from_millis(self.random.u64(..1_500));
        }
    }

    fn start(&mut self) {
        let is_calm = self.journal.steps.last().unwrap().1 == LAST_OFFSET * 1_000;
        let knows_rare = is_calm || self.random.u32(..6) > 0;
        let mut command = Command::new(&self.program);
        command.arg(self.folder());
        if !knows_rare {
            command.arg("--without-rare");
        }
        let number = self.journal.lives.len();
        let log = File::create(self.folder().join(format!("logs/{number}"))).unwrap();
        let spawned = since_boot();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.watch.began(child.id());
        self.journal.lives.push(Life {
            pid: child.id(),
            spawned,
            ended: None,
            faints: Vec::new(),
            child,
            knows_rare,
            terminated: None,
        });
    }

    fn alive(&self) -> Vec<usize> {
        let lives = self.journal.lives.iter().enumerate();
        let alive = lives.filter(|(_, life)| life.ended.is_none());
        alive.map(|(index, _)| index).collect()
    }

    fn reap(&mut self) {
        for index in self.alive() {
            let life = &mut self.journal.lives[index];
            if let Some(status) = life.child.try_wait().unwrap() {
                self.bury(index, status);
            } else if life.terminated.is_some_and(|at| at.elapsed() > ENDS_WITHIN) {
                let pid = life.pid;
                self.journal.problems.push(format!(
                    "process {pid} did not end within {ENDS_WITHIN:?} after SIGTERM"
                ));
                self.kill(index);
            }
        }
    }

    fn bury(&mut self, index: usize, status: ExitStatus) {
        let life = &mut self.journal.lives[index];
        life.ended = Some(since_boot());
        self.watch.ended(life.pid);
        let is_well = match status.code() {
            // SIGKILL: ours, or its own.
            None => true,
            Some(code) => code == 0 && life.terminated.is_some(),
        };
        if !is_well {
            self.journal
                .problems
                .push(format!("process {} ended with {status}", life.pid));
        }
    }

    fn pick(&mut self) -> Deed {
        let sum: u32 = DEEDS.iter().map(|(_, weight)| weight).sum();
        let mut number = self.random.u32(..sum);
        for (deed, weight) in DEEDS {
            if number < weight {
                return deed;
            }
            number -= weight;
        }
        Deed::Kill
    }

    async fn perform(&mut self, deed: Deed) {
        self.journal.deeds.push(format!("{deed:?}"));
        let alive = self.alive();
        let Some(index) = self.random.choice(alive.iter().copied()) else {
            return;
        };
        match deed {
            Deed::Kill => self.kill(index),
            Deed::KillAll => alive.into_iter().for_each(|index| self.kill(index)),
            Deed::Terminate => self.terminate(index),
            Deed::Doze => {
                let time = Duration::from_millis(self.random.u64(50..900));
                self.hold(index, time).await;
            }
            Deed::Faint => {
                let time = LEASE + Duration::from_millis(self.random.u64(2_500..5_000));
                self.hold(index, time).await;
            }
            Deed::SetClock => {
                let offset = self.random.choice(OFFSETS).unwrap();
                self.set_clock(offset * 1_000, true);
            }
        }
    }

    fn kill(&mut self, index: usize) {
        let life = &mut self.journal.lives[index];
        life.child.kill().unwrap();
        let status = life.child.wait().unwrap();
        self.bury(index, status);
    }

    fn terminate(&mut self, index: usize) {
        let life = &mut self.journal.lives[index];
        if life.terminated.is_none() {
            life.terminated = Some(Instant::now());
            signal(life.pid, Signal::TERM);
        }
    }

    /// Stops it for a time, in which nothing else is done; then it goes on, or is killed.
    async fn hold(&mut self, index: usize, time: Duration) {
        let pid = self.journal.lives[index].pid;
        self.watch.disturb(true);
        let begin = since_boot();
        signal(pid, Signal::STOP);
        tokio::time::sleep(time).await;
        let is_killed = self.random.u32(..4) == 0;
        if is_killed {
            self.kill(index);
        } else {
            signal(pid, Signal::CONT);
        }
        if time > LEASE / 2 {
            let life = &mut self.journal.lives[index];
            life.faints.push((begin, since_boot()));
            if let Some(at) = &mut life.terminated {
                *at += time;
            }
        }
        self.watch.disturb(false);
    }

    fn set_clock(&mut self, offset: i64, is_feeding: bool) {
        let (new, control) = (
            self.folder().join("control.new"),
            self.folder().join("control"),
        );
        std::fs::write(&new, format!("{offset} {}", u8::from(is_feeding))).unwrap();
        std::fs::rename(&new, control).unwrap();
        self.journal.steps.push((wall(), offset));
        self.operator.offset.store(offset, Ordering::Relaxed);
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        for life in &mut self.journal.lives {
            // Both fail only when the process is gone already.
            let _ = life.child.kill();
            let _ = life.child.wait();
        }
    }
}

/// One that is gone is none to be told.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}
