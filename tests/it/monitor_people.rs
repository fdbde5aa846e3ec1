//! Who may do what at the status monitor.

use std::time::Duration;

use reqwest::Client;

use crate::support::client::client;
use crate::support::client::client_with;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

const FORMS: [&str; 3] = ["/monitors/new", "/monitors/1/edit", "/monitors/1/delete"];

const CHANGES: [&str; 5] = [
    "/monitors",
    "/monitors/1",
    "/monitors/1/pause",
    "/monitors/1/resume",
    "/monitors/1/delete",
];

/// What a visitor's change would raise.
fn revision(site: &TestProcess) -> i64 {
    number(&database(site.folder()), "SELECT number FROM revision")
}

async fn page(client: &Client, site: &TestProcess, path: &str) -> String {
    let answer = client.get(site.url(path)).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn visitors_see_all_and_change_nothing() {
    let site = TestProcess::start().await;
    let mut monitor = Monitor::new("Bakery", "http://a.invalid/");
    monitor.set("interval_s", "86400");
    let pairs = monitor.pairs();
    let visitor = client();
    // Before there is an owner, nobody may.
    for path in CHANGES {
        let answer = post_form(&visitor, &site.url(path), &pairs).await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
    }
    let path = monitor.create(&site).await;
    assert_eq!(path, "/monitors/1");
    let checked = async || {
        let checks = number(&database(site.folder()), "SELECT count(*) FROM checks");
        (checks == 1).then_some(())
    };
    wait_for("check", SOON, checked).await;
    let before = revision(&site);
    for path in FORMS {
        let answer = visitor.get(site.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 303, "{path}");
        let to = answer.headers()["location"].to_str().unwrap();
        assert!(to.starts_with("/account/sign-in?next=/monitors/"), "{to}");
    }
    for path in CHANGES {
        let answer = post_form(&visitor, &site.url(path), &pairs).await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let cookie = "session=0000000000000000000000000000000000000000000000000000000000000000";
        let forged = client_with(cookie);
        let answer = post_form(&forged, &site.url(path), &pairs).await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
    assert_eq!(revision(&site), before);
    assert_eq!(
        number(&database(site.folder()), "SELECT count(*) FROM monitors"),
        1
    );
}

#[tokio::test]
async fn a_page_of_users_is_not_given_to_visitors_nor_the_other_way_round() {
    let site = TestProcess::start().await;
    let (owner, visitor) = (site.owner().await, client());
    Monitor::new("Bakery", "http://a.invalid/")
        .create(&site)
        .await;
    for _ in 0..3 {
        for path in ["/", "/monitors/1"] {
            let shown = page(&owner, &site, path).await;
            assert!(
                shown.contains("Sign out") && shown.contains("/monitors/new"),
                "{path}"
            );
            let shown = page(&visitor, &site, path).await;
            assert!(
                shown.contains("Sign in") && shown.contains("Bakery"),
                "{path}"
            );
            for part in ["Sign out", "/monitors/new", "<form", "/edit", "/delete"] {
                assert!(!shown.contains(part), "{part} on {path}");
            }
        }
    }
}
