//! Bodies and queries as forms, parts, files and JSON: read or refused, and what is read is what was sent.
//!
//! The first byte of an input says what it is sent as, the second one in pieces of how many bytes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Json as Plain;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use garde::Validate;
use houseboat::Context;
use houseboat::http::Form;
use houseboat::http::Json;
use houseboat::http::Query;
use houseboat::http::Result;
use houseboat::http::Upload;
use houseboat::http::Uploads;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_encode;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

const URLENCODED: &str = "application/x-www-form-urlencoded";
const BOUNDARY: &str = "----Between";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The hidden field by which a form is known; no field of anybody's.
const ONCE: &str = "_once";
const FIELDS_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 200;
const FILE_BYTES_MAX: usize = 64;
const JSON_DEPTH_MAX: usize = 32;

type Fields = BTreeMap<String, Vec<String>>;

/// Whatever fields there are.
#[derive(Deserialize, Validate)]
struct All(#[garde(skip)] Fields);

#[derive(Debug, Deserialize, Serialize, Validate)]
struct Typed {
    #[garde(length(chars, max = 5))]
    a: String,
    #[garde(range(max = 7))]
    b: Option<u8>,
    #[garde(skip)]
    #[serde(default)]
    c: Vec<i64>,
    #[garde(skip)]
    #[serde(default)]
    d: bool,
    #[garde(skip)]
    #[serde(default)]
    e: Option<f64>,
}

/// A file as it came.
#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Came {
    field: String,
    media: String,
    bytes: Vec<u8>,
}

struct Stage {
    runtime: Runtime,
    site: InProcess,
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

/// Looks at one input.
pub(crate) fn holds(data: &[u8]) {
    let [kind, piece, body @ ..] = data else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    STAGE.with(|stage| {
        let Stage { runtime, site } = stage.get_or_init(Stage::new);
        runtime.block_on(async {
            match kind % 7 {
                0 => urlencoded(site, body).await,
                1 => typed(site, body).await,
                2 => query(site, body).await,
                3 => json(site, body).await,
                4 => parts(site, body, piece).await,
                5 => any_media(site, body).await,
                _ => encoded(site, body, piece).await,
            }
        });
    });
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let site = runtime.block_on(InProcess::new(routes()));
        Self { runtime, site }
    }
}

fn routes() -> Router<Context> {
    let uploads = Uploads::new(&["image/png", "text/plain"])
        .file_bytes_max(FILE_BYTES_MAX)
        .files_max(2);
    let all = async |form: Form<All>| Ok::<_, houseboat::http::Error>(Plain(form.check()?.0));
    Router::new()
        .route("/all", post(all))
        .route("/typed", post(form).put(form))
        .route("/upload", post(upload).layer(uploads))
        .route("/json", post(async |Json(typed): Json<Typed>| Json(typed)))
        .route(
            "/query",
            get(async |Query(typed): Query<Typed>| Plain(typed)),
        )
}

async fn form(form: Form<Typed>) -> Response {
    match form.check() {
        Ok(typed) => Plain(typed).into_response(),
        Err(wrong) => {
            assert!(!wrong.errors.is_empty());
            let sentences = wrong.errors.iter().all(|(_, text)| text.ends_with('.'));
            assert!(sentences, "{:?}", wrong.errors);
            wrong.into_response()
        }
    }
}

async fn upload(upload: Upload<All>) -> Result<Plain<(Fields, Vec<Came>)>> {
    let fields = upload.check()?.0;
    let mut files = Vec::new();
    for file in upload.files() {
        let bytes = file.bytes().await?.to_vec();
        assert!(!bytes.is_empty() && bytes.len() <= FILE_BYTES_MAX);
        assert_eq!(bytes.len(), file.size());
        assert!(["image/png", "text/plain"].contains(&file.media()));
        assert!(!file.name().contains(['/', '\\', '\0', '\n', '\r']));
        files.push(Came {
            field: file.field().to_owned(),
            media: file.media().to_owned(),
            bytes,
        });
    }
    Ok(Plain((fields, files)))
}

async fn send(site: &InProcess, path: &str, media: &[u8], body: impl Into<Body>) -> Answer {
    let request = Request::post(path)
        .header("host", "site.test")
        .header("accept", "application/json")
        .header("content-type", media)
        .body(body.into())
        .unwrap();
    seen(site.send(request).await)
}

/// What holds for every answer.
fn seen(answer: Answer) -> Answer {
    let text = answer.text();
    assert!(
        [200, 400, 413, 415, 422].contains(&answer.status),
        "{} {text}",
        answer.status
    );
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    if answer.status != 200 {
        assert_eq!(said["status"], answer.status, "{text}");
        assert!(said["detail"].as_str().unwrap().ends_with('.'), "{text}");
    }
    if answer.status == 422 {
        let errors = said["errors"].as_array().unwrap();
        assert!(!errors.is_empty() && errors.len() <= 101, "{text}");
    }
    answer
}

fn read<'a, T: Deserialize<'a>>(answer: &'a Answer) -> T {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The fields of a body as the standard has them; by a status where it is none.
fn expected(body: &[u8]) -> Result<Fields, u16> {
    let mut fields = Fields::new();
    let mut count = 0;
    for pair in body.split(|byte| *byte == b'&').filter(|it| !it.is_empty()) {
        let mut sides = pair.splitn(2, |byte| *byte == b'=');
        let name = decoded(sides.next().unwrap_or_default()).ok_or(400_u16)?;
        let value = decoded(sides.next().unwrap_or_default()).ok_or(400_u16)?;
        count += 1;
        if count > FIELDS_MAX || name.len() > NAME_BYTES_MAX {
            return Err(413);
        }
        fields.entry(name).or_default().push(value);
    }
    fields.remove(ONCE);
    Ok(fields)
}

fn decoded(bytes: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = bytes
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let mut escapes = spaced.split(|byte| *byte == b'%').skip(1);
    let is_escape = |after: &[u8]| {
        let digits = after.get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.all(is_escape) {
        return None;
    }
    let bytes = percent_encoding::percent_decode(&spaced);
    let text = bytes.decode_utf8().ok()?.into_owned();
    (!text.contains('\0')).then_some(text)
}

fn escaped(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}

fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    pairs.join("&")
}

fn flat(fields: &Fields) -> impl Iterator<Item = (&str, &str)> {
    fields.iter().flat_map(|(name, values)| {
        let values = values.iter();
        values.map(move |value| (name.as_str(), value.as_str()))
    })
}

async fn urlencoded(site: &InProcess, body: &[u8]) {
    let answer = send(site, "/all", URLENCODED.as_bytes(), body.to_vec()).await;
    let fields = match expected(body) {
        Err(status) => return assert_eq!(answer.status, status, "{}", answer.text()),
        Ok(fields) => fields,
    };
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(read::<Fields>(&answer), fields);
    // The same in parts, where names need no escapes.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if !fields.keys().all(|name| name.chars().all(is_plain)) {
        return;
    }
    let Some(body) = in_parts(&fields, &[]) else {
        return;
    };
    let answer = send(site, "/all", media().as_bytes(), body).await;
    assert_eq!(read::<Fields>(&answer), fields);
}

/// What is read into a type is the same when it is sent as it was read.
async fn typed(site: &InProcess, body: &[u8]) {
    let answer = send(site, "/typed", URLENCODED.as_bytes(), body.to_vec()).await;
    if answer.status != 200 {
        return;
    }
    let typed: Typed = read(&answer);
    assert!(typed.validate().is_ok(), "{typed:?}");
    let mut pairs = vec![("a", typed.a.clone()), ("d", typed.d.to_string())];
    pairs.extend(typed.b.map(|b| ("b", b.to_string())));
    pairs.extend(typed.c.iter().map(|c| ("c", c.to_string())));
    pairs.extend(typed.e.map(|e| ("e", format!("{e:?}"))));
    let body = encode(pairs.iter().map(|(name, value)| (*name, value.as_str())));
    let again = send(site, "/typed", URLENCODED.as_bytes(), body).await;
    assert_eq!(again.text(), answer.text());
}

/// A query is read as a body is.
async fn query(site: &InProcess, body: &[u8]) {
    let Ok(uri) = axum::http::Uri::try_from([b"/query?", body].concat()) else {
        return;
    };
    // What comes after a # does not reach a server.
    let query = uri.query().unwrap_or_default().to_owned();
    let request = Request::get(uri)
        .header("host", "site.test")
        .header("accept", "application/json");
    let answer = seen(site.send(request.body(Body::empty()).unwrap()).await);
    let other = send(site, "/typed", URLENCODED.as_bytes(), query.clone()).await;
    if other.status == 200 && !query.contains(ONCE) {
        assert_eq!(answer.text(), other.text());
    }
    if answer.status == 200 {
        // The rules are not a query's.
        assert!([200, 422].contains(&other.status), "{}", other.text());
    }
}

async fn json(site: &InProcess, body: &[u8]) {
    let answer = send(site, "/json", b"application/json", body.to_vec()).await;
    if answer.status == 400 && answer.text().contains("deep") {
        let opened = body.iter().filter(|byte| b"[{".contains(byte)).count();
        return assert!(opened > JSON_DEPTH_MAX);
    }
    match serde_json::from_slice::<Typed>(body) {
        Ok(typed) if typed.validate().is_ok() => {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.body, serde_json::to_vec(&typed).unwrap());
        }
        Ok(_) => assert_eq!(answer.status, 422, "{}", answer.text()),
        Err(error) if error.is_data() => assert_eq!(answer.status, 422, "{error}"),
        Err(error) => assert_eq!(answer.status, 400, "{error}"),
    }
}

/// In pieces of any size, parts are the same.
async fn parts(site: &InProcess, body: &[u8], piece: usize) {
    for path in ["/all", "/upload"] {
        let whole = send(site, path, media().as_bytes(), body.to_vec()).await;
        let pieces = send(site, path, media().as_bytes(), in_pieces(body, piece)).await;
        assert_eq!(whole.status, pieces.status, "{path} by {piece}");
        let (mut whole, mut pieces): (Value, Value) = (read(&whole), read(&pieces));
        for said in [&mut whole, &mut pieces] {
            // Each request has its own.
            said.as_object_mut().map(|said| said.remove("request_id"));
        }
        assert_eq!(whole, pieces, "{path} by {piece}");
    }
}

/// The first line is the media type.
async fn any_media(site: &InProcess, body: &[u8]) {
    let mut lines = body.splitn(2, |byte| *byte == b'\n');
    let media = lines.next().unwrap_or_default();
    let body = lines.next().unwrap_or_default();
    if axum::http::HeaderValue::from_bytes(media).is_err() {
        return;
    }
    for path in ["/all", "/typed", "/upload", "/json"] {
        send(site, path, media, body.to_vec()).await;
    }
}

/// Fields and files, encoded as a browser does it: a line each, and a file is one that begins with a quote.
async fn encoded(site: &InProcess, body: &[u8], piece: usize) {
    let (mut fields, mut files) = (Fields::new(), Vec::new());
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let name = format!("f{}", number % 3);
        if let Some(bytes) = line.strip_prefix(b"\"") {
            let bytes = [PNG, bytes].concat();
            files.push(Came {
                field: name,
                media: "image/png".to_owned(),
                bytes,
            });
        } else {
            let text = String::from_utf8_lossy(line).replace('\0', "");
            fields.entry(name).or_default().push(text);
        }
    }
    let Some(body) = in_parts(&fields, &files) else {
        return;
    };
    let answer = send(site, "/upload", media().as_bytes(), in_pieces(&body, piece)).await;
    let is_small = files.iter().all(|file| file.bytes.len() <= FILE_BYTES_MAX);
    let count = flat(&fields).count() + files.len();
    if count > FIELDS_MAX || !is_small || files.len() > 2 {
        let refused = [413, 422].contains(&answer.status);
        return assert!(refused, "{}", answer.text());
    }
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(read::<(Fields, Vec<Came>)>(&answer), (fields, files));
}

fn media() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// `None` where what is between the parts is in one of them.
fn in_parts(fields: &Fields, files: &[Came]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut add = |head: &str, bytes: &[u8]| {
        let is_in = |window: &[u8]| window == BOUNDARY.as_bytes();
        if bytes.windows(BOUNDARY.len()).any(is_in) {
            return None;
        }
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
        Some(())
    };
    for (name, value) in flat(fields) {
        add(&format!("name=\"{name}\""), value.as_bytes())?;
    }
    for file in files {
        let head = format!("name=\"{}\"; filename=\"f.png\"", file.field);
        add(&head, &file.bytes)?;
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    Some(body)
}

fn in_pieces(body: &[u8], piece: usize) -> Body {
    let pieces = body.chunks(piece).map(|piece| Ok(piece.to_vec()));
    let pieces: Vec<Result<Vec<u8>, Infallible>> = pieces.collect();
    Body::from_stream(futures_util::stream::iter(pieces))
}
