//! The monitor's forms, in a real browser.

use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::process::TestProcess;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

/// Sends the form that is there, without waiting for what it leads to.
const SEND: &str = "const form = document.querySelector('main form'); \
    return fetch(form.action, { method: 'POST', body: new URLSearchParams(new FormData(form)), redirect: 'manual' }) \
    .then((answer) => answer.type)";

/// How many messages stand in the live region.
const MESSAGES: &str = "return document.querySelectorAll('[role=status] > .message').length";

#[tokio::test]
async fn a_monitor_is_added_once_and_told_once() {
    let Some(browser) = Browser::start("a_monitor_is_added_once_and_told_once").await else {
        return;
    };
    let target = Target::answers("hello").await;
    let site = TestProcess::start().await;
    let monitors = || number(&database(site.folder()), "SELECT count(*) FROM monitors");
    browser.sign_in(&site).await;
    browser.goto(&site.url("/monitors/new")).await;
    browser.fill("#name", "The bakery").await;
    browser.fill("#address", &target.url("/")).await;
    // The same form, as an impatient visitor and a slow network send it.
    assert_eq!(browser.run(SEND).await, "opaqueredirect");
    browser.double_click("main form button").await;
    browser.find(".message").await;
    assert_eq!(browser.path().await, "/monitors/1");
    let text = browser.text().await;
    assert!(
        text.contains("The monitor “The bakery” is there."),
        "{text}"
    );
    assert_eq!(browser.run(MESSAGES).await, 1);
    assert_eq!(monitors(), 1);
    // It stands while the rest of the page is made anew.
    browser.wait_for_text("as expected", SOON).await;
    browser.look("monitor-added").await;
    browser.find(".message").await;
    browser.goto(&site.url("/monitors/1")).await;
    browser.find("form[action$='/pause']").await;
    assert_eq!(browser.run(MESSAGES).await, 0);

    browser.goto(&site.url("/monitors/new")).await;
    browser.fill("#name", "The butcher").await;
    browser.fill("#address", &target.url("/")).await;
    browser.double_click("main form button").await;
    let there = async || (browser.path().await == "/monitors/2").then_some(());
    wait_for("page of the second monitor", SOON, there).await;
    assert_eq!(monitors(), 2);

    browser.goto(&site.url("/monitors/2/delete")).await;
    browser.double_click("main form button").await;
    browser.find(".message").await;
    assert_eq!(browser.path().await, "/");
    browser
        .wait_for_text("The monitor “The butcher” is deleted.", SOON)
        .await;
    browser.look("status-deleted").await;
    browser.goto(&site.url("/")).await;
    browser.find(".monitor").await;
    assert_eq!(browser.run(MESSAGES).await, 0);
}
