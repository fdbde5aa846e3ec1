//! The command `jobs`: what an operator sees of the jobs, and does to them.

mod change;
mod look;
mod schedule;
mod table;

use clap::builder::RangedI64ValueParser;

use crate::app;
use crate::app::App;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::error::Error;
use crate::error::Result;
use crate::queue::Filter;
use crate::queue::LIST_MAX;
use crate::queue::Maintenance;
use crate::queue::NAME_BYTES_MAX;
use crate::queue::Queue;
use crate::queue::QueueStatus;
use crate::queue::State;
use crate::settings::Section;

/// What the command is to do; without an action, it counts.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// List jobs, the newest first
    List(List),
    /// Print all that is known of a job: its arguments, how far it is, the error of each attempt
    Show {
        #[arg(value_name = "ID", value_parser = id())]
        id: i64,
    },
    /// Let jobs that have ended or failed, or are parked, run again at once
    Retry(Retry),
    /// Give up jobs that failed, or are parked, and wait
    Discard {
        #[arg(value_name = "ID", value_parser = id(), required = true)]
        ids: Vec<i64>,
    },
    /// Cancel jobs that wait, and tell those that run to stop
    Cancel {
        #[arg(value_name = "ID", value_parser = id(), required = true)]
        ids: Vec<i64>,
        /// Why, to be kept with the job
        #[arg(long, value_name = "TEXT", default_value = "by an operator")]
        reason: String,
    },
    /// Begin no more jobs of a queue, while what runs goes on; or enqueue nothing at the ticks of an entry
    Pause(What),
    /// Let the jobs of a queue be begun again, or those of an entry be enqueued again from its next tick on
    Resume(What),
    /// List the entries of the schedule: when each had its last job, and when it is due next
    Schedule,
    /// Enqueue the job of an entry of the schedule now, whatever the clock says and paused or not
    RunNow {
        /// The entry, as `jobs schedule` names it
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Delete jobs that ended long enough ago, as the settings say (the site does so by itself)
    Prune,
}

/// What is paused or resumed.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The queue
    #[arg(value_name = "QUEUE", value_parser = queue_name)]
    queue: Option<String>,
    /// An entry of the schedule instead, as `jobs schedule` names it
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
}

/// Which jobs are listed.
#[derive(Clone, Debug, clap::Args)]
struct List {
    /// Those in this state
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Those of this queue
    #[arg(long, value_parser = queue_name)]
    queue: Option<String>,
    /// Those of this name
    #[arg(long)]
    kind: Option<String>,
    /// At most so many, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit())]
    limit: u32,
    /// Those before the job with this id: the next page
    #[arg(long, value_name = "ID", value_parser = id())]
    before: Option<i64>,
}

/// Which jobs are retried: those named, or all of a state.
#[derive(Clone, Debug, clap::Args)]
struct Retry {
    #[arg(value_name = "ID", value_parser = id(), required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All of a state, and of a queue and a kind where they are named
    #[arg(long, requires = "state")]
    all: bool,
    /// With --all: those in this state
    #[arg(long, requires = "all", value_parser = state_to_retry)]
    state: Option<State>,
    /// With --all: those of this queue
    #[arg(long, requires = "all", value_parser = queue_name)]
    queue: Option<String>,
    /// With --all: those of this name
    #[arg(long, requires = "all")]
    kind: Option<String>,
}

impl List {
    fn filter(self) -> Filter {
        Filter {
            state: self.state,
            queue: self.queue,
            kind: self.kind,
            limit: self.limit,
            before: self.before,
        }
    }
}

impl Retry {
    fn filter(self) -> Filter {
        Filter {
            state: self.state,
            queue: self.queue,
            kind: self.kind,
            ..Filter::default()
        }
    }
}

fn id() -> RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(1..)
}

fn limit() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(LIST_MAX))
}

fn state(word: &str) -> Result<State, String> {
    state_of(word, &State::ALL)
}

fn state_to_retry(word: &str) -> Result<State, String> {
    let states = State::ALL.into_iter();
    let states = states.filter(|state| !matches!(state, State::Available | State::Executing));
    state_of(word, &states.collect::<Vec<_>>())
}

fn state_of(word: &str, states: &[State]) -> Result<State, String> {
    let found = states.iter().find(|state| state.as_str() == word);
    found.copied().ok_or_else(|| {
        let words: Vec<_> = states.iter().map(|state| state.as_str()).collect();
        format!("it should be one of {}", words.join(", "))
    })
}

/// The name of a queue, as it may be.
pub(super) fn queue_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name of a queue has 1 to {NAME_BYTES_MAX} bytes"
        ));
    }
    Ok(name.to_owned())
}

pub(super) async fn run<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: Arguments,
) -> Result<()> {
    let database = open_existing(config)?;
    let done = match app::pending(&database, app.sets()).await {
        Ok(()) => act(app, config, Queue::new(database.clone()), arguments).await,
        Err(error) => Err(error),
    };
    database.close().await;
    let done = done?;
    print(&done.text)?;
    match done.failure {
        None => Ok(()),
        Some(failure) => Err(Error::Unsound(failure)),
    }
}

/// What to print, and what could not be done.
#[derive(Debug, Default)]
struct Done {
    text: String,
    failure: Option<String>,
}

async fn act<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    queue: Queue,
    arguments: Arguments,
) -> Result<Done> {
    let json = arguments.json;
    let scheduler = || app.scheduler(queue.clone(), &config.queue);
    let text = match arguments.action {
        None => look::counts(&queue, json).await?,
        Some(Action::List(list)) => look::list(&queue, &list.filter(), json).await?,
        Some(Action::Show { id }) => return look::show(&queue, id, json).await,
        Some(Action::Retry(retry)) if retry.all => {
            return change::retry_all(&queue, &retry.filter(), json).await;
        }
        Some(Action::Retry(retry)) => return change::retry(&queue, &retry.ids, json).await,
        Some(Action::Discard { ids }) => return change::discard(&queue, &ids, json).await,
        Some(Action::Cancel { ids, reason }) => {
            return change::cancel(&queue, (&ids, &reason), json).await;
        }
        Some(Action::Pause(What {
            entry: Some(entry), ..
        })) => schedule::pause(&scheduler()?, &entry, json).await?,
        Some(Action::Pause(What { queue: name, .. })) => {
            // It is there: one of the two is required.
            let name = name.unwrap_or_default();
            let told = change::pause(&queue, &name, json).await?;
            told + &hint(app, config, &queue, ("pause", &name), json).await?
        }
        Some(Action::Resume(What {
            entry: Some(entry), ..
        })) => schedule::resume(&scheduler()?, &entry, json).await?,
        Some(Action::Resume(What { queue: name, .. })) => {
            let name = name.unwrap_or_default();
            let told = change::resume(&queue, &name, json).await?;
            told + &hint(app, config, &queue, ("resume", &name), json).await?
        }
        Some(Action::Schedule) => schedule::list(&scheduler()?, json).await?,
        Some(Action::RunNow { name }) => {
            return schedule::run_now(&scheduler()?, &name, json).await;
        }
        Some(Action::Prune) => {
            let pruned = Maintenance::new(queue, config.queue.clone())
                .prune()
                .await?;
            if json {
                table::json(&serde_json::json!({ "pruned": pruned }))
            } else {
                format!("pruned {pruned}\n")
            }
        }
    };
    Ok(Done {
        text,
        failure: None,
    })
}

/// What to add for whoever named an entry of the schedule where a queue is named; nothing if there is such a queue.
async fn hint<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    queue: &Queue,
    (verb, name): (&str, &str),
    json: bool,
) -> Result<String> {
    let queues = queue.queues().await?;
    let is_used = |it: &QueueStatus| it.name == name && it.waiting + it.running > 0;
    if json || config.queue.queues.contains_key(name) || queues.iter().any(is_used) {
        return Ok(String::new());
    }
    // A queue is paused even where the schedule is wrong.
    match app.scheduler(queue.clone(), &config.queue) {
        Ok(scheduler) => schedule::hint(&scheduler, (verb, name)).await,
        Err(_) => Ok(String::new()),
    }
}
