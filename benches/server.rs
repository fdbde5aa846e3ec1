//! The servers that `benches/http_load.py` and `files.py` puts under load: bare axum, and axum with the database layer.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::routing::post;
use houseboat::cache::Cache;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::database::Settings;
use houseboat::database::Synchronous;
use houseboat::http::Assets;
use houseboat::http::ErrorPages;
use houseboat::http::PageCache;
use houseboat::replication::Replica;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// So many rows are read from, as in the peers.
const ROWS: i64 = 10_000;

const MIGRATIONS: Migrations = Migrations::new(
    "bench",
    &[(
        "V1__items",
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL) STRICT;
         CREATE TABLE events (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, note TEXT NOT NULL) STRICT;",
    )],
);

#[derive(Serialize)]
struct Item {
    id: i64,
    name: String,
    price: i64,
}

async fn hello() -> &'static str {
    "hello"
}

/// A page of 1 KiB, which is kept.
async fn page() -> Html<String> {
    Html("<p>It has thirty-two bytes.</p>\n".repeat(32))
}

/// A file of 20,000 bytes, as in `nginx.py`.
fn css() -> &'static [u8] {
    let rules = (0..800).map(|i| format!(".c{i:04} {{ margin: {:02}px; }}\n", i * 7 % 100));
    rules.collect::<String>().leak().as_bytes()
}

async fn css_alone() -> impl IntoResponse {
    static CSS: LazyLock<&[u8]> = LazyLock::new(css);
    ([(header::CONTENT_TYPE, "text/css")], *CSS)
}

fn cache_settings(database: &Database) -> houseboat::cache::Settings {
    houseboat::cache::Settings {
        path: database.path().with_file_name("bench-cache.sqlite3"),
        ..houseboat::cache::Settings::default()
    }
}

async fn read(
    State(database): State<Database>,
    Path(id): Path<i64>,
) -> Result<Json<Item>, StatusCode> {
    let item = database.read(move |conn| {
        let mut statement =
            conn.prepare_cached("SELECT id, name, price FROM items WHERE id = ?1")?;
        let item = statement.query_row([id], |row| {
            Ok(Item {
                id: row.get(0)?,
                name: row.get(1)?,
                price: row.get(2)?,
            })
        })?;
        Ok(item)
    });
    item.await
        .map(Json)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn insert(
    State(database): State<Database>,
    Path(item): Path<i64>,
) -> Result<&'static str, StatusCode> {
    let inserted = database.write(move |tx| {
        tx.prepare_cached("INSERT INTO events (item, note) VALUES (?1, 'a note of some length')")?
            .execute([item])?;
        Ok(())
    });
    inserted
        .await
        .map(|()| "ok")
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn open(folder: PathBuf, mode: &str) -> Database {
    let settings = Settings {
        path: folder.join("bench.sqlite3"),
        synchronous: if mode == "full" {
            Synchronous::Full
        } else {
            Synchronous::Normal
        },
        ..Settings::default()
    };
    let database = Database::open(&settings, Clock::system()).expect("the folder is writable");
    if mode == "file" {
        // It was made with all its rows.
        return database;
    }
    database
        .migrate(&[MIGRATIONS])
        .await
        .expect("the schema is sound");
    let fill = database.write(|tx| {
        for id in 1..=ROWS {
            tx.execute(
                "INSERT OR IGNORE INTO items VALUES (?1, 'item ' || ?1, ?1 * 7)",
                [id],
            )?;
        }
        Ok(())
    });
    fill.await.expect("the table is there");
    database
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let (Some(mode), Some(port), Some(folder)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        // `cargo bench` runs every bench without arguments.
        return;
    };
    let hello_only: Router = Router::new()
        .route("/hello", get(hello))
        .route("/bench.css", get(css_alone));
    let router = if mode == "hello" || mode == "loop" {
        hello_only.route("/where", get(async || "/bench.css"))
    } else {
        let database = open(PathBuf::from(folder), &mode).await;
        let routes = Router::new()
            .route("/read/{id}", get(read))
            .route("/insert/{item}", post(insert))
            .with_state(database.clone())
            .merge(hello_only);
        let cache = Cache::open(&cache_settings(&database), Clock::system()).await;
        let page = get(page).layer(PageCache::new(Duration::from_hours(1)).cache(cache.clone()));
        let routes = routes.route("/page", page);
        if mode == "site" {
            let settings = houseboat::http::Settings::default();
            let handles = (&database, &cache, &Replica::default());
            let assets = Assets::new(&[("css/bench.css", css())]);
            let file = assets.url("css/bench.css");
            houseboat::http::router(
                routes.route("/where", get(async || file)),
                assets,
                &settings,
                ErrorPages::default(),
                handles,
            )
        } else {
            routes
        }
    };
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("the port is free");
    if mode == "hello" {
        axum::serve(listener, router)
            .await
            .expect("the listener works");
    } else {
        let settings = houseboat::http::Settings::default();
        let stop = CancellationToken::new();
        houseboat::http::serve(listener, router, &settings, stop).await;
    }
}
