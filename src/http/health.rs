//! Whether the site is alive, and whether it can do all of its work.

use std::fmt::Write as _;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

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

async fn ready(State(database): State<Database>) -> (StatusCode, String) {
    let mut wrong = Vec::new();
    if let Some(damage) = database.damage() {
        wrong.push(format!(
            "the database is damaged (found {}): it can be read as far as it is sound, and takes no writes",
            damage.found_at
        ));
    } else if let Err(error) = database.write(|_| Ok(())).await {
        wrong.push(format!("the database cannot be written: {error}"));
    }
    if let Err(error) = database
        .read(|conn| Ok(conn.query_row("SELECT 1", [], |_| Ok(()))?))
        .await
    {
        wrong.push(format!("the database cannot be read: {error}"));
    }
    let status = if wrong.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = if wrong.is_empty() {
        "ready\n"
    } else {
        "not ready\n"
    }
    .to_owned();
    let warnings = database.warnings().iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    for line in wrong.into_iter().chain(warnings) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    (status, text)
}
