//! Whatever a peer answers, a check of it is a finding, and a true one.
//!
//! `fuzz/` thinks up the answers; those that it kept are looked at by the ordinary tests, too. The first byte of an input
//! chooses what is expected, the second one how it is asked; the rest is what each connection is answered.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::site::probe::Cause;
use crate::site::probe::Failure;
use crate::site::probe::Finding;
use crate::site::probe::Method;
use crate::site::probe::Network;
use crate::site::probe::Target;
use crate::site::probe::probe;

/// Nobody else's, so that an answer that sends a check elsewhere sends it nowhere.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1));

const STATUSES: [u16; 4] = [200, 204, 301, 404];
const TEXT: &str = "ell";

/// Between what one connection is answered and the next.
const SEPARATOR: &[u8] = b"\n=====\n";

/// The address itself, and five redirects.
const CONNECTIONS_MAX: usize = 6;

struct Stage {
    runtime: Runtime,
    network: Network,
    listener: TcpListener,
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

/// Looks at one input.
pub(crate) fn holds(data: &[u8]) {
    let [expected, how, answers @ ..] = data else {
        return;
    };
    STAGE.with(|stage| {
        let stage = stage.get_or_init(Stage::new);
        stage.runtime.block_on(stage.look(*expected, *how, answers));
    });
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((HOME, 0)));
        Self {
            runtime,
            network: Network::new(Nowhere, |address| address == HOME),
            listener: listener.expect("a port"),
        }
    }

    async fn look(&self, expected: u8, how: u8, answers: &[u8]) {
        let answers = split(answers);
        let port = self.listener.local_addr().expect("it listens").port();
        let scheme = if how & 0x80 == 0 { "http" } else { "https" };
        let target = Target {
            method: Method::ALL[usize::from(how) % Method::ALL.len()],
            address: format!("{scheme}://{HOME}:{port}/"),
            expected_status: STATUSES[usize::from(expected) % STATUSES.len()],
            body_text: (expected & 0x80 != 0).then(|| TEXT.to_owned()),
            timeout: Duration::from_secs(10),
        };
        let mut connections = 0;
        let finding = tokio::select! {
            finding = probe(&target, &self.network) => finding,
            () = self.serve(&answers, &mut connections) => unreachable!("it goes on"),
        };
        assert!(connections <= CONNECTIONS_MAX, "{connections} connections");
        is_true(
            &target,
            &finding,
            &answers[..answers.len().min(connections)],
        );
    }

    /// Answers each connection, and the last answer is for all that come after it.
    async fn serve(&self, answers: &[&[u8]], connections: &mut usize) {
        loop {
            let (stream, _) = self.listener.accept().await.expect("it listens");
            let answer = answers[(*connections).min(answers.len() - 1)];
            *connections += 1;
            send(stream, answer).await;
        }
    }
}

/// Who closes before all is read resets the connection, and the answer may be lost.
async fn send(mut stream: TcpStream, answer: &[u8]) {
    let mut request = Vec::new();
    let is_head = |request: &[u8]| request.ends_with(b"\r\n\r\n") || request.starts_with(b"\x16");
    while !is_head(&request) {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    // The client may stop reading early; that is its right.
    let _sent = stream.write_all(answer).await;
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    let separator = |window: &[u8]| window == SEPARATOR;
    while let Some(at) = rest.windows(SEPARATOR.len()).position(separator) {
        answers.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    answers.push(rest);
    answers
}

fn is_true(target: &Target, finding: &Finding, answers: &[&[u8]]) {
    assert!(finding.duration < target.timeout, "{finding:?}");
    let has = |text: &str| {
        let is_there = |window: &[u8]| window.eq_ignore_ascii_case(text.as_bytes());
        answers
            .iter()
            .any(|answer| answer.windows(text.len()).any(is_there))
    };
    if let Some(status) = finding.status {
        assert!((100..=999).contains(&status), "{finding:?}");
        assert!(has(&format!(" {status}")), "{finding:?}: nobody said so");
    }
    let is_expected = finding.status == Some(target.expected_status);
    let Some(Failure { cause, detail }) = &finding.failure else {
        assert!(is_expected, "{finding:?}");
        // In chunks, a text may be in two.
        let is_there = target.body_text.is_none() || has(TEXT) || has("chunked");
        assert!(is_there, "{finding:?} without {TEXT:?}");
        assert!(target.address.starts_with("http:"), "{finding:?}");
        return;
    };
    assert!(
        !detail.is_empty() && detail.chars().count() <= 200,
        "{detail:?}"
    );
    assert!(!detail.contains(char::is_control), "{detail:?}");
    assert_eq!(Cause::parse(cause.as_str()), Some(*cause));
    match cause {
        Cause::Status => assert!(finding.status.is_some() && !is_expected, "{finding:?}"),
        Cause::MissingText => assert!(is_expected && target.body_text.is_some(), "{finding:?}"),
        Cause::Closed | Cause::Protocol => {}
        Cause::Redirects => assert!(has("location"), "{finding:?}"),
        Cause::Tls => assert!(target.address.starts_with("https:"), "{finding:?}"),
        Cause::Dns | Cause::Private | Cause::Connect => {
            assert!(has("location"), "{finding:?}: it was sent nowhere");
        }
        Cause::Timeout => panic!("nobody made it wait: {finding:?}"),
    }
}

/// No name is known.
struct Nowhere;

impl Resolve for Nowhere {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Err("there is no such name".into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!("../../../fuzz/properties/corpus.rs");

    #[test]
    fn every_answer_that_was_kept_is_found_out() {
        for input in corpus("answers") {
            holds(&input);
        }
    }
}
