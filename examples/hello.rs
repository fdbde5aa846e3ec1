//! The smallest site: a guest book.

use askama::Template;
use houseboat::axum::extract::{Form, State};
use houseboat::axum::response::{Html, Redirect};
use houseboat::axum::{Router, routing::get};
use houseboat::database::{Database, Migrations};
use houseboat::{App, Context, http::Result, rusqlite};

#[derive(Template)]
#[template(path = "hello.html")]
struct GuestBook {
    names: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Guest {
    name: String,
}

async fn list(State(db): State<Database>) -> Result<Html<String>> {
    let names = db.read(|conn| {
        let mut query = conn.prepare_cached("SELECT name FROM guests ORDER BY id DESC LIMIT 20")?;
        let names = query.query_map([], |row| row.get(0))?;
        Ok(names.collect::<rusqlite::Result<_>>()?)
    });
    let page = GuestBook {
        names: names.await?,
    };
    Ok(Html(page.render()?))
}

async fn sign(State(db): State<Database>, Form(guest): Form<Guest>) -> Result<Redirect> {
    db.write(move |tx| Ok(tx.execute("INSERT INTO guests (name) VALUES (?1)", [guest.name])?))
        .await?;
    Ok(Redirect::to("/"))
}

const MIGRATIONS: Migrations = Migrations::new(
    "guests",
    &[(
        "V1__guests",
        "CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT",
    )],
);

fn main() -> std::process::ExitCode {
    let routes: Router<Context> = Router::new().route("/", get(list).post(sign));
    houseboat::run(App::new("hello").migrations(MIGRATIONS).routes(routes))
}
