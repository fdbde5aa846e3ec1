//! The HTTP clients that all checks share.

use std::sync::Arc;
use std::sync::LazyLock;

use reqwest::Client;
use reqwest::redirect::Action;
use reqwest::redirect::Attempt;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;

const USER_AGENT: &str = concat!("houseboat-status/", env!("CARGO_PKG_VERSION"));

/// Enough for http → https → www → language, and a loop ends soon.
const REDIRECTS_MAX: usize = 5;

/// What the client says when an address keeps sending it on.
#[derive(Debug, thiserror::Error)]
#[error("more than {REDIRECTS_MAX} redirects")]
pub(super) struct TooManyRedirects;

static FOLLOWING: LazyLock<Client> = LazyLock::new(|| client(Policy::custom(follow)));
static STAYING: LazyLock<Client> = LazyLock::new(|| client(Policy::none()));

/// Returns the client that follows no redirect: what it is given goes to no other address.
pub(crate) fn direct() -> &'static Client {
    &STAYING
}

/// Returns the client for an expected status: a redirect that is expected is not followed.
pub(super) fn for_status(expected: u16) -> &'static Client {
    match expected {
        300..=399 => &STAYING,
        _ => &FOLLOWING,
    }
}

fn follow(attempt: Attempt<'_>) -> Action {
    // The address itself is the first of the previous ones.
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error(TooManyRedirects)
    } else {
        attempt.follow()
    }
}

fn client(redirects: Policy) -> Client {
    Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(tls())
        .redirect(redirects)
        // A referer would tell one monitored site about another.
        .referer(false)
        .no_proxy()
        // Every check connects anew, or else names and certificates would go unchecked for hours.
        .pool_max_idle_per_host(0)
        .build()
        .expect("the settings are constants, and a test builds them")
}

fn tls() -> ClientConfig {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
