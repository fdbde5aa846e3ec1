//! Addresses on private networks, in every disguise: nothing ever connects to them.
//!
//! 127.0.0.2 plays a host on the internet, since no test should need one.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use tokio::net::TcpListener;

use super::address::is_public;
use super::tests::Ending;
use super::tests::OK;
use super::tests::server_at;
use super::tests::target;
use super::*;

const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The loopback, and other addresses of nobody's, as people and programs write them.
const SPELLINGS: &str = "
    127.0.0.1 127.1 127.0.1 0x7f.1 0x7F000001 0177.0.0.1 0177.1 2130706433 017700000001 127.000.000.001
    127.0.0.1. 0 0.0.0.0 0x0 127.255.255.254 [::1] [::] [0:0:0:0:0:0:0:1] [0000::0001]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [2002:7f00:1::]
    [::ffff:0:127.0.0.1] [fe80::1] [fc00::1] 10.0.0.1 10.1 192.168.1 172.16.0.1 169.254.169.254
    0xa9fea9fe 2852039166 100.64.0.1 [fd00:ec2::254] %31%32%37.0.0.1 127%2e0.0.1 127。0。0。1 127．0．0．1
    ①②⑦.0.0.1 １２７.0.0.1 127.0.0.1%2e user@127.0.0.1 example.org@127.0.0.1 example.org:80@127.0.0.1
    255.255.255.255 224.0.0.1
";

fn is_outside(address: IpAddr) -> bool {
    address == OUTSIDE || is_public(address)
}

/// Names with what they give, one answer after the other; the last one stays.
#[derive(Clone, Default)]
struct Names {
    answers: Arc<Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn add(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|one| one.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        let mut all = self.answers.lock().unwrap();
        all.insert(name.to_owned(), answers);
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let found = answers.get_mut(name.as_str());
        let addresses = match found {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0].clone(),
            None => return Box::pin(async { Err("no such name".into()) }),
        };
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
        let addresses: Vec<SocketAddr> = addresses.collect();
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
    }
}

/// A listener on the loopback's port of both families, which counts who comes.
struct Inside {
    port: u16,
    visits: Arc<AtomicUsize>,
}

impl Inside {
    async fn new() -> Self {
        let visits = Arc::new(AtomicUsize::new(0));
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        let mut listeners = vec![one];
        // A machine may have no IPv6.
        listeners.extend(TcpListener::bind(("::1", port)).await.ok());
        for listener in listeners {
            let visits = Arc::clone(&visits);
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

async fn is_private(address: &str, network: &Network) -> bool {
    match probe(&target(address), network).await.failure {
        Some(failure) if failure.cause == Cause::Private => {
            assert!(
                failure.detail.contains("is on a private network"),
                "{failure:?}"
            );
            true
        }
        _ => false,
    }
}

#[tokio::test]
async fn every_spelling_of_an_address_at_home_is_refused() {
    let inside = Inside::new().await;
    let network = Network::new(Names::default(), is_public);
    for host in SPELLINGS.split_whitespace() {
        for scheme in ["http", "https", "HTTP"] {
            let address = format!("{scheme}://{host}:{}/", inside.port);
            assert!(
                network.is_out_of_reach(&address).await,
                "{address} at the form"
            );
            assert!(is_private(&address, &network).await, "{address}");
        }
    }
    // In these, a browser sees no host, or another one.
    for address in [
        "http:\\\\127.0.0.1",
        "http:127.0.0.1",
        "http:///127.0.0.1",
        "http://\t127.0.0.1/",
    ] {
        assert!(is_private(address, &network).await, "{address}");
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn a_name_that_leads_home_is_refused() {
    let inside = Inside::new().await;
    let names = Names::default();
    names.add("home.test", &[&["127.0.0.1"]]);
    names.add("home6.test", &[&["::1", "::ffff:127.0.0.1"]]);
    names.add("cloud.test", &[&["169.254.169.254", "fd00:ec2::254"]]);
    let network = Network::new(names, is_outside);
    for name in ["home.test", "HOME.test", "home6.test", "cloud.test"] {
        let address = format!("http://{name}:{}/", inside.port);
        assert!(
            network.is_out_of_reach(&address).await,
            "{name} at the form"
        );
        assert!(is_private(&address, &network).await, "{name}");
    }
    // What nobody knows yet may be checked, and is no private network.
    assert!(!network.is_out_of_reach("http://unknown.test/").await);
    let failure = probe(&target("http://unknown.test/"), &network)
        .await
        .failure;
    assert_eq!(failure.unwrap().cause, Cause::Dns);
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn the_names_of_the_machine_itself_are_refused() {
    let inside = Inside::new().await;
    for name in ["localhost", "LOCALHOST"] {
        let address = format!("http://{name}:{}/", inside.port);
        assert!(
            Network::public().is_out_of_reach(&address).await,
            "{name} at the form"
        );
        assert!(is_private(&address, Network::public()).await, "{name}");
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    let inside = Inside::new().await;
    let names = Names::default();
    names.add("rebinding.test", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let network = Network::new(names.clone(), is_outside);
    let address = format!("http://rebinding.test:{}/", inside.port);
    assert!(!network.is_out_of_reach(&address).await);
    assert!(is_private(&address, &network).await);
    // The other way round, nothing is remembered either; and a name is asked for once for each connection.
    names.add("moved.test", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let port = server_at("127.0.0.2", OK, Ending::Close).await;
    let address = format!("http://moved.test:{port}/");
    assert!(is_private(&address, &network).await);
    let asked = names.asked.load(Ordering::SeqCst);
    assert_eq!(probe(&target(&address), &network).await.failure, None);
    assert_eq!(names.asked.load(Ordering::SeqCst), asked + 1);
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn of_several_addresses_only_those_outside_are_tried() {
    let inside = Inside::new().await;
    let names = Names::default();
    names.add(
        "both.test",
        &[&["127.0.0.1", "127.0.0.2", "::1", "10.0.0.1"]],
    );
    let network = Network::new(names, is_outside);
    // Nobody listens there, so all that may be tried is.
    let address = format!("http://both.test:{}/", inside.port);
    assert!(!network.is_out_of_reach(&address).await);
    let failure = probe(&target(&address), &network).await.failure.unwrap();
    assert_eq!(failure.cause, Cause::Connect, "{failure:?}");
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn a_redirect_home_is_not_followed() {
    let inside = Inside::new().await;
    let names = Names::default();
    names.add("home.test", &[&["127.0.0.1"]]);
    let network = Network::new(names, is_outside);
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "home.test",
        "127.0.0.1.",
        "me@127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "0",
    ] {
        for status in [
            "301 Moved",
            "302 Found",
            "303 See",
            "307 There",
            "308 There",
        ] {
            let to = format!("http://{host}:{}/", inside.port);
            let answer =
                format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let second = server_at("127.0.0.2", answer, Ending::Close).await;
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: //127.0.0.2:{second}/\r\ncontent-length: 0\r\n\r\n"
            );
            let first = server_at("127.0.0.2", answer, Ending::Close).await;
            for port in [second, first] {
                let address = format!("http://127.0.0.2:{port}/");
                assert!(is_private(&address, &network).await, "{status} to {to}");
            }
        }
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn where_it_is_allowed_the_same_is_reached() {
    let port = server_at("127.0.0.1", OK, Ending::Close).await;
    for host in ["127.0.0.1", "0x7f.1", "localhost", "2130706433"] {
        let address = format!("http://{host}:{port}/");
        assert!(!Network::any().is_out_of_reach(&address).await, "{host}");
        let finding = probe(&target(&address), Network::any()).await;
        assert_eq!(finding.failure, None, "{host}");
    }
}
