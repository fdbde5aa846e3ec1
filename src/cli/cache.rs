//! The command `cache`.

use std::fmt::Write as _;

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cache::Cache;
use crate::cache::Settings;
use crate::cache::Stats;
use crate::cli::print;
use crate::config::Config;
use crate::database::Clock;
use crate::error::Error;
use crate::error::Result;
use crate::settings::Section;

/// What is asked of the cache.
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Say what is in the file and what it takes
    Stats {
        /// As JSON, in bytes and seconds
        #[arg(long)]
        json: bool,
    },
    /// Delete everything, or what is in a namespace; a running site sees it within a second
    Clear {
        /// The namespace, after those that it is within
        namespace: Vec<String>,
    },
    /// Print the value of a key as JSON
    Get {
        key: String,
        /// The namespace of the key; more than one for those within others, from the outside
        #[arg(long, value_name = "NAME")]
        namespace: Vec<String>,
    },
}

pub(super) async fn run<S: Section>(config: &Config<S>, arguments: Arguments) -> Result<()> {
    let cache = open(&config.cache).await?;
    let done = execute(&cache, &config.cache, arguments.command).await;
    cache.close().await;
    done
}

/// Opens a cache that is there: nobody wants one made by looking.
async fn open(settings: &Settings) -> Result<Cache> {
    if !settings.path.exists() {
        return Err(Error::NoCache(settings.path.clone()));
    }
    let cache = Cache::open(settings, Clock::system()).await;
    if !cache.stats().has_file {
        cache.close().await;
        let reason = "the cache file cannot be used; the log says why".to_owned();
        return Err(Error::Unsound(reason));
    }
    Ok(cache)
}

async fn execute(cache: &Cache, settings: &Settings, command: Command) -> Result<()> {
    match command {
        Command::Stats { json } => {
            let stats = cache.stats();
            match json {
                true => print(&format!("{}\n", as_json(&stats, settings))),
                false => print(&as_text(&stats, settings)),
            }
        }
        Command::Clear { namespace } => {
            within(cache, &namespace).clear().await;
            match namespace.is_empty() {
                true => print("the cache is empty\n"),
                false => print(&format!(
                    "the namespace {} is empty\n",
                    namespace.join(" > ")
                )),
            }
        }
        Command::Get { key, namespace } => {
            let cache = within(cache, &namespace);
            let Some(bytes) = cache.get_bytes(key.as_bytes()).await else {
                return Err(Error::NotCached(key));
            };
            match cache.get::<Value>(&key).await {
                Some(value) => print(&format!("{value:#}\n")),
                None => print(&format!(
                    "a value of {} bytes that cannot be shown as JSON\n",
                    bytes.len()
                )),
            }
        }
    }
}

fn within(cache: &Cache, names: &[String]) -> Cache {
    names
        .iter()
        .fold(cache.clone(), |cache, name| cache.namespace(name))
}

fn as_text(stats: &Stats, settings: &Settings) -> String {
    let mut text = String::new();
    let used = mebibytes(stats.file_bytes);
    let all = mebibytes(settings.bytes_max);
    let free = mebibytes(stats.file_bytes_free);
    let _ = writeln!(text, "{}", settings.path.display());
    let _ = writeln!(text, "  entries  {}", stats.file_entries);
    let _ = writeln!(
        text,
        "  size     {used} MiB of {all} MiB, and {free} MiB free to be used again"
    );
    let oldest = stats.oldest.map_or_else(
        || "none".to_owned(),
        |age| format!("put {} s ago", age.as_secs()),
    );
    let _ = writeln!(text, "  oldest   {oldest}");
    let _ = writeln!(text, "  evicted  {} since the file was made", stats.evicted);
    let _ = writeln!(text, "  expired  {} since the file was made", stats.expired);
    text
}

fn as_json(stats: &Stats, settings: &Settings) -> Value {
    json!({
        "path": settings.path,
        "entries": stats.file_entries,
        "bytes": stats.file_bytes,
        "bytes_max": settings.bytes_max,
        "bytes_free": stats.file_bytes_free,
        "oldest_s": stats.oldest.map(|age| age.as_secs()),
        "evicted": stats.evicted,
        "expired": stats.expired,
    })
}

/// With one digit after the point.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{}", tenths / 10, tenths % 10)
}
