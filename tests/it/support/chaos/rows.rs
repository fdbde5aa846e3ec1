//! What is in the database when all is over.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::Value;

/// A job as it ended.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) queue: String,
    pub(crate) state: String,
    pub(crate) attempt: u32,
    pub(crate) attempts_max: u32,
    pub(crate) deaths: u32,
    pub(crate) error: String,
    /// What it does, and how often that goes wrong, or how much of it.
    pub(crate) what: String,
    pub(crate) times: u32,
    pub(crate) tag: i64,
    /// Only where it binds until the job has ended.
    pub(crate) unique_key: Option<String>,
    pub(crate) limit: Option<(String, usize)>,
    pub(crate) rate: Option<(String, usize, i64)>,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) tag: i64,
    pub(crate) job: i64,
    pub(crate) is_new: bool,
    pub(crate) parent: Option<i64>,
}

/// What a job did: which one, by which request, what, and which step of it; and how often.
pub(crate) type Effects = BTreeMap<(i64, i64, String, u32), usize>;

impl Row {
    /// It was running each time a process died.
    pub(crate) fn is_set_aside(&self) -> bool {
        self.state == "discarded" && self.error == "the process died each time this job ran"
    }
}

pub(crate) fn rows(conn: &Connection) -> BTreeMap<i64, Row> {
    let mut query = conn
        .prepare(
            "SELECT id, queue, state, attempt, attempts_max, deaths, coalesce(error, ''), arguments,
                    CASE WHEN unique_scope = 0 THEN unique_key END, limit_key, limit_max, rate_key, rate_max, rate_ms
             FROM jobs",
        )
        .unwrap();
    let rows = query.query_map([], |row| {
        let arguments: String = row.get(7)?;
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        let (what, times) = match &arguments["what"] {
            Value::String(what) => (what.clone(), 0),
            Value::Object(what) => {
                let (what, times) = what.iter().next().unwrap();
                (what.clone(), times.as_u64().unwrap())
            }
            other => panic!("a job that does {other}"),
        };
        let limit: Option<String> = row.get(9)?;
        let rate: Option<String> = row.get(11)?;
        let row = Row {
            id: row.get(0)?,
            queue: row.get(1)?,
            state: row.get(2)?,
            attempt: row.get(3)?,
            attempts_max: row.get(4)?,
            deaths: row.get(5)?,
            error: row.get(6)?,
            what,
            times: u32::try_from(times).unwrap(),
            tag: arguments["tag"].as_i64().unwrap(),
            unique_key: row.get(8)?,
            limit: limit.zip(row.get(10)?),
            rate: match rate {
                Some(key) => Some((key, row.get(12)?, row.get(13)?)),
                None => None,
            },
        };
        Ok((row.id, row))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

pub(crate) fn requests(conn: &Connection) -> Vec<Request> {
    let mut query = conn
        .prepare("SELECT tag, job, became = 'new', parent FROM requests")
        .unwrap();
    let rows = query.query_map([], |row| {
        Ok(Request {
            tag: row.get(0)?,
            job: row.get(1)?,
            is_new: row.get(2)?,
            parent: row.get(3)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

pub(crate) fn effects(conn: &Connection) -> Effects {
    let mut query = conn
        .prepare("SELECT job, tag, what, step, count(*) FROM effects GROUP BY 1, 2, 3, 4")
        .unwrap();
    let rows = query.query_map([], |row| {
        let effect = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok((effect, row.get(4)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}
