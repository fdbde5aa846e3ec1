//! What visitors are told when something fails, and what they are not.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use houseboat::App;
use houseboat::Context;
use houseboat::database::Database;
use houseboat::http;
use houseboat::http::ErrorPage;
use serde_json::Value;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

const PRODUCTION: &[(&str, &str)] = &[("HOUSEBOAT_ENV", "production")];

#[derive(Debug, thiserror::Error)]
#[error("the account of hunter2 is locked")]
struct Locked(#[source] std::io::Error);

async fn sql(State(db): State<Database>) -> http::Result<String> {
    let number =
        db.read(|conn| Ok(conn.query_row("SELECT secret_column FROM once", [], |row| row.get(0))?));
    Ok(number.await?)
}

async fn file() -> http::Result<String> {
    let read = std::fs::read_to_string("/srv/private/keys.txt");
    let error = Locked(read.unwrap_err());
    Err(http::Error::internal(error))
}

fn routes() -> Router<Context> {
    Router::new()
        .route("/sql", get(sql))
        .route("/file", get(file))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("at hunter2") }),
        )
        .route(
            "/text",
            get(async || {
                (
                    axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                    "hunter2 is in the text",
                )
            }),
        )
}

fn app() -> App {
    App::new("test").routes(routes())
}

async fn json(site: &InProcess, path: &str) -> (Answer, Value) {
    let answer = site
        .ask("GET", path, &["accept: application/json"], "")
        .await;
    let problem = serde_json::from_slice(&answer.body).unwrap();
    (answer, problem)
}

#[tokio::test]
async fn in_production_nothing_of_the_inside_is_told() {
    let site = InProcess::with(app(), PRODUCTION).await;
    for path in ["/sql", "/file", "/panic", "/text"] {
        let (as_json, problem) = json(&site, path).await;
        for answer in [site.get(path).await, as_json] {
            assert_eq!(answer.status, 500, "{path}");
            let all = format!("{}\n{:?}", answer.text(), answer.headers);
            for inside in [
                "secret_column",
                "SELECT",
                "hunter2",
                "/srv",
                "error_pages.rs",
                "src/",
                "os error",
                "cause",
            ] {
                assert!(!all.contains(inside), "{path}: {inside} in {all}");
            }
            assert!(all.contains(answer.header("x-request-id")));
        }
        let mut keys: Vec<&str> = problem
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "detail",
                "instance",
                "request_id",
                "status",
                "title",
                "type"
            ]
        );
        assert_eq!(
            (&problem["status"], &problem["instance"]),
            (&Value::from(500), &Value::from(path))
        );
    }
}

#[tokio::test]
async fn in_development_all_of_it_is_told() {
    // Also where the site has pages of its own.
    let site = InProcess::with(
        app().errors(|page: &ErrorPage| Ok::<_, std::fmt::Error>(page.title().to_owned())),
        &[],
    )
    .await;
    let text = site.get("/sql").await.text();
    assert!(text.contains("no such column: secret_column"), "{text}");
    assert!(
        text.contains("<pre>SELECT secret_column FROM once</pre>"),
        "{text}"
    );
    // The line of the `?`.
    assert!(text.contains("tests/it/error_pages.rs:"), "{text}");
    let text = site.get("/file").await.text();
    let chain = "<li>the account of hunter2 is locked</li>\n<li>No such file or directory (os error 2)</li>";
    assert!(text.contains(chain), "{text}");
    let (_, problem) = json(&site, "/sql").await;
    assert_eq!(problem["cause"]["sql"], "SELECT secret_column FROM once");
    assert!(
        problem["cause"]["place"]
            .as_str()
            .unwrap()
            .starts_with("tests/it/error_pages.rs:")
    );
    assert!(
        site.get("/panic")
            .await
            .text()
            .contains("a handler panicked: at hunter2")
    );
    assert_eq!(
        site.get("/nowhere").await.text(),
        "Not found",
        "without a cause it is the site's page"
    );
}

#[derive(Template)]
#[template(
    source = "<p class=own>{{ page.status() }} {{ page.title() }}: {{ page.detail() }} {{ page.path() }} {{ page.request_id() }}</p>",
    ext = "html"
)]
struct Own<'a> {
    page: &'a ErrorPage,
}

#[tokio::test]
async fn a_site_has_pages_of_its_own() {
    let site = InProcess::with(app().errors(|page| Own { page }.render()), PRODUCTION).await;
    let answer = site.get("/no'where").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let id = answer.header("x-request-id");
    let text = "404 Not found: There is nothing at this address. It may have been moved or deleted. /no&#39;where";
    assert_eq!(answer.text(), format!("<p class=own>{text} {id}</p>"));
    assert!(
        site.get("/sql")
            .await
            .text()
            .starts_with("<p class=own>500 Something went wrong")
    );
    let (answer, problem) = json(&site, "/nowhere").await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(problem["title"], "Not found");
}

#[tokio::test]
async fn a_page_of_the_sites_own_that_fails_is_ours() {
    let failing = app().errors(|_| Err::<String, _>(std::io::Error::other("hunter2")));
    let panicking = app().errors(|page| -> Result<String, std::fmt::Error> {
        panic!("on purpose, for {}", page.status())
    });
    for app in [failing, panicking] {
        let site = InProcess::with(app, PRODUCTION).await;
        for path in ["/nowhere", "/sql"] {
            let text = site.get(path).await.text();
            assert!(text.contains("To the front page"), "{text}");
            assert!(
                !text.contains("hunter2") && !text.contains("on purpose"),
                "{text}"
            );
        }
    }
}
