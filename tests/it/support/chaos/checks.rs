//! What must be so when all is over, whatever was done to the processes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::chaos::Journal;
use crate::support::chaos::nanos;
use crate::support::chaos::operator::Act;
use crate::support::chaos::operator::Deed;
use crate::support::chaos::operator::REASON;
use crate::support::chaos::rows;
use crate::support::chaos::rows::Effects;
use crate::support::chaos::rows::Request;
use crate::support::chaos::rows::Row;
use crate::support::chaos::runs::Run;
use crate::support::chaos::runs::Runs;

/// As in `examples/chaos/`: how many jobs a process runs, and how many of the queue `mail`.
const WORKERS: usize = 6;
const WORKERS_MAIL: usize = 2;

/// So long after it goes on, a process that lost its jobs may not have noticed.
const NOTICE: Duration = Duration::from_secs(2);

/// How exactly the clocks of the processes agree, in milliseconds: each is moved by a thread.
const TICK_MS: i64 = 150;

/// So long after a step some processes may have the old time, in milliseconds.
const STEP_MS: i64 = 300;

/// More problems of a kind are not told.
const TOLD: usize = 10;

pub(crate) struct Checks<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) runs: &'a Runs,
    pub(crate) rows: BTreeMap<i64, Row>,
    requests: Vec<Request>,
    effects: Effects,
    /// How many windows of a rate were looked at.
    pub(crate) windows: usize,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(journal: &'a Journal, runs: &'a Runs, conn: &Connection) -> Self {
        Self {
            journal,
            runs,
            rows: rows::rows(conn),
            requests: rows::requests(conn),
            effects: rows::effects(conn),
            windows: 0,
        }
    }

    pub(crate) fn problems(&mut self) -> Vec<String> {
        let (windows, rates) = self.rates();
        self.windows = windows;
        let all = [
            self.what_is_committed_is_there(),
            self.each_has_run(),
            self.no_run_is_one_too_many(),
            self.each_is_where_it_belongs(),
            self.effects_with_the_end_happened_once(),
            self.none_ran_twice_at_a_time(),
            self.limits_held(),
            self.those_set_aside_ran_alone(),
            self.paused_queues_stood_still(),
            self.cancelled_ones_ran_no_more(),
            rates,
        ];
        all.into_iter()
            .flat_map(|it| it.into_iter().take(TOLD))
            .collect()
    }

    fn what_is_committed_is_there(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let tags: BTreeSet<i64> = self.requests.iter().map(|it| it.tag).collect();
        if tags.len() < self.requests.len() {
            problems.push("a request is there twice".to_owned());
        }
        for tag in self.runs.kept.difference(&tags) {
            problems.push(format!("the request {tag} was committed and is not there"));
        }
        let ran = self.runs.all.iter().map(|run| run.tag);
        let there: BTreeSet<i64> = ran.chain(self.rows.values().map(|row| row.tag)).collect();
        for tag in there.difference(&tags) {
            problems.push(format!(
                "the request {tag} was not committed, and its job is there"
            ));
        }
        for tag in self.runs.given_up.intersection(&tags) {
            problems.push(format!("the request {tag} was given up, and is there"));
        }
        let mut jobs = BTreeSet::new();
        for request in &self.requests {
            if !self.rows.contains_key(&request.job) {
                problems.push(format!("the job {} of a request is not there", request.job));
            }
            if request.is_new && !jobs.insert(request.job) {
                problems.push(format!("the job {} was new twice", request.job));
            }
        }
        for id in self.rows.keys().filter(|id| !jobs.contains(id)) {
            problems.push(format!("nobody asked for the job {id}"));
        }
        problems
    }

    fn each_has_run(&self) -> Vec<String> {
        let ran: BTreeSet<i64> = self.runs.all.iter().map(|run| run.job).collect();
        let is_cancelled = |row: &Row| row.state == "cancelled" && row.error == REASON;
        let rows = self.rows.values();
        let not_run = rows.filter(|row| !ran.contains(&row.id) && !is_cancelled(row));
        not_run.map(|row| format!("never ran: {row:?}")).collect()
    }

    fn no_run_is_one_too_many(&self) -> Vec<String> {
        let wrong = self.runs.all.iter().filter(|run| {
            let row = self.rows.get(&run.job);
            row.is_some_and(|row| run.attempt == 0 || run.attempt > row.attempts_max)
        });
        wrong
            .map(|run| format!("an attempt that may not be: {run:?}"))
            .collect()
    }

    fn each_is_where_it_belongs(&self) -> Vec<String> {
        let wrong = self.rows.values().filter(|row| {
            if row.is_set_aside() {
                return row.deaths < 3;
            }
            let is_out_of_attempts = row.state == "discarded" && row.attempt == row.attempts_max;
            if row.state == "cancelled" && row.error == REASON {
                return !self.acts(row.id, Deed::Cancel).any(|_| true);
            }
            let is_tried_more = self.acts(row.id, Deed::Retry).any(|_| true);
            let is_right = match row.what.as_str() {
                "Die" => false,
                "Fail" | "Panic" | "Hang" if is_tried_more => {
                    is_out_of_attempts || row.state == "completed"
                }
                "Cancel" => row.state == "cancelled" && row.error == "on purpose",
                "Fail" | "Panic" | "Hang" if row.times >= row.attempts_max => is_out_of_attempts,
                // A machine that does much else may make anything late.
                _ => {
                    row.state == "completed"
                        || (is_out_of_attempts && !row.error.contains("on purpose"))
                }
            };
            !is_right
        });
        wrong
            .map(|row| format!("not where it belongs: {row:?}"))
            .collect()
    }

    fn effects_with_the_end_happened_once(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for ((job, tag, what, step), count) in &self.effects {
            let most = 1 + self.acts(*job, Deed::Retry).count();
            if *count > most && what != "did" {
                problems.push(format!(
                    "{what} {step} of the job {job}, {tag}, happened {count} times"
                ));
            }
        }
        let mut children: BTreeMap<i64, u32> = BTreeMap::new();
        for parent in self.requests.iter().filter_map(|it| it.parent) {
            *children.entry(parent).or_default() += 1;
        }
        for row in self.rows.values() {
            let effect = |what: &str, step| {
                let effect = (row.id, row.tag, what.to_owned(), step);
                self.effects.contains_key(&effect)
            };
            let is_completed = row.state == "completed";
            // What was completed before is done, whatever came later.
            let retries = u32::try_from(self.acts(row.id, Deed::Retry).count()).unwrap();
            let is_right = match row.what.as_str() {
                "Succeed" => !is_completed || effect("did", 0),
                "Finish" if retries > 0 => !is_completed || effect("finished", 0),
                "Finish" => effect("finished", 0) == is_completed,
                "Bear" => {
                    let born = children.get(&row.tag).copied().unwrap_or(0);
                    let key = (row.id, row.tag, "finished".to_owned(), 0);
                    let ends = self.effects.get(&key).copied().unwrap_or(0);
                    let is_end_right = if retries > 0 {
                        !is_completed || ends > 0
                    } else {
                        ends == usize::from(is_completed)
                    };
                    is_end_right && born == row.times * u32::try_from(ends).unwrap()
                }
                "Steps" => !is_completed || (0..row.times).all(|step| effect("step", step)),
                _ => true,
            };
            if !is_right {
                problems.push(format!("its effects are not those of its state: {row:?}"));
            }
        }
        problems
    }

    fn none_ran_twice_at_a_time(&self) -> Vec<String> {
        crowds("the job", self.runs.all.iter().map(|run| (run.job, 1, run)))
    }

    fn limits_held(&self) -> Vec<String> {
        let with_row = || {
            let runs = self.runs.all.iter();
            runs.filter_map(|run| Some((run, self.rows.get(&run.job)?)))
        };
        let limited = with_row().filter_map(|(run, row)| {
            let (key, at_most) = row.limit.as_ref()?;
            Some((key, *at_most, run))
        });
        let mut problems = crowds("jobs with the limit", limited);
        let unique = with_row().filter_map(|(run, row)| Some((row.unique_key.as_ref()?, 1, run)));
        problems.extend(crowds("jobs with the unique key", unique));
        let all = self.runs.all.iter().map(|run| (run.pid, WORKERS, run));
        problems.extend(crowds("jobs of the process", all));
        let mail = with_row().filter(|(_, row)| row.queue == "mail");
        let mail = mail.map(|(run, _)| (run.pid, WORKERS_MAIL, run));
        problems.extend(crowds("jobs of the queue mail in the process", mail));
        problems
    }

    fn those_set_aside_ran_alone(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for row in self.rows.values().filter(|row| row.is_set_aside()) {
            let of_it = self.runs.all.iter().filter(|run| run.job == row.id);
            let mut cut: Vec<&Run> = of_it.filter(|run| run.is_cut).collect();
            cut.sort_unstable_by_key(|run| run.began);
            // One that was claimed, and died before its first line, is not among them.
            let [.., _, _, last] = cut.as_slice() else {
                continue;
            };
            let beside = self.runs.all.iter().find(|run| {
                run.pid == last.pid
                    && run.job != row.id
                    && run.began < last.ended
                    && run.ended > last.began
            });
            if let Some(beside) = beside {
                problems.push(format!(
                    "set aside, though it did not run alone: {last:?}, beside {beside:?}"
                ));
            }
        }
        problems
    }

    /// When a run was claimed by the system's wall clock, and in which stretch of the test's clock.
    fn claimed(&self, run: &Run) -> Option<(usize, i64)> {
        let (started, wall) = run.started?;
        let steps = &self.journal.steps;
        (0..steps.len()).rev().find_map(|index| {
            let (from, offset) = steps[index];
            let until = steps.get(index + 1).map_or(i64::MAX, |(until, _)| *until);
            let at = started - offset;
            let is_near = (wall - at).abs() < 2_000;
            (is_near && at > from + STEP_MS && at < until - STEP_MS).then_some((index, at))
        })
    }

    fn rates(&self) -> (usize, Vec<String>) {
        let mut starts: BTreeMap<(&String, usize), Vec<(i64, &Row)>> = BTreeMap::new();
        for run in &self.runs.all {
            let Some(row) = self.rows.get(&run.job) else {
                continue;
            };
            if let Some((key, _, _)) = &row.rate
                && let Some((stretch, at)) = self.claimed(run)
            {
                starts.entry((key, stretch)).or_default().push((at, row));
            }
        }
        let (mut windows, mut problems) = (0, Vec::new());
        for ((key, stretch), mut starts) in starts {
            starts.sort_unstable_by_key(|(at, _)| *at);
            let Some((_, at_most, per_ms)) = starts.first().and_then(|(_, row)| row.rate.clone())
            else {
                continue;
            };
            for window in starts.windows(at_most + 1) {
                windows += 1;
                let (first, last) = (window[0].0, window[at_most].0);
                if last - first < per_ms - TICK_MS {
                    problems.push(format!(
                        "{} starts of {key} within {} ms, in the stretch {stretch} of the clock",
                        at_most + 1,
                        last - first
                    ));
                }
            }
        }
        (windows, problems)
    }

    /// What the operator did to a job, or may have done.
    fn acts(&self, job: i64, deed: Deed) -> impl Iterator<Item = &Act> {
        let acts = self.journal.acts.iter();
        acts.filter(move |act| act.job == job && act.deed == deed && act.is_done != Some(false))
    }

    fn cancelled_ones_ran_no_more(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let done = self
            .journal
            .acts
            .iter()
            .filter(|act| act.is_done == Some(true));
        for act in done.filter(|act| act.deed == Deed::Cancel) {
            let mut later = self
                .acts(act.job, Deed::Retry)
                .filter(|it| it.until >= act.from);
            let until = later.next().map_or(i64::MAX, |retry| retry.from);
            let runs = self.runs.all.iter().filter(|run| run.job == act.job);
            let again = runs.filter(|run| {
                let at = self.claimed(run).map(|(_, at)| at);
                at.is_some_and(|at| at > act.until + TICK_MS && at < until)
            });
            problems.extend(again.map(|run| format!("claimed again: {run:?}, after {act:?}")));
            let state = self.rows.get(&act.job).map(|row| row.state.as_str());
            if until == i64::MAX && !matches!(state, Some("cancelled" | "completed")) {
                problems.push(format!("{state:?} after {act:?}"));
            }
        }
        problems
    }

    fn paused_queues_stood_still(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for run in &self.runs.all {
            let (Some(row), Some((_, at))) = (self.rows.get(&run.job), self.claimed(run)) else {
                continue;
            };
            let mut pauses = self.journal.pauses.iter();
            let pause = pauses.find(|(queue, from, until)| {
                *queue == row.queue && at > from + TICK_MS && at < until - TICK_MS
            });
            if let Some(pause) = pause {
                problems.push(format!(
                    "claimed at {at}, while its queue was paused {pause:?}: {run:?}"
                ));
            }
        }
        problems
    }
}

/// Where more of a group ran at a time than may.
fn crowds<'a, G: Ord + Display>(
    what: &str,
    runs: impl Iterator<Item = (G, usize, &'a Run)>,
) -> Vec<String> {
    let mut groups: BTreeMap<G, (usize, Vec<&Run>)> = BTreeMap::new();
    for (group, at_most, run) in runs {
        groups
            .entry(group)
            .or_insert((at_most, Vec::new()))
            .1
            .push(run);
    }
    let crowds = groups.into_iter().filter_map(|(group, (at_most, runs))| {
        let crowd = crowd(at_most, &runs)?;
        Some(format!(
            "{} {what} {group} ran at the same time: {crowd:#?}",
            crowd.len()
        ))
    });
    crowds.collect()
}

/// The first runs at a time that are more than may be.
fn crowd<'a>(at_most: usize, runs: &[&'a Run]) -> Option<Vec<&'a Run>> {
    let mut events = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        for (from, until) in pieces(run) {
            events.push((from, true, index));
            events.push((until, false, index));
        }
    }
    // At one moment the ends come first.
    events.sort_unstable();
    let mut now = BTreeSet::new();
    for (_, is_begin, index) in events {
        if is_begin {
            now.insert(index);
        } else {
            now.remove(&index);
        }
        if now.len() > at_most {
            return Some(now.into_iter().map(|index| runs[index]).collect());
        }
    }
    None
}

/// When a run did run: not while its process was stopped, nor until that could notice what it had lost meanwhile.
fn pieces(run: &Run) -> Vec<(i64, i64)> {
    let mut pieces = Vec::new();
    let mut from = run.began;
    for (stopped, went_on) in &run.faints {
        pieces.push((from, *stopped));
        from = went_on + nanos(NOTICE);
    }
    pieces.push((from, run.ended));
    pieces.retain(|(from, until)| from < until);
    pieces
}
