//! The heads of requests: cookies, hosts, what proxies say, ranges, conditions, codings.
//!
//! The first line of an input is who asks, the method and the address, as in `proxy GET /client`; then come headers, a
//! line each, an empty line, and a body.

use std::cell::OnceCell;
use std::io::Read;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::Request;
use axum::http::Uri;
use axum::http::header;
use axum::response::Redirect;
use axum::routing::get;
use axum::routing::post;
use houseboat::App;
use houseboat::Context;
use houseboat::auth::Auth;
use houseboat::auth::User;
use houseboat::http::Assets;
use houseboat::http::Client;
use houseboat::http::Download;
use houseboat::http::Flash;
use houseboat::http::PageCache;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

const STRANGER: &str = "203.0.113.9";
const PROXY: &str = "10.0.0.1";
/// For whom a proxy speaks that is asked to.
const VISITOR: &str = "198.51.100.77";

const HEADERS_MAX: usize = 40;
const FORWARDED: [&str; 4] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
];

const STYLE: &[u8] = include_bytes!("../../assets/site.css");
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n0123456789abcdef";

/// Long enough to be compressed.
const PAGE: &str = include_str!("../../LICENSE-MIT");

/// What the handler was told.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Said {
    address: IpAddr,
    is_https: bool,
    host: String,
}

struct Stage {
    runtime: Runtime,
    site: InProcess,
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
struct Asked {
    peer: Option<IpAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

/// Looks at one input.
pub(crate) fn holds(data: &[u8]) {
    let Some(asked) = Asked::read(data) else {
        return;
    };
    STAGE.with(|stage| {
        let Stage { runtime, site } = stage.get_or_init(Stage::new);
        runtime.block_on(look(site, &asked));
    });
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let assets = Assets::new(&[("site.css", STYLE), ("picture.png", PICTURE)]);
        let app = App::new("test")
            .auth(Auth::default())
            .routes(routes())
            .assets(assets);
        let variables = [
            ("HOUSEBOAT_ENV", "production"),
            ("HOUSEBOAT_SERVER__URL", "https://site.test"),
            ("HOUSEBOAT_SERVER__HOSTS", "[\"*.site.test\"]"),
        ];
        let site = runtime.block_on(InProcess::with(app, &variables));
        Self { runtime, site }
    }
}

fn routes() -> Router<Context> {
    let page = || async { PAGE };
    let kept = get(page).layer(PageCache::new(Duration::from_hours(1)));
    let said = async |client: Client| {
        Json(Said {
            address: client.address,
            is_https: client.is_https,
            host: client.host,
        })
    };
    let told = async |flash: Flash| {
        let texts = flash.messages().iter().map(|it| it.text.clone());
        Json(texts.collect::<Vec<_>>())
    };
    let tell = async |text: String| (Flash::notice(text), Redirect::to("/flash"));
    let download = async |uri: Uri| {
        let name = percent_decode_str(uri.query().unwrap_or_default()).decode_utf8_lossy();
        Download::new(name, "text/plain", "text")
    };
    let user = async |user: Option<User>| {
        assert!(user.is_none(), "nobody has signed in");
        "nobody"
    };
    Router::new()
        .route("/client", get(said).post(said))
        .route("/page", get(page))
        .route("/kept", kept)
        .route("/flash", get(told))
        .route("/tell", post(tell))
        .route("/download", get(download))
        .route("/user", get(user))
}

impl Asked {
    fn read(data: &[u8]) -> Option<Self> {
        let (head, body) = match data.windows(2).position(|window| window == b"\n\n") {
            Some(end) => (&data[..end], &data[end + 2..]),
            None => (data, &b""[..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let mut words = first.splitn(3, ' ');
        let peer = match words.next()? {
            "proxy" => Some(PROXY.parse().unwrap()),
            "stranger" => Some(STRANGER.parse().unwrap()),
            _ => None,
        };
        let method = words.next()?.parse().ok()?;
        let uri = words.next()?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.take(HEADERS_MAX) {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            headers.append(name, value);
        }
        // The server's business, below all of this.
        for name in ["content-length", "transfer-encoding", "expect", "upgrade"] {
            headers.remove(name);
        }
        Some(Self {
            peer,
            method,
            uri,
            headers,
            body: body.to_vec(),
        })
    }

    async fn send(&self, site: &InProcess) -> Answer {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(peer) = self.peer {
            let peer = ConnectInfo(SocketAddr::new(peer, 4711));
            request.extensions_mut().insert(peer);
        }
        site.send(request).await
    }

    fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    fn is_proxy(&self) -> bool {
        self.peer == Some(PROXY.parse().unwrap())
    }
}

async fn look(site: &InProcess, asked: &Asked) {
    let answer = asked.send(site).await;
    for_all(asked, &answer);
    let plain = decoded(asked, &answer);
    let path = asked.uri.path();
    // The body of what is not gotten is not there.
    if asked.method == Method::GET {
        match path {
            "/page" | "/kept" if answer.status == 200 => assert_eq!(plain, PAGE.as_bytes()),
            "/assets/site.css" => file(asked, &answer, &plain, STYLE),
            "/assets/picture.png" => file(asked, &answer, &plain, PICTURE),
            "/download" if answer.status == 200 => download(asked, &answer),
            "/flash" if answer.status == 200 => flash(&answer, &plain),
            "/client" if answer.status == 200 => client(site, asked, &plain).await,
            _ => {}
        }
    }
    if path == "/tell" && answer.status == 303 {
        told(site, asked, &answer).await;
    }
    let site_of_sender: Vec<_> = asked.headers.get_all("sec-fetch-site").iter().collect();
    if asked.method == Method::POST
        && ["cross-site", "same-site"]
            .iter()
            .any(|it| site_of_sender == [it])
    {
        assert!(![200, 303].contains(&answer.status), "another site's");
    }
}

/// What holds whatever was asked.
fn for_all(asked: &Asked, answer: &Answer) {
    let text = answer.text();
    match answer.status {
        // As it was asked for (RFC 9111, 5.2.1.7).
        504 => assert!(asked.has("cache-control") && asked.uri.path() == "/kept"),
        // It has no owner yet.
        503 => assert!(
            asked.uri.path() == "/account" || asked.uri.path().starts_with("/account/"),
            "{text}"
        ),
        status => assert!(status < 500, "{status} {text}"),
    }
    for name in ["content-security-policy", "x-frame-options"] {
        assert!(!answer.header(name).is_empty(), "{name} is missing");
    }
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let id = answer.header("x-request-id");
    assert!(id.len() == 16 && !asked.headers.values().any(|it| it == id));
    if !asked.is_proxy() {
        assert_eq!(answer.header("strict-transport-security"), "");
    }
    let is_head = asked.method == Method::HEAD;
    if is_head && answer.status == 200 || answer.status == 304 {
        assert!(answer.body.is_empty());
    } else if is_head {
        // The server leaves away the pages of errors.
    } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
        assert_eq!(answer.body.len(), length);
    }
    if answer.status == 304 {
        assert!(asked.has("if-none-match") || asked.has("if-modified-since"));
    }
    if answer.status == 206 {
        assert!(asked.has("range") && asked.method == Method::GET);
    }
    // A page for a host is that of the site's own; how it is, is nobody's secret.
    if answer.status == 200 && !["/up", "/ready"].contains(&asked.uri.path()) {
        let names = FORWARDED.iter().chain(&["host"]);
        let mut values = names.flat_map(|name| asked.headers.get_all(*name));
        let is_named = |text: &[u8]| {
            let mut text = text.to_ascii_lowercase();
            // In quotes, any letter may have one before it.
            text.retain(|byte| *byte != b'\\');
            text.windows(9).any(|window| window == b"site.test")
        };
        let of_uri = asked
            .uri
            .authority()
            .is_some_and(|it| is_named(it.as_str().as_bytes()));
        assert!(
            of_uri || values.any(|value| is_named(value.as_bytes())),
            "whose host?"
        );
    }
}

/// The body as it was before it was compressed, in a way that was asked for.
fn decoded(asked: &Asked, answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    let coding = answer.header("content-encoding");
    if !coding.is_empty() {
        let mut accepted = asked.headers.get_all(header::ACCEPT_ENCODING).iter();
        let is_accepted = accepted.any(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            value.contains(&b'*')
                || value
                    .windows(coding.len())
                    .any(|it| it == coding.as_bytes())
        });
        assert!(is_accepted, "{coding} was not asked for");
    }
    let mut body = &answer.body[..];
    match coding {
        _ if body.is_empty() => {}
        "" => plain = body.to_vec(),
        "gzip" => {
            let mut reader = flate2::read::GzDecoder::new(body);
            reader.read_to_end(&mut plain).unwrap();
        }
        "br" => brotli::BrotliDecompress(&mut body, &mut plain).unwrap(),
        coding => panic!("{coding} is nothing that we write"),
    }
    plain
}

/// All of a file, a part of it, or nothing; never anything else.
fn file(asked: &Asked, answer: &Answer, plain: &[u8], file: &[u8]) {
    let range = answer.header("content-range");
    match answer.status {
        200 => {
            assert_eq!(plain, file);
            assert_eq!(range, "");
        }
        206 => {
            let range = range.strip_prefix("bytes ").unwrap();
            let (range, all) = range.split_once('/').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(all, file.len().to_string());
            assert_eq!(answer.body, file[first..=last]);
            assert_eq!(answer.header("content-encoding"), "");
        }
        416 => {
            assert!(asked.has("range"));
            assert_eq!(range, format!("bytes */{}", file.len()));
        }
        304 => assert!(!answer.header("etag").is_empty()),
        412 => assert!(asked.has("if-match")),
        400 | 421 => {}
        status => panic!("{status} for a file"),
    }
}

fn download(asked: &Asked, answer: &Answer) {
    let name = percent_decode_str(asked.uri.query().unwrap_or_default()).decode_utf8_lossy();
    let said = answer.header("content-disposition");
    let (plain, whole) = said.split_once("; filename*=UTF-8''").unwrap();
    assert_eq!(percent_decode_str(whole).decode_utf8().unwrap(), name);
    assert!(plain.starts_with("attachment; filename=\"") && plain.ends_with('"'));
    assert_eq!(plain.matches(['"', '\\']).count(), 2, "{plain}");
}

/// Messages are plain, and their cookies are taken away.
fn flash(answer: &Answer, plain: &[u8]) {
    let texts: Vec<String> = serde_json::from_slice(plain).unwrap();
    assert!(
        texts.iter().all(|text| !text.contains(char::is_control)),
        "{texts:?}"
    );
    for (pair, rest) in answer.cookies() {
        let word = pair.strip_prefix("__Host-flash-").unwrap();
        assert!(word.len() == 9 && word.ends_with('='), "{pair}");
        assert!(rest.contains("Max-Age=0"), "{rest}");
    }
}

/// What was said is read by the next page, without what is no text.
async fn told(site: &InProcess, asked: &Asked, answer: &Answer) {
    let Some((pair, rest)) = answer.cookies().into_iter().next() else {
        return;
    };
    assert!(rest.contains("HttpOnly; SameSite=Lax; Secure"), "{rest}");
    assert!(pair.len() <= 1_024, "{}", pair.len());
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("site.test"));
    headers.insert("cookie", pair.parse().unwrap());
    let next = Asked {
        peer: None,
        method: Method::GET,
        uri: Uri::from_static("/flash"),
        headers,
        body: Vec::new(),
    };
    let answer = next.send(site).await;
    let texts: Vec<String> = serde_json::from_slice(&answer.body).unwrap();
    let sent: String = String::from_utf8_lossy(&asked.body)
        .chars()
        .filter(|char| !char.is_control())
        .collect();
    match &texts[..] {
        [] => assert!(sent.is_empty(), "{sent:?} was not told"),
        // The whole, or what there is room for.
        [text] => assert!(sent.starts_with(text) && (*text == sent || pair.len() > 1_000)),
        _ => panic!("{texts:?}"),
    }
}

/// Who asks is the peer, or who a trusted peer says, and nobody else.
async fn client(site: &InProcess, asked: &Asked, plain: &[u8]) {
    let said: Said = serde_json::from_slice(plain).unwrap();
    let is_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.:".contains(c);
    assert!(said.host.chars().all(is_host), "{}", said.host);
    let name = said.host.split(':').next().unwrap_or_default();
    assert!(
        name == "site.test" || name.ends_with(".site.test"),
        "{name}"
    );
    if asked.is_proxy() {
        return behind_proxy(site, asked).await;
    }
    let peer = asked.peer.unwrap_or_else(|| "0.0.0.0".parse().unwrap());
    assert_eq!((said.address, said.is_https), (peer, false));
    // Without all that it says of itself, a stranger is the same.
    let mut bare = asked.clone();
    for name in FORWARDED {
        bare.headers.remove(name);
    }
    let answer = bare.send(site).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        serde_json::from_slice::<Said>(&decoded(&bare, &answer)).unwrap(),
        said
    );
}

/// A proxy adds whom it speaks for; then nothing that was there before makes it another one.
async fn behind_proxy(site: &InProcess, asked: &Asked) {
    for (name, value) in [
        ("x-forwarded-for", VISITOR.to_owned()),
        ("forwarded", format!("for={VISITOR};host=a.site.test")),
    ] {
        let mut asked = asked.clone();
        asked.headers.append(name, value.parse().unwrap());
        let answer = asked.send(site).await;
        for_all(&asked, &answer);
        if answer.status != 200 {
            continue;
        }
        let said: Said = serde_json::from_slice(&decoded(&asked, &answer)).unwrap();
        let is_either = [VISITOR, PROXY].contains(&&*said.address.to_string());
        assert!(is_either, "{} by {name}", said.address);
        let has_other = FORWARDED.iter().any(|other| {
            let is_same_kind = (*other == "forwarded") == (name == "forwarded");
            !is_same_kind && asked.has(other)
        });
        if !has_other && name == "x-forwarded-for" {
            assert_eq!(said.address.to_string(), VISITOR);
        }
    }
}
