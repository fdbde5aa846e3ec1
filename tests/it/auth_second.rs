//! The second factor: codes by time, each good once, and codes for when the device is lost.

use std::time::Duration;

use totp_rs::Builder;
use totp_rs::Secret;
use totp_rs::Totp;

use crate::support::people::Answer;
use crate::support::people::Browser;
use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::token;

const STEP: Duration = Duration::from_secs(30);

/// A member with an authenticator, and the codes on paper.
struct Member {
    totp: Totp,
    recovery: Vec<String>,
    browser: Browser,
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start} in {text}"))
        .1;
    rest.split_once(end).unwrap().0
}

const PATH: &str = "/account/second-factor";

fn authenticator(page: &str) -> Totp {
    let typed = between(page, "into it: <code>", "</code>").replace(' ', "");
    let secret = Secret::try_from_base32(typed).unwrap();
    Builder::new().with_secret(secret).build().unwrap()
}

/// Sends the form of a page that sets a second factor up.
async fn confirm(browser: &mut Browser, page: &str, password: &str, code: &str) -> Answer {
    let secret = between(page, "name=\"secret\" value=\"", "\"");
    let fields = [("secret", secret), ("password", password), ("code", code)];
    browser.post(PATH, &fields).await
}

impl Member {
    async fn set_up(people: &People) -> Self {
        let mut browser = people.signed_in(MEMBER).await;
        let page = browser.get(PATH).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let totp = authenticator(&page.body);
        let code = totp.generate(seconds(people)).to_string();
        let page = confirm(&mut browser, &page.body, PASSWORD, &code).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let codes = page.body.split("<li><code>").skip(1);
        let recovery = codes.map(|code| code[..14].to_owned()).collect();
        Self {
            totp,
            recovery,
            browser,
        }
    }

    fn code(&self, people: &People) -> String {
        self.totp.generate(seconds(people)).to_string()
    }
}

fn seconds(people: &People) -> u64 {
    u64::try_from(people.clock.now().as_second()).unwrap()
}

/// A browser that has entered the password, and is asked for a code.
async fn half(people: &People) -> Browser {
    let mut browser = people.browser();
    let answer = browser.sign_in(MEMBER, PASSWORD).await;
    assert_eq!(
        (answer.status, answer.location()),
        (303, "/account/sign-in/code")
    );
    browser
}

async fn enter(browser: &mut Browser, code: &str) -> u16 {
    browser
        .post("/account/sign-in/code", &[("code", code)])
        .await
        .status
}

#[tokio::test]
async fn it_counts_once_a_code_confirms_it() {
    let people = People::start().await;
    let mut browser = people.signed_in(MEMBER).await;
    let page = browser.get(PATH).await;
    assert!(
        page.body.contains("<svg class=\"picture\""),
        "{}",
        page.body
    );
    assert!(
        !page.body.contains("data:"),
        "the policy allows no such picture"
    );
    assert_eq!(page.header("cache-control"), "no-store");
    let totp = authenticator(&page.body);
    let wrong = confirm(&mut browser, &page.body, PASSWORD, "000000").await;
    assert_eq!(wrong.status, 422);
    let again = authenticator(&wrong.body);
    let now = seconds(&people);
    assert_eq!(again.generate(now), totp.generate(now), "the same one");
    // Nothing is asked for yet.
    people.signed_in(MEMBER).await;
    let code = totp.generate(now).to_string();
    let done = confirm(&mut browser, &wrong.body, PASSWORD, &code).await;
    assert_eq!(done.status, 200);
    half(&people).await;
    people.signed_in(OWNER).await;
    assert_eq!(
        browser.get(PATH).await.location(),
        "/account",
        "not shown again"
    );
    let account = browser.get("/account").await;
    assert!(
        account.body.contains("Recovery codes left: 10"),
        "{}",
        account.body
    );
}

#[tokio::test]
async fn half_a_session_is_none() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let mut browser = half(&people).await;
    assert_eq!(browser.session(), "");
    assert!(!browser.is_signed_in().await);
    let ticket = browser.cookies["second"].clone();
    let mut cheat = people.browser();
    cheat.cookies.insert("session".to_owned(), ticket.clone());
    assert!(!cheat.is_signed_in().await);
    let link = format!("/account/reset?token={ticket}");
    assert_eq!(cheat.get(&link).await.status, 404);
    assert_eq!(browser.get("/account/sign-in/code").await.status, 200);
    assert_eq!(enter(&mut browser, &member.code(&people)).await, 303);
    assert!(browser.is_signed_in().await);
    assert!(!browser.cookies.contains_key("second"));
    // And it was good once.
    cheat.cookies.insert("second".to_owned(), ticket);
    people.advance(STEP);
    let answer = cheat
        .post("/account/sign-in/code", &[("code", &member.code(&people))])
        .await;
    assert_eq!(answer.location(), "/account/sign-in");
    assert!(!cheat.is_signed_in().await);
}

#[tokio::test]
async fn the_way_back_is_kept_over_both_pages() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let mut browser = people.browser();
    let fields = [
        ("email", MEMBER),
        ("password", PASSWORD),
        ("next", "/notes?a=b"),
    ];
    let answer = browser.post("/account/sign-in", &fields).await;
    assert_eq!(
        answer.location(),
        "/account/sign-in/code?next=/notes%3Fa%3Db"
    );
    let page = browser.get(answer.location()).await;
    assert!(
        page.body.contains(r#"name="next" value="/notes?a=b""#),
        "{}",
        page.body
    );
    let code = member.code(&people);
    let fields = [("code", code.as_str()), ("next", "/notes?a=b")];
    let answer = browser.post("/account/sign-in/code", &fields).await;
    assert_eq!(answer.location(), "/notes?a=b");
}

#[tokio::test]
async fn a_code_is_good_once_and_none_that_is_older() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    let confirming = member.code(&people);
    let mut browser = half(&people).await;
    assert_eq!(
        enter(&mut browser, &confirming).await,
        422,
        "it was used to set it up"
    );
    people.advance(STEP * 2);
    let code = member.code(&people);
    let older = member.totp.generate(seconds(&people) - 30).to_string();
    assert_eq!(enter(&mut browser, &code).await, 303);
    for used in [code, older] {
        let mut thief = half(&people).await;
        assert_eq!(
            enter(&mut thief, &used).await,
            422,
            "seen over the shoulder"
        );
    }
    let next = member.totp.generate(seconds(&people) + 30).to_string();
    let mut ahead = half(&people).await;
    assert_eq!(enter(&mut ahead, &next).await, 303, "a clock that is fast");
}

#[tokio::test]
async fn of_two_who_use_a_code_at_once_one_does() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let code = member.code(&people);
    let browser = half(&people).await;
    let all = (0..6).map(|_| {
        let (mut browser, code) = (browser.clone(), code.clone());
        tokio::spawn(async move {
            enter(&mut browser, &code).await;
            browser.session()
        })
    });
    let mut count = 0;
    for one in all.collect::<Vec<_>>() {
        count += usize::from(!one.await.unwrap().is_empty());
    }
    assert_eq!(count, 1);
}

#[tokio::test]
async fn after_five_wrong_codes_it_begins_with_the_password() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let mut browser = half(&people).await;
    for wrong in ["", "12345", "abcdef", "' OR 1=1 --"] {
        assert_eq!(enter(&mut browser, wrong).await, 422, "{wrong}");
    }
    let fifth = browser
        .post("/account/sign-in/code", &[("code", "zzzz-zzzz-zzzz")])
        .await;
    assert_eq!((fifth.status, fifth.location()), (303, "/account/sign-in"));
    let right = browser
        .post("/account/sign-in/code", &[("code", &member.code(&people))])
        .await;
    assert_eq!(right.location(), "/account/sign-in");
    assert!(!browser.is_signed_in().await);
    // Who has the password does not go on for ever: ten in an hour, however often one begins again.
    let mut browser = half(&people).await;
    for _ in 0..4 {
        assert_eq!(enter(&mut browser, "12345").await, 422);
    }
    enter(&mut browser, "12345").await;
    let mut browser = half(&people).await;
    assert_eq!(enter(&mut browser, &member.code(&people)).await, 429);
}

#[tokio::test]
async fn half_a_session_is_over_after_ten_minutes_and_with_a_new_one() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let mut old = half(&people).await;
    let mut new = half(&people).await;
    let code = member.code(&people);
    let answer = old.post("/account/sign-in/code", &[("code", &code)]).await;
    assert_eq!(answer.location(), "/account/sign-in");
    people.advance(Duration::from_mins(10));
    let code = member.code(&people);
    let answer = new.post("/account/sign-in/code", &[("code", &code)]).await;
    assert_eq!(answer.location(), "/account/sign-in");
    assert!(!new.is_signed_in().await && !old.is_signed_in().await);
}

#[tokio::test]
async fn a_recovery_code_is_good_once() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    assert_eq!(member.recovery.len(), 10);
    let mut browser = half(&people).await;
    let code = member.recovery[3].to_uppercase().replace('-', " ");
    assert_eq!(enter(&mut browser, &code).await, 303);
    let page = browser.get("/account").await;
    assert!(
        page.body.contains("Recovery codes left: 9"),
        "{}",
        page.body
    );
    let mut again = half(&people).await;
    assert_eq!(enter(&mut again, &member.recovery[3]).await, 422);
    assert_eq!(enter(&mut again, &member.recovery[4]).await, 303);
    // None of them is kept as it is.
    let kept = people.context.database.read(|conn| {
        let sql = "SELECT group_concat(CAST(key AS TEXT)) FROM recovery_codes";
        Ok(conn.query_row(sql, [], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec()))?)
    });
    let kept = String::from_utf8_lossy(&kept.await.unwrap()).into_owned();
    assert!(!kept.contains(&member.recovery[0].replace('-', "")));
}

#[tokio::test]
async fn turning_it_off_takes_the_password() {
    let people = People::start().await;
    let mut member = Member::set_up(&people).await;
    let off = "/account/second-factor/off";
    let refused = member
        .browser
        .post(off, &[("password", "wrong, wrong")])
        .await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.body.contains("off_password-error"),
        "{}",
        refused.body
    );
    half(&people).await;
    assert_eq!(
        people
            .browser()
            .post(off, &[("password", PASSWORD)])
            .await
            .status,
        401
    );
    assert_eq!(
        member
            .browser
            .post(off, &[("password", PASSWORD)])
            .await
            .status,
        303
    );
    people.signed_in(MEMBER).await;
    assert_eq!(
        people.number("SELECT count(*) FROM recovery_codes").await,
        0
    );
}

#[tokio::test]
async fn a_link_for_a_password_is_no_way_around_it() {
    let people = People::start().await;
    let member = Member::set_up(&people).await;
    people.advance(STEP);
    let mut owner = people.signed_in(OWNER).await;
    let id = people.id(MEMBER).await;
    let link = owner
        .post(&format!("/account/people/{id}/link"), &[])
        .await
        .link();
    let mut browser = people.browser();
    let fields = [
        ("token", token(&link)),
        ("password", "another good password"),
    ];
    let answer = browser.post("/account/reset", &fields).await;
    assert_eq!(
        (answer.status, answer.location()),
        (303, "/account/sign-in/code")
    );
    assert!(!browser.is_signed_in().await);
    assert_eq!(enter(&mut browser, &member.code(&people)).await, 303);
    assert!(browser.is_signed_in().await);
}

#[tokio::test]
async fn turning_it_on_takes_the_password() {
    let people = People::start().await;
    let mut browser = people.signed_in(MEMBER).await;
    let page = browser.get(PATH).await.body;
    let code = authenticator(&page).generate(seconds(&people)).to_string();
    for password in ["", "wrong, wrong"] {
        let refused = confirm(&mut browser, &page, password, &code).await;
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("password-error"), "{}", refused.body);
        let shown = authenticator(&refused.body).generate(seconds(&people));
        assert_eq!(shown.to_string(), code, "the same one");
    }
    people.signed_in(MEMBER).await;
    let done = confirm(&mut browser, &page, PASSWORD, &code).await;
    assert_eq!(done.status, 200);
    half(&people).await;
}

#[tokio::test]
async fn it_is_turned_on_once() {
    let people = People::start().await;
    let mut member = Member::set_up(&people).await;
    people.advance(STEP);
    let other = Secret::from([7; 20]);
    let typed = other.to_base32();
    let totp = Builder::new().with_secret(other).build().unwrap();
    let code = totp.generate(seconds(&people)).to_string();
    let fields = [("secret", &*typed), ("password", PASSWORD), ("code", &code)];
    let answer = member.browser.post(PATH, &fields).await;
    assert_eq!((answer.status, answer.location()), (303, "/account"));
    let mut browser = half(&people).await;
    assert_eq!(enter(&mut browser, &code).await, 422, "the first one holds");
    assert_eq!(enter(&mut browser, &member.code(&people)).await, 303);
}

#[tokio::test]
async fn only_a_secret_as_the_page_makes_it_is_taken() {
    let people = People::start().await;
    let mut browser = people.signed_in(MEMBER).await;
    for secret in ["", "MFRGG", "no secret", "\u{e9}", &"A".repeat(10_000)] {
        let fields = [
            ("secret", secret),
            ("password", PASSWORD),
            ("code", "000000"),
        ];
        let answer = browser.post(PATH, &fields).await;
        assert_eq!(answer.status, 422, "{secret}");
        authenticator(&answer.body);
    }
}
