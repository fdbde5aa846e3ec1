//! Any sequence of writes does to the table what it does to a plain map.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::database::Result;
use houseboat::database::Settings;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestRunner;
use tokio::sync::oneshot;

use crate::database::hold_writer;
use crate::support::plans::Answer;
use crate::support::plans::Caller;
use crate::support::plans::Items;
use crate::support::plans::Plan;
use crate::support::plans::plan;
use crate::support::waiting::slow;
use crate::support::waiting::so_far;

const SEED: u64 = 20_261_121;
const CASES: u32 = 500;
const CASES_ALL: u32 = 5_000;
/// A machine that does much else.
const PATIENCE: Duration = Duration::from_mins(1);

const ITEMS: Migrations = Migrations::new(
    "items",
    &[(
        "V1__items",
        "CREATE TABLE items (key INTEGER PRIMARY KEY, value INTEGER NOT NULL) STRICT;",
    )],
);

type Write = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// How some writes come together.
#[derive(Clone, Debug)]
enum Step {
    /// One after another, each when the one before it is answered.
    InTurn(Vec<Plan>),
    /// All wait for the writer, in this order.
    Queued(Vec<Plan>),
    /// From tasks of their own, in any order.
    AtOnce(Vec<Plan>),
}

/// What was seen of a plan.
#[derive(Debug)]
struct Seen {
    /// None where the caller has left.
    answer: Option<Answer>,
    is_committed: bool,
}

impl Seen {
    fn new(answer: Option<Answer>, is_committed: &AtomicBool) -> Self {
        Self {
            answer,
            is_committed: is_committed.load(Ordering::SeqCst),
        }
    }
}

#[test]
fn writes_do_to_the_table_what_they_do_to_a_map() {
    let config = Config {
        cases: if slow("4,500 of 5,000 cases") {
            CASES_ALL
        } else {
            CASES
        },
        rng_seed: RngSeed::Fixed(SEED),
        failure_persistence: None,
        ..Config::default()
    };
    let plans = || vec(plan(), 1..8);
    let step = prop_oneof![
        plans().prop_map(Step::InTurn),
        plans().prop_map(Step::Queued),
        plans().prop_map(Step::AtOnce),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let databases = runtime.block_on(open(folder.path()));
    let counts = Mutex::new(BTreeMap::new());
    let which = 0..databases.len();
    let run = TestRunner::new(config).run(&(which, vec(step, 1..6)), |(which, steps)| {
        let seen = runtime.block_on(case(&databases[which], &steps));
        for answer in seen.map_err(TestCaseError::fail)? {
            *counts.lock().unwrap().entry(answer).or_insert(0) += 1;
        }
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    // Six answers, and none for those who have left: fewer, and the plans do not reach what they should.
    let counts = counts.into_inner().unwrap();
    assert!(
        counts.len() == 7 && counts.values().all(|count| *count > 20),
        "{counts:?}"
    );
}

/// A database for each of a few sizes of groups.
async fn open(folder: &Path) -> Vec<Database> {
    let mut databases = Vec::new();
    for group_max in [1, 2, 3, 5, 256] {
        let settings = Settings {
            path: folder.join(format!("{group_max}.sqlite3")),
            group_max,
            ..Settings::default()
        };
        let database = Database::open(&settings, Clock::system()).unwrap();
        database.migrate(&[ITEMS]).await.unwrap();
        databases.push(database.within(PATIENCE));
    }
    databases
}

/// Runs all steps on an empty table, compares it with the map after each, and gives the answers.
async fn case(database: &Database, steps: &[Step]) -> Result<Vec<Option<Answer>>, String> {
    let empty = database.write(|tx| Ok(tx.execute("DELETE FROM items", [])?));
    empty.await.map_err(|error| error.to_string())?;
    let mut items = Items::new();
    let mut answers = Vec::new();
    for step in steps {
        let order = Arc::default();
        let (Step::InTurn(plans) | Step::Queued(plans) | Step::AtOnce(plans)) = step;
        let seen = match step {
            Step::InTurn(_) => in_turn(database, plans, &order).await,
            Step::Queued(_) => queued(database, plans, &order).await,
            Step::AtOnce(_) => at_once(database, plans, &order).await,
        };
        let order = std::mem::take(&mut *order.lock().unwrap());
        if !matches!(step, Step::AtOnce(_)) && !order.is_sorted() {
            return Err(format!("first come is not first served: {order:?}"));
        }
        let is_gone = |caller| matches!(caller, Caller::LeavesBefore | Caller::IsLate);
        let in_vain = order.iter().find(|number| is_gone(plans[**number].caller));
        if let (Step::Queued(_), Some(number)) = (step, in_vain) {
            return Err(format!("begun, though nobody waits for it: {number}"));
        }
        replay(&mut items, plans, &order, &seen)?;
        let found = read(database).await;
        if found != items {
            return Err(format!("the table is {found:?}, and should be {items:?}"));
        }
        answers.extend(seen.iter().map(|seen| seen.answer));
    }
    Ok(answers)
}

async fn read(database: &Database) -> Items {
    let read = database.read(|conn| {
        let mut statement = conn.prepare("SELECT key, value FROM items")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    });
    read.await.unwrap()
}

/// Which plans were begun, in order.
type Order = Arc<Mutex<Vec<usize>>>;

/// A write that is under way.
struct Started {
    write: Write,
    is_committed: Arc<AtomicBool>,
    door: Door,
}

/// A caller who stays: for an answer that is still to come, or that it has already.
enum Wait {
    For(Write),
    Over(Answer),
}

/// Where a closure waits until its caller has left.
struct Door {
    begun: oneshot::Receiver<()>,
    go_on: mpsc::Sender<()>,
}

impl Door {
    async fn leave(self, leave: impl FnOnce()) {
        self.begun
            .await
            .expect("a write whose caller waits is begun");
        leave();
        self.go_on.send(()).expect("its closure waits");
    }
}

fn start(database: &Database, plan: &Plan, number: usize, order: &Order) -> Started {
    let (say, begun) = oneshot::channel();
    let (go_on, told) = mpsc::channel();
    let is_committed = Arc::new(AtomicBool::new(false));
    let (plan, order, committed) = (plan.clone(), Arc::clone(order), Arc::clone(&is_committed));
    let database = match plan.caller {
        Caller::IsLate => database.within(Duration::ZERO),
        _ => database.clone(),
    };
    let write = async move {
        let work = move |tx: &houseboat::database::Transaction<'_>| {
            order.lock().unwrap().push(number);
            tx.after_commit(move || committed.store(true, Ordering::SeqCst));
            if plan.caller == Caller::LeavesWithin {
                let _ = say.send(());
                told.recv().expect("it is told to go on");
            }
            plan.run(tx)
        };
        database.write(work).await
    };
    Started {
        write: Box::pin(write),
        is_committed,
        door: Door { begun, go_on },
    }
}

/// Here, all stay: nobody could leave before or be late.
async fn in_turn(database: &Database, plans: &[Plan], order: &Order) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let plan = Plan {
            caller: Caller::Stays,
            ..plan.clone()
        };
        let Started {
            write,
            is_committed,
            ..
        } = start(database, &plan, number, order);
        let answer = Answer::of(&write.await);
        seen.push(Seen::new(Some(answer), &is_committed));
    }
    seen
}

async fn queued(database: &Database, plans: &[Plan], order: &Order) -> Vec<Seen> {
    let (go_on, held) = hold_writer(database);
    let mut all = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let mut started = start(database, plan, number, order);
        let early = so_far(&mut started.write).await;
        // Only who has no time at all may have an answer before the writer is free.
        assert!(early.is_none() || matches!(plan.caller, Caller::IsLate));
        all.push((started, early));
    }
    let (mut flags, mut waiting) = (Vec::new(), Vec::new());
    let mut leaving = Vec::new();
    for ((started, early), plan) in all.into_iter().zip(plans) {
        flags.push(started.is_committed);
        waiting.push(match (plan.caller, early) {
            (Caller::LeavesBefore, _) => None,
            (Caller::LeavesWithin, _) => {
                leaving.push((started.door, started.write));
                None
            }
            (_, Some(answer)) => Some(Wait::Over(Answer::of(&answer))),
            (_, None) => Some(Wait::For(started.write)),
        });
    }
    go_on.send(()).unwrap();
    for (door, write) in leaving {
        door.leave(|| drop(write)).await;
    }
    let mut answers = Vec::new();
    for write in waiting {
        answers.push(match write {
            Some(Wait::For(write)) => Some(Answer::of(&write.await)),
            Some(Wait::Over(answer)) => Some(answer),
            None => None,
        });
    }
    // It may have shared a transaction with them, and lost nothing by it.
    let _ = held.await.unwrap();
    finish(database, &flags, answers).await
}

async fn at_once(database: &Database, plans: &[Plan], order: &Order) -> Vec<Seen> {
    let (mut flags, mut tasks) = (Vec::new(), Vec::new());
    for (number, plan) in plans.iter().enumerate() {
        let started = start(database, plan, number, order);
        let task = tokio::spawn(started.write);
        let caller = task.abort_handle();
        match plan.caller {
            // Which may be too late for that, or before it was even sent.
            Caller::LeavesBefore => caller.abort(),
            Caller::LeavesWithin => {
                tokio::spawn(started.door.leave(move || caller.abort()));
            }
            Caller::Stays | Caller::IsLate => {}
        }
        flags.push(started.is_committed);
        tasks.push(task);
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.ok().as_ref().map(Answer::of));
    }
    finish(database, &flags, answers).await
}

/// Waits for what nobody waits for, and gives what was seen.
async fn finish(
    database: &Database,
    flags: &[Arc<AtomicBool>],
    answers: Vec<Option<Answer>>,
) -> Vec<Seen> {
    // What was sent before is over when this is.
    database.write(|_| Ok(())).await.unwrap();
    let seen = flags.iter().zip(answers);
    seen.map(|(flag, answer)| Seen::new(answer, flag)).collect()
}

/// Does to the map what was done to the table, in the order in which it was begun, and compares the answers.
///
/// Which writes shared a transaction is not known beforehand. Where one has taken all of it back, those before it were
/// either committed already or have heard of it, and so it is their answers that say where the transaction began.
fn replay(items: &mut Items, plans: &[Plan], order: &[usize], all: &[Seen]) -> Result<(), String> {
    let mut committed = items.clone();
    let mut current = items.clone();
    let mut lost = None;
    for &number in order {
        let (plan, seen) = (&plans[number], &all[number]);
        let foreseen = plan.foresee(&current);
        let answer = seen.answer.unwrap_or(match foreseen.answer {
            Answer::Stored if !seen.is_committed => Answer::RolledBack,
            answer => answer,
        });
        let wrong = |what: &str| {
            Err(format!(
                "{what}: {number}, {answer:?}, {seen:?}, {foreseen:?}"
            ))
        };
        if seen.is_committed != (answer == Answer::Stored) {
            return wrong("what follows a commit is not what is answered");
        }
        let is_lost = foreseen.answer == Answer::Stored && answer == Answer::RolledBack;
        if answer != foreseen.answer && !is_lost {
            return wrong("another answer was due");
        }
        if foreseen.loses_all {
            current.clone_from(&committed);
            lost = None;
        } else if is_lost {
            current = foreseen.items;
            lost = Some(number);
        } else if answer == Answer::Stored {
            if let Some(lost) = lost {
                return wrong(&format!("stored with {lost}, which was not"));
            }
            current = foreseen.items;
            committed.clone_from(&current);
        }
    }
    if let Some(lost) = lost {
        return Err(format!("rolled back, and nobody is to blame: {lost}"));
    }
    for (number, (plan, seen)) in plans.iter().zip(all).enumerate() {
        let is_late = seen.answer == Some(Answer::TooLate) && plan.caller == Caller::IsLate;
        let has_left = seen.answer.is_none() && plan.caller == Caller::LeavesBefore;
        if !order.contains(&number) && (seen.is_committed || !(is_late || has_left)) {
            return Err(format!("it was not begun: {number}, {seen:?}"));
        }
    }
    *items = committed;
    Ok(())
}
