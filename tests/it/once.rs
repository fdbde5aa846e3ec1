//! Forms that are sent twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use futures_util::future::join_all;
use garde::Validate;
use houseboat::App;
use houseboat::Context;
use houseboat::database;
use houseboat::database::Database;
use houseboat::database::Migrations;
use houseboat::http::Form;
use houseboat::http::Result;
use serde::Deserialize;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;
use crate::support::in_process::Parts;
use crate::support::ledger::example;
use crate::support::process::TestProcess;
use crate::support::raw::Raw;
use crate::support::site;
use crate::support::waiting::all_tests_are_wanted;
use crate::support::waiting::wait_for;

const ORDERS: Migrations = Migrations::new(
    "orders",
    &[(
        "V1__orders",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL) STRICT;",
    )],
);

const PATIENCE: Duration = Duration::from_secs(20);

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[derive(Deserialize, Validate)]
struct Order {
    #[garde(length(chars, min = 1))]
    item: String,
}

async fn order(State(db): State<Database>, form: Form<Order>) -> Result<String> {
    let order = form.check()?;
    let write = form.once()?.write(&db, move |tx| {
        tx.execute("INSERT INTO orders (item) VALUES (?1)", [&order.item])?;
        match order.item.as_str() {
            // Fails until there is a row of this name.
            "later" => {
                let sql = "SELECT count(*) FROM orders WHERE item = 'now'";
                let count: i64 = tx.query_row(sql, [], |row| row.get(0))?;
                if count == 0 {
                    return Err(database::Error::abort("not yet"));
                }
            }
            "panic" => panic!("on purpose"),
            "long" => return Ok("x".repeat(5_000)),
            _ => {}
        }
        Ok(format!("order {}", tx.last_insert_rowid()))
    });
    Ok(write.await?)
}

async fn site() -> InProcess {
    let routes: Router<Context> = Router::new()
        .route("/orders", post(order))
        .route("/other", post(order));
    let app = App::new("test").migrations(ORDERS).routes(routes);
    InProcess::with(app, &[("HOUSEBOAT_ENV", "production")]).await
}

fn body(item: &str) -> String {
    format!("item={item}&_once={KEY}")
}

async fn count(site: &InProcess, table: &'static str) -> i64 {
    let count = site.context.database.read(move |conn| {
        Ok(
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })?,
        )
    });
    count.await.unwrap()
}

async fn send(site: &InProcess, item: &str) -> Answer {
    site.post("/orders", body(item)).await
}

#[tokio::test]
async fn the_second_post_gets_the_firsts_answer() {
    let site = site().await;
    for _ in 0..3 {
        let answer = send(&site, "tea").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "order 1"));
    }
    // The same form by another name of its kind.
    let parts = Parts::default().field("item", "tea").field("_once", KEY);
    assert_eq!(site.post_parts("/orders", &parts).await.text(), "order 1");
    assert_eq!(
        (count(&site, "orders").await, count(&site, "once").await),
        (1, 1)
    );
    let other = body("tea").replace("0123", "3210");
    assert_eq!(
        site.post("/orders", other).await.text(),
        "order 2",
        "another key is another order"
    );
}

#[tokio::test]
async fn posts_at_the_same_time_are_one() {
    let site = site().await;
    let answers = join_all((0..20).map(|_| send(&site, "tea"))).await;
    for answer in answers {
        assert_eq!((answer.status, answer.text().as_str()), (200, "order 1"));
    }
    assert_eq!(count(&site, "orders").await, 1);
}

#[tokio::test]
async fn what_failed_may_run_again() {
    let site = site().await;
    for _ in 0..2 {
        assert_eq!(send(&site, "later").await.status, 500);
    }
    assert_eq!(
        (count(&site, "orders").await, count(&site, "once").await),
        (0, 0)
    );
    let now = site
        .post("/orders", body("now").replace("0123", "3210"))
        .await;
    assert_eq!(now.text(), "order 1");
    assert_eq!(send(&site, "later").await.text(), "order 2");
    assert_eq!(send(&site, "later").await.text(), "order 2");
    for item in ["panic", "long"] {
        let answer = site
            .post("/orders", body(item).replace("0123", "ffff"))
            .await;
        assert_eq!(answer.status, 500, "{item}");
    }
    assert_eq!(
        (count(&site, "orders").await, count(&site, "once").await),
        (2, 2)
    );
}

#[tokio::test]
async fn a_form_that_is_not_as_it_must_be_uses_up_no_key() {
    let site = site().await;
    assert_eq!(send(&site, "").await.status, 422);
    assert_eq!(send(&site, "tea").await.text(), "order 1");
}

#[tokio::test]
async fn a_key_is_for_one_form_of_one_session() {
    let site = site().await;
    let form = "content-type: application/x-www-form-urlencoded";
    let session = "cookie: theme=dark; __Host-session=ann; a=b";
    let ann = site
        .ask("POST", "/orders", &[form, session], body("tea"))
        .await;
    assert_eq!(ann.text(), "order 1");
    for (path, headers, item) in [
        ("/orders", vec![form, session], "coffee"),
        ("/other", vec![form, session], "tea"),
        ("/orders", vec![form], "tea"),
        ("/orders", vec![form, "cookie: __Host-session=bob"], "tea"),
        ("/orders", vec![form, "cookie: session=ann"], "tea"),
        // Almost signed in, by the same session.
        (
            "/orders",
            vec![form, session, "cookie: __Host-second=ann"],
            "tea",
        ),
        ("/orders", vec![form, session, "cookie: second=ann"], "tea"),
    ] {
        let answer = site.ask("POST", path, &headers, body(item)).await;
        assert_eq!(answer.status, 422, "{path} {headers:?} {item}");
        assert!(
            answer.text().contains("This form was sent before"),
            "{}",
            answer.text()
        );
    }
    // Other cookies come and go.
    let again = site
        .ask(
            "POST",
            "/orders",
            &[form, "cookie: __Host-session=ann; x=y"],
            body("tea"),
        )
        .await;
    assert_eq!(again.text(), "order 1");
    assert_eq!(count(&site, "orders").await, 1);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let site = site().await;
    let twice = format!("{}&_once={KEY}", body("tea"));
    for form in [
        "item=tea",
        "item=tea&_once=",
        "item=tea&_once=1",
        &twice,
        &body("tea").replace('0', "g"),
    ] {
        let answer = site.post("/orders", form.to_owned()).await;
        assert_eq!(answer.status, 428, "{form}");
        assert!(
            answer.text().contains("Open its page again"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(count(&site, "orders").await, 0);
}

#[tokio::test]
async fn answers_are_forgotten_after_a_day_and_bounded() {
    let site = site().await;
    assert_eq!(send(&site, "tea").await.text(), "order 1");
    site.clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert_eq!(send(&site, "tea").await.text(), "order 1");
    site.clock.advance(Duration::from_secs(2));
    assert_eq!(send(&site, "tea").await.text(), "order 2");
    assert_eq!(count(&site, "once").await, 1);
    // As many as are kept, and some.
    let fill = site.context.database.write(|tx| {
        let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10010) \
                   INSERT INTO once (key, print, answer, at) SELECT n, x'', '1', ?1 FROM n";
        Ok(tx.execute(sql, [tx.now_ms()])?)
    });
    fill.await.unwrap();
    let other = body("tea").replace("0123", "3210");
    assert_eq!(site.post("/orders", other).await.text(), "order 3");
    assert_eq!(count(&site, "once").await, 10_000);
}

/// Kills a site while forms are sent, each of them twice: each is done once, or not at all.
#[tokio::test]
async fn a_kill_leaves_a_form_done_once_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = TestProcess::builder()
            .program(&example("photos"))
            .folder(folder.path());
        builder.argument("serve").start().await
    };
    let rounds = if all_tests_are_wanted() { 20 } else { 2 };
    for round in 0..rounds {
        let mut site = start().await;
        let answered = Arc::<AtomicUsize>::default();
        let address = site.address().parse().unwrap();
        let posting = tokio::spawn(post_photos(address, round, Arc::clone(&answered)));
        // Then it is in the middle of another one.
        wait_for("answers", PATIENCE, async || {
            (answered.load(Ordering::SeqCst) > 5 + round).then_some(())
        })
        .await;
        site.kill();
        posting.await.unwrap_err();
    }
    let _site = start().await;
    let conn = site::database(folder.path());
    let number = |sql| site::number(&conn, sql);
    let photos = number("SELECT count(*) FROM photos");
    assert!(photos > 0);
    assert_eq!(number("SELECT count(DISTINCT title) FROM photos"), photos);
    assert_eq!(number("SELECT count(*) FROM once"), photos);
}

/// Sends one form after another, each twice, until nobody answers.
async fn post_photos(address: SocketAddr, round: usize, answered: Arc<AtomicUsize>) {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for form in 0.. {
        let parts = Parts::default()
            .field("_once", &format!("{round:016x}{form:016x}"))
            .field("title", &format!("{round}-{form}"))
            .file("photo", "a", png);
        for _ in 0..2 {
            let mut visitor = Raw::connect(address).await;
            let length = format!("content-length: {}", parts.bytes().len());
            visitor
                .ask("POST", "/photos", &[&Parts::media(), &length])
                .await;
            visitor.send(parts.bytes()).await;
            assert_eq!(visitor.answer().await.status, 303);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}
