//! Bytes from outside: whatever comes, a form, parts, a cookie and JSON are read or refused, and never a mistake of ours.
//!
//! `FUZZ_S=600` goes on for so many seconds each, from another seed each time.

use std::fmt::Debug;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use axum::routing::post;
use garde::Validate;
use houseboat::http::Flash;
use houseboat::http::Form;
use houseboat::http::Json;
use houseboat::http::Query;
use houseboat::http::Upload;
use houseboat::http::Uploads;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde::Serialize;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;

const SEED: u64 = 20_261_121;
const CASES: u32 = 300;

#[derive(Debug, Deserialize, Serialize, Validate)]
struct Fields {
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

/// Says a form back, as it would be sent.
async fn form(form: Form<Fields>) -> String {
    match form.check() {
        Ok(fields) => {
            let c: Vec<String> = fields.c.iter().map(|c| format!("&c={c}")).collect();
            format!(
                "right a={} b={:?} d={}{}",
                fields.a,
                fields.b,
                fields.d,
                c.concat()
            )
        }
        Err(wrong) => {
            assert!(!wrong.errors.is_empty());
            let sentences = wrong.errors.iter().all(|(_, text)| text.ends_with('.'));
            assert!(sentences, "{:?}", wrong.errors);
            format!("wrong {}", wrong.input.get("a"))
        }
    }
}

async fn upload(upload: Upload<Fields>) -> String {
    for file in upload.files() {
        assert!(file.size() > 0 && file.size() <= 64);
        assert!(["image/png", "text/plain"].contains(&file.media()));
        assert_eq!(file.bytes().await.unwrap().len(), file.size());
    }
    format!("{:?} {}", upload.check().is_ok(), upload.files().len())
}

fn site(runtime: &tokio::runtime::Runtime) -> InProcess {
    let uploads = Uploads::new(&["image/png", "text/plain"])
        .file_bytes_max(64)
        .files_max(2);
    let routes = Router::new()
        .route("/form", post(form))
        .route("/upload", post(upload).layer(uploads))
        .route(
            "/json",
            post(async |Json(fields): Json<Fields>| Json(fields)),
        )
        .route("/query", get(async |Query(fields): Query<Fields>| fields.a))
        .route(
            "/flash",
            get(async |flash: Flash| format!("{:?}", flash.messages())),
        );
    runtime.block_on(InProcess::new(routes))
}

/// For how long, where somebody wants it long.
fn seconds() -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the tests that are configured, not the site"
    )]
    let value = std::env::var("FUZZ_S").ok();
    value.and_then(|value| value.parse().ok())
}

/// Asks with what is thought up, and looks at every answer.
fn fuzz<I: Debug>(input: impl Strategy<Value = I>, ask: &impl AsyncFn(&InProcess, I) -> Answer) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let site = site(&runtime);
    let end = seconds().map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut seed = SEED;
    loop {
        let config = Config {
            cases: CASES,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            ..Config::default()
        };
        let ran = TestRunner::new(config).run(&input, |input| {
            let answer = runtime.block_on(ask(&site, input));
            prop_assert!(
                [200, 400, 404, 413, 415, 422].contains(&answer.status),
                "{} {}",
                answer.status,
                answer.text()
            );
            prop_assert!(!answer.text().contains("panicked"));
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        match end {
            Some(end) if Instant::now() < end => seed = fastrand::u64(..),
            _ => return,
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

/// Pieces of what is meant, in any order, and bytes between them.
fn soup(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let piece = prop_oneof![8 => word, 1 => vec(any::<u8>(), 0..4), 1 => "\\PC{0,8}".prop_map(String::into_bytes)];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

const FORM: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "=",
    "=",
    "&",
    "&",
    "+",
    "%",
    "%41",
    "%C3%A9",
    "%ff",
    "%00",
    "1",
    "7",
    "8",
    "-1",
    "on",
    "1e9",
    "nan",
    "_once",
    "99999999999999999999",
    "[]",
    "a=1&a=2&",
];

#[test]
fn any_bytes_are_a_form_or_refused() {
    let media = ["content-type: application/x-www-form-urlencoded"];
    fuzz(prop_oneof![bytes(), soup(FORM)], &async |site, body| {
        site.ask("POST", "/form", &media, body).await
    });
}

#[test]
fn any_query_is_read_or_refused() {
    fuzz(soup(FORM), &async |site, query| {
        let is_plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"=&%+-_[]".contains(byte);
        let query: Vec<u8> = query.iter().filter(is_plain).copied().collect();
        site.get(&format!("/query?{}", String::from_utf8(query).unwrap()))
            .await
    });
}

/// A form that is right, encoded byte by byte, comes back as it was.
#[test]
fn what_is_encoded_comes_back() {
    let fields = (
        "\\PC{0,5}",
        prop::option::of(0_u8..=7),
        any::<bool>(),
        vec(any::<i64>(), 0..4),
    );
    let media = ["content-type: application/x-www-form-urlencoded"];
    fuzz(fields, &async |site, (a, b, d, c)| {
        let escape = |text: &str| {
            let bytes: Vec<String> = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            bytes.concat()
        };
        let all: Vec<String> = c.iter().map(|c| format!("&c={c}")).collect();
        let all = all.concat();
        let b_text = b.map_or_else(String::new, |b| b.to_string());
        let body = format!("a={}&b={b_text}&d={d}{all}", escape(&a));
        let answer = site.ask("POST", "/form", &media, body).await;
        assert_eq!(answer.text(), format!("right a={a} b={b:?} d={d}{all}"));
        answer
    });
}

const PARTS: &[&str] = &[
    "--B",
    "--B\r\n",
    "--B\r\n",
    "--B--\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r\n--B\r\n",
    "--",
    "\r",
    "\n",
    "Content-Disposition: form-data; name=\"a\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"b\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"f\"; filename=\"f.png\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n",
    "Content-Disposition: form-data\r\n\r\n",
    "content-disposition: form-data; name=\"",
    "Content-Type: text/plain\r\n",
    "\x7fPNG\r\n\x1a\n",
    "text",
    "1",
    ";",
    "\"",
    "filename*=UTF-8''%zz",
    "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n",
    "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\ntext\r\n",
];

#[test]
fn any_bytes_are_parts_or_refused() {
    let media = ["content-type: multipart/form-data; boundary=B"];
    let body = (prop_oneof![1 => bytes(), 6 => soup(PARTS)], 1_usize..50);
    fuzz(body, &async |site, (body, piece)| {
        // In pieces of any size, they are the same.
        let mut seen = Vec::new();
        for path in ["/form", "/upload"] {
            let whole = site.ask("POST", path, &media, body.clone()).await;
            let pieces: Vec<_> = body
                .chunks(piece)
                .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
                .collect();
            let pieces = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
            let pieces = site.ask("POST", path, &media, pieces).await;
            assert_eq!(whole.status, pieces.status, "{path} by {piece}");
            seen.push(whole);
        }
        seen.remove(1)
    });
}

#[test]
fn any_boundary_is_taken_or_refused() {
    let media = "[ -~]{0,60}"
        .prop_map(|text| format!("content-type: multipart/form-data; boundary={text}"));
    fuzz((media, soup(PARTS)), &async |site, (media, body)| {
        site.ask("POST", "/form", &[&media], body).await
    });
}

const COOKIE: &[&str] = &[
    "__Host-flash-0123abcd=",
    "__Host-flash-ffffffff=",
    "__Host-flash-=",
    "~n",
    "~e",
    "~",
    "%2F",
    "/flash",
    "%",
    "%ff",
    "%00",
    "%0D%0A",
    "; ",
    ";",
    "=",
    "Saved",
    "%C3%A9",
    "a=b",
];

#[test]
fn any_cookie_is_a_message_or_none() {
    fuzz(prop_oneof![bytes(), soup(COOKIE)], &async |site, cookie| {
        let is_fit = |byte: &&u8| (b' '..0x7f).contains(*byte) || **byte >= 0x80;
        let cookie: Vec<u8> = cookie.iter().filter(is_fit).copied().collect();
        let value = axum::http::HeaderValue::from_bytes(&cookie).unwrap();
        let mut request = axum::http::Request::builder()
            .uri("/flash")
            .body(axum::body::Body::empty())
            .unwrap();
        request.headers_mut().insert("cookie", value);
        let answer = site.send(request).await;
        for (pair, rest) in answer.cookies() {
            let name = pair.strip_prefix("__Host-flash-").unwrap();
            assert!(name.len() == 9 && name.ends_with('='), "{pair}");
            assert!(rest.contains("Max-Age=0") && !rest.contains('\n'), "{rest}");
        }
        answer
    });
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"a\"",
    "\"b\"",
    "\"c\"",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "1",
    "-1",
    "1e999",
    "null",
    "true",
    " ",
    "{\"a\":\"x\"}",
    "[[[[[[[[[[",
    "]]]]]]]]]]",
    "{\"a\":{\"a\":",
    "\"c\":[1,2]",
];

#[test]
fn any_bytes_are_json_or_refused() {
    let media = ["content-type: application/json"];
    fuzz(prop_oneof![bytes(), soup(JSON)], &async |site, body| {
        site.ask("POST", "/json", &media, body).await
    });
}
