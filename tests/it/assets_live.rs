//! Static files while somebody works on them.

use std::fs;
use std::path::Path;

use houseboat::database::Clock;
use houseboat::http::Assets;

use crate::support::assets::get;
use crate::support::assets::open;

fn files(folder: &Path) -> Assets {
    Assets::in_folder(folder, &[("site.css", b"built"), ("site.js", b"built too")])
}

#[tokio::test]
async fn in_development_a_file_is_as_it_is_on_the_disk() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("site.css");
    fs::write(&path, "built").unwrap();
    let assets = files(folder.path());
    let built = assets.url("site.css");
    let site = open(data.path(), "development", assets.clone(), Clock::system()).await;
    let router = site.router();
    assert_eq!(assets.url("site.css"), built);
    let mut seen = vec![built.clone()];
    for change in ["changed", "changed again", "c"] {
        fs::write(&path, change).unwrap();
        let url = assets.url("site.css");
        assert!(!seen.contains(&url), "{url}");
        for url in [&url, "/assets/site.css"] {
            let answer = get(&router, url, &[]).await;
            assert_eq!(
                (answer.status.as_u16(), &*answer.body),
                (200, change.as_bytes())
            );
            assert_eq!(answer.header("cache-control"), "no-cache");
            assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
            let tag = [("if-none-match", answer.header("etag"))];
            assert_eq!(get(&router, url, &tag).await.status, 304);
        }
        seen.push(url);
    }
    // What has never been on the disk, or is not there any more, is as it was built.
    assert_eq!(
        get(&router, &assets.url("site.js"), &[]).await.body,
        b"built too"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(assets.url("site.css"), built);
    assert_eq!(get(&router, &built, &[]).await.body, b"built");
}

#[tokio::test]
async fn only_files_of_the_list_are_taken_and_none_from_outside_the_folder() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inner = folder.path().join("assets");
    fs::create_dir(&inner).unwrap();
    fs::write(folder.path().join("secret.css"), "secret").unwrap();
    fs::write(inner.join("other.css"), "not in the list").unwrap();
    std::os::unix::fs::symlink("../secret.css", inner.join("site.css")).unwrap();
    fs::create_dir(inner.join("site.js")).unwrap();
    let assets = files(&inner);
    let site = open(data.path(), "development", assets.clone(), Clock::system()).await;
    let router = site.router();
    for (url, body) in [
        (assets.url("site.css"), &b"built"[..]),
        ("/assets/site.css".to_owned(), b"built"),
        (assets.url("site.js"), b"built too"),
    ] {
        let answer = get(&router, &url, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (200, body),
            "{url}"
        );
    }
    for path in [
        "/assets/other.css",
        "/assets/../secret.css",
        "/assets/%2e%2e/secret.css",
    ] {
        let answer = get(&router, path, &[]).await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn in_production_the_disk_is_not_looked_at() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("site.css"), "changed").unwrap();
    let assets = files(folder.path());
    let site = open(data.path(), "production", assets.clone(), Clock::system()).await;
    let answer = get(&site.router(), &assets.url("site.css"), &[]).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.body),
        (200, &b"built"[..])
    );
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
}
