//! How checks reach an address: the HTTP clients that all of them share, and which addresses these go to.
//!
//! Whoever adds a monitor says where the site's own machine connects to, and sees what came back. So private networks are
//! out of reach unless the operator allows them. The address that is looked at is the one that is connected to: a name is
//! resolved for each connection, once, and what it gives is sifted before the client sees it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::Client;
use reqwest::Url;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use reqwest::redirect::Action;
use reqwest::redirect::Attempt;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use tokio::time::timeout;

use crate::site::probe::address::is_public;

const USER_AGENT: &str = concat!("houseboat-status/", env!("CARGO_PKG_VERSION"));

/// Enough for http → https → www → language, and a loop ends soon.
const REDIRECTS_MAX: usize = 5;

/// How long a form waits to hear where a name leads.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

/// What the client says when an address keeps sending it on.
#[derive(Debug, thiserror::Error)]
#[error("more than {REDIRECTS_MAX} redirects")]
pub(super) struct TooManyRedirects;

/// What the client says instead of connecting. It does not name the address: that may be nobody's business.
#[derive(Debug, thiserror::Error)]
#[error("the address is on a private network, which this site does not check")]
pub(super) struct PrivateAddress;

/// What may be reached: a rule for addresses.
type Rule = fn(IpAddr) -> bool;

static ANY: LazyLock<Network> = LazyLock::new(|| Network::new(System, |_| true));
static PUBLIC: LazyLock<Network> = LazyLock::new(|| Network::new(System, is_public));

/// What checks can reach, and how.
pub(crate) struct Network {
    following: Client,
    staying: Client,
    guard: Arc<Guard>,
}

impl Network {
    /// All that the machine can reach.
    pub(crate) fn any() -> &'static Self {
        &ANY
    }

    /// The internet, and nothing that is nearer.
    pub(crate) fn public() -> &'static Self {
        &PUBLIC
    }

    pub(super) fn new(names: impl Resolve + 'static, may_reach: Rule) -> Self {
        let guard = Arc::new(Guard {
            names: Box::new(names),
            may_reach,
        });
        let follow = move |attempt: Attempt<'_>| follow(attempt, may_reach);
        Self {
            following: client(Policy::custom(follow), &guard),
            staying: client(Policy::none(), &guard),
            guard,
        }
    }

    /// The client that follows no redirect: what it is given goes to no other address.
    pub(crate) fn direct(&self) -> &Client {
        &self.staying
    }

    /// The client for an expected status: a redirect that is expected is not followed.
    pub(super) fn client(&self, expected: u16) -> &Client {
        match expected {
            300..=399 => &self.staying,
            _ => &self.following,
        }
    }

    /// Refuses an address that needs no name to be resolved.
    pub(super) fn refuse(&self, address: &str) -> Result<(), PrivateAddress> {
        match Url::parse(address) {
            Ok(url) => refuse(&url, self.guard.may_reach),
            // The client says what is wrong with it.
            Err(_) => Ok(()),
        }
    }

    /// Whether an address is out of reach, as far as that is known now: what a name gives may change.
    pub(crate) async fn is_out_of_reach(&self, address: &str) -> bool {
        if self.refuse(address).is_err() {
            return true;
        }
        let url = Url::parse(address).ok();
        let name = url.as_ref().and_then(Url::host_str);
        let Some(Ok(name)) = name.map(str::parse) else {
            return false;
        };
        match timeout(RESOLVE_TIME, self.guard.resolve(name)).await {
            Ok(Err(error)) => error.is::<PrivateAddress>(),
            // Nobody knows; the check will.
            Ok(Ok(_)) | Err(_) => false,
        }
    }
}

/// Stands between the names and the client.
struct Guard {
    names: Box<dyn Resolve>,
    may_reach: Rule,
}

impl Resolve for Guard {
    /// Only what may be reached, and an error if that is nothing.
    fn resolve(&self, name: Name) -> Resolving {
        let (found, may_reach) = (self.names.resolve(name), self.may_reach);
        Box::pin(async move {
            let all: Vec<SocketAddr> = found.await?.collect();
            let reachable = all.iter().filter(|address| may_reach(address.ip()));
            let reachable: Vec<SocketAddr> = reachable.copied().collect();
            if reachable.is_empty() && !all.is_empty() {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}

/// The names as the machine knows them.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// An address that is written as numbers goes by no resolver. However it is written, `Url` has made it plain.
fn refuse(url: &Url, may_reach: Rule) -> Result<(), PrivateAddress> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    match host.parse() {
        Ok(address) if !may_reach(address) => Err(PrivateAddress),
        _ => Ok(()),
    }
}

fn follow(attempt: Attempt<'_>, may_reach: Rule) -> Action {
    // The address itself is the first of the previous ones.
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(TooManyRedirects);
    }
    match refuse(attempt.url(), may_reach) {
        Ok(()) => attempt.follow(),
        Err(error) => attempt.error(error),
    }
}

fn client(redirects: Policy, guard: &Arc<Guard>) -> Client {
    Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(tls())
        .redirect(redirects)
        .dns_resolver(Arc::clone(guard))
        // A referer would tell one monitored site about another.
        .referer(false)
        // A proxy would resolve names itself.
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
