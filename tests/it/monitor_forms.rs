//! The monitor's forms: done once, and said once.

use std::time::Duration;

use reqwest::Client;
use reqwest::Response;
use reqwest::header::COOKIE;
use reqwest::header::SET_COOKIE;

use crate::support::client::client;
use crate::support::client::once_key;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

/// A monitor that is checked only when it is added.
fn quiet(name: &str) -> Monitor {
    let mut monitor = Monitor::new(name, "http://a.invalid/");
    monitor.set("interval_s", "86400");
    monitor
}

async fn post(
    owner: &Client,
    site: &TestProcess,
    path: &str,
    pairs: &[(&str, &str)],
) -> (u16, String, Response) {
    let answer = post_form(owner, &site.url(path), pairs).await.unwrap();
    let location = answer.headers().get("location");
    let location = location.map_or("", |it| it.to_str().unwrap()).to_owned();
    (answer.status().as_u16(), location, answer)
}

#[tokio::test]
async fn a_form_that_is_sent_twice_adds_one_monitor() {
    let site = TestProcess::start().await;
    let owner = site.owner().await;
    let count = |sql| number(&database(site.folder()), sql);
    let mut monitor = quiet("Bakery");
    let pairs = monitor.pairs();
    let (first, second) = tokio::join!(
        post(&owner, &site, "/monitors", &pairs),
        post(&owner, &site, "/monitors", &pairs)
    );
    assert_eq!((first.0, &*first.1), (303, "/monitors/1"));
    assert_eq!((second.0, &*second.1), (303, "/monitors/1"));
    assert_eq!(count("SELECT count(*) FROM monitors"), 1);
    let checks = async || (count("SELECT count(*) FROM checks") > 0).then_some(());
    wait_for("check", SOON, checks).await;
    assert_eq!(count("SELECT count(*) FROM checks"), 1);

    // With something else in it, it is another form; and without its key it is none of ours.
    monitor.set("name", "Butcher");
    let (status, ..) = post(&owner, &site, "/monitors", &monitor.pairs()).await;
    assert_eq!(status, 422);
    let pairs = monitor.pairs();
    let keyless: Vec<_> = pairs.into_iter().filter(|it| it.0 != "_once").collect();
    let (status, ..) = post(&owner, &site, "/monitors", &keyless).await;
    assert_eq!(status, 428);
    assert_eq!(count("SELECT count(*) FROM monitors"), 1);

    // What was refused may be put right: its page has a key of its own.
    let mut wrong = quiet("");
    let (status, _, answer) = post(&owner, &site, "/monitors", &wrong.pairs()).await;
    assert_eq!(status, 422);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let page = answer.text().await.unwrap();
    let (_, rest) = page.split_once("name=\"_once\" value=\"").unwrap();
    wrong.set("name", "Grocer").set("_once", &rest[..32]);
    let (status, path, _) = post(&owner, &site, "/monitors", &wrong.pairs()).await;
    assert_eq!((status, &*path), (303, "/monitors/2"));
}

#[tokio::test]
async fn a_monitor_that_is_deleted_twice_by_one_form_is_gone_and_no_error() {
    let site = TestProcess::start().await;
    let owner = site.owner().await;
    let delete = async |path: &str, key: &str| {
        let path = format!("{path}/delete");
        let (status, to, _) = post(&owner, &site, &path, &[("_once", key)]).await;
        (status, to)
    };
    let path = quiet("Bakery").create(&site).await;
    let key = once_key();
    let (first, second) = tokio::join!(delete(&path, &key), delete(&path, &key));
    assert_eq!(first, (303, "/".to_owned()));
    assert_eq!(second, first);
    // Another form finds none.
    assert_eq!(delete(&path, &once_key()).await.0, 404);
    let left = "SELECT count(*) FROM monitors WHERE deleted_at IS NULL";
    assert_eq!(number(&database(site.folder()), left), 0);
}

/// The cookie by which a message travels.
fn message(answer: &Response) -> String {
    let cookies = answer.headers().get_all(SET_COOKIE).iter();
    let mut cookies = cookies.map(|it| it.to_str().unwrap());
    let cookie = cookies.find(|it| it.starts_with("flash-")).unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn page(site: &TestProcess, path: &str, cookie: &str) -> (String, Option<String>) {
    let request = client().get(site.url(path)).header(COOKIE, cookie);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let gone = answer.headers().get(SET_COOKIE);
    let gone = gone.map(|it| it.to_str().unwrap().to_owned());
    (answer.text().await.unwrap(), gone)
}

#[tokio::test]
async fn what_was_done_is_said_once_on_the_page_that_follows() {
    let site = TestProcess::start().await;
    let owner = site.owner().await;
    let mut monitor = quiet("<b>Bakery</b>");
    for (path, words) in [
        (
            "/monitors",
            "The monitor “&#60;b&#62;Bakery&#60;/b&#62;” is there.",
        ),
        (
            "/monitors/1",
            "The changes to “&#60;b&#62;Bakery&#60;/b&#62;” are saved.",
        ),
        ("/monitors/1/pause", "The monitor is paused"),
        ("/monitors/1/resume", "The monitor is resumed."),
        ("/monitors/1/delete", "The monitor “Shop” is deleted."),
    ] {
        if path.ends_with("delete") {
            monitor.set("name", "Shop");
            post(&owner, &site, "/monitors/1", &monitor.pairs()).await;
            monitor.set("_once", &once_key());
        }
        let (status, to, answer) = post(&owner, &site, path, &monitor.pairs()).await;
        assert_eq!(status, 303, "{path}");
        let cookie = message(&answer);
        // The page as it is kept for all others does not have it, before or after.
        let (before, gone) = page(&site, &to, "").await;
        assert!(!before.contains("<p class=\"message"), "{before}");
        assert_eq!(gone, None);
        let (shown, gone) = page(&site, &to, &cookie).await;
        let (_, region) = shown
            .split_once("<div class=\"messages\" role=\"status\">")
            .unwrap();
        let (region, _) = region.split_once("</div>").unwrap();
        assert!(region.contains(words), "{path}: {region}");
        assert_eq!(region.matches("<p ").count(), 1, "{region}");
        let gone = gone.unwrap();
        let name = cookie.split('=').next().unwrap();
        assert!(gone.starts_with(&format!("{name}=;")), "{gone}");
        assert!(gone.contains("Max-Age=0"), "{gone}");
        let (after, _) = page(&site, &to, "").await;
        assert!(!after.contains("<p class=\"message"), "{after}");
    }
}

#[tokio::test]
async fn the_same_said_twice_is_shown_once() {
    let site = TestProcess::start().await;
    let owner = site.owner().await;
    let pairs = quiet("Bakery");
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let (_, _, answer) = post(&owner, &site, "/monitors", &pairs.pairs()).await;
        cookies.push(message(&answer));
    }
    assert_ne!(cookies[0], cookies[1]);
    let (shown, _) = page(&site, "/monitors/1", &cookies.join("; ")).await;
    assert_eq!(shown.matches("<p class=\"message").count(), 1, "{shown}");
}
