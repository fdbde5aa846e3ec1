//! What stands around every site's routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::Request;
use axum::http::StatusCode;
use axum::routing::get;
use axum::routing::post;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::database;
use houseboat::database::Clock;
use houseboat::http;
use houseboat::http::Assets;
use houseboat::queue::Jobs;
use houseboat::queue::Schedule;
use houseboat::settings::NoSettings;
use tempfile::TempDir;
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn config(folder: &std::path::Path, variables: &[(&str, &str)]) -> Config {
    let data = folder.join("data");
    let path = |name: &str| data.join(name).to_str().unwrap().to_owned();
    let mut all = vec![
        ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
        ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
        ("HOUSEBOAT_ENV".to_owned(), "production".to_owned()),
    ];
    all.extend(
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    Config::load_from(folder, all).unwrap()
}

fn routes() -> Router<Context> {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_mins(1)).await;
                "late"
            }),
        )
        .route(
            "/secret",
            get(async || -> http::Result<()> {
                Err(http::Error::internal("the password is hunter2"))
            }),
        )
        .route(
            "/overloaded",
            get(async || -> http::Result<()> {
                Err(database::Error::Overloaded { waiting_max: 7 }.into())
            }),
        )
        .route(
            "/own",
            get(async || {
                (
                    StatusCode::CONFLICT,
                    axum::response::Html("<p>the site's own page</p>"),
                )
            }),
        )
        .route(
            "/taken",
            get(async || (StatusCode::CONFLICT, "That name is <taken>.")),
        )
        .route("/number/{n}", get(async |Path(n): Path<i64>| n.to_string()))
        .route("/echo", post(async |body: Bytes| body))
        .route("/long", get(async || "long ".repeat(2_000)))
}

struct Site {
    _folder: TempDir,
    router: Router,
}

impl Site {
    async fn new(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = App::new("test")
            .routes(routes())
            .assets(Assets::new(&[("site.css", b"body { margin: 0 }")]));
        let site = app
            .open(config(folder.path(), variables), Clock::system())
            .await
            .unwrap();
        Self {
            router: site.router(),
            _folder: folder,
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "site.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }
}

#[tokio::test]
async fn a_site_that_is_up_says_so() {
    let site = Site::new(&[]).await;
    let answer = site.get("/up").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "up\n")
    );
}

#[tokio::test]
async fn an_address_that_is_not_there_gets_a_page_that_says_so() {
    let site = Site::new(&[]).await;
    let answer = site.get("/nowhere").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(
        answer.body.contains("<h1>Not found</h1>"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains(answer.header("x-request-id")));
}

#[tokio::test]
async fn who_asks_for_json_gets_an_error_as_json() {
    let site = Site::new(&[]).await;
    let answer = site
        .ask(
            Method::GET,
            "/nowhere",
            &[("accept", "application/json")],
            "",
        )
        .await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["title"], "Not found");
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_page_and_the_site_goes_on() {
    let site = Site::new(&[]).await;
    let answer = site.get("/panic").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.body.contains("Something went wrong"));
    assert!(!answer.body.contains("on purpose"));
    assert_eq!(site.get("/hello").await.body, "hello");
}

#[tokio::test]
async fn the_cause_of_an_error_is_not_shown() {
    let site = Site::new(&[]).await;
    let answer = site.get("/secret").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.body.contains("hunter2"));
}

#[tokio::test]
async fn an_overloaded_database_asks_to_come_back() {
    let site = Site::new(&[]).await;
    let answer = site.get("/overloaded").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(answer.body.contains("try again"));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_answered_for() {
    let site = Site::new(&[("HOUSEBOAT_SERVER__REQUEST_TIMEOUT_MS", "50")]).await;
    let answer = site.get("/slow").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("<h1>Busy</h1>"));
}

#[tokio::test]
async fn an_error_page_of_the_sites_own_stays_as_it_is() {
    let site = Site::new(&[]).await;
    let answer = site.get("/own").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.body, "<p>the site's own page</p>");
}

#[tokio::test]
async fn a_plain_text_of_the_sites_own_goes_on_the_page() {
    let site = Site::new(&[]).await;
    let answer = site.get("/taken").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(
        answer.body.contains("<p>That name is &#60;taken&#62;.</p>"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn what_an_extractor_says_to_programmers_is_not_shown() {
    let site = Site::new(&[]).await;
    let answer = site.get("/number/seven").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.body.contains("could not be understood"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("i64"), "{}", answer.body);
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let site = Site::new(&[("HOUSEBOAT_SERVER__BODY_BYTES_MAX", "1024")]).await;
    let fits = site
        .ask(Method::POST, "/echo", &[], &"x".repeat(1_024))
        .await;
    assert_eq!(fits.status, StatusCode::OK);
    let stated = ("content-length", "1025");
    for headers in [&[][..], &[stated]] {
        let over = site
            .ask(Method::POST, "/echo", headers, &"x".repeat(1_025))
            .await;
        assert_eq!(over.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(over.body.contains("<h1>Too large</h1>"), "{}", over.body);
    }
}

#[tokio::test]
async fn a_write_from_another_site_is_refused() {
    let site = Site::new(&[]).await;
    for (headers, status) in [
        (&[("sec-fetch-site", "cross-site")][..], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("origin", "https://evil.test")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("origin", "https://site.test")], 200),
        (&[], 200),
    ] {
        let answer = site.ask(Method::POST, "/echo", headers, "x").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    let read = site
        .ask(
            Method::GET,
            "/hello",
            &[("sec-fetch-site", "cross-site")],
            "",
        )
        .await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn a_websocket_that_another_site_begins_is_refused() {
    const HANDSHAKE: (&str, &str) = ("upgrade", "websocket");
    let site = Site::new(&[]).await;
    for (headers, status) in [
        (&[HANDSHAKE, ("sec-fetch-site", "cross-site")][..], 403),
        (&[HANDSHAKE, ("sec-fetch-site", "same-site")], 403),
        (&[HANDSHAKE, ("origin", "https://www.site.test")], 403),
        (&[HANDSHAKE, ("origin", "null")], 403),
        (&[HANDSHAKE, ("sec-fetch-site", "same-origin")], 200),
        (&[HANDSHAKE, ("origin", "https://site.test")], 200),
        (&[HANDSHAKE], 200),
        (&[("sec-fetch-site", "same-site")], 200),
        (&[("origin", "https://www.site.test")], 200),
    ] {
        let answer = site.ask(Method::GET, "/hello", headers, "").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
}

#[tokio::test]
async fn every_answer_tells_the_browser_to_be_careful() {
    let site = Site::new(&[]).await;
    for path in ["/hello", "/nowhere", "/panic", "/up"] {
        let answer = site.get(path).await;
        assert!(
            answer
                .header("content-security-policy")
                .contains("default-src 'none'"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
    }
}

#[tokio::test]
async fn a_request_id_from_outside_is_not_taken() {
    let site = Site::new(&[]).await;
    let answer = site
        .ask(Method::GET, "/hello", &[("x-request-id", "forged")], "")
        .await;
    let id = answer.header("x-request-id");
    assert!(id.len() == 16 && id != "forged", "{id}");
    assert_ne!(site.get("/hello").await.header("x-request-id"), id);
}

#[tokio::test]
async fn long_answers_are_compressed_for_who_can_read_that() {
    let site = Site::new(&[]).await;
    for encoding in ["gzip", "br"] {
        let answer = site
            .ask(Method::GET, "/long", &[("accept-encoding", encoding)], "")
            .await;
        assert_eq!(answer.header("content-encoding"), encoding);
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert!(answer.body.len() < 1_000);
    }
    // Also who says that nothing will do gets what there is.
    for accepted in ["", "identity", "zstd", "*;q=0"] {
        let answer = site
            .ask(Method::GET, "/long", &[("accept-encoding", accepted)], "")
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{accepted}");
        assert_eq!(answer.header("content-encoding"), "");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert!(answer.body.len() > 1_000);
    }
}

#[tokio::test]
async fn a_static_file_is_kept_for_a_year_under_a_name_of_its_content() {
    let site = Site::new(&[]).await;
    let url = Assets::new(&[("site.css", b"body { margin: 0 }")]).url("site.css");
    let answer = site.get(&url).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "body { margin: 0 }")
    );
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    let changed = Assets::new(&[("site.css", b"body { margin: 1px }")]).url("site.css");
    assert_ne!(changed, url);
    assert_eq!(site.get(&changed).await.status, StatusCode::NOT_FOUND);
}

#[derive(Debug, Default, serde::Deserialize, serde::Serialize)]
struct Nightly {}

impl houseboat::queue::Job for Nightly {
    const NAME: &'static str = "nightly";
    type Context = Context;

    async fn run(
        self,
        _: houseboat::queue::Attempt<Context>,
    ) -> Result<houseboat::queue::Outcome, database::BoxError> {
        Ok(houseboat::queue::Outcome::Complete)
    }
}

#[tokio::test]
async fn a_schedule_for_a_job_that_nobody_runs_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let app =
        App::<NoSettings>::new("test").schedule(Schedule::default().cron::<Nightly>("0 3 * * *"));
    let error = app
        .open(config(folder.path(), &[]), Clock::system())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nightly"), "{error}");
    let app = App::<NoSettings>::new("test")
        .jobs(Jobs::default().register::<Nightly>())
        .schedule(Schedule::default().cron::<Nightly>("0 3 * * *"));
    app.open(config(folder.path(), &[]), Clock::system())
        .await
        .unwrap();
}
