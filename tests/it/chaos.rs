//! Processes on one queue, killed, stopped and set back in time at random, beside an operator; and what the queue
//! promises all the same.
//!
//! By hand, `CHAOS_SECONDS=600` lets it go on for longer, and `CHAOS_SEED` takes another course.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::chaos::Chaos;
use crate::support::chaos::checks::Checks;
use crate::support::chaos::runs::Runs;
use crate::support::chaos::watch::Seen;
use crate::support::ledger::open;
use crate::support::waiting::slow;

/// What is left when no more is done to the processes has to be done by then.
const CALM: Duration = Duration::from_mins(3);

/// How long it goes on when nobody says it.
const SECONDS: u64 = 35;

#[tokio::test]
async fn nothing_is_lost_or_done_twice_whatever_happens_to_the_processes() {
    if !slow("nothing_is_lost_or_done_twice_whatever_happens_to_the_processes") {
        return;
    }
    let mut chaos = Chaos::new(number("CHAOS_SEED").unwrap_or(1));
    chaos
        .rage(Duration::from_secs(
            number("CHAOS_SECONDS").unwrap_or(SECONDS),
        ))
        .await;
    let calmed = chaos.calm(CALM).await;
    let seen = chaos.watch.seen();
    let runs = Runs::read(chaos.folder(), &chaos.journal.lives);
    let conn = open(&chaos.database());
    let mut checks = Checks::new(&chaos.journal, &runs, &conn);
    let mut problems = checks.problems();
    problems.extend(chaos.journal.problems.iter().cloned());
    problems.extend(seen.problems.iter().cloned());
    if let Err(left) = calmed {
        problems.push(format!(
            "{left} jobs have not come to an end within {CALM:?}"
        ));
    }
    problems.extend(wrong(&conn));
    problems.extend(panics(&chaos));
    #[expect(
        clippy::print_stderr,
        reason = "the figures are for who runs it by hand"
    )]
    {
        eprintln!("{}", figures(&checks, &seen));
        eprintln!(
            "all came to its end within {calmed:?}; {}",
            chaos.folder().display()
        );
    }
    if !problems.is_empty() {
        chaos.keep();
        let folder = chaos.folder().display();
        panic!(
            "{} problems, see {folder}:\n{}",
            problems.len(),
            problems.join("\n")
        );
    }
}

/// What was done, and what came of it.
fn figures(checks: &Checks<'_>, seen: &Seen) -> String {
    let mut deeds: BTreeMap<&str, usize> = BTreeMap::new();
    for deed in &checks.journal.deeds {
        *deeds.entry(deed).or_default() += 1;
    }
    let mut acts: BTreeMap<String, usize> = BTreeMap::new();
    for act in &checks.journal.acts {
        let done = act.is_done.map_or(
            "not known",
            |is_done| {
                if is_done { "done" } else { "nothing to do" }
            },
        );
        *acts.entry(format!("{:?}: {done}", act.deed)).or_default() += 1;
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for row in checks.rows.values() {
        *states.entry(&row.state).or_default() += 1;
    }
    let runs = &checks.runs.all;
    let cut = runs.iter().filter(|run| run.is_cut).count();
    let fainted = runs.iter().filter(|run| !run.faints.is_empty()).count();
    let aside = checks
        .rows
        .values()
        .filter(|row| row.is_set_aside())
        .count();
    let deadly = checks.rows.values().filter(|row| row.what == "Die").count();
    let mut rescues: Vec<Duration> = seen.rescues.values().copied().collect();
    rescues.sort_unstable();
    let rescue = |part: usize| {
        rescues.get((rescues.len() * part / 100).min(rescues.len().saturating_sub(1)))
    };
    format!(
        "{} processes; {deeds:?}\nby the operator: {acts:?}, {} pauses\n{} jobs: {states:?}, {aside} set aside, {deadly} of them deadly\n\
         {} runs, {cut} cut by a death, {fainted} in a process that was stopped for long\n\
         {} looks at the table; put back after a death: {} times seen, median {:?}, 99 of 100 {:?}, last {:?}\n\
         {} windows of rates",
        checks.journal.lives.len(),
        checks.journal.pauses.len(),
        checks.rows.len(),
        runs.len(),
        seen.looks,
        rescues.len(),
        rescue(50),
        rescue(99),
        rescues.last(),
        checks.windows,
    )
}

/// What is not as it should be in a file that nobody works on any more.
fn wrong(conn: &rusqlite::Connection) -> Vec<String> {
    let whole: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let left: i64 = conn
        .query_row(
            "SELECT count(*) FROM jobs WHERE state = 'executing'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut wrong = Vec::new();
    if whole != "ok" {
        wrong.push(whole);
    }
    if left > 0 {
        wrong.push(format!("{left} jobs run, and no process is there"));
    }
    wrong
}

/// Panics that are not of a job.
fn panics(chaos: &Chaos) -> Vec<String> {
    let logs = std::fs::read_dir(chaos.folder().join("logs")).unwrap();
    let logs = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap());
    let lines = logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
    let panics =
        lines.filter(|line| line.contains("panicked at") && !line.contains("examples/chaos/"));
    panics.collect()
}

fn number(name: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the test that is configured, not the site"
    )]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap())
}
