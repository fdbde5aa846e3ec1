//! The jobs: they do what they are told.

use std::time::Duration;

use houseboat::database::{self, BoxError, Transaction};
use houseboat::queue::{Attempt, Job, Outcome};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::Site;
use crate::order::Order;
use crate::run::Run;

/// What a job does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum What {
    Succeed,
    /// The first so many attempts go wrong.
    Fail(u32),
    Panic(u32),
    Hang(u32),
    Snooze,
    Cancel,
    /// Its effect and its end are one commit.
    Finish,
    /// So many steps, each with a cursor.
    Steps(u32),
    /// So many children, in the transaction that completes it.
    Bear(u32),
    /// Holds its thread.
    Block,
    /// Takes the process with it.
    Die,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Act {
    pub(crate) tag: i64,
    pub(crate) what: What,
    pub(crate) ms: u64,
}

impl Job for Act {
    const NAME: &'static str = "act";
    const TIMEOUT: Duration = Duration::from_secs(20);
    type Context = Site;

    async fn run(self, attempt: Attempt<Site>) -> Result<Outcome, BoxError> {
        act(self, attempt).await
    }

    fn backoff(_attempt: u32) -> Duration {
        Duration::from_millis(fastrand::u64(20..300))
    }
}

/// The same; not every process knows it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Rare(pub(crate) Act);

impl Job for Rare {
    const NAME: &'static str = "rare";
    const TIMEOUT: Duration = Act::TIMEOUT;
    type Context = Site;

    async fn run(self, attempt: Attempt<Site>) -> Result<Outcome, BoxError> {
        act(self.0, attempt).await
    }

    fn backoff(attempt: u32) -> Duration {
        Act::backoff(attempt)
    }
}

async fn act(act: Act, attempt: Attempt<Site>) -> Result<Outcome, BoxError> {
    let mut run = Run::begin(&attempt, act.tag);
    run.note_start(&attempt).await?;
    let goes_wrong = |times: u32| attempt.number() <= times;
    let (id, tag) = (attempt.id(), act.tag);
    match act.what {
        What::Succeed => {
            sleep(Duration::from_millis(act.ms / 2)).await;
            attempt.progress(0.5, "half").await?;
            sleep(Duration::from_millis(act.ms / 2)).await;
            let write = attempt
                .database
                .write(move |tx| effect(tx, (id, tag), "did", 0));
            write.await?;
        }
        What::Fail(times) if goes_wrong(times) => return Err("it failed on purpose".into()),
        What::Panic(times) if goes_wrong(times) => panic!("on purpose"),
        What::Hang(times) if goes_wrong(times) => std::future::pending().await,
        What::Fail(_) | What::Panic(_) | What::Hang(_) => {}
        What::Snooze => {
            if attempt.cursor::<bool>()?.is_none() {
                let here = attempt.clone();
                let save = attempt.database.write(move |tx| Ok(here.save(tx, &true)?));
                save.await?;
                return Ok(Outcome::Snooze(Duration::from_millis(act.ms)));
            }
        }
        What::Cancel => return Ok(Outcome::Cancel("on purpose".to_owned())),
        What::Finish | What::Bear(_) => {
            sleep(Duration::from_millis(act.ms)).await;
            let children = match act.what {
                What::Bear(count) => (0..count).map(|_| Order::child()).collect(),
                _ => Vec::new(),
            };
            run.end();
            let here = attempt.clone();
            let finish = attempt.database.write(move |tx| {
                here.finish(tx)?;
                effect(tx, (id, tag), "finished", 0)?;
                for child in &children {
                    child.enqueue(tx, &here.queue, Some(tag))?;
                }
                Ok(())
            });
            finish.await?;
        }
        What::Steps(count) => steps(&act, count, &attempt).await?,
        #[expect(
            clippy::disallowed_methods,
            reason = "a job that does not let go of its thread"
        )]
        What::Block => {
            std::thread::sleep(Duration::from_millis(act.ms));
            // Here it ends where it was broken off meanwhile.
            tokio::task::yield_now().await;
        }
        What::Die => {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
            std::future::pending::<()>().await;
        }
    }
    Ok(Outcome::Complete)
}

/// One after the other, each from where the last attempt was.
async fn steps(act: &Act, count: u32, attempt: &Attempt<Site>) -> Result<(), BoxError> {
    let (id, tag) = (attempt.id(), act.tag);
    for step in attempt.cursor::<u32>()?.unwrap_or(0)..count {
        sleep(Duration::from_millis(act.ms / u64::from(count))).await;
        let here = attempt.clone();
        let write = attempt.database.write(move |tx| {
            effect(tx, (id, tag), "step", step)?;
            Ok(here.save(tx, &(step + 1))?)
        });
        write.await?;
        if step == count / 2 && fastrand::bool() {
            return Err("it failed on its way".into());
        }
    }
    Ok(())
}

fn effect(
    tx: &Transaction<'_>,
    (job, tag): (i64, i64),
    what: &str,
    step: u32,
) -> database::Result<()> {
    tx.prepare_cached("INSERT INTO effects (job, tag, what, step) VALUES (?1, ?2, ?3, ?4)")?
        .execute((job, tag, what, step))?;
    Ok(())
}
