//! A site that a test can hold to its word: every row that it acknowledged can be asked for.

use std::time::Duration;

use houseboat::axum::Router;
use houseboat::axum::extract::{Path, State};
use houseboat::axum::routing::{get, post};
use houseboat::database::{BoxError, Database, Migrations};
use houseboat::queue::{Attempt, Job, Jobs, Outcome};
use houseboat::{App, Context, http::Error, http::Result, rusqlite::OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Stores the body as a row, and answers with its number.
async fn add(State(db): State<Database>, text: String) -> Result<String> {
    let id = db
        .write(move |tx| {
            tx.execute("INSERT INTO rows (text) VALUES (?1)", [text])?;
            Ok(tx.last_insert_rowid())
        })
        .await?;
    Ok(id.to_string())
}

async fn show(State(db): State<Database>, Path(id): Path<i64>) -> Result<String> {
    let text = db.read(move |conn| {
        let mut query = conn.prepare_cached("SELECT text FROM rows WHERE id = ?1")?;
        Ok(query.query_row([id], |row| row.get(0)).optional()?)
    });
    text.await?.ok_or_else(Error::not_found)
}

/// A request that is begun, and fails when it is due.
async fn fail(Path(after_ms): Path<u64>) -> Result<String> {
    sleep(Duration::from_millis(after_ms)).await;
    panic!("the handler was to panic")
}

/// The same as a job.
#[derive(Deserialize, Serialize)]
struct Fail {
    after_ms: u64,
}

impl Job for Fail {
    const NAME: &'static str = "fail";
    type Context = Context;

    async fn run(self, _: Attempt<Context>) -> Result<Outcome, BoxError> {
        sleep(Duration::from_millis(self.after_ms)).await;
        panic!("the job was to panic")
    }
}

async fn fail_later(State(context): State<Context>, Path(after_ms): Path<u64>) -> Result<String> {
    let queue = context.queue.clone();
    let enqueue = context
        .database
        .write(move |tx| Ok(queue.enqueue(tx, &Fail { after_ms })?));
    enqueue.await?;
    Ok("enqueued".to_owned())
}

/// How long the bucket may take for that.
const SYNC: Duration = Duration::from_secs(10);

/// Answers when everything that is stored now is in the bucket.
async fn sync(State(context): State<Context>) -> Result<String> {
    let reached = context.replica.synced(SYNC).await?;
    Ok(format!("{reached:?}"))
}

const MIGRATIONS: Migrations = Migrations::new(
    "ledger",
    &[(
        "V1__rows",
        "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL) STRICT;
         CREATE INDEX rows_by_text ON rows (text);",
    )],
);

fn main() -> std::process::ExitCode {
    let routes: Router<Context> = Router::new()
        .route("/rows", post(add))
        .route("/rows/{id}", get(show))
        .route("/synced", post(sync))
        .route("/panics/{after_ms}", get(fail).post(fail_later));
    let jobs = Jobs::default().register::<Fail>();
    houseboat::run(
        App::new("ledger")
            .migrations(MIGRATIONS)
            .routes(routes)
            .jobs(jobs),
    )
}
