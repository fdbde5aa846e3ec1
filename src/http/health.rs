//! Whether the site is alive, and whether it can do all of its work.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;

use crate::database;
use crate::database::Database;
use crate::http::Progress;
use crate::http::Role;
use crate::http::Status;
use crate::replication::Replica;

/// A database that needs longer to do nothing is too busy to be called ready.
const TIME: Duration = Duration::from_secs(2);

/// `/up` answers as long as the process does; `/ready` says whether the database can be read and written.
pub(super) fn routes(database: &Database, replica: &Replica) -> Router {
    Router::new()
        .route("/up", get(async || "up\n"))
        .route("/ready", get(ready))
        .with_state((database.within(TIME), replica.clone()))
}

/// Answers `/up` for a container behind a front: with 503 once it is told to stop, so that the proxy looks elsewhere.
pub(super) fn up(method: &Method, status: Status) -> Response {
    if !is_read(method) {
        return not_allowed();
    }
    match status.role {
        Role::Draining => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        // Nothing is known yet, and the platform would stop the container that serves.
        Role::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Role::Rehearsing => {
            (StatusCode::SERVICE_UNAVAILABLE, "trying the migrations\n").into_response()
        }
        _ => "up\n".into_response(),
    }
}

/// Answers `/ready` for a container that does not serve itself, or is about to stop.
///
/// A standby is ready: visitors who come to it get their answers, and a platform must not end it for what it waits
/// for. All others answer 503.
pub(super) fn role(method: &Method, status: Status) -> Response {
    if !is_read(method) {
        return not_allowed();
    }
    let (problem, warning) = match status.role {
        Role::Standby => (
            None,
            Some("another container serves: requests are passed on to it"),
        ),
        Role::Rehearsing => (
            Some("the migrations are tried on a copy; another container serves"),
            None,
        ),
        Role::Starting | Role::Taking => (Some("the site is starting"), None),
        Role::Restoring => (Some("the database is being restored"), None),
        Role::Migrating => (Some("the database is being migrated"), None),
        Role::Serving => (Some("requests are held for a moment"), None),
        Role::Draining => (Some("the container is stopping"), None),
    };
    let readiness = Readiness {
        ready: problem.is_none(),
        role: status.role,
        since: Some(status.since),
        progress: status.progress,
        problems: problem.into_iter().map(str::to_owned).collect(),
        warnings: warning.into_iter().map(str::to_owned).collect(),
    };
    readiness.answer()
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn not_allowed() -> Response {
    let allow = [(header::ALLOW, "GET,HEAD")];
    (StatusCode::METHOD_NOT_ALLOWED, allow).into_response()
}

/// What `/ready` answers, as JSON.
#[derive(Serialize)]
struct Readiness {
    /// Whether there is no problem.
    ready: bool,
    role: Role,
    /// Since when, where a container has more than one role in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    progress: Option<Progress>,
    /// Why not.
    problems: Vec<String>,
    /// What does not stop the site and should be seen to.
    warnings: Vec<String>,
}

impl Readiness {
    fn answer(self) -> Response {
        let status = if self.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(self)).into_response()
    }
}

async fn writable(database: &Database) -> database::Result<()> {
    database.write(|_| Ok(())).await?;
    database.has_room().await
}

async fn ready(State((database, replica)): State<(Database, Replica)>) -> Response {
    let (mut problems, mut warnings) = replica.concerns();
    warnings.extend_from_slice(database.warnings());
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
    let readiness = Readiness {
        ready: problems.is_empty(),
        role: Role::Serving,
        since: None,
        progress: None,
        problems,
        warnings,
    };
    readiness.answer()
}
