//! The bucket, by a real S3 server, and by networks that are not what they should be.

use std::time::Duration;
use std::time::Instant;

use houseboat::replication::Bucket;
use houseboat::replication::Error;
use houseboat::replication::Generation;
use houseboat::replication::Generations;
use houseboat::replication::Settings;
use jiff::SignedDuration;
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::BUCKET;
use crate::support::s3::KEY;
use crate::support::s3::S3;
use crate::support::s3::SECRET;
use crate::support::s3::free_port;
use crate::support::waiting::slow;

/// What every operation on a small object must keep to.
const BOUND: Duration = Duration::from_secs(10);

const RECORD: &str = "lease.json";

fn settings(endpoint: String) -> Settings {
    Settings {
        bucket: BUCKET.to_owned(),
        path: "sites/one".to_owned(),
        endpoint,
        access_key_id: KEY.to_owned().into(),
        secret_access_key: SECRET.to_owned().into(),
        ..Settings::default()
    }
}

fn bucket(endpoint: String) -> Bucket {
    Bucket::replica(&settings(endpoint)).unwrap()
}

#[tokio::test]
async fn an_object_is_written_read_and_deleted() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    assert_eq!(bucket.get(RECORD).await.unwrap(), None);
    let version = bucket.put(RECORD, "one").await.unwrap();
    assert_eq!(server.list(""), ["sites/one/lease.json"]);
    let (bytes, read) = bucket.get(RECORD).await.unwrap().unwrap();
    assert_eq!((&bytes[..], &read), (&b"one"[..], &version));
    bucket.delete(RECORD).await.unwrap();
    bucket.delete(RECORD).await.unwrap();
    assert_eq!(bucket.get(RECORD).await.unwrap(), None);
}

#[tokio::test]
async fn who_comes_second_learns_it() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    let first = bucket.create(RECORD, "one").await.unwrap();
    is_conflict(&bucket.create(RECORD, "two").await);
    let second = bucket.replace(RECORD, "three", &first).await.unwrap();
    assert_ne!(first, second);
    is_conflict(&bucket.replace(RECORD, "four", &first).await);
    let (bytes, version) = bucket.get(RECORD).await.unwrap().unwrap();
    assert_eq!((&bytes[..], &version), (&b"three"[..], &second));
    bucket.delete(RECORD).await.unwrap();
    is_conflict(&bucket.replace(RECORD, "five", &second).await);
    assert_eq!(bucket.get(RECORD).await.unwrap(), None);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_was_done() {
    let server = S3::start().await;
    for is_new in [true, false] {
        let proxy = Proxy::start(&server.endpoint(), Fault::DropsFirstAnswer).await;
        let bucket = bucket(proxy.endpoint());
        let version = if is_new {
            bucket.create(RECORD, "mine").await.unwrap()
        } else {
            let (_, version) = bucket.get(RECORD).await.unwrap().unwrap();
            bucket.replace(RECORD, "mine too", &version).await.unwrap()
        };
        assert!(proxy.puts() >= 1);
        let (_, read) = bucket.get(RECORD).await.unwrap().unwrap();
        assert_eq!(version, read);
    }
}

#[tokio::test]
async fn a_write_that_is_never_answered_was_done() {
    if !slow("a write that is never answered was done") {
        return;
    }
    let server = S3::start().await;
    let proxy = Proxy::start(&server.endpoint(), Fault::HoldsAnswers).await;
    let start = Instant::now();
    let version = bucket(proxy.endpoint())
        .create(RECORD, "mine")
        .await
        .unwrap();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let (_, read) = bucket(server.endpoint())
        .get(RECORD)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(version, read);
}

#[tokio::test]
async fn a_provider_with_conditions_passes_and_keeps_nothing() {
    let server = S3::start().await;
    bucket(server.endpoint())
        .probe_conditional_writes()
        .await
        .unwrap();
    assert_eq!(server.list("sites/"), [""; 0]);
}

#[tokio::test]
async fn a_provider_without_conditions_is_found_out() {
    let server = S3::start_open().await;
    let proxy = Proxy::start(&server.endpoint(), Fault::StripsConditions).await;
    let probed = bucket(proxy.endpoint()).probe_conditional_writes().await;
    assert!(
        matches!(probed, Err(Error::NoConditionalWrites(_))),
        "{probed:?}"
    );
    assert_eq!(server.list("sites/"), [""; 0]);
}

#[tokio::test]
async fn a_server_that_is_gone_is_out_of_reach_at_once() {
    let bucket = bucket(format!("http://127.0.0.1:{}", free_port()));
    let start = Instant::now();
    is_unreachable(&bucket.get(RECORD).await);
    is_unreachable(&bucket.create(RECORD, "one").await);
    is_unreachable(&bucket.list("").await);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_server_that_hangs_is_out_of_reach_in_time() {
    if !slow("a server that hangs is out of reach in time") {
        return;
    }
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    let version = bucket.create(RECORD, "one").await.unwrap();
    server.signal("STOP");
    let start = Instant::now();
    let (read, created, replaced, listed, put) = tokio::join!(
        timed(bucket.get(RECORD)),
        timed(bucket.create("new.json", "two")),
        timed(bucket.replace(RECORD, "three", &version)),
        timed(bucket.list("")),
        timed(bucket.put("other.json", "four")),
    );
    server.signal("CONT");
    is_unreachable(&read);
    is_unreachable(&created);
    is_unreachable(&replaced);
    is_unreachable(&listed);
    is_unreachable(&put);
    assert!(start.elapsed() < 2 * BOUND);
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_bucket_are_named() {
    let server = S3::start().await;
    let wrong = "wrong-secret-of-somebody".to_owned();
    for (change, expected) in [
        (0, "secret_access_key"),
        (1, "access_key_id"),
        (2, "the bucket nowhere is not there"),
    ] {
        let mut settings = settings(server.endpoint());
        match change {
            0 => settings.secret_access_key = wrong.clone().into(),
            1 => settings.access_key_id = wrong.clone().into(),
            _ => settings.bucket = "nowhere".to_owned(),
        }
        let bucket = Bucket::replica(&settings).unwrap();
        let listed = bucket.list("").await.unwrap_err();
        let text = listed.to_string();
        assert!(matches!(listed, Error::Refused(_)), "{listed:?}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_list_has_more_than_one_page() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    let folder = server.objects().join("sites/one/many/inside");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..1_100 {
        std::fs::write(folder.join(format!("{number:04}")), "four").unwrap();
    }
    // Not in the folder, though its name begins alike.
    bucket.put("many-more", "other").await.unwrap();
    let listed = bucket.list("many").await.unwrap();
    assert_eq!(listed.len(), 1_100);
    assert_eq!(listed[0].name, "many/inside/0000");
    assert_eq!(listed[1_099].name, "many/inside/1099");
    assert_eq!(listed[0].bytes, 4);
    assert_eq!(bucket.list_some("many", 7).await.unwrap().len(), 7);
    assert_eq!(bucket.list("").await.unwrap().len(), 1_101);
    assert_eq!(bucket.list("none").await.unwrap(), []);
    assert_eq!(bucket.folders("many").await.unwrap(), ["inside"]);
    assert_eq!(bucket.folders("").await.unwrap(), ["many"]);
}

#[tokio::test]
async fn an_object_that_is_too_large_is_not_read() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    bucket.put("small", vec![7; 1024 * 1024]).await.unwrap();
    bucket.put("large", vec![7; 1024 * 1024 + 1]).await.unwrap();
    assert!(bucket.get("small").await.unwrap().is_some());
    let refused = bucket.get("large").await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_file_goes_up_in_parts_and_comes_down_whole() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    for bytes in [0_u64, 5, 8 << 20, (20 << 20) + 3] {
        let content: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
        std::fs::write(&from, &content).unwrap();
        let mut steps = Vec::new();
        let upload = bucket.upload("file", &from, |step| steps.push(step));
        upload.await.unwrap();
        let last = steps.last().unwrap();
        assert_eq!((last.done, last.bytes), (bytes, bytes));
        assert_eq!(steps.len(), if bytes > 8 << 20 { 3 } else { 1 });
        let stored = std::fs::read(server.objects().join("sites/one/file")).unwrap();
        assert!(stored == content, "{bytes} bytes");
        let down = bucket.download("file", &to, bytes, |_| {}).await.unwrap();
        assert_eq!(down, bytes);
        assert!(std::fs::read(&to).unwrap() == content, "{bytes} bytes");
        std::fs::remove_file(&to).unwrap();
    }
    let larger = bucket.download("file", &to, 1_000, |_| {}).await;
    assert!(matches!(larger, Err(Error::Refused(_))), "{larger:?}");
    let missing = bucket.download("nothing", &to, 1_000, |_| {}).await;
    assert!(matches!(missing, Err(Error::Refused(_))), "{missing:?}");
    assert!(!to.exists());
}

#[tokio::test]
async fn old_generations_go_a_thousand_objects_at_a_time() {
    let server = S3::start().await;
    let bucket = bucket(server.endpoint());
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let begun = |epoch, hours| Generation::new(epoch, now - SignedDuration::from_hours(hours));
    let all = [begun(1, 300), begun(2, 200), begun(3, 100), begun(4, 1)];
    for (generation, count) in all.iter().zip([550, 500, 3, 2]) {
        let folder = server.objects().join("sites/one").join(generation.folder());
        std::fs::create_dir_all(folder.join("0000")).unwrap();
        for number in 0..count {
            std::fs::write(folder.join(format!("0000/{number}.ltx")), "five!").unwrap();
        }
    }
    bucket
        .put("generations/notes/readme", "not ours")
        .await
        .unwrap();
    let generations = Generations::new(bucket.clone());
    assert_eq!(generations.list().await.unwrap(), all);
    let keep = SignedDuration::from_hours(72);
    let current = all[3].to_string();
    let first = generations.prune(keep, &current, now).await.unwrap();
    assert_eq!(
        (first.objects, first.bytes, first.is_more),
        (1_000, 5_000, true)
    );
    assert_eq!(first.generations, all[..1]);
    let second = generations.prune(keep, &current, now).await.unwrap();
    assert_eq!((second.objects, second.is_more), (50, false));
    assert_eq!(second.generations, all[1..2]);
    let third = generations.prune(keep, &current, now).await.unwrap();
    assert_eq!(third.objects, 0);
    let left = bucket.list("generations").await.unwrap();
    assert_eq!(left.len(), 3 + 2 + 1);
}

#[tokio::test]
async fn a_server_that_is_not_s3_is_no_empty_bucket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _ = client.read(&mut request).await;
            let answer =
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = client.write_all(answer).await;
        }
    });
    let bucket = bucket(endpoint);
    let read = bucket.get(RECORD).await;
    assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
    let created = bucket.create(RECORD, "one").await;
    assert!(matches!(created, Err(Error::Refused(_))), "{created:?}");
    server.abort();
}

#[tokio::test]
async fn no_secret_is_shown() {
    let server = S3::start().await;
    let mut settings = settings(server.endpoint());
    settings.access_key_id = "AKIA-SHOWN".to_owned().into();
    settings.secret_access_key = "SECRET-SHOWN".to_owned().into();
    let bucket = Bucket::replica(&settings).unwrap();
    let refused = bucket.create(RECORD, "one").await.unwrap_err();
    settings.endpoint = format!("http://USER-SHOWN:PASS-SHOWN@127.0.0.1:{}", free_port());
    let other = Bucket::replica(&settings).unwrap();
    let unreachable = other.get(RECORD).await.unwrap_err();
    for text in [
        format!("{bucket:?} {other:?}"),
        format!("{refused} {refused:?}"),
        format!("{unreachable} {unreachable:?}"),
    ] {
        assert!(!text.contains("SHOWN"), "{text}");
    }
}

fn is_conflict<T: std::fmt::Debug>(done: &Result<T, Error>) {
    assert!(matches!(done, Err(Error::Conflict(_))), "{done:?}");
}

fn is_unreachable<T: std::fmt::Debug>(done: &Result<T, Error>) {
    assert!(matches!(done, Err(Error::Unreachable(_))), "{done:?}");
}

async fn timed<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work)
        .await
        .expect("an answer in time")
}
