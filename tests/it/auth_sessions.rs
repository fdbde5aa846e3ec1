//! Sessions: whose they are, and when they end.

use std::time::Duration;

use axum::http::Request;
use houseboat::auth::Auth;

use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::routes;
use crate::support::waiting::wait_for;

const DAY: Duration = Duration::from_hours(24);
const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
const NEW_PASSWORD: &str = "another horse, another battery";

#[tokio::test]
async fn a_session_from_outside_is_never_taken_over() {
    let people = People::start().await;
    let mut browser = people.browser();
    let planted = "0123456789abcdef".repeat(4);
    browser
        .cookies
        .insert("session".to_owned(), planted.clone());
    assert!(!browser.is_signed_in().await);
    browser.sign_in(MEMBER, PASSWORD).await;
    assert_ne!(browser.session(), planted);
    let mut attacker = people.browser();
    attacker.cookies.insert("session".to_owned(), planted);
    assert!(!attacker.is_signed_in().await);
}

#[tokio::test]
async fn each_sign_in_has_a_session_of_its_own_and_ends_the_one_before_it() {
    let people = People::start().await;
    let mut attacker = people.signed_in(MEMBER).await;
    // The attacker's own session in the victim's browser is not the victim's afterwards.
    let mut victim = attacker.clone();
    victim.sign_in(OWNER, PASSWORD).await;
    assert_eq!(victim.get("/hello").await.body, OWNER);
    assert_eq!(attacker.get("/hello").await.body, "nobody");
    let one = people.signed_in(MEMBER).await;
    let other = people.signed_in(MEMBER).await;
    assert_ne!(one.session(), other.session());
    assert_eq!(people.number("SELECT count(*) FROM sessions").await, 3);
}

#[tokio::test]
async fn what_is_kept_of_a_session_signs_nobody_in() {
    let people = People::start().await;
    let browser = people.signed_in(OWNER).await;
    let rows = people.context.database.read(|conn| {
        let sql = "SELECT lower(hex(key)) FROM sessions";
        Ok(conn.query_row(sql, [], |row| row.get::<_, String>(0))?)
    });
    let kept = rows.await.unwrap();
    assert_ne!(kept, browser.session());
    let mut thief = people.browser();
    thief.cookies.insert("session".to_owned(), kept);
    assert!(!thief.is_signed_in().await);
}

#[tokio::test]
async fn a_garbled_cookie_is_nobodys_and_does_no_harm() {
    let people = People::start().await;
    let browser = people.signed_in(OWNER).await;
    let good = browser.session();
    let other_end = if good.ends_with('0') { "1" } else { "0" };
    let garbled = [
        good.to_uppercase(),
        good[..63].to_owned(),
        format!("{good}0"),
        format!("{}{other_end}", &good[..63]),
        format!("\"{good}\""),
        format!("{good}'--"),
        "' OR 1=1 --".to_owned(),
        "%00".to_owned(),
        "x".repeat(10_000),
    ];
    for cookie in garbled {
        let mut other = people.browser();
        other.cookies.insert("session".to_owned(), cookie.clone());
        // Only digits: in capitals they are the same.
        let is_same = cookie == good;
        assert_eq!(other.is_signed_in().await, is_same, "{cookie}");
    }
    let mut other = people.browser();
    let request = Request::get("/hello").header("cookie", &b"session=\xff\xfe; \xe9"[..]);
    assert_eq!(other.send(request, String::new()).await.body, "nobody");
    assert!(browser.clone().is_signed_in().await);
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_to_the_millisecond() {
    let people = People::start().await;
    let mut browser = people.signed_in(OWNER).await;
    people.advance_almost(DAY * 14);
    assert!(browser.clone().is_signed_in().await);
    // That was seen; it is noted behind the answer.
    let seen = wait_for("sight", PATIENCE, async || {
        let sql = "SELECT seen_at - created_at FROM sessions";
        Some(people.number(sql).await).filter(|time| *time > 0)
    });
    let noted = i64::try_from((DAY * 14).as_millis()).unwrap() - 1;
    assert_eq!(seen.await, noted);
    people.advance(DAY * 14);
    assert!(!browser.is_signed_in().await);
}

#[tokio::test]
async fn a_session_ends_however_often_it_is_used() {
    let people = People::start().await;
    let mut browser = people.signed_in(OWNER).await;
    for day in 0..89 {
        people.advance(DAY);
        assert!(browser.is_signed_in().await, "day {day}");
        wait_for("sight", PATIENCE, async || {
            let sql = "SELECT seen_at - created_at FROM sessions";
            let expected = i64::try_from((DAY * (day + 1)).as_millis()).unwrap();
            (people.number(sql).await == expected).then_some(())
        })
        .await;
    }
    people.advance_almost(DAY);
    assert!(browser.is_signed_in().await);
    people.advance(MS);
    assert!(!browser.is_signed_in().await);
    // Its row goes with the next sign-in.
    people.signed_in(MEMBER).await;
    assert_eq!(people.number("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn the_sight_of_a_session_is_written_now_and_then_only() {
    let people = People::start().await;
    let mut browser = people.signed_in(OWNER).await;
    let writes = async || people.context.database.stats().await.writes.done;
    let before = writes().await;
    people.advance_almost(Duration::from_mins(5));
    for _ in 0..10 {
        assert!(browser.is_signed_in().await);
    }
    assert_eq!(writes().await - before, 0);
    people.advance(MS);
    assert!(browser.is_signed_in().await);
    wait_for("write", PATIENCE, async || {
        (writes().await > before).then_some(())
    })
    .await;
    assert!(browser.is_signed_in().await);
    let sql = "SELECT seen_at - created_at FROM sessions";
    assert_eq!(people.number(sql).await, 300_000);
}

#[tokio::test]
async fn a_session_can_be_ended_from_another_browser() {
    let people = People::start().await;
    let mut lost = people.signed_in(MEMBER).await;
    let lost_id = people.number("SELECT id FROM sessions").await;
    let mut owner = people.signed_in(OWNER).await;
    let mut browser = people.browser();
    browser.agent = "<script>alert(1)</script>".to_owned();
    browser.sign_in(MEMBER, PASSWORD).await;
    let page = browser.get("/account").await;
    assert!(page.body.contains("This browser") && page.body.contains("Another browser"));
    assert!(!page.body.contains("<script>"), "{}", page.body);
    let path = format!("/account/sessions/{lost_id}/revoke");
    assert!(page.body.contains(&path), "{}", page.body);
    // It is the member's, whoever else asks.
    assert_eq!(owner.post(&path, &[]).await.status, 404);
    assert_eq!(people.browser().post(&path, &[]).await.status, 401);
    assert!(lost.is_signed_in().await);
    assert_eq!(browser.post(&path, &[]).await.status, 303);
    assert!(!lost.is_signed_in().await, "at once");
    assert!(browser.is_signed_in().await);
    assert_eq!(browser.post(&path, &[]).await.status, 404);
    for id in ["x", "-1", "99999999999999999999", "1%20OR%201=1"] {
        let path = format!("/account/sessions/{id}/revoke");
        assert_eq!(browser.post(&path, &[]).await.status, 404, "{id}");
    }
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_session_of_ones_own() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let mut all = [
        people.signed_in(MEMBER).await,
        people.signed_in(MEMBER).await,
    ];
    let answer = all[0].post("/account/sign-out-everywhere", &[]).await;
    assert_eq!(
        (answer.status, answer.location()),
        (303, "/account/sign-in")
    );
    assert_eq!(all[0].session(), "");
    assert!(!all[1].is_signed_in().await);
    assert!(owner.is_signed_in().await);
}

#[tokio::test]
async fn another_password_ends_every_other_session() {
    let people = People::start().await;
    let mut browser = people.signed_in(MEMBER).await;
    let mut other = people.signed_in(MEMBER).await;
    let old = browser.clone();
    let pairs = [("password", "wrong, wrong"), ("new_password", NEW_PASSWORD)];
    let refused = browser.post("/account/password", &pairs).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("This is not your password."));
    let pairs = [("password", PASSWORD), ("new_password", MEMBER)];
    let refused = browser.post("/account/password", &pairs).await;
    assert_eq!(refused.status, 422);
    assert!(other.is_signed_in().await);
    let pairs = [("password", PASSWORD), ("new_password", NEW_PASSWORD)];
    assert_eq!(browser.post("/account/password", &pairs).await.status, 303);
    assert!(browser.is_signed_in().await);
    assert_ne!(browser.session(), old.session());
    assert!(
        !old.clone().is_signed_in().await,
        "what the browser had before"
    );
    assert!(!other.is_signed_in().await);
    assert_eq!(people.browser().sign_in(MEMBER, PASSWORD).await.status, 422);
    assert_eq!(
        people.browser().sign_in(MEMBER, NEW_PASSWORD).await.status,
        303
    );
}

#[tokio::test]
async fn with_one_session_too_many_the_oldest_ends() {
    let variables = [("HOUSEBOAT_AUTH__SESSIONS_MAX", "2")];
    let people = People::with(Auth::default(), routes(), &variables).await;
    let mut owner = people.signed_in(OWNER).await;
    let mut browsers = Vec::new();
    for _ in 0..3 {
        browsers.push(people.signed_in(MEMBER).await);
        people.advance(MS);
    }
    let mut are_signed_in = Vec::new();
    for browser in &mut browsers {
        are_signed_in.push(browser.is_signed_in().await);
    }
    assert_eq!(are_signed_in, [false, true, true]);
    assert!(owner.is_signed_in().await);
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let mut member = people.signed_in(MEMBER).await;
    let id = people.id(MEMBER).await;
    let answer = owner
        .post(&format!("/account/people/{id}/disable"), &[])
        .await;
    assert_eq!(answer.status, 303);
    assert!(!member.is_signed_in().await);
    assert_eq!(member.sign_in(MEMBER, PASSWORD).await.status, 422);
    let own = people.id(OWNER).await;
    let answer = owner
        .post(&format!("/account/people/{own}/disable"), &[])
        .await;
    assert_eq!(answer.status, 409, "nobody locks oneself out");
    assert_eq!(
        owner
            .post(&format!("/account/people/{id}/enable"), &[])
            .await
            .status,
        303
    );
    assert!(!member.is_signed_in().await, "the old session stays over");
    assert_eq!(member.sign_in(MEMBER, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn the_cookie_is_one_that_no_script_and_no_neighbour_gets() {
    let cookie_of = async |variables: &[(&str, &str)]| {
        let people = People::with(Auth::default(), routes(), variables).await;
        let answer = people.browser().sign_in(OWNER, PASSWORD).await;
        let cookie = answer.header("set-cookie").to_owned();
        let (name, rest) = cookie.split_once('=').unwrap();
        format!("{name}={}", &rest[64..])
    };
    let plain = "session=; Path=/; Max-Age=7776000; HttpOnly; SameSite=Lax";
    let secure = format!("__Host-{plain}; Secure");
    assert_eq!(cookie_of(&[]).await, plain);
    let production = ("HOUSEBOAT_ENV", "production");
    assert_eq!(cookie_of(&[production]).await, secure);
    let with_tls = ("HOUSEBOAT_SERVER__URL", "https://site.test");
    assert_eq!(cookie_of(&[with_tls]).await, secure);
    let by_hand = ("HOUSEBOAT_AUTH__COOKIES", "plain");
    assert_eq!(cookie_of(&[production, by_hand]).await, plain);
}

#[tokio::test]
async fn with_https_the_plain_cookie_signs_nobody_in() {
    let variables = [("HOUSEBOAT_AUTH__COOKIES", "secure")];
    let people = People::with(Auth::default(), routes(), &variables).await;
    let mut browser = people.signed_in(OWNER).await;
    assert!(browser.is_signed_in().await);
    let ticket = browser.cookies.remove("__Host-session").unwrap();
    browser.cookies.insert("session".to_owned(), ticket);
    assert!(!browser.is_signed_in().await);
}

#[tokio::test]
async fn a_test_of_a_site_signs_in_without_a_page() {
    let people = People::start().await;
    let cookie = people
        .accounts
        .open_session(people.id(MEMBER).await)
        .await
        .unwrap();
    let mut browser = people.browser();
    let (name, ticket) = cookie.split_once('=').unwrap();
    browser.cookies.insert(name.to_owned(), ticket.to_owned());
    assert_eq!(browser.get("/hello").await.body, MEMBER);
    assert!(people.accounts.open_session(99).await.is_err());
}

#[tokio::test]
async fn who_would_not_stay_signed_in_is_told_why() {
    let is_told = async |variables: &[(&str, &str)], host: &str, proto: &str| {
        let people = People::with(Auth::default(), routes(), variables).await;
        let mut browser = people.browser();
        browser.address = Some(([10, 0, 0, 1], 7).into());
        let request = Request::get("/account/sign-in")
            .header("host", host)
            .header("x-forwarded-proto", proto)
            .header("x-forwarded-for", "192.0.2.7");
        let page = browser.send(request, String::new()).await;
        assert_eq!(page.status, 200, "{}", page.body);
        page.body.contains("without https")
    };
    let production = [("HOUSEBOAT_ENV", "production")];
    assert!(is_told(&production, "192.0.2.7:8000", "http").await);
    assert!(is_told(&production, "site.test", "http").await);
    assert!(!is_told(&production, "site.test", "https").await);
    // Where browsers keep it all the same, or where it is not for https alone.
    assert!(!is_told(&production, "localhost:8000", "http").await);
    assert!(!is_told(&[], "site.test", "http").await);
}
