//! How often may be tried what can be guessed.
//!
//! What is counted is in the cache. Passwords are counted for an account and a network together, so that a stranger
//! elsewhere keeps nobody out, and far more loosely for the account alone. A limit only slows: who is signed in stays
//! so, and a link made on the command line needs no password.

use std::time::Duration;

use crate::auth::accounts::Accounts;
use crate::auth::client::Client;
use crate::auth::key::Key;
use crate::cache::Cache;
use crate::http;

const MINUTE: Duration = Duration::from_mins(1);
const QUARTER: Duration = Duration::from_mins(15);
const HOUR: Duration = Duration::from_hours(1);

/// So many codes may be tried for one account in an hour.
const CODES_MAX: u32 = 10;

/// So many passwords may be tried for one account in an hour, from all networks together: more than one network can.
const EVERYWHERE_MAX: u32 = 100;

/// So many links may be asked for one address in an hour.
const LINKS_MAX: u32 = 3;

/// What is tried for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A password, to sign in.
    SignIn,
    /// A password, by who is signed in.
    Confirm,
    /// A code of the second factor.
    Code,
    /// To be sent a link.
    Link,
}

/// What is tried from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A password or a code.
    SignIn,
    /// A link.
    Token,
}

impl Accounts {
    /// Whether somebody there may try again.
    ///
    /// # Errors
    ///
    /// 429, and when that is over.
    pub(super) async fn allow_from(&self, client: &Client, from: From) -> http::Result<()> {
        let Some(network) = client.network() else {
            return Ok(());
        };
        let name = match from {
            From::SignIn => "network",
            From::Token => "token",
        };
        let at_most = self.settings().network_attempts_max;
        self.allow(format!("{name}\n{network}"), (at_most, MINUTE))
            .await
    }

    /// Whether somebody there may try another password for whom has this e-mail address, there or not.
    ///
    /// # Errors
    ///
    /// 429, and when that is over.
    pub(super) async fn allow_sign_in(&self, client: &Client, email: &str) -> http::Result<()> {
        let limit = (self.settings().account_attempts_max, QUARTER);
        self.allow(sign_in_key(client, email), limit).await?;
        self.allow_for(email, Attempt::SignIn).await
    }

    /// It was right: what was counted there is forgotten.
    pub(super) async fn signed_in(&self, client: &Client, email: &str) {
        if let Some(counts) = self.counts() {
            counts.delete(sign_in_key(client, email)).await;
        }
    }

    /// Whether it may be tried again for whom has this e-mail address, there or not.
    ///
    /// # Errors
    ///
    /// 429, and when that is over.
    pub(super) async fn allow_for(&self, email: &str, attempt: Attempt) -> http::Result<()> {
        let limit = match attempt {
            // Never less than what one network may do.
            Attempt::SignIn => {
                let one = self.settings().account_attempts_max.saturating_mul(8);
                (EVERYWHERE_MAX.max(one), HOUR)
            }
            Attempt::Confirm => (self.settings().account_attempts_max, QUARTER),
            Attempt::Code => (CODES_MAX, HOUR),
            Attempt::Link => (LINKS_MAX, HOUR),
        };
        self.allow(key(email, attempt), limit).await
    }

    /// It was right: what was counted before is forgotten.
    pub(super) async fn succeeded(&self, email: &str, attempt: Attempt) {
        if let Some(counts) = self.counts() {
            counts.delete(key(email, attempt)).await;
        }
    }

    async fn allow(&self, key: String, (at_most, per): (u32, Duration)) -> http::Result<()> {
        let Some(counts) = self.counts() else {
            return Ok(());
        };
        let refused = counts.allow(key, at_most, per).await;
        refused.map_err(|refused| http::Error::too_many(refused.retry_after))
    }

    fn counts(&self) -> Option<Cache> {
        Some(self.cache()?.namespace("auth"))
    }
}

fn sign_in_key(client: &Client, email: &str) -> String {
    let network = client.network().unwrap_or_default();
    format!("{}\n{network}", key(email, Attempt::SignIn))
}

/// Of one length, whatever was entered.
fn key(email: &str, attempt: Attempt) -> String {
    let name = match attempt {
        Attempt::SignIn => "sign-in",
        Attempt::Confirm => "confirm",
        Attempt::Code => "code",
        Attempt::Link => "link",
    };
    format!("{name}\n{}", Key::of(email.as_bytes()).to_hex())
}
