//! The command `health`.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::print;
use crate::error::Error;
use crate::error::Result;
use crate::http;

/// All of it: less than what a platform gives a health check.
const TIME: Duration = Duration::from_millis(1500);

/// The longest first line of an answer.
const LINE_BYTES_MAX: u64 = 256;

/// Asks the site of this machine whether it is up. Nothing is opened, and no runtime is started: it runs every other
/// second.
pub(super) fn run(settings: &http::Settings) -> Result<()> {
    let (host, port) = (host(&settings.host), settings.port);
    if port == 0 {
        let reason = "server.port is 0, so nobody knows the port";
        return Err(Error::Unsound(reason.to_owned()));
    }
    let (sender, answer) = mpsc::sync_channel(1);
    let address = (host.clone(), port);
    // On a thread of its own, since a name may take any time to be found.
    thread::spawn(move || sender.send(ask(address)));
    let problem = match answer.recv_timeout(TIME) {
        Ok(Ok(status)) if status == "200" => return print("up\n"),
        Ok(Ok(status)) => format!("answered {status}"),
        Ok(Err(error)) => format!("does not answer: {error}"),
        Err(_) => format!("did not answer within {} ms", TIME.as_millis()),
    };
    let reason = format!("the site at {host} port {port} {problem}");
    Err(Error::Unsound(reason))
}

/// Where a site that listens on `host` is reached from its own machine.
fn host(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    }
}

/// Asks for `/up` and returns the status of the answer.
fn ask(address: (String, u16)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /up HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.ok_or_else(|| std::io::Error::other("that was not HTTP"))?;
    Ok(status.to_owned())
}
