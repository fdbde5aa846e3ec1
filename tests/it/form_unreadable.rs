//! What comes as a form and is none.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use futures_util::StreamExt;
use garde::Validate;
use houseboat::App;
use houseboat::Context;
use houseboat::http::Form;
use houseboat::http::Wrong;
use serde::Deserialize;

use crate::support::in_process::InProcess;
use crate::support::in_process::Parts;

#[derive(Debug, Deserialize, Validate)]
struct New {
    #[garde(length(chars, min = 2))]
    name: String,
}

fn routes() -> Router<Context> {
    let name = async |form: Form<New>| Ok::<_, Wrong>(form.check()?.name);
    Router::new().route("/new", post(name))
}

async fn site() -> InProcess {
    InProcess::new(routes()).await
}

#[tokio::test]
async fn what_cannot_be_read_gets_a_clear_answer() {
    let site = site().await;
    let many = "a=&".repeat(1_001);
    let long = "a".repeat(201);
    for (body, status, text) in [
        (
            "name=100%",
            400,
            "field 1 has a % without the two hexadecimal digits",
        ),
        ("interval=1&name=%zz", 400, "field 2 has a %"),
        ("name=%ff", 400, "field 1 has bytes that are not UTF-8"),
        ("name=a%00b", 400, "field 1 has a NUL"),
        (&many, 413, "at most 1000 fields"),
        (&long, 413, "at most 200 bytes"),
    ] {
        let answer = site.post("/new", body.to_owned()).await;
        assert_eq!(answer.status, status, "{text}");
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    for media in [
        "text/plain",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=a",
        "x",
    ] {
        let answer = site
            .ask("POST", "/new", &[&format!("content-type: {media}")], "a=b")
            .await;
        assert_eq!(answer.status, 415, "{media}");
    }
    assert_eq!(site.ask("POST", "/new", &[], "a=b").await.status, 415);
    assert_eq!(site.post("/new", vec![b'a'; 2 << 20]).await.status, 413);
}

#[tokio::test]
async fn parts_that_are_none_get_a_clear_answer() {
    let site = site().await;
    let send = async |bytes: Vec<u8>| {
        let answer = site.ask("POST", "/new", &[&Parts::media()], bytes).await;
        (answer.status, answer.text())
    };
    let whole = Parts::default()
        .field("name", "a")
        .field("interval", "60")
        .bytes();
    for end in 0..whole.len() - 4 {
        let (status, text) = send(whole[..end].to_vec()).await;
        assert!(
            status == 400 && text.contains("did not arrive in full"),
            "{end}: {status} {text}"
        );
    }
    let nul = Parts::default().field("name", "a\0");
    let nameless = String::from_utf8(whole.clone())
        .unwrap()
        .replace("; name=\"name\"", "");
    let long = Parts::default().field(&"n".repeat(201), "");
    let head = Parts::default().field(&"n".repeat(500_000), "");
    let large = Parts::default().field("name", &"n".repeat(2 << 20));
    let many = (0..1_001).fold(Parts::default(), |parts, _| parts.field("a", ""));
    let file = Parts::default().file("name", "a.png", b"png");
    for (bytes, status, text) in [
        (nul.bytes(), 400, "field 1 has a NUL"),
        (nameless.into_bytes(), 400, "field 1 has no name"),
        (long.bytes(), 413, "at most 200 bytes"),
        (head.bytes(), 413, "at most 200 bytes"),
        (large.bytes(), 413, "larger than this site accepts"),
        (many.bytes(), 413, "at most 1000 fields"),
        (file.bytes(), 415, "takes no files"),
        (vec![b'-'; 100_000], 400, "did not arrive"),
    ] {
        let answer = send(bytes).await;
        assert!(
            answer.0 == status && answer.1.contains(text),
            "{text}: {answer:?}"
        );
    }
    // Where nobody chose a file, a browser sends an empty one.
    let none = Parts::default().file("photo", "", b"").field("name", "a");
    assert_eq!(send(none.bytes()).await.0, 422);
}

#[tokio::test]
async fn a_head_without_an_end_is_not_collected() {
    let site = InProcess::with(
        App::new("test").routes(routes()),
        &[("HOUSEBOAT_SERVER__BODY_BYTES_MAX", "1073741824")],
    )
    .await;
    // As pieces that nobody counts: the limit of a head is met long before their end.
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let pieces = futures_util::stream::iter(0..1_000).map(move |index| {
        count.fetch_add(1, Ordering::SeqCst);
        let start = if index == 0 {
            Parts::head("a", "")
        } else {
            String::new()
        };
        Ok::<_, std::io::Error>(start.trim_end().to_owned() + &"x".repeat(10_000))
    });
    let body = Body::from_stream(pieces);
    let answer = site.ask("POST", "/new", &[&Parts::media()], body).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < 10, "{taken} pieces were taken");
}
