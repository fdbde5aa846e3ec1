//! Whether the site is alive, and whether it can do all of its work.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;

use crate::database;
use crate::database::Database;

/// A database that needs longer to do nothing is too busy to be called ready.
const TIME: Duration = Duration::from_secs(2);

/// `/up` answers as long as the process does; `/ready` says whether the database can be read and written.
pub(super) fn routes(database: &Database) -> Router {
    Router::new()
        .route("/up", get(async || "up\n"))
        .route("/ready", get(ready))
        .with_state(database.within(TIME))
}

/// What `/ready` answers, as JSON.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Why not.
    problems: Vec<String>,
    /// What does not stop the site and should be seen to.
    warnings: Vec<String>,
}

async fn writable(database: &Database) -> database::Result<()> {
    database.write(|_| Ok(())).await?;
    database.has_room().await
}

async fn ready(State(database): State<Database>) -> (StatusCode, Json<Readiness>) {
    let mut problems = Vec::new();
    if let Some(damage) = database.damage() {
        problems.push(format!(
            "the database is damaged (found {}): it can be read as far as it is sound, and takes no writes",
            damage.found_at
        ));
    } else if let Err(error) = writable(&database).await {
        problems.push(format!("the database cannot be written: {error}"));
    }
    let read = database.read(|conn| Ok(conn.query_row("SELECT 1", [], |_| Ok(()))?));
    if let Err(error) = read.await {
        problems.push(format!("the database cannot be read: {error}"));
    }
    let ready = problems.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let warnings = database.warnings().to_vec();
    let readiness = Readiness {
        ready,
        problems,
        warnings,
    };
    (status, Json(readiness))
}
