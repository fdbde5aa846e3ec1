//! Whose word on a visitor is taken: the setting `server.trusted_proxies`.

use std::net::IpAddr;

use ipnet::IpNet;

/// This machine, and the networks that are nobody's on the internet: RFC 1918, 6598, 3927, 4193 and 4291.
const PRIVATE: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Reads networks, addresses and `private`; gives back what is none of these.
    pub(super) fn parse(texts: &[String]) -> Result<Self, &str> {
        let mut networks = Vec::new();
        for text in texts {
            if text == "private" {
                networks.extend(PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok()));
            } else {
                let address = text.parse::<IpAddr>().map(IpNet::from);
                let network = text.parse::<IpNet>().or(address);
                networks.push(network.map_err(|_| text.as_str())?);
            }
        }
        Ok(Self(networks))
    }

    /// Whether it is the address of one of them.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(texts: &[&str]) -> Proxies {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Proxies::parse(&texts).unwrap()
    }

    #[test]
    fn private_networks_are_private_and_others_are_not() {
        let private = proxies(&["private"]);
        assert_eq!(private.0.len(), PRIVATE.len());
        let cases = [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.255.255.255", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("8.8.8.8", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
        ];
        for (address, expected) in cases {
            assert_eq!(
                private.trusts(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn networks_and_addresses_may_be_named() {
        let named = proxies(&["203.0.113.0/24", "2001:db8::7"]);
        assert!(named.trusts("203.0.113.9".parse().unwrap()));
        assert!(named.trusts("2001:db8::7".parse().unwrap()));
        assert!(!named.trusts("2001:db8::8".parse().unwrap()));
        assert!(!named.trusts("127.0.0.1".parse().unwrap()));
        assert_eq!(
            Proxies::parse(&["private".to_owned(), "proxy".to_owned()]),
            Err("proxy")
        );
        assert!(!proxies(&[]).trusts("127.0.0.1".parse().unwrap()));
    }
}
