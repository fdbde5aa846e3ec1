//! The owner of a site that runs: made by the link in its log, or signed in.

use std::time::Duration;

use reqwest::Client;
use reqwest::StatusCode;
use reqwest::header::SET_COOKIE;

use crate::support::client::client;
use crate::support::client::client_with;
use crate::support::client::post_form;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

/// Where the owner signs in with.
pub(crate) const EMAIL: &str = "owner@site.test";
pub(crate) const PASSWORD: &str = "a harbour at dawn";

/// Settings by which a password costs little, and may be tried as often as tests like.
pub(crate) const CHEAP: [(&str, &str); 4] = [
    ("HOUSEBOAT_AUTH__HASH_MEMORY_KIB", "128"),
    ("HOUSEBOAT_AUTH__HASH_PASSES", "1"),
    ("HOUSEBOAT_AUTH__NETWORK_ATTEMPTS_MAX", "10000"),
    ("HOUSEBOAT_AUTH__ACCOUNT_ATTEMPTS_MAX", "1000"),
];

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct SignedIn {
    /// A client that sends the cookie.
    pub(crate) client: Client,
    /// The cookie, as a browser sends it.
    pub(crate) cookie: String,
}

impl SignedIn {
    /// The owner of the site at `url`, which says in its `log` how one is made.
    pub(crate) async fn owner(url: &str, log: impl Fn() -> String) -> Self {
        let private = client().get(format!("{url}/monitors/new")).send().await;
        let path = if private.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE {
            "first"
        } else {
            "sign-in"
        };
        let mut pairs = vec![("email", EMAIL), ("password", PASSWORD)];
        let token;
        if path == "first" {
            token = wait_for("link for the owner", SOON, async || first_token(&log())).await;
            pairs.extend([("token", &*token), ("name", "")]);
        }
        let answer = post_form(&client(), &format!("{url}/account/{path}"), &pairs).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 303, "{}", log());
        let cookies = answer.headers().get_all(SET_COOKIE).iter();
        let mut cookies = cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
        let cookie = cookies.find(|cookie| cookie.contains("session="));
        let cookie = cookie.expect("a session begins").to_owned();
        Self {
            client: client_with(&cookie),
            cookie,
        }
    }
}

/// The token of the last link in a log.
pub(crate) fn first_token(log: &str) -> Option<String> {
    let (_, rest) = log.rsplit_once("/account/first?token=")?;
    let is_token = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
    Some(rest.chars().take_while(is_token).collect())
}
