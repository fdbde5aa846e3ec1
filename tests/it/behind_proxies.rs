//! Real proxies in front: nginx and Caddy, with TLS.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use houseboat::Context;
use houseboat::http::Client;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::support::containers::Container;
use crate::support::ledger::example;
use crate::support::process::TestProcess;
use crate::support::served::Served;
use crate::support::waiting::all_tests_are_wanted;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;
use crate::support::websocket;

const PATIENCE: Duration = Duration::from_secs(20);

/// A process has 10 s for its end, of which open connections are to take none.
const STOP: Duration = Duration::from_secs(5);

/// A proxy, killed when dropped.
struct Proxy {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts `program` in a folder of its own, with `files` in it.
    async fn start(
        program: &str,
        arguments: &[&str],
        files: impl Fn(&Path, u16) -> Vec<(&'static str, String)>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        for (name, text) in files(folder.path(), address.port()) {
            let mut file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut proxy = Self {
            child,
            folder,
            address,
        };
        let listens = async || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", proxy.log());
            tokio::net::TcpStream::connect(address).await.ok()
        };
        drop(wait_for("a proxy that listens", PATIENCE, listens).await);
        proxy
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Asks as a visitor at 127.0.0.2; gives the headers of the answer and its body.
    async fn ask(&self, path: &str, arguments: &[&str]) -> String {
        let port = self.address.port();
        let output = tokio::process::Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--insecure",
                "--include",
                "--http1.1",
                "--max-time",
                "20",
            ])
            .args(["--noproxy", "*", "--interface", "127.0.0.2"])
            .args(["--resolve", &format!("site.example:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://site.example:{port}{path}"))
            .output()
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

async fn nginx(to: SocketAddr) -> Proxy {
    Proxy::start("nginx", &["-p", ".", "-c", "nginx.conf", "-e", "log"], |folder, port| {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=site.example"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path f;\nuwsgi_temp_path u;\nscgi_temp_path s;\n\
             upstream site {{ server {to}; keepalive 8; }}\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
             server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate cert.pem;\nssl_certificate_key key.pem;\n\
             location / {{\nproxy_pass http://site;\nproxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection $connection_upgrade;\n\
             proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_set_header X-Forwarded-Proto $scheme;\n}}\n}}\n}}\n"
        );
        vec![("nginx.conf", text)]
    })
    .await
}

async fn caddy(to: &str) -> Proxy {
    Proxy::start(
        "caddy",
        &["run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        |_, port| {
            let text = format!(
                "{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\n}}\n\
             https://site.example:{port} {{\nbind 127.0.0.1\ntls internal\nreverse_proxy {to}\n}}\n"
            );
            vec![("Caddyfile", text)]
        },
    )
    .await
}

fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let has = found.is_ok_and(|it| it.status.success());
    assert!(has || !all_tests_are_wanted(), "there is no {program}");
    has
}

fn routes() -> Router<Context> {
    let who = get(async |client: Client, request: Request| {
        let Client {
            address, is_https, ..
        } = &client;
        format!(
            "{address} {is_https} {} {:?}\n",
            client.host,
            request.version()
        )
    });
    Router::new().route("/who", who.post(async || "written\n"))
}

/// A site that trusts this machine's own address, and not its visitors'.
async fn site() -> Served {
    let settings = [
        ("HOUSEBOAT_ENV", "production"),
        ("APP_URL", "https://site.example"),
        ("HOUSEBOAT_SERVER__TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
    ];
    Served::with(routes(), &settings).await
}

/// What a visitor says of itself arrives at nobody.
const FORGED: [&str; 4] = [
    "-HX-Forwarded-For: 6.6.6.6",
    "-HX-Forwarded-Proto: http",
    "-HForwarded: for=6.6.6.6;proto=http;host=evil.example",
    "-HX-Forwarded-Host: evil.example",
];

async fn check(proxy: &Proxy, version: &str) {
    let port = proxy.address.port();
    let expected = format!("127.0.0.2 true site.example:{port} {version}\n");
    let answer = proxy.ask("/who", &[]).await;
    assert!(answer.ends_with(&expected), "{answer}");
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("strict-transport-security: max-age="),
        "{answer}"
    );
    for forged in &FORGED[..2] {
        let answer = proxy.ask("/who", &[forged]).await;
        assert!(answer.ends_with(&expected), "{forged}: {answer}");
    }
    let own = format!("-HOrigin: https://site.example:{port}");
    let answer = proxy.ask("/who", &["-XPOST", &own]).await;
    assert!(answer.ends_with("written\n"), "{answer}");
    let other = "-HOrigin: https://evil.example";
    let answer = proxy.ask("/who", &["-XPOST", other]).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn nginx_in_front() {
    if !has("nginx") || !has("openssl") || !has("curl") {
        return;
    }
    let site = site().await;
    let to = site.address;
    let proxy = nginx(to).await;
    check(&proxy, "HTTP/1.1").await;
    // nginx passes these on as the visitor wrote them. They change nothing but for the visitor itself.
    let answer = proxy.ask("/who", &[FORGED[2]]).await;
    assert!(
        answer.ends_with(&format!(
            "127.0.0.1 false site.example:{} HTTP/1.1\n",
            proxy.address.port()
        )),
        "{answer}"
    );
    let answer = proxy.ask("/who", &[FORGED[3]]).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn caddy_in_front_by_both_versions_of_http() {
    if !has("caddy") || !has("curl") {
        return;
    }
    let site = site().await;
    let to = site.address;
    for (scheme, version) in [("http", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let proxy = caddy(&format!("{scheme}://{to}")).await;
        check(&proxy, version).await;
        // Caddy sends neither of these on.
        let expected = format!(
            "127.0.0.2 true site.example:{} {version}\n",
            proxy.address.port()
        );
        let answer = proxy.ask("/who", &[FORGED[3]]).await;
        assert!(answer.ends_with(&expected), "{answer}");
    }
}

/// A visitor's connection through a proxy, whose bytes are the test's own.
struct Socket {
    openssl: tokio::process::Child,
}

impl Socket {
    /// Asks for a `WebSocket`, as in the example of RFC 6455, and gives the status.
    async fn open(proxy: &Proxy) -> (Self, String) {
        let openssl = tokio::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-servername", "site.example"])
            .args(["-alpn", "http/1.1", "-connect", &proxy.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut socket = Self { openssl };
        let port = proxy.address.port();
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: site.example:{port}\r\nOrigin: https://site.example:{port}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.send(request.as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(socket.read(1).await);
        }
        let head = String::from_utf8(head).unwrap();
        (socket, head)
    }

    async fn send(&mut self, bytes: &[u8]) {
        let stdin = self.openssl.stdin.as_mut().unwrap();
        stdin.write_all(bytes).await.unwrap();
        stdin.flush().await.unwrap();
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let stdout = self.openssl.stdout.as_mut().unwrap();
        let read = timeout(PATIENCE, stdout.read_exact(&mut bytes)).await;
        read.unwrap().unwrap();
        bytes
    }

    /// Opens one, and sends a message again and again.
    async fn talk(proxy: &Proxy) -> Self {
        let (mut socket, head) = Self::open(proxy).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}{}", proxy.log());
        let accepts = head.to_ascii_lowercase();
        let accept = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
        assert!(accepts.contains(accept), "{head}");
        for _ in 0..3 {
            socket.says_hello().await;
        }
        socket
    }

    async fn says_hello(&mut self) {
        // "Hello", masked, is an example of RFC 6455 as well.
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        self.send(masked).await;
        assert_eq!(self.read(7).await, b"\x81\x05Hello");
    }

    /// Waits until the other side has ended it.
    async fn is_over(&mut self) {
        let stdout = self.openssl.stdout.as_mut().unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, stdout.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

/// nginx and Caddy, those that there are, in front of `to`.
async fn proxies(to: SocketAddr) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    if has("nginx") && has("openssl") {
        proxies.push(nginx(to).await);
    }
    if has("caddy") && has("openssl") {
        proxies.push(caddy(&format!("http://{to}")).await);
    }
    proxies
}

#[tokio::test]
async fn a_websocket_goes_through_a_proxy_and_ends_with_the_process() {
    if !slow("a_websocket_goes_through_a_proxy_and_ends_with_the_process") {
        return;
    }
    let program = example("socket");
    let mut process = TestProcess::builder()
        .program(&program)
        .variable("APP_URL", "https://site.example")
        .start()
        .await;
    let proxies = proxies(process.address().parse().unwrap()).await;
    let mut sockets = Vec::new();
    for proxy in &proxies {
        sockets.push(Socket::talk(proxy).await);
    }
    // One that has said nothing for a while is nobody's slow request.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for socket in &mut sockets {
        socket.says_hello().await;
    }
    process.terminate();
    let status = process.wait(STOP).await;
    assert!(status.success(), "{status}\n{}", process.log());
    for socket in &mut sockets {
        socket.is_over().await;
    }
}

#[tokio::test]
async fn a_websocket_is_handed_over_and_ends_with_the_container_that_passes_it_on() {
    let (a, b) = (Container::start().await, Container::start().await);
    let routes = Router::new().route("/socket", get(websocket::echo));
    b.front.serve(routes);
    a.front.pass(b.peer());
    let proxies = proxies(a.visitors).await;
    let mut sockets = Vec::new();
    for proxy in &proxies {
        sockets.push(Socket::talk(proxy).await);
    }
    let began = Instant::now();
    a.shut().await;
    for socket in &mut sockets {
        socket.is_over().await;
    }
    // What is still open at the other end keeps nobody, either.
    b.shut().await;
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
}
