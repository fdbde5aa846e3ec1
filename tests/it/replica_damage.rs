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
async fn a_connection_that_is_cut_is_no_damage() {
    let (s3, replication) = replica().await;
    let (endpoint, cuts) = cutting(&s3).await;
    let replication = Settings {
        endpoint,
        ..replication
    };
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    into(&replication, &database).await.unwrap();
    assert!(cuts.load(Ordering::Relaxed) > 1);
    assert_eq!(rows(&database).await.len(), 500);
}

/// A server before the server, which cuts the first answer with a file in it.
async fn cutting(s3: &S3) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = s3.endpoint().trim_start_matches("http://").to_owned();
    let cuts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&cuts);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(relay(client, server, Arc::clone(&count)));
        }
    });
    (format!("http://{address}"), cuts)
}

async fn relay(client: TcpStream, server: TcpStream, cuts: Arc<AtomicU32>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
        // What every file of Litestream's begins with.
        let has_file = bytes[..count].windows(4).any(|part| part == b"LTX1");
        let is_cut = has_file && cuts.fetch_add(1, Ordering::Relaxed) == 0;
        let sent = if is_cut { count - 200 } else { count };
        if to_client.write_all(&bytes[..sent]).await.is_err() || is_cut {
            break;
        }
    }
    up.abort();
}

fn ltx(folder: &Path) -> Vec<PathBuf> {
    names(folder).iter().map(|name| folder.join(name)).collect()
}
