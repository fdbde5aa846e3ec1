//! Checks against real listeners on the loopback, one for each way to fail.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::*;

pub(super) const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

#[derive(Clone, Copy)]
pub(super) enum Ending {
    Close,
    Hang,
}

/// Starts a server that sends `answer` to every request; returns its address.
async fn server(answer: impl Into<Vec<u8>>, ending: Ending) -> String {
    let port = server_at("127.0.0.1", answer, ending).await;
    format!("http://127.0.0.1:{port}/")
}

/// The same at an IP address; returns its port.
pub(super) async fn server_at(ip: &str, answer: impl Into<Vec<u8>>, ending: Ending) -> u16 {
    let answer = answer.into();
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone(), ending));
        }
    });
    port
}

async fn redirect(location: &str) -> String {
    let head = format!("HTTP/1.1 301 Moved\r\nlocation: {location}\r\n");
    server(format!("{head}content-length: 0\r\n\r\n"), Ending::Close).await
}

async fn serve(mut stream: TcpStream, answer: Vec<u8>, ending: Ending) {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).await;
    // The client may stop reading early; that is its right.
    let _sent = stream.write_all(&answer).await;
    if matches!(ending, Ending::Hang) {
        sleep(Duration::from_mins(1)).await;
    }
}

pub(super) fn target(address: impl Into<String>) -> Target {
    Target {
        method: Method::Get,
        address: address.into(),
        expected_status: 200,
        body_text: None,
        timeout: Duration::from_secs(5),
    }
}

async fn failure(target: &Target) -> Failure {
    probe(target, Network::any()).await.failure.unwrap()
}

#[tokio::test]
async fn an_answer_as_expected_is_no_failure() {
    let mut target = target(server(OK, Ending::Close).await);
    target.body_text = Some("ell".to_owned());
    let finding = probe(&target, Network::any()).await;
    assert_eq!((finding.status, finding.failure), (Some(200), None));
    assert!(finding.duration < target.timeout);
}

#[tokio::test]
async fn every_method_is_answered() {
    let address = server(OK, Ending::Close).await;
    for method in Method::ALL {
        let target = Target {
            method,
            ..target(&address)
        };
        assert_eq!(
            probe(&target, Network::any()).await.failure,
            None,
            "{method:?}"
        );
    }
}

#[tokio::test]
async fn another_status_is_told() {
    let answer = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";
    let finding = probe(&target(server(answer, Ending::Close).await), Network::any()).await;
    assert_eq!(finding.status, Some(500));
    let failure = finding.failure.unwrap();
    assert_eq!(
        (failure.cause, &*failure.detail),
        (Cause::Status, "expected 200, got 500")
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_late() {
    let timeout = Duration::from_millis(200);
    let target = Target {
        timeout,
        ..target(server("", Ending::Hang).await)
    };
    let finding = probe(&target, Network::any()).await;
    assert!(finding.duration >= timeout && finding.duration < timeout * 5);
    let failure = finding.failure.unwrap();
    assert_eq!(
        (failure.cause, &*failure.detail),
        (Cause::Timeout, "no answer within 200 ms")
    );
}

#[tokio::test]
async fn a_body_that_never_ends_is_late() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello";
    let timeout = Duration::from_millis(200);
    let target = Target {
        timeout,
        ..target(server(answer, Ending::Hang).await)
    };
    let finding = probe(&target, Network::any()).await;
    assert_eq!(finding.status, Some(200));
    let failure = finding.failure.unwrap();
    assert_eq!(failure.cause, Cause::Timeout);
    assert_eq!(failure.detail, "the body was not complete within 200 ms");
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_closed() {
    let failure = failure(&target(server("", Ending::Close).await)).await;
    assert_eq!(failure.cause, Cause::Closed, "{failure:?}");
}

#[tokio::test]
async fn a_connection_closed_within_the_body_is_closed() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello";
    let failure = failure(&target(server(answer, Ending::Close).await)).await;
    assert_eq!(failure.cause, Cause::Closed, "{failure:?}");
}

#[tokio::test]
async fn a_connection_closed_within_the_handshake_is_closed() {
    let address = server("", Ending::Close).await.replace("http:", "https:");
    let failure = failure(&target(address)).await;
    assert_eq!(failure.cause, Cause::Closed, "{failure:?}");
}

#[tokio::test]
async fn nobody_listening_is_a_failed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let failure = failure(&target(address)).await;
    assert_eq!(
        (failure.cause, &*failure.detail),
        (Cause::Connect, "connection refused")
    );
}

#[tokio::test]
async fn plain_http_where_https_is_asked_is_a_tls_failure() {
    let address = server(OK, Ending::Close).await.replace("http:", "https:");
    let failure = failure(&target(address)).await;
    assert_eq!(failure.cause, Cause::Tls, "{failure:?}");
    assert_eq!(failure.detail, "the server does not speak TLS here");
}

#[tokio::test]
async fn an_unknown_name_is_a_dns_failure() {
    let failure = failure(&target("http://something.invalid/")).await;
    assert_eq!(failure.cause, Cause::Dns, "{failure:?}");
}

#[tokio::test]
async fn five_redirects_are_followed_and_a_sixth_is_too_many() {
    let mut address = server(OK, Ending::Close).await;
    for _ in 0..5 {
        address = redirect(&address).await;
    }
    assert_eq!(probe(&target(&address), Network::any()).await.failure, None);
    let failure = failure(&target(redirect(&address).await)).await;
    assert_eq!(
        (failure.cause, &*failure.detail),
        (Cause::Redirects, "more than 5 redirects")
    );
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let failure = failure(&target(redirect("/").await)).await;
    assert_eq!(failure.cause, Cause::Redirects);
}

#[tokio::test]
async fn an_expected_redirect_is_not_followed() {
    let address = redirect("/").await;
    let target = Target {
        expected_status: 301,
        ..target(address)
    };
    assert_eq!(probe(&target, Network::any()).await.failure, None);
}

#[tokio::test]
async fn a_redirect_away_from_http_is_a_protocol_failure() {
    let failure = failure(&target(redirect("ftp://a/").await)).await;
    assert_eq!(failure.cause, Cause::Protocol, "{failure:?}");
}

#[tokio::test]
async fn something_that_is_not_http_is_a_protocol_failure() {
    let failure = failure(&target(
        server("SSH-2.0-OpenSSH_9.9\r\n", Ending::Close).await,
    ))
    .await;
    assert_eq!(failure.cause, Cause::Protocol, "{failure:?}");
}

#[tokio::test]
async fn a_missing_text_is_told() {
    let mut target = target(server(OK, Ending::Close).await);
    target.body_text = Some("welcome".to_owned());
    let failure = failure(&target).await;
    assert_eq!(failure.cause, Cause::MissingText);
    assert_eq!(failure.detail, "\"welcome\" is not in a body of 5 bytes");
}

#[tokio::test]
async fn a_text_at_the_limit_is_found_and_one_beyond_it_is_not() {
    for (before, found) in [(BODY_BYTES_MAX - 3, true), (BODY_BYTES_MAX - 2, false)] {
        let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        answer.resize(answer.len() + before, b'.');
        answer.extend_from_slice(b"end");
        answer.resize(answer.len() + BODY_BYTES_MAX, b'.');
        let mut target = target(server(answer, Ending::Close).await);
        target.body_text = Some("end".to_owned());
        assert_eq!(
            probe(&target, Network::any()).await.failure.is_none(),
            found,
            "after {before} bytes"
        );
    }
}
