//! A site that a test can hold to its word: every row that it acknowledged can be asked for.

use houseboat::axum::Router;
use houseboat::axum::extract::{Path, State};
use houseboat::axum::routing::{get, post};
use houseboat::database::{Database, Migrations};
use houseboat::{App, Context, http::Error, http::Result, rusqlite::OptionalExtension};

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
        .route("/rows/{id}", get(show));
    houseboat::run(App::new("ledger").migrations(MIGRATIONS).routes(routes))
}
