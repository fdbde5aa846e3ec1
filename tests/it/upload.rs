//! Files that visitors send.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use garde::Validate;
use houseboat::Context;
use houseboat::database::Database;
use houseboat::http::Download;
use houseboat::http::Form;
use houseboat::http::Result;
use houseboat::http::Upload;
use houseboat::http::Uploads;
use serde::Deserialize;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;
use crate::support::in_process::Parts;
use crate::support::ledger::example;
use crate::support::process::TestProcess;
use crate::support::raw::Raw;
use crate::support::served::Served;
use crate::support::waiting::wait_for;

pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize, Validate)]
struct New {
    #[garde(length(chars, min = 1, max = 100))]
    title: String,
}

/// Says what came, and keeps the first file in the folder of the database.
async fn create(State(database): State<Database>, upload: Upload<New>) -> Result<Response> {
    let new = match upload.check() {
        Ok(new) => new,
        Err(wrong) => {
            let lines: Vec<String> = wrong
                .errors
                .iter()
                .map(|(field, text)| format!("{field}! {text}"))
                .collect();
            let title = wrong.input.get("title");
            return Ok(format!("{}\n{title}", lines.join("\n")).into_response());
        }
    };
    let mut lines = vec![new.title];
    for file in upload.files() {
        let bytes = file.bytes().await?;
        assert_eq!(bytes.len(), file.size());
        let digest = file.digest()[0];
        lines.push(format!(
            "{} {} {} {} {digest:02x}",
            file.field(),
            file.name(),
            file.media(),
            file.size()
        ));
    }
    if let Some(photo) = upload.file("photo") {
        photo
            .keep(database.path().with_file_name("kept.png"))
            .await?;
    }
    Ok(lines.join("\n").into_response())
}

fn routes() -> Router<Context> {
    let uploads = Uploads::new(&["image/png", "text/plain"])
        .file_bytes_max(3 << 20)
        .files_max(2);
    Router::new()
        .route("/photos", post(create).layer(uploads))
        .route(
            "/small",
            post(create).layer(Uploads::new(&["image/png"]).file_bytes_max(20)),
        )
        .route("/bare", post(create))
        .route(
            "/form",
            post(async |form: Form<New>| form.check().map(|new| new.title)),
        )
        .route(
            "/page",
            get(async || Download::new("a.html", "text/html", "<script>").shown()),
        )
        .route(
            "/picture",
            get(async || Download::new("a\"\r\nb;é.png", "image/png", PNG).shown()),
        )
        .route(
            "/text",
            get(async || Download::new("a.txt", "text/plain", "<b>").shown()),
        )
        .route("/odd", get(async || Download::new("", "no\r\ntype", "")))
}

/// A picture of so many bytes.
pub(crate) fn picture(bytes: usize) -> Vec<u8> {
    let mut picture = PNG.to_vec();
    picture.resize(bytes, 7);
    picture
}

/// The names of the files in a folder, without SQLite's.
pub(crate) fn left(folder: &Path) -> Vec<String> {
    let names = folder.read_dir().unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| !name.contains("sqlite3") && name != ".serving")
        .collect();
    names.sort();
    names
}

async fn send(site: &InProcess, path: &str, parts: &Parts) -> Answer {
    site.post_parts(path, parts).await
}

#[tokio::test]
async fn files_come_with_what_they_are() {
    let site = InProcess::new(routes()).await;
    let large = picture(3 << 20);
    let parts = Parts::default()
        .file("photo", "C:\\me\\../my photo.gif", &large)
        .field("title", "Two")
        .file("note", "note.html", "naïve".as_bytes())
        .file("more", "", b"");
    let answer = send(&site, "/photos", &parts).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Two");
    assert!(
        lines[1].starts_with("photo my photo.gif image/png 3145728 "),
        "{text}"
    );
    // Of the SHA-256 of “naïve”.
    assert_eq!(lines[2], "note note.html text/plain 6 f8", "{text}");
    assert_eq!(
        std::fs::read(site.folder().join("kept.png")).unwrap(),
        large
    );
    assert_eq!(left(site.folder()), ["kept.png"]);
}

#[tokio::test]
async fn a_file_that_is_not_as_it_must_be_is_a_mistake_of_its_field() {
    let site = InProcess::new(routes()).await;
    let titled = || Parts::default().field("title", "Kept text");
    for (parts, text) in [
        (
            titled().file("photo", "a.png", b"<html><script>"),
            "photo! Choose a file of the type image/png or text/plain.",
        ),
        (
            titled().file("photo", "a.png", b"GIF89a"),
            "photo! Choose a file of the type image/png or text/plain.",
        ),
        (
            titled().file("photo", "a.txt", b"caf\xe9"),
            "photo! Choose a file of the type image/png or text/plain.",
        ),
        (
            titled().file("photo", "a.png", &picture((3 << 20) + 1)),
            "photo! This file is larger than 3 MiB.",
        ),
        (
            titled().file("photo", "a.png", b""),
            "photo! This file is empty.",
        ),
        (
            titled()
                .file("a", "a", PNG)
                .file("b", "b", PNG)
                .file("c", "c", PNG),
            "c! Choose at most 2 files.",
        ),
        // What comes after a file that is refused is read all the same.
        (
            Parts::default()
                .file("photo", "a.png", &vec![b'x'; 2 << 20])
                .file("b", "b", b"MZ\0")
                .field("title", "Kept text"),
            "b! Choose a file of the type image/png or text/plain.",
        ),
    ] {
        let answer = send(&site, "/photos", &parts).await;
        assert_eq!(answer.text(), format!("{text}\nKept text"));
    }
    let parts = Parts::default().file("photo", "a.png", &picture(21));
    let answer = send(&site, "/small", &parts).await;
    assert_eq!(
        answer.text(),
        "title! Fill in this field.\nphoto! This file is larger than 20 bytes.\n"
    );
    assert_eq!(left(site.folder()), [""; 0]);
}

#[tokio::test]
async fn a_route_has_a_limit_of_its_own() {
    let site = InProcess::new(routes()).await;
    let parts = |bytes| {
        Parts::default()
            .field("title", "a")
            .file("photo", "a", &picture(bytes))
    };
    // 2 files of 3 MiB, and 1 MiB beside them.
    assert_eq!(send(&site, "/photos", &parts(7 << 20)).await.status, 413);
    assert_eq!(
        send(&site, "/photos", &parts(6 << 20)).await.text(),
        "photo! This file is larger than 3 MiB.\na"
    );
    let text = Parts::default().field("title", &"a".repeat((1 << 20) + 1));
    assert_eq!(
        send(&site, "/photos", &text).await.status,
        413,
        "fields have a limit of their own"
    );
    assert_eq!(
        send(&site, "/form", &parts(2 << 20)).await.status,
        413,
        "other routes have the site's"
    );
    assert_eq!(
        send(&site, "/bare", &parts(10)).await.status,
        500,
        "a route without the layer is a mistake"
    );
}

#[tokio::test]
async fn what_says_that_it_is_too_large_is_not_read() {
    let site = Served::start(routes()).await;
    for (path, length) in [("/form", (1 << 20) + 1), ("/photos", (7 << 20) + 1)] {
        let mut visitor = Raw::connect(site.address).await;
        let media = Parts::media();
        visitor
            .ask(
                "POST",
                path,
                &[&media, &format!("content-length: {length}")],
            )
            .await;
        assert_eq!(visitor.answer().await.status, 413, "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_nothing() {
    let site = Served::start(routes()).await;
    let folder = site.context.database.path().parent().unwrap().to_owned();
    let open = || open_and_gone(std::process::id(), &folder);
    for _ in 0..3 {
        let mut visitor = Raw::connect(site.address).await;
        let head = Parts::head("photo", "a.png");
        let length = format!("content-length: {}", 3 << 20);
        visitor
            .ask("POST", "/photos", &[&Parts::media(), &length])
            .await;
        visitor.send(head).await;
        visitor.send(picture(1 << 20)).await;
        wait_for("file that is written", PATIENCE, async || {
            (open() > 0).then_some(())
        })
        .await;
        assert_eq!(left(&folder), [""; 0], "it has no name");
        drop(visitor);
        wait_for("end of the file", PATIENCE, async || {
            (open() == 0).then_some(())
        })
        .await;
    }
    assert_eq!(left(&folder), [""; 0]);
}

/// How many files of a folder a process has open that have no name any more.
pub(crate) fn open_and_gone(process: u32, folder: &Path) -> usize {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let targets = targets.filter(|target| target.starts_with(folder));
    targets
        .filter(|target| target.to_string_lossy().ends_with("(deleted)"))
        .count()
}

#[tokio::test]
async fn a_kill_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || {
        TestProcess::builder()
            .program(&example("photos"))
            .folder(folder.path())
            .argument("serve")
    };
    let mut site = builder().start().await;
    let data = folder.path().join("data");
    let mut visitor = Raw::connect(site.address().parse().unwrap()).await;
    let length = format!("content-length: {}", 3 << 20);
    visitor
        .ask("POST", "/photos", &[&Parts::media(), &length])
        .await;
    visitor.send(Parts::head("photo", "a.png")).await;
    visitor.send(picture(1 << 20)).await;
    let id = site.id();
    wait_for("file that is written", PATIENCE, async || {
        (open_and_gone(id, &data) > 0).then_some(())
    })
    .await;
    site.kill();
    assert_eq!(left(&data), [""; 0]);
    // And what is acknowledged is there.
    let site = builder().start().await;
    let mut visitor = Raw::connect(site.address().parse().unwrap()).await;
    let page = visitor.get("/").await.text();
    let key = page.split("name=\"_once\" value=\"").nth(1).unwrap();
    let parts = Parts::default()
        .field("title", "Sea")
        .field("_once", &key[..32]);
    let parts = parts.file("photo", "a.png", PNG);
    let bytes = parts.bytes();
    let length = format!("content-length: {}", bytes.len());
    visitor
        .ask("POST", "/photos", &[&Parts::media(), &length])
        .await;
    visitor.send(bytes).await;
    let answer = visitor.answer().await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/"),
        "{}",
        answer.text()
    );
    let answer = visitor.get("/photos/1").await;
    assert_eq!(
        (answer.body.as_slice(), answer.header("content-type")),
        (PNG, "image/png")
    );
    let page = visitor.get("/").await.text();
    assert!(page.contains("Sea"), "{page}");
}

#[tokio::test]
async fn visitors_files_are_shown_or_saved_and_never_run() {
    let site = InProcess::new(routes()).await;
    for (path, media, disposition) in [
        (
            "/page",
            "text/html",
            "attachment; filename=\"a.html\"; filename*=UTF-8''a.html",
        ),
        (
            "/picture",
            "image/png",
            "inline; filename=\"a___b__.png\"; filename*=UTF-8''a%22%0D%0Ab%3B%C3%A9.png",
        ),
        (
            "/text",
            "text/plain; charset=utf-8",
            "inline; filename=\"a.txt\"; filename*=UTF-8''a.txt",
        ),
        (
            "/odd",
            "application/octet-stream",
            "attachment; filename=\"\"; filename*=UTF-8''",
        ),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.header("content-type"), media);
        assert_eq!(answer.header("content-disposition"), disposition);
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; sandbox"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
    }
}
