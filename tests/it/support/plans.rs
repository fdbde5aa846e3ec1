//! Writes that are thought up, and what a plain map makes of them.

use std::collections::BTreeMap;

use houseboat::database::Error;
use houseboat::database::Result;
use houseboat::database::Transaction;
use proptest::collection::vec;
use proptest::prelude::*;

/// What the table holds: keys and their values.
pub(crate) type Items = BTreeMap<i64, i64>;

/// One statement or a few, on a table of keys and values.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Put(i64, i64),
    /// Not the same after another one as before it.
    Mix(i64, i64),
    Delete(i64),
    /// Fails where the key is there.
    Insert(i64, i64),
    /// Fails as well, and nobody minds.
    TryInsert(i64, i64),
    /// Where the key is there, the transaction of all is gone.
    InsertOrRollback(i64, i64),
    /// In a savepoint of the closure's own.
    Within(Vec<Self>, Savepoint),
}

/// How a savepoint ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Savepoint {
    Released,
    RolledBack,
    LeftOpen,
}

/// How a closure ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Ok,
    Error,
    Panic,
}

/// What becomes of the one who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Stays,
    LeavesBefore,
    LeavesWithin,
    IsLate,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Whether an error of a statement is ignored; one more row is put then, in the midst of whatever is left.
    pub(crate) ignores_errors: bool,
    pub(crate) end: End,
    pub(crate) caller: Caller,
}

/// What the caller of a write is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Stored,
    Constraint,
    Aborted,
    Panicked,
    RolledBack,
    TooLate,
}

/// What must come of a plan.
#[derive(Debug)]
pub(crate) struct Foreseen {
    pub(crate) answer: Answer,
    pub(crate) items: Items,
    /// Whether the transaction is gone, and with it what others wrote in it.
    pub(crate) loses_all: bool,
}

/// Why a plan did not come to its end.
enum Stop {
    Constraint,
    AllIsGone,
}

/// A key that no plan uses otherwise.
const STRAY: i64 = 1_000;

impl Answer {
    /// # Panics
    ///
    /// Where the error is one that no plan leads to.
    pub(crate) fn of(result: &Result<()>) -> Self {
        match result {
            Ok(()) => Self::Stored,
            Err(Error::Abort(_)) => Self::Aborted,
            Err(Error::Panicked(_)) => Self::Panicked,
            Err(Error::RolledBack(_)) => Self::RolledBack,
            Err(Error::Timeout { .. }) => Self::TooLate,
            Err(error) if error.constraint().is_some() => Self::Constraint,
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl Plan {
    /// Does as planned, in SQL.
    pub(crate) fn run(&self, tx: &Transaction<'_>) -> Result<()> {
        if let Err(error) = run(tx, &self.actions, 0) {
            if !self.ignores_errors {
                return Err(error.into());
            }
            let _ = tx.execute("INSERT OR REPLACE INTO items VALUES (?1, 1)", [STRAY]);
        }
        match self.end {
            End::Ok => Ok(()),
            End::Error => Err(Error::abort("as planned")),
            // Without the words on stderr that another panic would have.
            End::Panic => std::panic::resume_unwind(Box::new("as planned")),
        }
    }

    /// Does the same with a map, and says what must come of it.
    pub(crate) fn foresee(&self, items: &Items) -> Foreseen {
        let mut after = items.clone();
        let stop = apply(&mut after, &self.actions).err();
        let loses_all = matches!(stop, Some(Stop::AllIsGone));
        if stop.is_some() {
            after.insert(STRAY, 1);
        }
        let answer = match self.end {
            _ if stop.is_some() && !self.ignores_errors => Answer::Constraint,
            End::Ok if loses_all => Answer::RolledBack,
            End::Ok => Answer::Stored,
            End::Error => Answer::Aborted,
            End::Panic => Answer::Panicked,
        };
        Foreseen {
            answer,
            items: after,
            loses_all,
        }
    }
}

fn run(tx: &Transaction<'_>, actions: &[Action], depth: usize) -> rusqlite::Result<()> {
    for action in actions {
        match action {
            Action::Put(key, value) => {
                tx.execute("INSERT OR REPLACE INTO items VALUES (?1, ?2)", [key, value])?;
            }
            Action::Mix(key, value) => {
                let sql = "UPDATE items SET value = (value * 3 + ?2) % 1000 WHERE key = ?1";
                tx.execute(sql, [key, value])?;
            }
            Action::Delete(key) => {
                tx.execute("DELETE FROM items WHERE key = ?1", [key])?;
            }
            Action::Insert(key, value) => {
                tx.execute("INSERT INTO items VALUES (?1, ?2)", [key, value])?;
            }
            Action::TryInsert(key, value) => {
                let _ = tx.execute("INSERT INTO items VALUES (?1, ?2)", [key, value]);
            }
            Action::InsertOrRollback(key, value) => {
                let sql = "INSERT OR ROLLBACK INTO items VALUES (?1, ?2)";
                tx.execute(sql, [key, value])?;
            }
            Action::Within(actions, savepoint) => {
                tx.execute_batch(&format!("SAVEPOINT mine_{depth}"))?;
                run(tx, actions, depth + 1)?;
                match savepoint {
                    Savepoint::Released => {
                        tx.execute_batch(&format!("RELEASE mine_{depth}"))?;
                    }
                    Savepoint::RolledBack => {
                        let sql = format!("ROLLBACK TO mine_{depth}; RELEASE mine_{depth}");
                        tx.execute_batch(&sql)?;
                    }
                    Savepoint::LeftOpen => {}
                }
            }
        }
    }
    Ok(())
}

fn apply(items: &mut Items, actions: &[Action]) -> Result<(), Stop> {
    for action in actions {
        match action {
            Action::Put(key, value) => {
                items.insert(*key, *value);
            }
            Action::Mix(key, value) => {
                if let Some(old) = items.get_mut(key) {
                    *old = (*old * 3 + value) % 1000;
                }
            }
            Action::Delete(key) => {
                items.remove(key);
            }
            Action::Insert(key, _) if items.contains_key(key) => return Err(Stop::Constraint),
            Action::InsertOrRollback(key, _) if items.contains_key(key) => {
                return Err(Stop::AllIsGone);
            }
            Action::Insert(key, value)
            | Action::TryInsert(key, value)
            | Action::InsertOrRollback(key, value) => {
                items.entry(*key).or_insert(*value);
            }
            Action::Within(actions, savepoint) => {
                let before = items.clone();
                // An error leaves the savepoint open, so what it holds is kept or lost with the rest.
                apply(items, actions)?;
                if matches!(savepoint, Savepoint::RolledBack) {
                    *items = before;
                }
            }
        }
    }
    Ok(())
}

/// Any write, of few keys, so that they meet.
pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let end = prop_oneof![4 => Just(End::Ok), 1 => Just(End::Error), 1 => Just(End::Panic)];
    let caller = prop_oneof![
        5 => Just(Caller::Stays),
        1 => Just(Caller::LeavesBefore),
        1 => Just(Caller::LeavesWithin),
        1 => Just(Caller::IsLate),
    ];
    let parts = (vec(action(), 0..4), any::<bool>(), end, caller);
    parts.prop_map(|(actions, ignores_errors, end, caller)| Plan {
        actions,
        ignores_errors,
        end,
        caller,
    })
}

fn action() -> impl Strategy<Value = Action> {
    let (key, value) = (0_i64..5, 0_i64..1000);
    let statement = prop_oneof![
        4 => (key.clone(), value.clone()).prop_map(|(key, value)| Action::Put(key, value)),
        4 => (key.clone(), value.clone()).prop_map(|(key, value)| Action::Mix(key, value)),
        2 => key.clone().prop_map(Action::Delete),
        2 => (key.clone(), value.clone()).prop_map(|(key, value)| Action::Insert(key, value)),
        1 => (key.clone(), value.clone()).prop_map(|(key, value)| Action::TryInsert(key, value)),
        1 => (key, value).prop_map(|(key, value)| Action::InsertOrRollback(key, value)),
    ];
    let savepoint = prop_oneof![
        Just(Savepoint::Released),
        Just(Savepoint::RolledBack),
        Just(Savepoint::LeftOpen),
    ];
    statement.prop_recursive(2, 8, 3, move |action| {
        let parts = (vec(action, 0..3), savepoint.clone());
        parts.prop_map(|(actions, savepoint)| Action::Within(actions, savepoint))
    })
}
