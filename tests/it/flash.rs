//! Messages that are shown once, after a redirect.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use houseboat::App;
use houseboat::Context;
use houseboat::http::Flash;
use houseboat::http::PageCache;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

#[derive(Template)]
#[template(
    source = "{% for message in flash.messages() %}<p class={{ message.kind }}>{{ message.text }}</p>{% endfor %}",
    ext = "html"
)]
struct Page {
    flash: Flash,
}

async fn show(flash: Flash) -> Html<String> {
    Html(Page { flash }.render().unwrap())
}

async fn save() -> impl IntoResponse {
    let flash = Flash::notice("Saved <1>.").and(Flash::error("Not told."));
    (flash, Redirect::to("/a?b=c"))
}

fn routes() -> Router<Context> {
    let cached = PageCache::new(Duration::from_mins(1)).personal_cookies(&["session"]);
    Router::new()
        .route("/a", get(show).post(save))
        .route(
            "/b",
            get(show).post(async || (Flash::notice("B."), Redirect::to("/b"))),
        )
        .route("/other", get(async || "other"))
        .route(
            "/fails",
            get(async |_: Flash| -> Response { panic!("on purpose") }),
        )
        .route(
            "/here",
            post(async || (Flash::notice("Here."), "no redirect")),
        )
        .route("/cached", get(show).layer(cached))
        .route(
            "/cached",
            post(async || (Flash::notice("Cached."), Redirect::to("/cached"))),
        )
}

/// The cookies of a browser.
#[derive(Default)]
struct Jar(Vec<(String, String)>);

impl Jar {
    fn header(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("cookie: {}", pairs.join("; "))
    }

    fn take(&mut self, answer: &Answer) {
        for (pair, rest) in answer.cookies() {
            let (name, value) = pair.split_once('=').unwrap();
            self.0.retain(|(kept, _)| kept != name);
            if !rest.contains("Max-Age=0") {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    async fn ask(&mut self, site: &InProcess, method: &str, path: &str) -> Answer {
        let answer = if self.0.is_empty() {
            site.ask(method, path, &[], "").await
        } else {
            site.ask(method, path, &[&self.header()], "").await
        };
        self.take(&answer);
        answer
    }

    async fn see(&mut self, site: &InProcess, path: &str) -> String {
        self.ask(site, "GET", path).await.text()
    }
}

const SAVED: &str = "<p class=notice>Saved &#60;1&#62;.</p><p class=error>Not told.</p>";

#[tokio::test]
async fn a_message_is_shown_once() {
    let site = InProcess::new(routes()).await;
    let mut jar = Jar::default();
    let answer = jar.ask(&site, "POST", "/a").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/a?b=c"));
    let [(pair, rest)] = &answer.cookies()[..] else {
        panic!("one cookie: {:?}", answer.cookies());
    };
    assert!(
        pair.starts_with("__Host-flash-") && pair.len() <= 1_024,
        "{pair}"
    );
    assert_eq!(rest, "Path=/; Max-Age=300; HttpOnly; SameSite=Lax; Secure");
    assert_eq!(
        jar.see(&site, "/other").await,
        "other",
        "who does not ask does not take it"
    );
    assert_eq!(jar.see(&site, "/b").await, "", "it waits for its own page");
    let shown = jar.ask(&site, "GET", "/a?b=c").await;
    assert_eq!(
        (shown.text().as_str(), shown.header("cache-control")),
        (SAVED, "no-store")
    );
    assert!(jar.0.is_empty(), "{:?}", jar.0);
    assert_eq!(jar.see(&site, "/a").await, "");
}

#[tokio::test]
async fn two_tabs_do_not_take_each_others() {
    let site = InProcess::new(routes()).await;
    let mut jar = Jar::default();
    jar.ask(&site, "POST", "/a").await;
    jar.ask(&site, "POST", "/b").await;
    jar.ask(&site, "POST", "/b").await;
    assert_eq!(jar.0.len(), 3);
    // Both pages are asked for before either answer is there.
    let (a, b) = (jar.header(), jar.header());
    let a = site.ask("GET", "/a", &[&a], "").await;
    let b = site.ask("GET", "/b", &[&b], "").await;
    jar.take(&a);
    jar.take(&b);
    assert_eq!(a.text(), SAVED);
    assert_eq!(b.text(), "<p class=notice>B.</p><p class=notice>B.</p>");
    assert!(jar.0.is_empty(), "{:?}", jar.0);
}

#[tokio::test]
async fn a_page_that_fails_has_shown_nothing() {
    let site = InProcess::new(routes()).await;
    let mut jar = Jar::default();
    assert_eq!(jar.ask(&site, "POST", "/here").await.text(), "no redirect");
    assert_eq!(jar.ask(&site, "GET", "/fails").await.status, 500);
    assert_eq!(
        jar.see(&site, "/b").await,
        "<p class=notice>Here.</p>",
        "without a page of its own"
    );
}

#[tokio::test]
async fn without_tls_in_development_the_cookie_has_another_name() {
    let site = InProcess::with(App::new("test").routes(routes()), &[]).await;
    let mut jar = Jar::default();
    let answer = jar.ask(&site, "POST", "/b").await;
    let (pair, rest) = &answer.cookies()[0];
    assert!(pair.starts_with("flash-"), "{pair}");
    assert_eq!(rest, "Path=/; Max-Age=300; HttpOnly; SameSite=Lax");
    assert_eq!(jar.see(&site, "/b").await, "<p class=notice>B.</p>");
    // Elsewhere that name could be set by a page without TLS, and counts for nothing.
    let site = InProcess::new(routes()).await;
    let forged = site
        .ask("GET", "/b", &["cookie: flash-0123abcd=~nForged"], "")
        .await;
    assert_eq!(forged.text(), "");
}

#[tokio::test]
async fn what_is_none_of_ours_is_ignored() {
    let site = InProcess::new(routes()).await;
    let name = "__Host-flash-0123abcd";
    for value in [
        "",
        "~",
        "~x",
        "%",
        "~n%ff",
        "~n%0a",
        "/b",
        "~nA~",
        "~n\u{e9}",
        &"~nA".repeat(2_000),
    ] {
        let answer = site
            .ask("GET", "/b", &[&format!("cookie: {name}={value}")], "")
            .await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, ""),
            "{value}"
        );
        if value.is_ascii() {
            assert_eq!(
                answer.cookies()[0].0,
                format!("{name}="),
                "it is taken away"
            );
        }
    }
    for name in [
        "__Host-flash",
        "__Host-flash-",
        "__Host-flash-0123abcg",
        "__Host-flash-0123abcd1",
        "__Host-flash-\r",
    ] {
        let line = format!("cookie: a=b; {}=~nA", name.trim());
        let answer = site.ask("GET", "/b", &[&line], "").await;
        assert_eq!(
            (answer.text().as_str(), answer.cookies().len()),
            ("", 0),
            "{name}"
        );
    }
    let many: Vec<String> = (0..50)
        .map(|n| format!("__Host-flash-{n:08x}=~nA"))
        .collect();
    let answer = site
        .ask("GET", "/b", &[&format!("cookie: {}", many.join("; "))], "")
        .await;
    assert_eq!(answer.text(), "<p class=notice>A</p>".repeat(8));
    assert_eq!(answer.cookies().len(), 50);
}

#[tokio::test]
async fn the_page_cache_has_nothing_to_do_with_it() {
    let site = InProcess::new(routes()).await;
    let mut jar = Jar::default();
    assert_eq!(jar.see(&site, "/cached").await, "");
    jar.ask(&site, "POST", "/cached").await;
    assert_eq!(
        jar.see(&site, "/cached").await,
        "<p class=notice>Cached.</p>",
        "not the page that is kept"
    );
    let answer = site.get("/cached").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("age")),
        ("", "0"),
        "not the page with the message"
    );
}
