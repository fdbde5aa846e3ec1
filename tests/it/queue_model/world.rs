//! What there is: the rows of the table, and the processes that run jobs.

pub(super) const JOBS: usize = 3;
pub(super) const PROCESSES: usize = 2;

/// Rows of workers, with those that dead processes have left.
pub(super) const ENTRIES: usize = 6;

/// In the model, a job that has failed so often is discarded.
pub(super) const ATTEMPTS_MAX: u8 = 2;

pub(super) const DEATHS_MAX: u8 = 3;
pub(super) const DEATHS_SUSPECT: u8 = DEATHS_MAX - 1;

/// What a job is; all limited ones have one key, and so have all unique ones.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a column, or an answer of its own"
)]
pub(super) struct Plan {
    /// By process: whether its program knows the kind.
    pub(super) known_by: [bool; PROCESSES],
    /// By process: whether its program can read the arguments.
    pub(super) read_by: [bool; PROCESSES],
    /// At most so many of the key at a time; 0 is no limit.
    pub(super) at_most: u8,
    /// Whether at most one of the key is started within a stretch of time.
    pub(super) is_rated: bool,
    /// Whether it is in the queue that may be paused.
    pub(super) is_aside: bool,
    pub(super) unique: Unique,
    /// Whether it is completed by its own transaction.
    pub(super) finishes: bool,
    pub(super) fails: bool,
    pub(super) snoozes: bool,
}

impl Plan {
    pub(super) const PLAIN: Self = Self {
        known_by: [true; PROCESSES],
        read_by: [true; PROCESSES],
        at_most: 0,
        is_rated: false,
        is_aside: false,
        unique: Unique::No,
        finishes: false,
        fails: false,
        snoozes: false,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unique {
    No,
    UntilEnded,
    UntilStarted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Not enqueued.
    Absent,
    Available,
    Parked,
    Executing,
    Retryable,
    Completed,
    Discarded,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Blocked {
    Limit,
    Rate,
}

/// A job in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a column, or an answer of its own"
)]
pub(super) struct Row {
    pub(super) state: State,
    /// The id of the worker that runs it; 0 is none.
    pub(super) worker: u8,
    pub(super) attempt: u8,
    pub(super) deaths: u8,
    pub(super) is_due: bool,
    pub(super) binds: bool,
    pub(super) blocked: Option<Blocked>,
    pub(super) is_to_be_cancelled: bool,
    /// Whether it was ever started, and so does not hold a key that binds until then.
    pub(super) has_started: bool,
    /// How often its effect was committed together with its end.
    pub(super) effects: u8,
}

impl Row {
    const ABSENT: Self = Self {
        state: State::Absent,
        worker: 0,
        attempt: 0,
        deaths: 0,
        is_due: true,
        binds: false,
        blocked: None,
        is_to_be_cancelled: false,
        has_started: false,
        effects: 0,
    };

    /// It is parked no more.
    pub(super) fn waits_again(&mut self) {
        self.state = if self.attempt > 0 {
            State::Retryable
        } else {
            State::Available
        };
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Available | State::Retryable)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.state,
            State::Completed | State::Discarded | State::Cancelled
        )
    }
}

/// A worker in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) id: u8,
    /// The process that made it, and so the kinds that it knows.
    pub(super) process: usize,
    /// By process: how often that has seen the beat as it is now.
    pub(super) seen: [u8; PROCESSES],
    /// The jobs whose arguments it could not read.
    pub(super) unread: [bool; JOBS],
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    pub(super) rows: [Row; JOBS],
    /// By their ids, the oldest first.
    pub(super) workers: [Option<Entry>; ENTRIES],
    /// Starts of jobs with a rate within the last stretch of time.
    pub(super) starts: u8,
    pub(super) is_paused: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Well,
    Fails,
    Snoozes,
    PutBack,
    /// The arguments cannot be read.
    Unread,
}

/// A claim in the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hand {
    pub(super) runs: bool,
    /// Whether the job was claimed again since: the token is old.
    pub(super) is_old: bool,
    /// Which attempt it was when it was claimed.
    pub(super) attempt: u8,
    /// Whether its own transaction has completed it.
    pub(super) is_done: bool,
}

impl Hand {
    pub(super) const EMPTY: Self = Self {
        runs: false,
        is_old: false,
        attempt: 0,
        is_done: false,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lock {
    None,
    Shared,
    Exclusive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Off,
    /// It has the lock for itself, if it got it.
    Alone,
    /// It has let go of it to share it.
    Turning,
    /// It shares the lock, and is not in the table yet.
    Locked,
    Up,
    /// It claims nothing any more.
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) phase: Phase,
    pub(super) lock: Lock,
    /// Its id in the table of workers; 0 is none.
    pub(super) id: u8,
    pub(super) hands: [Hand; JOBS],
    /// Claims of jobs that it has claimed again since.
    pub(super) before: [Hand; JOBS],
    /// Whether what runs is a suspect.
    pub(super) is_alone: bool,
    /// Whether its last round got no answer.
    pub(super) has_failed: bool,
    /// Whether it was alone, and has not rescued yet.
    pub(super) is_to_rescue: bool,
}

impl Process {
    pub(super) const OFF: Self = Self {
        phase: Phase::Off,
        lock: Lock::None,
        id: 0,
        hands: [Hand::EMPTY; JOBS],
        before: [Hand::EMPTY; JOBS],
        is_alone: false,
        has_failed: false,
        is_to_rescue: false,
    };

    pub(super) fn runs(&self) -> usize {
        let all = self.hands.iter().chain(&self.before);
        all.filter(|hand| hand.runs).count()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) table: Table,
    pub(super) processes: [Process; PROCESSES],
    pub(super) kills: u8,
    pub(super) signals: u8,
    pub(super) operations: u8,
    pub(super) losses: u8,
    /// Whether a process that lives was taken for dead: what it runs, it runs beside others.
    pub(super) was_buried_alive: bool,
    pub(super) wrong: Option<&'static str>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            table: Table {
                rows: [Row::ABSENT; JOBS],
                workers: [None; ENTRIES],
                starts: 0,
                is_paused: false,
            },
            processes: [Process::OFF; PROCESSES],
            kills: 0,
            signals: 0,
            operations: 0,
            losses: 0,
            was_buried_alive: false,
            wrong: None,
        }
    }

    /// Whether a process that lives holds the claim that the table has of a job.
    pub(super) fn is_held(&self, job: usize) -> bool {
        let holds = |process: &Process| {
            let hand = process.hands[job];
            hand.runs && !hand.is_old
        };
        self.table.rows[job].state == State::Executing && self.processes.iter().any(holds)
    }

    /// Those of these jobs that are really being run.
    pub(super) fn running(&self, is_one: impl Fn(usize) -> bool) -> usize {
        let hands = self.processes.iter().flat_map(|process| {
            let both = [process.hands, process.before];
            both.into_iter()
                .flat_map(|hands| hands.into_iter().enumerate())
        });
        hands
            .filter(|(job, hand)| is_one(*job) && hand.runs && !hand.is_done)
            .count()
    }

    /// Makes those states the same from which the same can follow: ids count by their order.
    pub(super) fn tidy(&mut self) {
        let mut used = 1_u32;
        let mut use_id = |id: &mut u8| used |= 1 << *id;
        self.ids(&mut use_id);
        let entries = self.table.workers.iter().flatten();
        if used & (used + 1) != 0 || !entries.is_sorted_by_key(|entry| entry.id) {
            let mut place = |id: &mut u8| {
                let below = used & ((1 << *id) - 1);
                *id = u8::try_from(below.count_ones()).unwrap();
            };
            self.ids(&mut place);
            self.table
                .workers
                .sort_by_key(|entry| entry.map_or(u8::MAX, |entry| entry.id));
        }
    }

    fn ids(&mut self, each: &mut dyn FnMut(&mut u8)) {
        for entry in self.table.workers.iter_mut().flatten() {
            each(&mut entry.id);
        }
        for row in &mut self.table.rows {
            each(&mut row.worker);
        }
        for process in &mut self.processes {
            each(&mut process.id);
        }
    }
}
