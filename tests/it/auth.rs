//! Who is let in where: the extractors, the layers, signing in and out.

use axum::Router;
use axum::http::Request;
use axum::routing::get;
use houseboat::auth::Auth;
use houseboat::auth::Owner;
use houseboat::auth::User;
use houseboat::auth::users_only;

use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::routes;

const PRIVATE: [&str; 4] = ["/notes", "/admin", "/reports", "/vault"];

#[tokio::test]
async fn who_is_not_signed_in_is_sent_to_sign_in_and_back() {
    let people = People::start().await;
    let mut browser = people.browser();
    for path in PRIVATE {
        let answer = browser.get(&format!("{path}?a=b&c=d")).await;
        assert_eq!(answer.status, 303, "{path}");
        let expected = format!("/account/sign-in?next={path}%3Fa%3Db%26c%3Dd");
        assert_eq!(answer.location(), expected);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let page = browser.get("/account/sign-in?next=/notes%3Fa%3Db").await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains(r#"name="next" value="/notes?a=b""#),
        "{}",
        page.body
    );
    let pairs = [
        ("email", MEMBER),
        ("password", PASSWORD),
        ("next", "/notes?a=b"),
    ];
    let answer = browser.post("/account/sign-in", &pairs).await;
    assert_eq!((answer.status, answer.location()), (303, "/notes?a=b"));
    let answer = browser.get("/notes").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "notes of member@site.test")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn what_is_no_page_is_answered_and_not_redirected() {
    let people = People::start().await;
    let mut browser = people.browser();
    let answer = browser.post("/notes", &[]).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.body.contains("sign in"), "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    let request = Request::get("/vault").header("accept", "application/json");
    let answer = browser.send(request, String::new()).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn each_is_let_in_where_one_may() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let mut member = people.signed_in(MEMBER).await;
    for (path, for_member) in PRIVATE.into_iter().zip([200, 403, 200, 403]) {
        assert_eq!(owner.get(path).await.status, 200, "{path}");
        let answer = member.get(path).await;
        assert_eq!(answer.status, for_member, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    assert_eq!(member.post("/vault", &[]).await.status, 403);
    for path in ["/account/people", "/account"] {
        assert_eq!(owner.get(path).await.status, 200);
    }
    assert_eq!(member.get("/account/people").await.status, 403);
    assert_eq!(member.get("/hello").await.body, MEMBER);
    assert_eq!(people.browser().get("/hello").await.body, "nobody");
}

#[tokio::test]
async fn an_answer_that_asks_nobody_who_it_is_may_be_kept() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    assert_eq!(owner.get("/").await.header("cache-control"), "");
    assert_eq!(
        owner.get("/hello").await.header("cache-control"),
        "no-store"
    );
}

#[tokio::test]
async fn a_request_reads_the_database_once_and_only_if_it_must() {
    let twice = Router::new()
        .route("/twice", get(async |_: User, _: Owner| "twice"))
        .layer(users_only());
    let people = People::with(Auth::default(), routes().merge(twice), &[]).await;
    let mut owner = people.signed_in(OWNER).await;
    // To ask for the numbers is a read as well.
    let reads = async || people.context.database.stats().await.reads.done;
    let first = reads().await;
    let own = reads().await - first;
    // The owner is known to be there from the first look on.
    owner.get("/vault").await;
    let before = reads().await;
    owner.get("/").await;
    assert_eq!(reads().await - before, own, "nobody asked");
    // The layer of the router asks, and asks again in the handler.
    let before = reads().await;
    owner.get("/twice").await;
    assert_eq!(reads().await - before, own + 1);
    for cookie in [
        "",
        "x",
        "+",
        &"0".repeat(63),
        &"0".repeat(65),
        &"G".repeat(64),
    ] {
        let before = reads().await;
        let mut other = people.browser();
        other
            .cookies
            .insert("session".to_owned(), cookie.to_owned());
        assert_eq!(other.get("/hello").await.body, "nobody");
        assert_eq!(reads().await - before, own, "{cookie}");
    }
}

#[tokio::test]
async fn signing_out_ends_the_session_and_not_only_the_cookie() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let mut stolen = owner.clone();
    assert!(stolen.is_signed_in().await);
    let answer = owner.post("/account/sign-out", &[]).await;
    assert_eq!(
        (answer.status, answer.location()),
        (303, "/account/sign-in")
    );
    assert_eq!(owner.session(), "");
    assert!(!stolen.is_signed_in().await);
    assert_eq!(people.number("SELECT count(*) FROM sessions").await, 0);
    // By a link, or twice, it does no harm.
    assert_eq!(owner.get("/account/sign-out").await.status, 405);
    assert_eq!(owner.post("/account/sign-out", &[]).await.status, 303);
}

#[tokio::test]
async fn until_there_is_an_owner_private_pages_say_that_the_site_is_being_set_up() {
    let people = People::empty(Auth::default(), routes(), &[]).await;
    let mut browser = people.browser();
    let setting_up = "This site is being set up";
    for path in PRIVATE
        .into_iter()
        .chain(["/account", "/account/sign-in", "/account/people"])
    {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains(setting_up), "{}", answer.body);
        assert!(answer.body.contains("in its log"), "{}", answer.body);
        assert!(!answer.body.contains("token"), "{}", answer.body);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    assert_eq!(browser.post("/notes", &[]).await.status, 503);
    assert_eq!(browser.sign_in(OWNER, PASSWORD).await.status, 503);
    let request = Request::get("/notes").header("accept", "application/json");
    let answer = browser.send(request, String::new()).await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(
        browser.get("/").await.body,
        "front",
        "what is public is there"
    );
    assert_eq!(browser.get("/hello").await.body, "nobody");
    let role = houseboat::auth::Role::Owner;
    people
        .accounts
        .add(OWNER, "", role, PASSWORD)
        .await
        .unwrap();
    assert_eq!(browser.get("/notes").await.status, 303);
    assert_eq!(browser.sign_in(OWNER, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn a_name_is_shown_once_it_is_said() {
    let people = People::start().await;
    let mut member = people.signed_in(MEMBER).await;
    let saved = member
        .post("/account/name", &[("name", "  Ann\u{7}a ")])
        .await;
    assert_eq!((saved.status, saved.location()), (303, "/account"));
    assert_eq!(member.get("/notes").await.body, "notes of Anna");
    let long = "é".repeat(101);
    let answer = member.post("/account/name", &[("name", &long)]).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer
            .body
            .contains(r#"aria-describedby="name-hint name-error""#),
        "{}",
        answer.body
    );
    let exact = "é".repeat(100);
    assert_eq!(
        member
            .post("/account/name", &[("name", &exact)])
            .await
            .status,
        303
    );
    assert_eq!(
        member.post("/account/name", &[]).await.status,
        303,
        "a name may be empty"
    );
}

#[tokio::test]
async fn the_sign_in_page_is_right_for_password_managers_and_readers() {
    let people = People::start().await;
    let page = people.browser().get("/account/sign-in").await;
    for part in [
        r#"<label for="email">"#,
        r#"type="email" value="" autocomplete="username""#,
        r#"type="password" value="" autocomplete="current-password""#,
    ] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("referrer-policy"), "strict-origin");
    let answer = people.browser().sign_in("<b>\"x@y.z", "nothing").await;
    assert_eq!(answer.status, 422);
    assert!(
        answer.body.contains(r#"aria-describedby="password-error""#),
        "{}",
        answer.body
    );
    assert!(answer.body.contains(r#"id="password-error""#));
    assert!(
        !answer.body.contains("nothing"),
        "a password is not sent back"
    );
    let stylesheet = page.body.split("stylesheet\" href=\"").nth(1).unwrap();
    let stylesheet = stylesheet.split('"').next().unwrap();
    assert_eq!(
        people.browser().get(stylesheet).await.status,
        200,
        "{stylesheet}"
    );
}
