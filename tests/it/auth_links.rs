//! Links that are good once: invitations, other passwords, and being sent one.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use houseboat::Context;
use houseboat::auth::Auth;
use houseboat::auth::User;

use crate::support::client::once_key;
use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::routes;
use crate::support::people::token;
use crate::support::waiting::wait_for;

const NEW_PASSWORD: &str = "another horse, another battery";
const PATIENCE: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// A link that the owner has made for a member.
async fn link(people: &People) -> String {
    let mut owner = people.signed_in(OWNER).await;
    let id = people.id(MEMBER).await;
    let page = owner.post(&format!("/account/people/{id}/link"), &[]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(page.header("cache-control"), "no-store");
    page.link()
}

fn fields(link: &str) -> [(&str, &str); 2] {
    [("token", token(link)), ("password", NEW_PASSWORD)]
}

#[tokio::test]
async fn a_link_sets_a_password_once_and_ends_every_session() {
    let people = People::start().await;
    let mut before = people.signed_in(MEMBER).await;
    let link = link(&people).await;
    let mut browser = people.browser();
    // Looking at it uses nothing: programs that look at mail do that.
    for _ in 0..3 {
        let page = browser.get(&link).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(MEMBER), "{}", page.body);
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "strict-origin");
    }
    let pairs = [("token", token(&link)), ("password", "12345678")];
    assert_eq!(
        browser.post("/account/reset", &pairs).await.status,
        422,
        "a bad one uses nothing either"
    );
    assert!(before.is_signed_in().await);
    let set = browser.post("/account/reset", &fields(&link)).await;
    assert_eq!((set.status, set.location()), (303, "/"));
    assert!(browser.is_signed_in().await);
    assert!(!before.is_signed_in().await);
    assert_eq!(people.browser().get(&link).await.status, 404);
    let again = people
        .browser()
        .post("/account/reset", &fields(&link))
        .await;
    assert_eq!(again.status, 404);
    assert_eq!(people.browser().sign_in(MEMBER, PASSWORD).await.status, 422);
    assert_eq!(
        people.browser().sign_in(MEMBER, NEW_PASSWORD).await.status,
        303
    );
}

#[tokio::test]
async fn of_two_who_use_a_link_at_once_one_does() {
    let people = People::start().await;
    let link = link(&people).await;
    let all = (0..8).map(|_| {
        let (mut browser, link) = (people.browser(), link.clone());
        tokio::spawn(async move { browser.post("/account/reset", &fields(&link)).await.status })
    });
    let mut statuses = Vec::new();
    for one in all.collect::<Vec<_>>() {
        statuses.push(one.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404, 404, 404, 404, 404, 404, 404]);
    let id = people.id(MEMBER).await;
    assert_eq!(people.number("SELECT count(*) FROM tokens").await, 0);
    let sessions = people.context.database.read(move |conn| {
        let sql = "SELECT count(*) FROM sessions WHERE user_id = ?1";
        Ok(conn.query_row(sql, [id], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(sessions.await.unwrap(), 1);
}

#[tokio::test]
async fn a_link_is_over_after_its_time_and_when_there_is_a_newer_one() {
    let people = People::start().await;
    let old = link(&people).await;
    let new = link(&people).await;
    let mut browser = people.browser();
    assert_eq!(browser.get(&old).await.status, 404);
    people.advance_almost(Duration::from_hours(24));
    assert_eq!(browser.get(&new).await.status, 200);
    people.advance(MS);
    assert_eq!(browser.get(&new).await.status, 404);
    assert_eq!(
        browser.post("/account/reset", &fields(&new)).await.status,
        404
    );
    for wrong in ["", "x", "%01", "' OR 1=1 --"] {
        let path = format!("/account/reset?token={}", wrong.replace(' ', "%20"));
        assert_eq!(browser.get(&path).await.status, 404, "{wrong}");
    }
    assert_eq!(browser.get("/account/reset").await.status, 404);
}

#[tokio::test]
async fn a_link_is_good_for_its_own_purpose_alone() {
    let people = People::start().await;
    let link = link(&people).await;
    let mut browser = people.browser();
    let path = format!("/account/first?token={}", token(&link));
    assert_eq!(browser.get(&path).await.status, 404);
    let fields = [
        ("token", token(&link)),
        ("email", "evil@site.test"),
        ("password", NEW_PASSWORD),
    ];
    assert_eq!(browser.post("/account/first", &fields).await.status, 404);
    browser
        .cookies
        .insert("second".to_owned(), token(&link).to_owned());
    let code = browser
        .post("/account/sign-in/code", &[("code", "000000")])
        .await;
    assert_eq!(code.location(), "/account/sign-in");
    browser
        .cookies
        .insert("session".to_owned(), token(&link).to_owned());
    assert!(!browser.is_signed_in().await);
    assert_eq!(people.number("SELECT count(*) FROM users").await, 2);
}

#[tokio::test]
async fn who_is_disabled_sets_no_password() {
    let people = People::start().await;
    let link = link(&people).await;
    let mut owner = people.signed_in(OWNER).await;
    let id = people.id(MEMBER).await;
    owner
        .post(&format!("/account/people/{id}/disable"), &[])
        .await;
    assert_eq!(people.browser().get(&link).await.status, 404);
    assert_eq!(
        owner
            .post(&format!("/account/people/{id}/link"), &[])
            .await
            .status,
        404
    );
    owner
        .post(&format!("/account/people/{id}/enable"), &[])
        .await;
    assert_eq!(
        people.browser().get(&link).await.status,
        404,
        "it ended then"
    );
}

#[tokio::test]
async fn an_invitation_lets_somebody_in_who_chooses_name_and_password() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let page = owner.invite(" New@Site.test ").await;
    assert_eq!(page.status, 200, "{}", page.body);
    let link = page.link();
    let listed = owner.get("/account/people").await;
    assert!(listed.body.contains("New@Site.test") && listed.body.contains("invited"));
    assert_eq!(
        people.browser().sign_in("new@site.test", "").await.status,
        422
    );
    people.advance_almost(Duration::from_hours(24 * 7));
    let mut browser = people.browser();
    let page = browser.get(&link).await;
    assert!(page.body.contains("You are invited"), "{}", page.body);
    let fields = [
        ("token", token(&link)),
        ("name", "Nina"),
        ("password", NEW_PASSWORD),
    ];
    assert_eq!(browser.post("/account/reset", &fields).await.status, 303);
    assert_eq!(browser.get("/notes").await.body, "notes of Nina");
    assert_eq!(
        browser.get("/admin").await.status,
        403,
        "a member, and no more"
    );
    let taken = people.signed_in(OWNER).await.invite("NEW@site.test").await;
    assert_eq!(taken.status, 422);
    assert!(
        taken.body.contains("has an account already"),
        "{}",
        taken.body
    );
}

#[tokio::test]
async fn only_the_owner_invites_and_makes_links() {
    let people = People::start().await;
    let mut member = people.signed_in(MEMBER).await;
    let id = people.id(OWNER).await;
    for path in ["link", "disable", "enable"].map(|verb| format!("/account/people/{id}/{verb}")) {
        assert_eq!(member.post(&path, &[]).await.status, 403, "{path}");
        assert_eq!(
            people.browser().post(&path, &[]).await.status,
            401,
            "{path}"
        );
    }
    let key = once_key();
    let pairs = [
        ("email", "evil@site.test"),
        ("role", "owner"),
        ("_once", &key),
    ];
    assert_eq!(member.post("/account/people", &pairs).await.status, 403);
    assert_eq!(people.number("SELECT count(*) FROM users").await, 2);
    assert_eq!(people.number("SELECT count(*) FROM tokens").await, 0);
    // What is not asked for is not heard.
    let mut owner = people.signed_in(OWNER).await;
    assert_eq!(owner.post("/account/people", &pairs).await.status, 200);
    let owners = "SELECT count(*) FROM users WHERE role = 'owner'";
    assert_eq!(people.number(owners).await, 1);
}

#[tokio::test]
async fn the_address_of_a_link_is_the_sites_own_whatever_a_visitor_says() {
    let variables = [("HOUSEBOAT_SERVER__URL", "http://site.test")];
    let people = People::with(Auth::default(), routes(), &variables).await;
    let mut owner = people.signed_in(OWNER).await;
    owner.headers = vec![
        ("host", "evil.test".to_owned()),
        ("x-forwarded-host", "evil.test".to_owned()),
        ("forwarded", "host=evil.test".to_owned()),
    ];
    let id = people.id(MEMBER).await;
    let page = owner.post(&format!("/account/people/{id}/link"), &[]).await;
    assert!(
        page.body.contains("http://site.test/account/reset?token="),
        "{}",
        page.body
    );
    assert!(!page.body.contains("evil"), "{}", page.body);
}

#[tokio::test]
async fn a_link_is_sent_to_who_asks_and_the_answer_tells_nobody_whether_it_is() {
    let sent: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let box_ = Arc::clone(&sent);
    let auth = Auth::default().on_reset(move |_: Context, user: User, link: String| {
        let sent = Arc::clone(&box_);
        async move { sent.lock().unwrap().push((user.email, link)) }
    });
    let people = People::with(auth, routes(), &[]).await;
    let mut browser = people.browser();
    assert!(
        browser
            .get("/account/sign-in")
            .await
            .body
            .contains("/account/reset/ask")
    );
    assert_eq!(browser.get("/account/reset/ask").await.status, 200);
    let mut answers = Vec::new();
    for email in ["nobody@site.test", "no address", "", "MEMBER@site.test"] {
        let answer = browser
            .post("/account/reset/ask", &[("email", email)])
            .await;
        answers.push((answer.status, answer.body));
    }
    assert_eq!(answers[0].0, 200);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let (email, link) = wait_for("link", PATIENCE, async || {
        sent.lock().unwrap().first().cloned()
    })
    .await;
    assert_eq!(email, MEMBER);
    let path = &link[link.find("/account/").unwrap()..];
    assert_eq!(
        browser.post("/account/reset", &fields(path)).await.status,
        303
    );
    assert_eq!(sent.lock().unwrap().len(), 1);
    // Nobody's letter-box is filled, and nobody learns whose there is.
    for email in [MEMBER, "nobody@site.test"] {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let answer = browser
                .post("/account/reset/ask", &[("email", email)])
                .await;
            statuses.push(answer.status);
        }
        assert_eq!(statuses, [200, 200, 429], "{email}");
    }
}

#[tokio::test]
async fn where_nothing_sends_links_nobody_is_offered_one() {
    let people = People::start().await;
    let mut browser = people.browser();
    assert!(
        !browser
            .get("/account/sign-in")
            .await
            .body
            .contains("/account/reset/ask")
    );
    assert_eq!(browser.get("/account/reset/ask").await.status, 404);
}
