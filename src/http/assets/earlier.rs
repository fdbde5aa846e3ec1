//! Files of the builds before this one: whoever has one of their pages open may still ask for them.
//!
//! They are in the database and not in the cache, because a container that begins with an empty disk has its database
//! back from the bucket, and its cache not. What is there is bounded, and written only when a build has other files.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::params;
use tokio::sync::OnceCell;

use crate::database;
use crate::database::Database;
use crate::database::Transaction;
use crate::http::assets::file::File;

/// How long a file is there after a build came that does not have it.
const KEEP: Duration = Duration::from_hours(24);

/// A larger file is not kept.
const FILE_BYTES_MAX: usize = 1 << 20;

/// All of them together; beyond that the oldest go, and then the largest are not kept.
const BYTES_MAX: usize = 16 << 20;

/// The files of earlier builds, by name.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    database: Database,
    files: Arc<HashMap<String, Held>>,
}

/// A file that is there until a time, and read once.
#[derive(Debug)]
struct Held {
    until: i64,
    file: OnceCell<Arc<File>>,
}

/// A row, without its content.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    bytes: usize,
    left_at: Option<i64>,
}

/// What has to be changed in the table, and what is in it then of builds before this one.
#[derive(Debug, Default)]
struct Plan {
    delete: Vec<String>,
    leave: Vec<String>,
    come_back: Vec<String>,
    keep: Vec<(String, Bytes)>,
    earlier: HashMap<String, Held>,
}

impl Earlier {
    /// Finds the files of the builds before, and keeps those of this one, for the next.
    pub(super) async fn remember(
        database: &Database,
        mine: Vec<(String, Bytes)>,
    ) -> database::Result<Self> {
        let now = database.now().as_millisecond();
        let rows = database.read(list).await?;
        let mut plan = Plan::new(&rows, &mine, now);
        let earlier = Self {
            database: database.clone(),
            files: Arc::new(std::mem::take(&mut plan.earlier)),
        };
        if plan.changes_nothing() {
            return Ok(earlier);
        }
        let written = database.write(move |tx| plan.carry_out(tx, now)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the static files of this build are not kept for the pages that it makes");
        }
        Ok(earlier)
    }

    /// The file of this name, if a build of the last day had it.
    pub(super) async fn find(&self, name: &str) -> Option<Arc<File>> {
        let held = self.files.get(name)?;
        if held.until <= self.database.now().as_millisecond() {
            return None;
        }
        match held.file.get_or_try_init(|| self.read(name)).await {
            Ok(file) => Some(Arc::clone(file)),
            Err(error) => {
                tracing::warn!(%error, name, "a static file of an earlier build cannot be read");
                None
            }
        }
    }

    async fn read(&self, name: &str) -> database::Result<Arc<File>> {
        let row = name.to_owned();
        let content = self.database.read(move |conn| content(conn, &row)).await?;
        Ok(Arc::new(File::kept(name, Bytes::from(content))))
    }
}

impl Plan {
    fn new(rows: &[Row], mine: &[(String, Bytes)], now: i64) -> Self {
        let mut plan = Self::default();
        let names: HashSet<&str> = mine.iter().map(|(name, _)| &**name).collect();
        let (of_this, mut before): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| names.contains(&*row.name));
        let back = of_this.iter().filter(|row| row.left_at.is_some());
        plan.come_back = back.map(|row| row.name.clone()).collect();
        let mut bytes: usize = of_this.iter().map(|row| row.bytes).sum();
        let there: HashSet<&str> = of_this.iter().map(|row| &*row.name).collect();
        let is_new = |(name, content): &&(String, Bytes)| {
            !there.contains(&**name) && content.len() <= FILE_BYTES_MAX
        };
        let mut new: Vec<_> = mine.iter().filter(is_new).collect();
        new.sort_by_key(|(_, content)| content.len());
        for (name, content) in new {
            if bytes + content.len() <= BYTES_MAX {
                bytes += content.len();
                plan.keep.push((name.clone(), content.clone()));
            }
        }
        // The youngest first, as far as there is room.
        before.sort_by_key(|row| (Reverse(row.left_at.unwrap_or(now)), row.bytes));
        for row in before {
            let until = row.left_at.unwrap_or(now) + keep_ms();
            if until <= now || bytes + row.bytes > BYTES_MAX {
                plan.delete.push(row.name.clone());
                continue;
            }
            bytes += row.bytes;
            let file = OnceCell::new();
            plan.earlier.insert(row.name.clone(), Held { until, file });
            if row.left_at.is_none() {
                plan.leave.push(row.name.clone());
            }
        }
        plan
    }

    fn changes_nothing(&self) -> bool {
        let names = [&self.delete, &self.leave, &self.come_back];
        names.iter().all(|names| names.is_empty()) && self.keep.is_empty()
    }

    fn carry_out(self, tx: &Transaction<'_>, now: i64) -> database::Result<()> {
        for name in self.delete {
            tx.execute("DELETE FROM http_assets WHERE name = ?1", [name])?;
        }
        let mut leave = tx.prepare("UPDATE http_assets SET left_at = ?2 WHERE name = ?1")?;
        for name in self.leave {
            leave.execute(params![name, now])?;
        }
        for name in self.come_back {
            leave.execute(params![name, None::<i64>])?;
        }
        drop(leave);
        let mut keep = tx.prepare("INSERT INTO http_assets (name, content) VALUES (?1, ?2)")?;
        for (name, content) in self.keep {
            keep.execute(params![name, &content[..]])?;
        }
        Ok(())
    }
}

fn list(conn: &Connection) -> database::Result<Vec<Row>> {
    let mut rows = conn.prepare("SELECT name, octet_length(content), left_at FROM http_assets")?;
    let rows = rows.query_map([], |row| {
        Ok(Row {
            name: row.get(0)?,
            bytes: row.get(1)?,
            left_at: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn content(conn: &Connection, name: &str) -> database::Result<Vec<u8>> {
    let mut content = conn.prepare_cached("SELECT content FROM http_assets WHERE name = ?1")?;
    Ok(content.query_row([name], |row| row.get(0))?)
}

fn keep_ms() -> i64 {
    i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX)
}
