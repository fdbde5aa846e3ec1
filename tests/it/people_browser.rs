//! People at the site, in a real browser.

use std::time::Duration;

use houseboat::database::Clock;
use reqwest::StatusCode;
use totp_rs::Builder;
use totp_rs::Secret;

use crate::support::browser::Browser;
use crate::support::browser::ENTER;
use crate::support::owner::EMAIL;
use crate::support::owner::PASSWORD;
use crate::support::owner::SignedIn;
use crate::support::owner::first_token;
use crate::support::process::TestProcess;
use crate::support::targets::Target;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

/// The address by which the owner's account is made.
async fn first_page(site: &TestProcess) -> String {
    let token = wait_for("link for the owner", SOON, async || {
        first_token(&site.log())
    })
    .await;
    site.url(&format!("/account/first?token={token}"))
}

#[tokio::test]
async fn the_owner_is_made_by_the_link_and_signs_in_and_out() {
    let Some(browser) = Browser::start("the_owner_is_made_by_the_link_and_signs_in_and_out").await
    else {
        return;
    };
    let site = TestProcess::start().await;
    browser.goto(&site.url("/monitors/new")).await;
    browser.wait_for_text("being set up", SOON).await;
    browser.look("setting-up").await;

    browser.goto(&first_page(&site).await).await;
    browser.look("first").await;
    browser.fill("#email", "nobody").await;
    browser.fill("#password", "short").await;
    browser.click("main form button").await;
    browser.find("#email[aria-invalid='true']").await;
    browser.look("first-errors").await;
    browser.fill("#email", EMAIL).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    browser.goto(&site.url("/account")).await;
    browser.wait_for_text(EMAIL, SOON).await;
    browser.look("account").await;

    browser.goto(&site.url("/account/people")).await;
    browser.fill("#email", "<b>not an address").await;
    browser.click("section form button").await;
    browser.find("#email[aria-invalid='true']").await;
    browser.look("people-errors").await;
    browser.fill("#email", "member@site.test").await;
    browser.click("section form button").await;
    browser.find(".link").await;
    browser.look("invitation").await;
    browser.goto(&site.url("/account/people")).await;
    browser.look("people").await;

    // The button in the frame of the site's own pages.
    browser.goto(&site.url("/")).await;
    browser
        .click("form[action='/account/sign-out'] button")
        .await;
    browser.goto(&site.url("/")).await;
    assert!(!browser.has("a[href='/monitors/new']").await);
    browser.goto(&site.url("/monitors/new")).await;
    assert_eq!(browser.path().await, "/account/sign-in");
    browser.look("sign-in").await;
    browser.fill("#email", EMAIL).await;
    browser.fill("#password", "not the password").await;
    browser.click("main form button").await;
    browser.find("[aria-invalid='true']").await;
    browser.look("sign-in-errors").await;
    browser.fill("#email", EMAIL).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    // To where the visitor wanted to go.
    browser.find("#interval_s").await;
    assert_eq!(browser.path().await, "/monitors/new");
}

#[tokio::test]
async fn who_signs_out_everywhere_is_out_everywhere() {
    let Some(browser) = Browser::start("who_signs_out_everywhere_is_out_everywhere").await else {
        return;
    };
    let site = TestProcess::start().await;
    browser.sign_in(&site).await;
    let other = SignedIn::owner(&site.url(""), || site.log()).await;
    let status = async || {
        let answer = other.client.get(site.url("/monitors/new")).send().await;
        answer.unwrap().status()
    };
    assert_eq!(status().await, StatusCode::OK);
    browser.goto(&site.url("/account")).await;
    browser.look("account-sessions").await;
    browser
        .click("form[action='/account/sign-out-everywhere'] button")
        .await;
    let signed_out = async || (status().await == StatusCode::SEE_OTHER).then_some(());
    wait_for("end of the other session", SOON, signed_out).await;
    browser.goto(&site.url("/account")).await;
    assert_eq!(browser.path().await, "/account/sign-in");
}

#[tokio::test]
async fn a_second_factor_is_set_up_and_asked_for() {
    let Some(browser) = Browser::start("a_second_factor_is_set_up_and_asked_for").await else {
        return;
    };
    let site = TestProcess::start().await;
    browser.sign_in(&site).await;
    browser.goto(&site.url("/account/second-factor")).await;
    browser.look("second-factor").await;
    let text = browser.text().await;
    let (_, typed) = text.split_once("into it:").unwrap();
    let typed = typed.trim().lines().next().unwrap().replace(' ', "");
    let secret = Secret::try_from_base32(typed).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let now = Clock::system().now().as_second().try_into().unwrap();
    let code = totp.generate(now).to_string();
    browser.fill("#code", "000").await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    browser.find("#code[aria-invalid='true']").await;
    browser.look("second-factor-errors").await;
    browser.fill("#code", &code).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    browser.wait_for_text("not shown again", SOON).await;
    browser.look("recovery-codes").await;
    let recovery = browser.find(".codes code").await.text().await.unwrap();

    browser.goto(&site.url("/")).await;
    browser
        .click("form[action='/account/sign-out'] button")
        .await;
    browser.goto(&site.url("/account/sign-in")).await;
    browser.fill("#email", EMAIL).await;
    browser.fill("#password", PASSWORD).await;
    browser.click("main form button").await;
    browser.find("#code").await;
    browser.look("code").await;
    browser.goto(&site.url("/account")).await;
    assert_eq!(
        browser.path().await,
        "/account/sign-in",
        "half is not enough"
    );
    browser.goto(&site.url("/account/sign-in/code")).await;
    browser.fill("#code", &recovery).await;
    browser.click("main form button").await;
    browser.find("form[action='/account/sign-out']").await;
}

#[tokio::test]
async fn all_of_it_can_be_done_with_the_keyboard_alone() {
    let Some(browser) = Browser::start("all_of_it_can_be_done_with_the_keyboard_alone").await
    else {
        return;
    };
    let target = Target::answers("hello").await;
    let site = TestProcess::start().await;
    browser.goto(&first_page(&site).await).await;
    browser.tab_to("#email").await;
    browser.press(EMAIL).await;
    browser.tab_to("#password").await;
    browser.press(PASSWORD).await;
    browser.tab_to("main form button").await;
    browser.press(ENTER).await;
    browser.wait_for_text("Sign out", SOON).await;

    browser.goto(&site.url("/")).await;
    // Past the frame, by the link that only the keyboard finds.
    browser.tab_to(".skip").await;
    browser.press(ENTER).await;
    browser.tab_to("main a[href='/monitors/new']").await;
    browser.press(ENTER).await;
    browser.find("#interval_s").await;
    browser.tab_to("#name").await;
    browser.press("The bakery").await;
    browser.tab_to("main form button").await;
    browser.press(ENTER).await;
    // The summary has the focus, and leads to the field.
    browser.find(".summary").await;
    browser.tab_to(".summary a[href='#address']").await;
    browser.press(ENTER).await;
    browser.tab_to("#address").await;
    browser.press(&target.url("/")).await;
    browser.press(ENTER).await;
    browser.wait_for_text("as expected", SOON).await;
    browser.tab_to("form[action$='/pause'] button").await;
    browser.press(ENTER).await;
    browser.find("form[action$='/resume']").await;
    browser
        .tab_to("form[action='/account/sign-out'] button")
        .await;
    browser.press(ENTER).await;
    browser.goto(&site.url("/")).await;
    browser.tab_to("a[href^='/account/sign-in']").await;
}

#[tokio::test]
async fn what_is_in_the_way_of_people_is_found() {
    let Some(browser) = Browser::start("what_is_in_the_way_of_people_is_found").await else {
        return;
    };
    let page = "<title>A</title><main><h1 style='color:%23ccc'>Pale</h1><input></main>";
    browser
        .goto(&format!("data:text/html,<html lang=en>{page}"))
        .await;
    let found = browser.barriers().await.join("\n");
    assert!(
        found.contains("color-contrast") && found.contains("label"),
        "{found}"
    );
}
