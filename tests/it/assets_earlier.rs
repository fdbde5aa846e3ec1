//! Static files of the builds before.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use houseboat::database::Clock;
use houseboat::http::Assets;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::support::assets::get;
use crate::support::assets::open;

const HOUR: Duration = Duration::from_hours(1);

/// A build of a site with one style sheet, begun on these files and ended.
async fn build(folder: &Path, css: &'static [u8], clock: &Clock) -> (Router, String) {
    let assets = Assets::new(&[("site.css", css), ("same.js", b"same")]);
    let url = assets.url("site.css");
    let site = open(folder, "production", assets, clock.clone()).await;
    (site.router(), url)
}

async fn status(router: &Router, url: &str) -> u16 {
    get(router, url, &[]).await.status.as_u16()
}

fn rows(folder: &Path) -> Vec<(String, i64, bool)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file as another program would"
    )]
    let conn = Connection::open(folder.join("site.sqlite3")).unwrap();
    let sql = "SELECT name, length(content), left_at IS NULL FROM http_assets ORDER BY name";
    let mut rows = conn.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_page_of_the_build_before_finds_its_files_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
    let (_, first) = build(folder.path(), b"first", &clock).await;
    // It ran for weeks: the day begins when another comes.
    clock.advance(HOUR * 24 * 30);
    let (router, second) = build(folder.path(), b"second", &clock).await;
    let answer = get(&router, &first, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.body),
        (200, &b"first"[..])
    );
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    let tag = [("if-none-match", answer.header("etag"))];
    assert_eq!(get(&router, &first, &tag).await.status, 304);
    // A restart of the same build begins no new day.
    clock.advance(HOUR * 23);
    let (router, _) = build(folder.path(), b"second", &clock).await;
    assert_eq!(
        (
            status(&router, &first).await,
            status(&router, &second).await
        ),
        (200, 200)
    );
    clock.advance(HOUR);
    assert_eq!(
        (
            status(&router, &first).await,
            status(&router, &second).await
        ),
        (404, 200)
    );
    let (router, _) = build(folder.path(), b"second", &clock).await;
    assert_eq!(status(&router, &first).await, 404);
    assert!(
        rows(folder.path())
            .iter()
            .all(|(_, _, is_of_this)| *is_of_this)
    );
}

#[tokio::test]
async fn a_build_that_comes_back_has_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
    let (_, first) = build(folder.path(), b"first", &clock).await;
    let (_, second) = build(folder.path(), b"second", &clock).await;
    clock.advance(HOUR);
    let (router, _) = build(folder.path(), b"first", &clock).await;
    assert_eq!(
        (
            status(&router, &first).await,
            status(&router, &second).await
        ),
        (200, 200)
    );
    clock.advance(HOUR * 25);
    let (router, third) = build(folder.path(), b"third", &clock).await;
    let found = [&first, &second, &third].map(|url| status(&router, url));
    let found = futures_util::future::join_all(found).await;
    // The first was served until now.
    assert_eq!(found, [200, 404, 200]);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    const MEBIBYTE: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
    let names: Vec<&'static str> = (0..9)
        .map(|number| &*format!("{number}.bin").leak())
        .collect();
    let mut urls = Vec::new();
    let mut router = None;
    for build in 1..=3_u8 {
        let content: &'static [u8] = vec![build; MEBIBYTE - 200].leak();
        let mut files: Vec<_> = names.iter().map(|name| (*name, content)).collect();
        files.push(("large.bin", vec![build; MEBIBYTE + 1].leak()));
        let assets = Assets::new(&files);
        urls.push([assets.url("0.bin"), assets.url("large.bin")]);
        clock.advance(HOUR);
        let site = open(folder.path(), "production", assets, clock.clone()).await;
        router = Some(site.router());
    }
    let router = router.unwrap();
    let rows = rows(folder.path());
    let bytes: i64 = rows.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(bytes <= 16 << 20, "{bytes}");
    let of_this = rows.iter().filter(|(_, _, is_of_this)| *is_of_this);
    // Nine of this build, and the stylesheet of the framework's own pages.
    assert_eq!(of_this.count(), 10);
    let mut found = Vec::new();
    for [small, large] in &urls {
        found.push((status(&router, small).await, status(&router, large).await));
    }
    assert_eq!(found[0], (404, 404), "the oldest goes first");
    assert_eq!(found[2], (200, 200));
    assert_eq!(rows.len(), 17, "{rows:?}");
}

#[tokio::test]
async fn what_is_asked_for_again_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let (_, first) = build(folder.path(), b"first", &clock).await;
    let (router, _) = build(folder.path(), b"second", &clock).await;
    assert_eq!(status(&router, &first).await, 200);
    #[expect(
        clippy::disallowed_methods,
        reason = "it does harm to the file as another program would"
    )]
    let conn = Connection::open(folder.path().join("site.sqlite3")).unwrap();
    conn.execute_batch("DELETE FROM http_assets").unwrap();
    assert_eq!(get(&router, &first, &[]).await.body, b"first");
}

#[tokio::test]
async fn without_the_table_the_site_runs() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let (_, first) = build(folder.path(), b"first", &clock).await;
    #[expect(
        clippy::disallowed_methods,
        reason = "it does harm to the file as another program would"
    )]
    let conn = Connection::open(folder.path().join("site.sqlite3")).unwrap();
    conn.execute_batch("DROP TABLE http_assets").unwrap();
    let (router, second) = build(folder.path(), b"second", &clock).await;
    assert_eq!(
        (
            status(&router, &first).await,
            status(&router, &second).await
        ),
        (404, 200)
    );
}
