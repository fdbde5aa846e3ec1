//! The same two handlers on the usual ways to SQLite: sqlx and deadpool-sqlite (a package each).

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::routing::post;
use serde::Serialize;

#[derive(Serialize)]
struct Item {
    id: i64,
    name: String,
    price: i64,
}

#[cfg(feature = "with-sqlx")]
mod peer {
    use super::*;
    use sqlx::Row;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::sqlite::SqliteJournalMode;
    use sqlx::sqlite::SqlitePoolOptions;
    use sqlx::sqlite::SqliteSynchronous;

    #[derive(Clone)]
    pub struct Pools {
        readers: sqlx::SqlitePool,
        writer: sqlx::SqlitePool,
        /// Whether an insert begins and commits, as one of more statements would.
        with_transaction: bool,
    }

    pub async fn open(path: &str, mode: &str) -> Pools {
        let synchronous = match mode {
            "full" => SqliteSynchronous::Full,
            _ => SqliteSynchronous::Normal,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(std::time::Duration::from_secs(5));
        let pool = |size| {
            SqlitePoolOptions::new()
                .max_connections(size)
                .connect_with(options.clone())
        };
        Pools {
            readers: pool(8).await.unwrap(),
            // One writer: with more, writers would wait for one another in SQLite's own, unfair way.
            writer: pool(1).await.unwrap(),
            with_transaction: mode == "transaction",
        }
    }

    pub async fn read(
        State(pools): State<Pools>,
        Path(id): Path<i64>,
    ) -> Result<Json<Item>, StatusCode> {
        let row = sqlx::query("SELECT id, name, price FROM items WHERE id = ?1").bind(id);
        let row = row
            .fetch_one(&pools.readers)
            .await
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        Ok(Json(Item {
            id: row.get(0),
            name: row.get(1),
            price: row.get(2),
        }))
    }

    async fn in_transaction(
        writer: &sqlx::SqlitePool,
        insert: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> sqlx::Result<()> {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
        insert.execute(&mut *transaction).await?;
        transaction.commit().await
    }

    pub async fn insert(
        State(pools): State<Pools>,
        Path(item): Path<i64>,
    ) -> Result<&'static str, StatusCode> {
        let insert =
            sqlx::query("INSERT INTO events (item, note) VALUES (?1, 'a note of some length')")
                .bind(item);
        let inserted = if pools.with_transaction {
            in_transaction(&pools.writer, insert).await
        } else {
            insert.execute(&pools.writer).await.map(drop)
        };
        inserted.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        Ok("ok")
    }
}

#[cfg(feature = "with-deadpool")]
mod peer {
    use super::*;
    use deadpool_sqlite::Config;
    use deadpool_sqlite::Pool;
    use deadpool_sqlite::PoolConfig;
    use deadpool_sqlite::Runtime;

    #[derive(Clone)]
    pub struct Pools {
        readers: Pool,
        writer: Pool,
    }

    pub async fn open(path: &str, mode: &str) -> Pools {
        let pool = |size| {
            let mut config = Config::new(path);
            config.pool = Some(PoolConfig::new(size));
            config.create_pool(Runtime::Tokio1).unwrap()
        };
        let (readers, writer) = (pool(8), pool(1));
        let synchronous = if mode == "full" { "FULL" } else { "NORMAL" };
        let set_up = format!(
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};"
        );
        // The pool keeps its one connection.
        let connection = writer.get().await.unwrap();
        let done = connection.interact(move |conn| conn.execute_batch(&set_up));
        done.await.unwrap().unwrap();
        drop(connection);
        Pools { readers, writer }
    }

    pub async fn read(
        State(pools): State<Pools>,
        Path(id): Path<i64>,
    ) -> Result<Json<Item>, StatusCode> {
        let connection = pools
            .readers
            .get()
            .await
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let item = connection.interact(move |conn| {
            let mut statement =
                conn.prepare_cached("SELECT id, name, price FROM items WHERE id = ?1")?;
            statement.query_row([id], |row| {
                Ok(Item {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    price: row.get(2)?,
                })
            })
        });
        item.await
            .ok()
            .and_then(Result::ok)
            .map(Json)
            .ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    pub async fn insert(
        State(pools): State<Pools>,
        Path(item): Path<i64>,
    ) -> Result<&'static str, StatusCode> {
        let connection = pools
            .writer
            .get()
            .await
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let inserted = connection.interact(move |conn| {
            conn.prepare_cached(
                "INSERT INTO events (item, note) VALUES (?1, 'a note of some length')",
            )?
            .execute([item])
        });
        inserted
            .await
            .ok()
            .and_then(Result::ok)
            .map(|_| "ok")
            .ok_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, mode, port, folder] = &arguments[..] else {
        panic!("usage: peer MODE PORT FOLDER");
    };
    let pools = peer::open(&format!("{folder}/bench.sqlite3"), mode).await;
    let router = Router::new()
        .route("/read/{id}", get(peer::read))
        .route("/insert/{item}", post(peer::insert))
        .with_state(pools);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    axum::serve(listener, router).await.unwrap();
}
