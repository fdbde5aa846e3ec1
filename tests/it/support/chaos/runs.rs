//! What the processes wrote down: each run of a job, and what they brought.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::support::chaos::Life;
use crate::support::chaos::nanos;

/// What begins so soon after its process goes on may have been claimed before that was stopped.
const CLAIMED: Duration = Duration::from_millis(300);

/// One run of a job; times since boot.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) pid: u32,
    pub(crate) job: i64,
    pub(crate) attempt: u32,
    pub(crate) tag: i64,
    pub(crate) began: i64,
    pub(crate) ended: i64,
    /// The process died while it ran.
    pub(crate) is_cut: bool,
    /// When it was claimed by the table, and when that was asked for by the system's wall clock, in milliseconds.
    pub(crate) started: Option<(i64, i64)>,
    /// When the process did not run for longer than a lease, while this did.
    pub(crate) faints: Vec<(i64, i64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(crate) all: Vec<Run>,
    /// What was committed for certain, and what was not.
    pub(crate) kept: BTreeSet<i64>,
    pub(crate) given_up: BTreeSet<i64>,
}

impl Runs {
    pub(crate) fn read(folder: &Path, lives: &[Life]) -> Self {
        let mut runs = Self::default();
        for life in lives {
            // One that was killed at once has none.
            let text = std::fs::read_to_string(folder.join(format!("runs/{}", life.pid)));
            runs.add(life, &text.unwrap_or_default());
        }
        runs
    }

    fn add(&mut self, life: &Life, text: &str) {
        let mut open: HashMap<i64, Run> = HashMap::new();
        let mut last = life.spawned;
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        for line in whole {
            let (word, rest) = line.trim_end().split_once(' ').unwrap();
            let numbers: Vec<i64> = rest.split(' ').map(|word| word.parse().unwrap()).collect();
            match (word, numbers.as_slice()) {
                ("B", &[began, number, job, attempt, tag]) => {
                    last = last.max(began);
                    let run = Run {
                        pid: life.pid,
                        job,
                        attempt: u32::try_from(attempt).unwrap(),
                        tag,
                        began,
                        ended: began,
                        is_cut: true,
                        started: None,
                        faints: Vec::new(),
                    };
                    open.insert(number, run);
                }
                ("S", &[number, started, wall]) => {
                    if let Some(run) = open.get_mut(&number) {
                        run.started = Some((started, wall));
                    }
                }
                ("E", &[ended, number]) => {
                    last = last.max(ended);
                    let mut run = open.remove(&number).unwrap();
                    (run.ended, run.is_cut) = (ended, false);
                    self.all.push(run);
                }
                ("K", tags) => self.kept.extend(tags),
                ("A", tags) => self.given_up.extend(tags),
                _ => panic!("a line {line:?} in the runs of {}", life.pid),
            }
        }
        // It lived then for certain; when exactly it died is not known.
        let cut = open.into_values().map(|run| Run { ended: last, ..run });
        self.all.extend(cut);
        for run in self.all.iter_mut().filter(|run| run.pid == life.pid) {
            let faints = life.faints.iter().copied();
            run.faints = faints
                .filter(|faint| run.began < faint.1 + nanos(CLAIMED) && faint.0 < run.ended)
                .collect();
        }
    }
}
