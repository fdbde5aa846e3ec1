//! The command that a container's health check runs.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;

/// Asks the site at this port, from a folder where nothing may be made.
fn health(port: &str, host: &str) -> Printed {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("HOUSEBOAT_SERVER__PORT", port),
        ("HOUSEBOAT_SERVER__HOST", host),
    ];
    let printed = run(folder.path(), &["health"], &variables);
    let made = folder.path().read_dir().unwrap().count();
    assert_eq!(made, 0, "the health check made a file: {printed:?}");
    printed
}

fn assert_fails(printed: &Printed, reason: &str) {
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.err.contains(reason), "{reason}: {printed:?}");
    assert_eq!(printed.err.lines().count(), 1, "{printed:?}");
}

/// A server that answers one request with `answer`, or with nothing and keeps the visitor waiting.
fn server(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /up HTTP/1.1\r\n"));
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
            // Until the visitor hangs up.
            None => _ = stream.read(&mut request),
        }
    });
    port
}

#[tokio::test]
async fn a_site_that_is_up_is_healthy() {
    let site = TestProcess::start().await;
    let (_, port) = site.address().rsplit_once(':').unwrap();
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let printed = health(port, host);
        assert_eq!(
            (printed.code, printed.out.as_str()),
            (Some(0), "up\n"),
            "{printed:?}"
        );
    }
}

#[test]
fn nobody_there_is_not_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    assert_fails(&health(&port, "127.0.0.1"), "does not answer: ");
    assert_fails(&health("0", "127.0.0.1"), "server.port is 0");
}

#[test]
fn a_site_that_is_stopping_is_not_healthy() {
    let port = server(Some(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
    ));
    assert_fails(&health(&port, "127.0.0.1"), "answered 503");
}

#[test]
fn what_is_no_site_is_not_healthy() {
    let port = server(Some("SSH-2.0-OpenSSH_9.2\r\n"));
    assert_fails(&health(&port, "127.0.0.1"), "that was not HTTP");
    let port = server(Some(""));
    assert_fails(&health(&port, "127.0.0.1"), "that was not HTTP");
}

#[test]
fn a_site_that_hangs_is_not_healthy_and_is_not_waited_for() {
    let begin = Instant::now();
    assert_fails(
        &health(&server(None), "127.0.0.1"),
        "did not answer within 1500 ms",
    );
    // A platform gives it two seconds; a busy machine may need some of its own.
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}
