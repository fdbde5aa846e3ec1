//! What can be guessed: how often, and what the answers tell.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use argon2::password_hash::PasswordHasher;
use houseboat::auth::Auth;

use crate::support::people::Answer;
use crate::support::people::Browser;
use crate::support::people::MEMBER;
use crate::support::people::OWNER;
use crate::support::people::PASSWORD;
use crate::support::people::People;
use crate::support::people::routes;

/// So many that they do not matter.
const MANY: [(&str, &str); 2] = [
    ("HOUSEBOAT_AUTH__ACCOUNT_ATTEMPTS_MAX", "1000"),
    ("HOUSEBOAT_AUTH__NETWORK_ATTEMPTS_MAX", "10000"),
];

const NOBODY: &str = "nobody@site.test";

fn from(people: &People, address: &str) -> Browser {
    let mut browser = people.browser();
    browser.address = Some(SocketAddr::new(address.parse().unwrap(), 50_000));
    browser
}

/// All of an answer that a stranger sees, but for what they entered and the number of the request.
fn seen(answer: &Answer, entered: &str) -> (u16, String, Vec<(String, String)>) {
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id");
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.filter(|(name, _)| name != "content-length");
    let body = answer
        .body
        .replace(&entered.replace('"', "&#34;"), "ENTERED");
    (answer.status, body, headers.collect())
}

#[tokio::test]
async fn the_answer_does_not_tell_who_has_an_account() {
    let people = People::with(Auth::default(), routes(), &MANY).await;
    let mut owner = people.signed_in(OWNER).await;
    let invited = owner.invite("invited@site.test").await;
    assert_eq!(invited.status, 200, "{}", invited.body);
    let disabled =
        people
            .accounts
            .add("off@site.test", "", houseboat::auth::Role::Member, PASSWORD);
    let id = disabled.await.unwrap();
    owner
        .post(&format!("/account/people/{id}/disable"), &[])
        .await;
    let mut answers = Vec::new();
    for (email, password) in [
        (MEMBER, "not the password"),
        (NOBODY, "not the password"),
        ("off@site.test", PASSWORD),
        ("invited@site.test", PASSWORD),
        ("invited@site.test", ""),
        ("no address at all", PASSWORD),
        ("", ""),
        (MEMBER, &"x".repeat(1_000)),
    ] {
        let answer = people.browser().sign_in(email, password).await;
        let shown = if email.is_empty() {
            "no such text"
        } else {
            email
        };
        let (status, body, headers) = seen(&answer, shown);
        answers.push((
            status,
            body.replace(r#"value="ENTERED""#, r#"value="""#),
            headers,
        ));
    }
    let first = answers[0].clone();
    assert_eq!(first.0, 422);
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, first, "{index}");
    }
}

/// Medians, since this machine has other things to do; each kind by turns, so that they have the same weather.
#[tokio::test]
async fn the_time_does_not_tell_who_has_an_account() {
    let variables = [
        MANY[0],
        MANY[1],
        ("HOUSEBOAT_AUTH__HASH_MEMORY_KIB", "4096"),
        ("HOUSEBOAT_AUTH__HASH_PASSES", "2"),
    ];
    let people = People::with(Auth::default(), routes(), &variables).await;
    same_time(&people).await;
}

/// A user who has not signed in since the settings changed has a hash that takes less, or more.
#[tokio::test]
async fn the_time_does_not_tell_whose_hash_is_old() {
    for (old, today) in [(64, "4096"), (4_096, "128")] {
        let variables = [
            MANY[0],
            MANY[1],
            ("HOUSEBOAT_AUTH__HASH_MEMORY_KIB", today),
            ("HOUSEBOAT_AUTH__HASH_PASSES", "2"),
        ];
        let people = People::with(Auth::default(), routes(), &variables).await;
        set_hash(&people, hash_of(old)).await;
        same_time(&people).await;
        people.signed_in(MEMBER).await;
    }
}

/// Not by the first who asks, either: nobody has signed in yet since the site came up.
#[tokio::test]
async fn the_kinds_of_hashes_are_known_before_anybody_signs_in() {
    let people = People::with(Auth::default(), routes(), &MANY).await;
    // Ten times what else a sign-in takes.
    set_hash(&people, hash_of(131_072)).await;
    let nobody = median(time(&people, NOBODY, 1).await);
    let member = median(time(&people, MEMBER, 3).await);
    assert!(nobody > member / 2, "{nobody:?} and {member:?}");
}

async fn time(people: &People, email: &str, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let mut browser = people.browser();
        let begun = Instant::now();
        assert_eq!(browser.sign_in(email, "not the password").await.status, 422);
        times.push(begun.elapsed());
    }
    times
}

async fn same_time(people: &People) {
    // What the first ones find out, the others know.
    time(people, MEMBER, 1).await;
    time(people, NOBODY, 1).await;
    let mut apart = Vec::new();
    for _ in 0..5 {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            known.extend(time(people, MEMBER, 1).await);
            unknown.extend(time(people, NOBODY, 1).await);
        }
        let (known, unknown) = (median(known), median(unknown));
        let ratio = known.as_secs_f64() / unknown.as_secs_f64();
        if (0.75..1.25).contains(&ratio) {
            return;
        }
        apart.push((known, unknown));
    }
    panic!("known and unknown, five times: {apart:?}");
}

/// The hash of everybody's password that takes so much memory, in KiB.
fn hash_of(memory: u32) -> String {
    let params = argon2::Params::new(memory, 1, 1, None).unwrap();
    let hash: argon2::password_hash::phc::PasswordHash = argon2::Argon2::from(params)
        .hash_password_with_salt(PASSWORD.as_bytes(), b"0123456789abcdef")
        .unwrap();
    hash.to_string()
}

/// As if the member had signed in last under other settings.
async fn set_hash(people: &People, hash: String) {
    let id = people.id(MEMBER).await;
    let set = people.context.database.write(move |tx| {
        let sql = "UPDATE users SET password_hash = ?2 WHERE id = ?1";
        Ok(tx.execute(sql, (id, hash))?)
    });
    assert_eq!(set.await.unwrap(), 1);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn an_account_takes_five_attempts_and_then_one_each_three_minutes() {
    let people = People::with(Auth::default(), routes(), &MANY[1..]).await;
    let mut signed_in = people.signed_in(MEMBER).await;
    for email in [MEMBER, NOBODY] {
        for attempt in 0..5 {
            // In every spelling.
            let mut browser = from(&people, &format!("2001:db8:0:7::{attempt}"));
            let email = if attempt % 2 == 0 {
                email.to_uppercase()
            } else {
                format!(" {email} ")
            };
            assert_eq!(
                browser.sign_in(&email, "wrong").await.status,
                422,
                "{attempt}"
            );
        }
        let mut browser = from(&people, "2001:db8:0:7::77");
        // Not even with the right one, or the answer would tell that it is.
        let answer = browser.sign_in(email, PASSWORD).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("retry-after"), "180");
    }
    assert!(signed_in.is_signed_in().await, "who is in stays in");
    let mut there = from(&people, "2001:db8:0:7::1");
    assert_eq!(there.sign_in(OWNER, PASSWORD).await.status, 303);
    people.advance(Duration::from_secs(179));
    assert_eq!(there.sign_in(MEMBER, PASSWORD).await.status, 429);
    // A stranger's attempts keep nobody out who is elsewhere.
    let mut elsewhere = from(&people, "192.0.2.1");
    assert_eq!(elsewhere.sign_in(MEMBER, PASSWORD).await.status, 303);
    people.advance(Duration::from_secs(1));
    assert_eq!(there.sign_in(MEMBER, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn who_signs_in_rightly_is_not_counted() {
    let people = People::start().await;
    for _ in 0..20 {
        people.signed_in(MEMBER).await;
    }
}

#[tokio::test]
async fn a_network_takes_ten_attempts_a_minute_whoever_is_meant() {
    let people = People::start().await;
    for attempt in 0..10 {
        // One network of IPv6, whatever address in it.
        let mut browser = from(&people, &format!("2001:db8:0:1::{attempt}"));
        let email = format!("somebody{attempt}@site.test");
        assert_eq!(browser.sign_in(&email, "wrong").await.status, 422);
    }
    let mut browser = from(&people, "2001:db8:0:1:ffff::");
    let answer = browser.sign_in(OWNER, PASSWORD).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "6"));
    let mut other = from(&people, "2001:db8:0:2::1");
    assert_eq!(other.sign_in(OWNER, PASSWORD).await.status, 303);
    people.advance(Duration::from_secs(6));
    assert_eq!(browser.sign_in(OWNER, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn the_password_of_who_is_signed_in_is_not_guessed_either() {
    let people = People::start().await;
    let mut browser = people.signed_in(MEMBER).await;
    let guess = [("password", "wrong"), ("new_password", "a good long one")];
    for _ in 0..5 {
        assert_eq!(browser.post("/account/password", &guess).await.status, 422);
    }
    let right = [("password", PASSWORD), ("new_password", "a good long one")];
    assert_eq!(browser.post("/account/password", &right).await.status, 429);
    assert!(browser.is_signed_in().await);
    // It keeps nobody from signing in.
    assert_eq!(people.browser().sign_in(MEMBER, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn links_are_not_tried_out() {
    let people = People::start().await;
    let mut browser = from(&people, "192.0.2.1");
    for path in ["/account/reset", "/account/first"] {
        for _ in 0..5 {
            let link = format!("{path}?token={}", "0".repeat(64));
            assert_eq!(browser.get(&link).await.status, 404);
        }
    }
    let pairs = [("token", "0"), ("password", PASSWORD)];
    let answer = browser.post("/account/reset", &pairs).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "6"));
}

#[tokio::test]
async fn a_hash_of_other_parameters_is_made_anew_at_sign_in() {
    let people = People::start().await;
    let weak = "$argon2id$v=19$m=8,t=1,p=1$";
    let hash = async || {
        let id = people.id(MEMBER).await;
        let hash = people.context.database.read(move |conn| {
            let sql = "SELECT password_hash FROM users WHERE id = ?1";
            Ok(conn.query_row(sql, [id], |row| row.get::<_, String>(0))?)
        });
        hash.await.unwrap()
    };
    set_hash(&people, hash_of(8)).await;
    assert_eq!(people.browser().sign_in(MEMBER, "wrong").await.status, 422);
    assert!(hash().await.starts_with(weak));
    people.signed_in(MEMBER).await;
    assert!(hash().await.starts_with("$argon2id$v=19$m=128,t=1,p=1$"));
    people.signed_in(MEMBER).await;
}
