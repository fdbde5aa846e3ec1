//! What a connection may cost.

use std::net::IpAddr;
use std::time::Duration;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

use crate::http::Settings;
use crate::http::proxies::Proxies;

/// Files that are open beside the connections: databases, their readers, the log, connections to elsewhere.
const OTHER_FILES: u64 = 512;

/// Proxies keep connections for longer than visitors do, and a request that meets one just as it is closed is lost.
const IDLE_OF_PROXIES: Duration = Duration::from_mins(5);

/// What a connection may cost, and how many there may be.
#[derive(Clone, Debug)]
pub(in crate::http) struct Limits {
    pub(super) connections_max: usize,
    /// How many of one network, unless they are proxies.
    pub(super) share_max: usize,
    pub(super) idle: Duration,
    pub(super) head: Duration,
    pub(super) unread: Duration,
    /// How fast an answer has to be taken, where it is waited for that.
    pub(super) bytes_per_s_min: u64,
    pub(super) head_bytes_max: usize,
    proxies: Option<Proxies>,
}

impl Limits {
    /// For those who come from anywhere.
    pub(in crate::http) fn visitors(settings: &Settings) -> Self {
        Self {
            connections_max: settings.connections_max,
            share_max: (settings.connections_max / 2).max(1),
            idle: Duration::from_millis(settings.idle_timeout_ms),
            head: Duration::from_millis(settings.header_timeout_ms),
            unread: Duration::from_millis(settings.write_timeout_ms),
            bytes_per_s_min: settings.body_bytes_per_s_min,
            head_bytes_max: settings.header_bytes_max,
            proxies: Some(settings.proxies()),
        }
    }

    /// For other containers of the site.
    pub(in crate::http) fn peers(settings: &Settings) -> Self {
        Self {
            proxies: None,
            ..Self::visitors(settings)
        }
    }

    /// Whether a request has to say which host it asks for. Other containers ask questions that are for none.
    pub(super) fn needs_host(&self) -> bool {
        self.proxies.is_some()
    }

    /// Whether many visitors may come by this address.
    pub(super) fn is_shared(&self, address: IpAddr) -> bool {
        let trusts = |proxies: &Proxies| proxies.trusts(address);
        self.proxies.as_ref().is_none_or(trusts)
    }

    pub(super) fn idle_of(&self, is_shared: bool) -> Duration {
        if is_shared {
            self.idle.max(IDLE_OF_PROXIES)
        } else {
            self.idle
        }
    }

    /// Makes room for as many files as connections are allowed, or allows as many as there is room for.
    pub(super) fn fit(&mut self) {
        let wanted = u64::try_from(self.connections_max).map_or(u64::MAX, |max| max + OTHER_FILES);
        let limit = getrlimit(Resource::Nofile);
        let maximum = limit.maximum.unwrap_or(u64::MAX);
        let mut current = limit.current.unwrap_or(u64::MAX);
        if current < wanted {
            let raised = Rlimit {
                current: Some(wanted.min(maximum)),
                maximum: limit.maximum,
            };
            if setrlimit(Resource::Nofile, raised).is_ok() {
                current = wanted.min(maximum);
            }
        }
        if current >= wanted {
            return;
        }
        let room = current.saturating_sub(OTHER_FILES).max(current / 2).max(1);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        tracing::warn!(
            connections_max = room,
            setting = self.connections_max,
            files_max = current,
            "the system lets this process open fewer files than server.connections_max asks for: raise its limit, as with `ulimit -n`"
        );
        self.connections_max = room;
        self.share_max = (room / 2).max(1);
    }
}
