//! What visitors' files may take of a site: its disk, its memory, its threads.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::routing::post;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use garde::Validate;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::database::Database;
use houseboat::http::Form;
use houseboat::http::Result;
use houseboat::http::Upload;
use houseboat::http::Uploads;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::support::in_process::InProcess;
use crate::support::in_process::Parts;
use crate::support::waiting::wait_for;
use crate::upload::PNG;
use crate::upload::left;
use crate::upload::open_and_gone;
use crate::upload::picture;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize, Validate)]
struct New {
    #[garde(skip)]
    title: Option<String>,
}

/// Says how many files came, and what is wrong with others.
async fn take(upload: Upload<New>) -> String {
    match upload.check() {
        Ok(_) => upload.files().len().to_string(),
        Err(wrong) => {
            let texts = wrong.errors.iter().map(|(_, text)| text);
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

async fn keep(State(database): State<Database>, upload: Upload<New>) -> Result<()> {
    let kept = database.path().with_file_name("kept.png");
    upload.file("photo").unwrap().keep(kept).await
}

/// Has its files until the test lets it go.
async fn hold(Extension(gate): Extension<Arc<Semaphore>>, upload: Upload<New>) -> String {
    let _pass = gate.acquire().await.unwrap();
    upload.files().len().to_string()
}

async fn site_with(variables: &[(&str, &str)]) -> (InProcess, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let uploads = Uploads::new(&["image/png"])
        .file_bytes_max(3 * MIB)
        .files_max(3);
    let routes: Router<Context> = Router::new()
        .route("/photos", post(take))
        .route("/keep", post(keep))
        .route("/hold", post(hold).layer(Extension(Arc::clone(&gate))))
        .route("/text", post(text))
        .layer(uploads)
        .route("/plain", post(text));
    let mut all = vec![("HOUSEBOAT_ENV", "production")];
    all.extend(variables);
    let site = InProcess::with(App::new("test").routes(routes), &all).await;
    (site, gate)
}

/// How many characters came.
async fn text(form: Form<New>) -> Result<String> {
    let title = form.check()?.title.unwrap_or_default();
    Ok(title.len().to_string())
}

/// A site with room for so many bytes of files.
async fn site_for(bytes: usize) -> (InProcess, Arc<Semaphore>) {
    site_with(&[("HOUSEBOAT_SERVER__UPLOADS_BYTES_MAX", &bytes.to_string())]).await
}

fn photo(bytes: usize) -> Parts {
    Parts::default().file("photo", "a.png", &picture(bytes))
}

/// A request of which the test sends the pieces.
fn slowly(site: &InProcess, path: &str) -> (mpsc::UnboundedSender<Bytes>, JoinHandle<u16>) {
    let (pieces, coming) = mpsc::unbounded_channel();
    let body = futures_util::stream::unfold(coming, async |mut coming| {
        Some((coming.recv().await?, coming))
    });
    let (name, media) = Parts::media().split_once(": ").map(owned).unwrap();
    let request = Request::post(path)
        .header("host", "site.test")
        .header(name, media)
        .body(Body::from_stream(body.map(Ok::<Bytes, Infallible>)))
        .unwrap();
    let router = site.router.clone();
    let asking =
        tokio::spawn(async move { router.oneshot(request).await.unwrap().status().as_u16() });
    (pieces, asking)
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// How many bytes are in the files without a name that this process has open in a folder.
fn bytes_open(folder: &Path) -> u64 {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let lengths = files.filter_map(|file| {
        let path = file.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        let is_ours = target.starts_with(folder) && target.to_string_lossy().ends_with("(deleted)");
        is_ours.then(|| std::fs::metadata(&path).map_or(0, |found| found.len()))
    });
    lengths.sum()
}

/// Waits until there is room for 1 MiB.
async fn room_for_a_mib(site: &InProcess) {
    wait_for("room for a file", PATIENCE, async || {
        let answer = site.post_parts("/photos", &photo(MIB)).await;
        (answer.status == 200 && answer.text() == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_on_their_way_have_a_limit_together() {
    let (site, gate) = site_for(2 * MIB).await;
    let half = [
        Parts::head("photo", "a.png").into_bytes(),
        picture(MIB + MIB / 2),
    ]
    .concat();
    let (pieces, cut) = slowly(&site, "/photos");
    pieces.send(half.into()).unwrap();
    wait_for("file that is written", PATIENCE, async || {
        (bytes_open(site.folder()) == (MIB + MIB / 2) as u64).then_some(())
    })
    .await;
    let answer = site.post_parts("/photos", &photo(MIB)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "10"));
    assert!(
        answer.text().contains("Too many files"),
        "{}",
        answer.text()
    );
    // Nothing is left of it, and a small one has its place.
    wait_for("end of the file", PATIENCE, async || {
        (open_and_gone(std::process::id(), site.folder()) == 1).then_some(())
    })
    .await;
    let small = site.post_parts("/photos", &photo(MIB / 4)).await;
    assert_eq!((small.status, small.text().as_str()), (200, "1"));
    cut.abort();
    room_for_a_mib(&site).await;

    // The same for one that is whole, as long as its handler has it.
    let (pieces, held) = slowly(&site, "/hold");
    pieces.send(photo(MIB + MIB / 2).bytes().into()).unwrap();
    drop(pieces);
    wait_for("file that is written", PATIENCE, async || {
        (bytes_open(site.folder()) == (MIB + MIB / 2) as u64).then_some(())
    })
    .await;
    assert_eq!(site.post_parts("/photos", &photo(MIB)).await.status, 503);
    gate.add_permits(1);
    assert_eq!(held.await.unwrap(), 200);
    room_for_a_mib(&site).await;
    assert_eq!(left(site.folder()), [""; 0]);
}

#[tokio::test]
async fn files_that_are_gone_or_kept_take_no_room() {
    let (site, _) = site_for(2 * MIB).await;
    let wrong = [PNG, &vec![7; MIB]].concat();
    for _ in 0..5 {
        assert_eq!(site.post_parts("/photos", &photo(MIB)).await.text(), "1");
        assert_eq!(site.post_parts("/keep", &photo(MIB)).await.status, 200);
        let four = (0..4).fold(Parts::default(), |parts, _| {
            parts.file("photo", "a", &wrong[..MIB / 3])
        });
        assert_eq!(
            site.post_parts("/photos", &four).await.text(),
            "Choose at most 3 files."
        );
        let no_picture = Parts::default().file("photo", "a", &vec![b'x'; MIB]);
        let answer = site.post_parts("/photos", &no_picture).await;
        assert_eq!(answer.text(), "Choose a file of the type image/png.");
        // One request can be over it alone, and gives back all of it.
        assert_eq!(
            site.post_parts("/photos", &photo(2 * MIB + 1)).await.status,
            503
        );
    }
    assert_eq!(left(site.folder()), ["kept.png"]);
}

#[test]
fn the_limit_is_within_bounds() {
    for wrong in ["0", "1048575", "1099511627777"] {
        let name = "HOUSEBOAT_SERVER__UPLOADS_BYTES_MAX".to_owned();
        let loaded = Config::<houseboat::settings::NoSettings>::load_from(
            Path::new("/"),
            [(name, wrong.to_owned())],
        );
        let problems = loaded.unwrap_err().to_string();
        assert!(problems.contains("server.uploads_bytes_max"), "{problems}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_files_kept_at_once_under_one_path_one_is_there_whole() {
    let (site, _) = site_with(&[]).await;
    let path = site.folder().join("kept.png");
    let picture = |number: u8| {
        let mut bytes = PNG.to_vec();
        bytes.resize(MIB, number);
        bytes
    };
    let all: HashSet<Vec<u8>> = (0..16).map(picture).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                if let Ok(bytes) = std::fs::read(&path) {
                    assert!(all.contains(&bytes), "{} bytes", bytes.len());
                }
            }
        });
        let keeping = join_all(all.iter().map(|bytes| {
            let parts = Parts::default().file("photo", "a.png", bytes);
            let site = &site;
            async move { site.post_parts("/keep", &parts).await }
        }));
        let runtime = tokio::runtime::Handle::current();
        let answers = tokio::task::block_in_place(|| runtime.block_on(keeping));
        is_over.store(true, Ordering::SeqCst);
        looking.join().unwrap();
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    assert_eq!(left(site.folder()), ["kept.png"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_kept_leaves_nothing() {
    let (site, _) = site_with(&[]).await;
    std::fs::create_dir(site.folder().join("kept.png")).unwrap();
    assert_eq!(site.post_parts("/keep", &photo(MIB)).await.status, 500);
    assert_eq!(left(site.folder()), ["kept.png"]);
    std::fs::remove_dir(site.folder().join("kept.png")).unwrap();
    assert_eq!(site.post_parts("/keep", &photo(MIB)).await.status, 200);
}

#[tokio::test]
async fn a_form_without_files_has_the_sites_limit_also_under_uploads() {
    let long = |bytes| Parts::default().field("title", &"a".repeat(bytes));
    let (site, _) = site_with(&[]).await;
    for path in ["/text", "/plain", "/photos"] {
        assert_eq!(
            site.post_parts(path, &long(2 * MIB)).await.status,
            413,
            "{path}"
        );
    }
    assert_eq!(site.post_parts("/text", &long(1_000)).await.text(), "1000");
    // What the settings allow is allowed there as anywhere.
    let larger = ("HOUSEBOAT_SERVER__BODY_BYTES_MAX", "4194304");
    let (site, _) = site_with(&[larger]).await;
    for path in ["/text", "/plain"] {
        let answer = site.post_parts(path, &long(2 * MIB)).await;
        assert_eq!(answer.text(), "2097152", "{path}");
        assert_eq!(site.post_parts(path, &long(5 * MIB)).await.status, 413);
    }
}

#[tokio::test]
async fn names_of_files_fields_are_short() {
    let (site, _) = site_with(&[]).await;
    for file in ["a.png", ""] {
        let parts = |bytes: usize| Parts::default().file(&"é".repeat(bytes / 2), file, PNG);
        let answer = site.post_parts("/photos", &parts(202)).await;
        assert_eq!(answer.status, 413);
        assert!(answer.text().contains("at most 200 bytes"));
        assert_eq!(site.post_parts("/photos", &parts(200)).await.text(), "1");
    }
}

/// A disk may be slow: nobody else's request waits for it.
#[test]
fn no_file_is_opened_on_a_thread_that_others_need() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (site, _) = site_with(&[]).await;
        let (free, freed) = std::sync::mpsc::channel::<()>();
        let (busy, is_busy) = tokio::sync::oneshot::channel();
        let blocking = tokio::task::spawn_blocking(move || {
            busy.send(()).unwrap();
            freed.recv().unwrap_err();
        });
        is_busy.await.unwrap();
        let (pieces, asking) = slowly(&site, "/photos");
        pieces.send(photo(1_000).bytes().into()).unwrap();
        drop(pieces);
        // As far as it comes without a thread for the disk.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(open_and_gone(std::process::id(), site.folder()), 0);
        assert!(!asking.is_finished());
        drop(free);
        blocking.await.unwrap();
        assert_eq!(asking.await.unwrap(), 200);
    });
}
