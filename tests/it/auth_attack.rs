//! What strangers send: through every field, to every address, from other sites.

use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::routing::get;
use houseboat::auth::Auth;
use houseboat::auth::User;
use houseboat::http::PageCache;

use crate::support::client::form;
use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::token;

const HTML: &str = "\"><script>alert(1)</script><img src=x>'";
const SQL: &str = "'); DROP TABLE users; --";

const FOREIGN: [&str; 13] = [
    "//evil.test",
    "///evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "https://evil.test",
    "https:evil.test",
    "http:/\\evil.test",
    "javascript:alert(1)",
    "data:text/html,x",
    "/\t/evil.test",
    "\t//evil.test",
    "/\r\nSet-Cookie: a=b",
    "evil.test",
];

#[tokio::test]
async fn nobody_is_led_to_another_site() {
    let people = People::start().await;
    let mut signed_in = people.signed_in(MEMBER).await;
    for next in FOREIGN {
        let fields = [("email", MEMBER), ("password", PASSWORD), ("next", next)];
        let answer = people.browser().post("/account/sign-in", &fields).await;
        assert_eq!((answer.status, answer.location()), (303, "/"), "{next:?}");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 1);
        let query = form(&[("next", next)]);
        let path = format!("/account/sign-in?{query}");
        let page = people.browser().get(&path).await;
        assert!(page.body.contains(r#"name="next" value="/""#), "{next:?}");
        assert_eq!(signed_in.get(&path).await.location(), "/", "{next:?}");
    }
    // What was asked for is a path, however it begins.
    let answer = people.browser().get("//evil.test/notes").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn html_from_every_field_is_text_on_every_page() {
    let people = People::start().await;
    let mut owner = people.browser();
    owner.agent = HTML.to_owned();
    owner.sign_in(OWNER, PASSWORD).await;
    let mut pages = vec![
        people.browser().sign_in(HTML, HTML).await,
        people
            .browser()
            .get(&format!("/account/sign-in?{}", form(&[("next", HTML)])))
            .await,
        people
            .browser()
            .get(&format!("/account/reset?{}", form(&[("token", HTML)])))
            .await,
        owner.invite(HTML).await,
        owner
            .post(
                "/account/password",
                &[("password", HTML), ("new_password", HTML)],
            )
            .await,
        owner
            .post("/account/second-factor", &[("code", HTML)])
            .await,
        owner
            .post("/account/second-factor/off", &[("password", HTML)])
            .await,
    ];
    assert_eq!(
        owner.post("/account/name", &[("name", HTML)]).await.status,
        303
    );
    let invited = owner.invite("a&'b@site.test").await;
    assert_eq!(invited.status, 200);
    let link = invited.link();
    pages.push(invited);
    let fields = [
        ("token", token(&link)),
        ("name", HTML),
        ("password", "short"),
    ];
    pages.push(people.browser().post("/account/reset", &fields).await);
    for path in ["/account", "/account/people", &link] {
        pages.push(owner.get(path).await);
    }
    for page in pages {
        assert!(
            !page.body.contains("<script") && !page.body.contains("<img"),
            "{}",
            page.body
        );
        assert!(
            page.header("content-type").starts_with("text/html"),
            "{page:?}"
        );
    }
}

#[tokio::test]
async fn sql_from_every_field_is_text() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    people.browser().sign_in(SQL, SQL).await;
    people.browser().sign_in("' OR '1'='1", "' OR '1'='1").await;
    owner.post("/account/name", &[("name", SQL)]).await;
    owner.invite("'||name||'@x.y").await;
    for path in ["/account/reset", "/account/first"] {
        let fields = [
            ("token", SQL),
            ("email", SQL),
            ("name", SQL),
            ("password", SQL),
        ];
        assert_eq!(people.browser().post(path, &fields).await.status, 404);
    }
    owner.agent = SQL.to_owned();
    owner.sign_in(OWNER, PASSWORD).await;
    assert_eq!(owner.get("/notes").await.body, format!("notes of {SQL}"));
    assert_eq!(people.number("SELECT count(*) FROM users").await, 3);
}

#[tokio::test]
async fn what_another_site_sends_is_refused_and_nothing_changed() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    let id = people.id(MEMBER).await;
    let paths = [
        "/account/name".to_owned(),
        "/account/password".to_owned(),
        "/account/sign-in".to_owned(),
        "/account/sign-out".to_owned(),
        "/account/sign-out-everywhere".to_owned(),
        "/account/second-factor".to_owned(),
        "/account/people".to_owned(),
        format!("/account/people/{id}/link"),
        format!("/account/people/{id}/disable"),
        "/vault".to_owned(),
    ];
    let before = people.number("SELECT count(*) FROM sessions").await;
    for path in paths {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.test"),
            ("origin", "null"),
        ] {
            let request = Request::post(&path)
                .header(name, value)
                .header("host", "site.test")
                .header("content-type", "application/x-www-form-urlencoded");
            let body = form(&[
                ("email", "evil@site.test"),
                ("name", "evil"),
                ("password", PASSWORD),
            ]);
            let answer = owner.send(request, body).await;
            assert_eq!(answer.status, 403, "{path} {name}: {value}");
        }
    }
    assert!(owner.is_signed_in().await);
    assert_eq!(people.number("SELECT count(*) FROM sessions").await, before);
    assert_eq!(
        people
            .number("SELECT count(*) FROM users WHERE name <> ''")
            .await,
        0
    );
    assert_eq!(people.number("SELECT count(*) FROM tokens").await, 0);
}

#[tokio::test]
async fn what_is_no_form_or_too_large_is_refused() {
    let people = People::start().await;
    let mut browser = people.browser();
    let large = form(&[("email", OWNER), ("password", &"x".repeat(20_000))]);
    for (media, body, expected) in [
        ("application/json", "{\"email\":\"owner@site.test\"}", 415),
        ("application/x-www-form-urlencoded", large.as_str(), 413),
        (
            "application/x-www-form-urlencoded",
            "%ff=%fe&email=%ff&password=%c3%28",
            400,
        ),
        ("application/x-www-form-urlencoded", "email=a%00", 400),
        ("application/x-www-form-urlencoded", "email=%4", 400),
        ("application/x-www-form-urlencoded", "email=a&email=b", 422),
        ("application/x-www-form-urlencoded", "", 422),
        ("multipart/form-data; boundary=x", parts(10).as_str(), 422),
        (
            "multipart/form-data; boundary=x",
            parts(20_000).as_str(),
            413,
        ),
    ] {
        let request = Request::post("/account/sign-in")
            .header("sec-fetch-site", "same-origin")
            .header("content-type", media);
        let answer = browser.send(request, body.to_owned()).await;
        assert_eq!(
            answer.status,
            expected,
            "{media} {}",
            &body[..body.len().min(60)]
        );
        let shown = ["%ff", "xxxxxxxxxx"]
            .iter()
            .any(|it| answer.body.contains(it));
        assert!(!shown, "what was sent: {}", answer.body);
    }
}

/// A form of parts with a password of this length.
fn parts(length: usize) -> String {
    let password = "x".repeat(length);
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    part("email", OWNER) + &part("password", &password) + "--x--\r\n"
}

#[tokio::test]
async fn a_password_that_came_twice_is_not_shown() {
    let people = People::start().await;
    let mut member = people.signed_in(MEMBER).await;
    let twice = |field| {
        [
            (field, "a secret of mine"),
            (field, "another secret of mine"),
        ]
    };
    for (path, field) in [
        ("/account/sign-in", "password"),
        ("/account/password", "new_password"),
        ("/account/second-factor", "secret"),
        ("/account/second-factor/off", "password"),
    ] {
        let answer = member.post(path, &twice(field)).await;
        assert_eq!(answer.status, 422, "{path}");
        assert!(answer.body.contains("more than once"), "{}", answer.body);
        assert!(!answer.body.contains("secret of mine"), "{}", answer.body);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_an_error_page() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    for (path, expected) in [
        ("/account/sign-in?next=%ff", 400),
        ("/account/sign-in?next=a&next=b", 400),
        ("/account/reset?token=%00", 400),
        ("/account/people?after=first", 400),
        ("/account/people?after=99999999999999999999", 400),
        ("/account/people?after=999", 200),
    ] {
        assert_eq!(
            people.signed_in(OWNER).await.get(path).await.status,
            expected,
            "{path}"
        );
    }
    for path in ["/account/people/one/link", "/account/sessions/one/revoke"] {
        assert_eq!(owner.post(path, &[]).await.status, 404, "{path}");
    }
}

/// The site says that only the cookie `theme` makes a visitor somebody, and is wrong.
#[tokio::test]
async fn a_page_of_who_is_signed_in_is_given_to_nobody_else() {
    async fn page(user: Option<User>) -> String {
        user.map_or_else(|| "nobody".to_owned(), |user| user.email)
    }
    let cache = PageCache::new(Duration::from_mins(10)).personal_cookies(&["theme"]);
    let routes = Router::new()
        .route("/shared", get(page))
        .route("/private", get(async |user: User| user.email))
        .layer(cache);
    for variables in [&[][..], &[("HOUSEBOAT_AUTH__COOKIES", "secure")]] {
        let people = People::with(Auth::default(), routes.clone(), variables).await;
        let mut owner = people.signed_in(OWNER).await;
        let mut member = people.signed_in(MEMBER).await;
        let mut visitor = people.browser();
        for round in 0..2 {
            for path in ["/shared", "/private"] {
                let answer = owner.get(path).await;
                assert_eq!(answer.body, OWNER, "{path} {round}");
                assert_eq!(answer.header("cache-control"), "no-store");
                assert_eq!(member.get(path).await.body, MEMBER, "{path} {round}");
            }
            assert_eq!(visitor.get("/shared").await.body, "nobody", "{round}");
            assert_eq!(visitor.get("/private").await.status, 303, "{round}");
        }
    }
}

#[tokio::test]
async fn nothing_of_the_pages_is_kept_by_anybody() {
    let people = People::start().await;
    let mut owner = people.signed_in(OWNER).await;
    for path in [
        "/account",
        "/account/people",
        "/account/second-factor",
        "/account/sign-in",
        "/account/sign-in/code",
        "/account/reset?token=x",
        "/account/first?token=x",
    ] {
        for browser in [&mut owner, &mut people.browser()] {
            let answer = browser.get(path).await;
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
            assert_eq!(answer.header("referrer-policy"), "strict-origin", "{path}");
            let policy = answer.header("content-security-policy");
            assert!(policy.contains("script-src 'self'"), "{path}: {policy}");
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert!(
                !answer.body.contains("style=") && !answer.body.contains("<script"),
                "{path}"
            );
        }
    }
}
