//! Static files as browsers, caches and attackers ask for them.

use std::io::Read;
use std::time::Duration;

use axum::Router;
use houseboat::database::Clock;
use houseboat::http::Assets;
use tempfile::TempDir;

use crate::support::assets::Answer;
use crate::support::assets::ask;
use crate::support::assets::get;
use crate::support::assets::open;
use crate::support::waiting::wait_for;

const CSS: &[u8] = include_bytes!("../../assets/site.css");

/// What no coding makes smaller.
static NOISE: [u8; 256] = {
    let mut noise = [0; 256];
    let mut state: u32 = 1;
    let mut index = 0;
    while index < noise.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise[index] = (state >> 24) as u8;
        index += 1;
    }
    noise
};

struct Site {
    router: Router,
    assets: Assets,
    _folder: TempDir,
}

impl Site {
    async fn new() -> Self {
        let assets = Assets::new(&[
            ("site.css", CSS),
            ("digits.txt", b"0123456789"),
            ("noise.js", &NOISE),
            ("fonts/a.woff2", &[0; 1_000]),
            ("empty.txt", b""),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let site = open(folder.path(), "production", assets.clone(), Clock::system()).await;
        Self {
            router: site.router(),
            assets,
            _folder: folder,
        }
    }

    async fn get(&self, name: &str, headers: &[(&str, &str)]) -> Answer {
        get(&self.router, &self.assets.url(name), headers).await
    }

    /// Asks until there are compressed copies.
    async fn compressed(&self, name: &str, coding: &str) -> Answer {
        wait_for("compressed copy", Duration::from_mins(1), async || {
            let answer = self.get(name, &[("accept-encoding", coding)]).await;
            let is_made = !answer.header("etag").starts_with("W/");
            is_made.then_some(answer)
        })
        .await
    }
}

#[tokio::test]
async fn the_name_of_a_file_is_the_same_on_all_machines() {
    let assets = Assets::new(&[("site.css", b"body { margin: 0 }"), ("a/b", b"")]);
    assert_eq!(assets.url("site.css"), "/assets/site.a309fe5121cccde3.css");
    assert_eq!(assets.url("a/b"), "/assets/a/b.2d06800538d394c2");
    assert_eq!(assets.url("none.css"), "/assets/none.css");
}

#[tokio::test]
async fn who_has_a_file_is_told_so() {
    let site = Site::new().await;
    let whole = site.get("digits.txt", &[]).await;
    let tag = whole.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() == 18, "{tag}");
    assert_eq!(
        whole.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    let known = [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"x\", {tag}"),
        "*".to_owned(),
    ];
    for known in &known {
        let answer = site.get("digits.txt", &[("if-none-match", known)]).await;
        assert_eq!(answer.status, 304, "{known}");
        assert!(answer.body.is_empty());
        for name in ["etag", "cache-control", "vary"] {
            assert_eq!(answer.header(name), whole.header(name), "{name}");
        }
        assert_eq!(answer.header("content-type"), "");
    }
    for other in ["\"0123456789abcdef\"", "x", "", &tag[1..]] {
        let answer = site.get("digits.txt", &[("if-none-match", other)]).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (200, &b"0123456789"[..]),
            "{other}"
        );
    }
    for (condition, status) in [(&*tag, 200), ("*", 200), ("\"x\"", 412), (&known[1], 412)] {
        let answer = site.get("digits.txt", &[("if-match", condition)]).await;
        assert_eq!(answer.status, status, "{condition}");
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let site = Site::new().await;
    site.compressed("site.css", "br").await;
    for headers in [
        &[][..],
        &[("accept-encoding", "br")],
        &[("accept-encoding", "gzip")],
    ] {
        let url = site.assets.url("site.css");
        let got = get(&site.router, &url, headers).await;
        // A range means something to GET alone.
        let headers = [headers, &[("range", "bytes=0-1")]].concat();
        let head = ask(&site.router, "HEAD", &url, &headers).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), got.body.len().to_string());
        for name in [
            "etag",
            "content-type",
            "content-encoding",
            "vary",
            "accept-ranges",
        ] {
            assert_eq!(head.header(name), got.header(name), "{name}");
        }
    }
    let post = ask(&site.router, "POST", &site.assets.url("site.css"), &[]).await;
    assert_eq!(
        (post.status.as_u16(), post.header("allow")),
        (405, "GET,HEAD")
    );
}

#[tokio::test]
async fn a_part_of_a_file_is_given() {
    let site = Site::new().await;
    for (range, given, part) in [
        ("bytes=2-4", "bytes 2-4/10", &b"234"[..]),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-1", "bytes 9-9/10", b"9"),
        ("bytes=0-99", "bytes 0-9/10", b"0123456789"),
    ] {
        let coding = ("accept-encoding", "gzip, br");
        let answer = site.get("digits.txt", &[("range", range), coding]).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (206, part),
            "{range}"
        );
        assert_eq!(answer.header("content-range"), given);
        assert_eq!(answer.header("content-length"), part.len().to_string());
        assert_eq!(answer.header("content-encoding"), "");
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let answer = site.get("digits.txt", &[("range", range)]).await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), "bytes */10");
        assert_eq!(answer.header("cache-control"), "");
    }
    let answer = site.get("empty.txt", &[("range", "bytes=0-")]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-range")),
        (416, "bytes */0")
    );
    for range in ["bytes=0-1,4-5", "bytes=5-2", "lines=1-2", "bytes=x-"] {
        let answer = site.get("digits.txt", &[("range", range)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len()),
            (200, 10),
            "{range}"
        );
        assert_eq!(answer.header("accept-ranges"), "bytes");
    }
}

#[tokio::test]
async fn a_part_is_given_only_of_what_the_visitor_has() {
    let site = Site::new().await;
    let tag = site.get("digits.txt", &[]).await.header("etag").to_owned();
    let weak = format!("W/{tag}");
    for (condition, status) in [(&*tag, 206), ("\"x\"", 200), (&weak, 200)] {
        let headers = [("range", "bytes=2-4"), ("if-range", condition)];
        assert_eq!(
            site.get("digits.txt", &headers).await.status,
            status,
            "{condition}"
        );
    }
    let known = [("range", "bytes=2-4"), ("if-none-match", &tag)];
    assert_eq!(site.get("digits.txt", &known).await.status, 304);
}

#[tokio::test]
async fn a_file_is_compressed_once_and_as_well_as_can_be() {
    let site = Site::new().await;
    let plain = site.get("site.css", &[]).await;
    assert_eq!(plain.body, CSS);
    assert_eq!(plain.header("vary"), "accept-encoding");
    // Until there are copies, it is compressed like any page.
    let first = site.get("site.css", &[("accept-encoding", "br")]).await;
    assert_eq!(first.header("content-encoding"), "br");
    let mut gunzipped = Vec::new();
    let gzip = site.compressed("site.css", "gzip").await;
    flate2::read::GzDecoder::new(&*gzip.body)
        .read_to_end(&mut gunzipped)
        .unwrap();
    assert_eq!(gunzipped, CSS);
    let br = site.compressed("site.css", "gzip, deflate, br").await;
    let mut unpacked = Vec::new();
    brotli::BrotliDecompress(&mut &*br.body, &mut unpacked).unwrap();
    assert_eq!(unpacked, CSS);
    assert!(br.body.len() < gzip.body.len() && br.body.len() * 10 < first.body.len() * 9);
    for (answer, coding) in [(&gzip, "gzip"), (&br, "br")] {
        assert_eq!(answer.header("content-encoding"), coding);
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string()
        );
        let tag = plain.header("etag").trim_end_matches('"');
        assert_eq!(answer.header("etag"), format!("{tag}-{coding}\""));
        // A tag is of one copy: a cache would give the other to who cannot read it.
        let of_other = [
            ("accept-encoding", coding),
            ("if-none-match", plain.header("etag")),
        ];
        assert_eq!(site.get("site.css", &of_other).await.status, 200);
        let of_this = [
            ("accept-encoding", coding),
            ("if-none-match", answer.header("etag")),
        ];
        assert_eq!(site.get("site.css", &of_this).await.status, 304);
    }
    let refused = site
        .get("site.css", &[("accept-encoding", "br;q=0, gzip;q=0")])
        .await;
    assert_eq!(
        (refused.body, refused.headers.get("content-encoding")),
        (CSS.to_vec(), None)
    );
}

#[tokio::test]
async fn what_does_not_get_smaller_is_sent_as_it_is() {
    let site = Site::new().await;
    site.compressed("noise.js", "br").await;
    for (name, length, vary) in [
        ("noise.js", 256, "accept-encoding"),
        ("fonts/a.woff2", 1_000, ""),
    ] {
        let answer = site.get(name, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(answer.header("content-encoding"), "", "{name}");
        assert_eq!(answer.header("vary"), vary, "{name}");
        assert_eq!(answer.body.len(), length, "{name}");
        assert!(!answer.header("etag").starts_with("W/"), "{name}");
    }
}

#[tokio::test]
async fn a_file_is_there_under_its_plain_name_and_asked_for_again() {
    let site = Site::new().await;
    let named = site.get("digits.txt", &[]).await;
    let plain = get(&site.router, "/assets/digits.txt", &[]).await;
    assert_eq!((plain.status.as_u16(), &plain.body), (200, &named.body));
    assert_eq!(plain.header("cache-control"), "no-cache");
    assert_eq!(plain.header("etag"), named.header("etag"));
    let tag = [("if-none-match", named.header("etag"))];
    assert_eq!(
        get(&site.router, "/assets/digits.txt", &tag).await.status,
        304
    );
}

#[tokio::test]
async fn nothing_but_the_files_is_there() {
    let site = Site::new().await;
    for path in [
        "/assets/",
        "/assets/..",
        "/assets/../Cargo.toml",
        "/assets/..%2fCargo.toml",
        "/assets/%2e%2e/Cargo.toml",
        "/assets/%2e%2e%2fCargo.toml",
        "/assets/%252e%252e%252fCargo.toml",
        "/assets/..%5cCargo.toml",
        "/assets/..%c0%afCargo.toml",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/./digits.txt",
        "/assets//digits.txt",
        "/assets/digits.txt/",
        "/assets/digits.txt%00.css",
        "/assets/digits%2etxt",
        "/assets/DIGITS.TXT",
        "/assets/digits.txt%20",
        "/assets/digits.txt::$DATA",
        "/assets/CON",
        "/assets/nul.txt",
        "/assets/fonts",
        "/assets/fonts/",
        "/assets/fonts/../digits.txt",
        "/assets/digits.0123456789abcdef.txt",
        "/assets/c:/windows/win.ini",
        "/assets/%",
        "/assets/%zz",
        "/assets/%ff",
    ] {
        let answer = get(&site.router, path, &[]).await;
        assert!(
            matches!(answer.status.as_u16(), 404 | 400),
            "{path}: {}",
            answer.status
        );
        let body = String::from_utf8_lossy(&answer.body);
        assert!(body.contains("<h1>"), "{path}");
        if answer.status == 404 && path != "/assets/" {
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        }
    }
}
