//! Where other containers reach this one.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::http::HandoverSettings;

/// The kernel's own list of IPv4 addresses; in a container, those of every network that it is in.
const IPV4: &str = "/proc/net/fib_trie";
/// And of IPv6.
const IPV6: &str = "/proc/net/if_inet6";

/// A machine with more has them for other things.
const ADDRESSES_MAX: usize = 16;

/// Where others reach what listens at `bound`, each as `host:port`.
///
/// It is what the settings say, or else what it is bound to, or else every address of this machine, at most 16;
/// loopback only where there is no other.
#[must_use]
pub fn addresses(settings: &HandoverSettings, bound: SocketAddr) -> Vec<String> {
    if settings.address != "auto" {
        return vec![settings.address.clone()];
    }
    if !bound.ip().is_unspecified() {
        return vec![bound.to_string()];
    }
    let mut found: Vec<IpAddr> = of_trie(&fs::read_to_string(IPV4).unwrap_or_default());
    if bound.is_ipv6() {
        found.extend(of_if_inet6(&fs::read_to_string(IPV6).unwrap_or_default()));
    }
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    let port = bound.port();
    let addresses = found.into_iter();
    addresses
        .map(|ip| SocketAddr::new(ip, port).to_string())
        .collect()
}

/// `|-- 172.18.0.2` and below it `/32 host LOCAL`, once for each of two tables.
fn of_trie(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !address.is_loopback()
            && !address.is_link_local()
            && !found.contains(&address.into())
        {
            found.push(address.into());
        }
    }
    found
}

/// `fd000000000000000000000000000002 02 40 00 80 eth0`: the address, the interface, the prefix, the scope (00 is any
/// that leaves the link), the flags.
fn of_if_inet6(text: &str) -> Vec<IpAddr> {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let far = lines.filter(|fields| fields.get(3) == Some(&"00"));
    let addresses = far.filter_map(|fields| u128::from_str_radix(fields[0], 16).ok());
    addresses
        .map(|bits| Ipv6Addr::from_bits(bits).into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 127.255.255.255
              /32 link BROADCAST
        |-- 172.18.0.0
           /16 link UNICAST
           |-- 172.18.0.2
              /32 host LOCAL
           |-- 169.254.3.4
              /32 host LOCAL
Local:
           |-- 172.18.0.2
              /32 host LOCAL
           |-- 172.19.0.2
              /32 host LOCAL
";

    const IF_INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fd001234000000000000000000000002 02 40 00 80     eth0
fe80000000000000004211fffe120002 02 40 20 80     eth0
";

    #[test]
    fn the_kernels_lists_are_read() {
        let shown = |found: Vec<IpAddr>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(of_trie(TRIE)), ["172.18.0.2", "172.19.0.2"]);
        assert_eq!(shown(of_if_inet6(IF_INET6)), ["fd00:1234::2"]);
        assert!(of_trie("nonsense\n|-- x\n/32 host LOCAL").is_empty());
    }

    #[test]
    fn what_is_given_comes_before_what_is_found() {
        let mut settings = HandoverSettings::default();
        let bound = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            addresses(&settings, bound("10.1.2.3:8001")),
            ["10.1.2.3:8001"]
        );
        assert_eq!(addresses(&settings, bound("[::1]:8001")), ["[::1]:8001"]);
        let found = addresses(&settings, bound("0.0.0.0:8001"));
        assert!(!found.is_empty() && found.iter().all(|address| address.ends_with(":8001")));
        settings.address = "box:8001".to_owned();
        assert_eq!(addresses(&settings, bound("0.0.0.0:9")), ["box:8001"]);
    }
}
