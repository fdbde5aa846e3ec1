//! A replica that is damaged, and one that only looks so.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use houseboat::replication::Error;
use houseboat::replication::Settings;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::database::settings;
use crate::replica::into;
use crate::replica::refused;
use crate::replica::replica;
use crate::support::replica::FIRST;
use crate::support::replica::LONG;
use crate::support::replica::Replicated;
use crate::support::replica::names;
use crate::support::replica::open;
use crate::support::replica::replication;
use crate::support::replica::rows;
use crate::support::replica::text;
use crate::support::s3::S3;

#[tokio::test]
async fn a_damaged_replica_is_refused_whatever_is_wrong_with_it() {
    let (s3, replication) = replica().await;
    let folder = s3.objects().join("site/generations").join(FIRST);
    // What was compacted by now would hide the damage.
    for level in 1..9 {
        let _ = fs::remove_dir_all(folder.join(format!("{level:04}")));
    }
    let (files, snapshots) = (ltx(&folder.join("0000")), folder.join("0009"));
    assert!(files.len() >= 5, "{files:?}");
    // Without the snapshot the files are enough, and each of them is needed.
    let kept = tempfile::tempdir().unwrap();
    let snapshots_kept = kept.path().join("0009");
    if snapshots.exists() {
        fs::rename(&snapshots, &snapshots_kept).unwrap();
    }
    let database = tempfile::tempdir().unwrap();
    into(&replication, &settings(database.path()))
        .await
        .unwrap();

    let middle = &files[files.len() / 2];
    let whole = fs::read(middle).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    let mut cases: Vec<(&str, Error)> = Vec::new();
    for (case, bytes) in [
        ("flipped", &flipped[..]),
        ("half", &whole[..whole.len() / 2]),
        ("empty", &[]),
    ] {
        fs::write(middle, bytes).unwrap();
        cases.push((case, refused(&replication).await));
    }
    fs::remove_file(middle).unwrap();
    cases.push(("missing", refused(&replication).await));
    fs::write(middle, &whole).unwrap();
    fs::remove_file(&files[0]).unwrap();
    cases.push(("without its beginning", refused(&replication).await));
    for (case, error) in cases {
        assert!(matches!(error, Error::Restore(_)), "{case}: {error}");
        for way_out in ["replication.restore_at", "replication.allow_empty"] {
            assert!(error.to_string().contains(way_out), "{case}: {error}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_damaged_database_is_refused_though_litestream_restores_it() {
    let s3 = S3::start().await;
    let replication = replication(&s3);
    let folder = tempfile::tempdir().unwrap();
    let damaged = settings(folder.path());
    let site = open(&damaged).await;
    site.write(|tx| {
        for row in 0..100 {
            tx.execute("INSERT INTO notes (text) VALUES (?1)", [text(row)])?;
        }
        Ok(())
    })
    .await
    .unwrap();
    site.close().await;
    // The table says one thing, and its index another.
    let mut bytes = fs::read(&damaged.path).unwrap();
    let wanted = text(50).into_bytes();
    let found = bytes
        .windows(wanted.len())
        .position(|part| part == wanted)
        .unwrap();
    bytes[found + wanted.len() - 1] = b'x';
    fs::write(&damaged.path, bytes).unwrap();
    let site = open(&damaged).await;
    let site = Replicated::with(folder, damaged, site, &replication, FIRST).await;
    site.synced().await;
    site.stop(LONG).await;

    let error = refused(&replication).await;
    assert!(matches!(error, Error::Restore(_)), "{error}");
    for part in ["is damaged", "index", "replication.restore_at"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn what_goes_wrong_once_is_no_damage() {
    let (s3, replication) = replica().await;
    for fault in [Fault::Cut, Fault::Gone] {
        let (endpoint, faults) = faulty(&s3, fault).await;
        let replication = Settings {
            endpoint,
            ..replication.clone()
        };
        let folder = tempfile::tempdir().unwrap();
        let database = settings(folder.path());
        into(&replication, &database).await.unwrap();
        assert!(faults.load(Ordering::Relaxed) > 1, "{fault:?}");
        assert_eq!(rows(&database).await.len(), 500, "{fault:?}");
    }
}

/// What happens to the first file that is asked for, and to no other.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection ends before the file does.
    Cut,
    /// It has just been replaced by another.
    Gone,
}

const GONE: &str = "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";

/// A server before the server, with a fault; gives its address, and how many files passed.
async fn faulty(s3: &S3, fault: Fault) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = s3.endpoint().trim_start_matches("http://").to_owned();
    let files = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&files);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(relay(client, server, fault, Arc::clone(&count)));
        }
    });
    (format!("http://{address}"), files)
}

async fn relay(mut client: TcpStream, mut server: TcpStream, fault: Fault, files: Arc<AtomicU32>) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let has = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
    let is_first = || files.fetch_add(1, Ordering::Relaxed) == 0;
    loop {
        let passed = tokio::select! {
            Ok(count @ 1..) = client.read(&mut up) => {
                if matches!(fault, Fault::Gone) && has(&up[..count], b".ltx?x-id=GetObject") && is_first() {
                    let head = "HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\ncontent-length";
                    let answer = format!("{head}: {}\r\n\r\n{GONE}", GONE.len());
                    client.write_all(answer.as_bytes()).await
                } else {
                    server.write_all(&up[..count]).await
                }
            }
            Ok(count @ 1..) = server.read(&mut down) => {
                // What every file of Litestream's begins with.
                if matches!(fault, Fault::Cut) && has(&down[..count], b"LTX1") && is_first() {
                    let _ = client.write_all(&down[..count - 200]).await;
                    return;
                }
                client.write_all(&down[..count]).await
            }
            else => return,
        };
        if passed.is_err() {
            return;
        }
    }
}

fn ltx(folder: &Path) -> Vec<PathBuf> {
    names(folder).iter().map(|name| folder.join(name)).collect()
}
