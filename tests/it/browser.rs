//! What a visitor sees, in a real browser.

use std::time::Duration;

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::process::TestProcess;
use crate::support::targets::Target;
use crate::support::targets::Webhook;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);
/// The shortest interval is 30 s, the schedule and the page's own refresh take their time on top.
const NEXT_CHECK: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_monitor_is_added_and_seen_up_and_down() {
    let Some(browser) = Browser::start("a_monitor_is_added_and_seen_up_and_down").await else {
        return;
    };
    let webhook = Webhook::listen().await;
    let mut target = Target::answers("hello").await;
    let site = TestProcess::builder().variable("HOUSEBOAT_SITE__WEBHOOK_URL", webhook.url());
    let site = site.start().await;
    browser.goto(&site.url("/")).await;
    browser.look("status-empty-visitor").await;
    browser.sign_in(&site).await;
    browser.goto(&site.url("/")).await;
    browser.look("status-empty").await;

    browser.click("main a[href='/monitors/new']").await;
    browser.fill("#name", "The bakery").await;
    browser.fill("#address", "not an address").await;
    browser.click("main form button").await;
    browser.find("#address[aria-invalid='true']").await;
    browser.look("form-errors").await;

    browser.fill("#address", &target.url("/")).await;
    browser.fill("#interval_s", "30").await;
    browser.fill("#failures_max", "1").await;
    browser.click("main form button").await;
    browser.wait_for_text("as expected", SOON).await;
    browser.look("monitor-up").await;
    browser.goto(&site.url("/")).await;
    browser.find(".monitor-up").await;
    browser.look("status-up").await;

    // The page stays open and shows the change by itself.
    webhook.refuse(1);
    target.switch_off().await;
    wait_for_css(&browser, ".monitor-down").await;
    browser.look("status-down").await;
    let alert = wait_for("alert", NEXT_CHECK, async || {
        webhook.posts().first().cloned()
    })
    .await;
    assert_eq!(
        webhook.refused(),
        1,
        "the alert is sent again after a failure"
    );
    assert_eq!(
        alert["monitor"]["name"],
        Value::from("The bakery"),
        "{alert}"
    );
    browser.click(".monitor h2 a").await;
    browser.wait_for_text("ongoing", SOON).await;
    browser.look("monitor-down").await;

    target.switch_on().await;
    browser.goto(&site.url("/")).await;
    wait_for_css(&browser, ".monitor-up").await;
    let alerts = async || (webhook.posts().len() == 2).then(|| webhook.posts());
    wait_for("second alert", SOON, alerts).await;
    assert_eq!(site_errors(&site), "");
}

async fn wait_for_css(browser: &Browser, css: &str) {
    let shown = async || browser.has(css).await.then_some(());
    wait_for(css, NEXT_CHECK, shown).await;
}

fn site_errors(site: &TestProcess) -> String {
    let log = site.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.collect::<Vec<_>>().join("\n")
}
