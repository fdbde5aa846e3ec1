//! A disk that is full: writes say so, reads go on, and once there is room it works again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Migrations;
use houseboat::database::Result;
use tokio::task::JoinSet;

use crate::database::hold_writer;
use crate::database::settings;
use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::tmpfs::Tmpfs;
use crate::support::waiting::is_pending;

const SOON: Duration = Duration::from_mins(1);
const TASKS: i64 = 16;
/// The site takes 100 monitors.
const MONITORS_MAX: usize = 90;

const BLOBS: Migrations = Migrations::new(
    "blobs",
    &[(
        "V1__blobs",
        "CREATE TABLE blobs (key INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;",
    )],
);

async fn insert(database: &Database, key: i64, bytes: usize) -> Result<()> {
    let write = database.write(move |tx| {
        tx.prepare_cached("INSERT INTO blobs VALUES (?1, randomblob(?2))")?
            .execute((key, bytes))?;
        Ok(())
    });
    write.await
}

async fn keys(database: &Database) -> BTreeSet<i64> {
    let read = database.read(|conn| {
        // All of it is read, down to the last page.
        let mut statement = conn.prepare_cached("SELECT key FROM blobs WHERE hex(bytes) <> ''")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    });
    read.await.unwrap()
}

/// Takes all the room that is left, and gives the file that holds it.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    let (mut size, zeros) = (1 << 20, vec![0; 1 << 20]);
    while size > 0 {
        if file.write_all(&zeros[..size]).is_err() {
            size /= 2;
        }
    }
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let Some(disk) = Tmpfs::mount("8m") else {
        return;
    };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let database = Database::open(&settings(disk.path()), Clock::system()).unwrap();
    database.migrate(&[BLOBS]).await.unwrap();

    let stored = Arc::new(Mutex::new(BTreeSet::new()));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (database, stored) = (database.clone(), Arc::clone(&stored));
        tasks.spawn(async move {
            for key in task * 1_000_000.. {
                if let Err(error) = insert(&database, key, 2_000).await {
                    return error;
                }
                stored.lock().unwrap().insert(key);
            }
            unreachable!("there is no end of numbers");
        });
    }
    for error in tasks.join_all().await {
        assert!(matches!(error, Error::DiskFull), "{error:?}");
    }
    let mut stored = std::mem::take(&mut *stored.lock().unwrap());
    assert!(!stored.is_empty());
    assert_eq!(keys(&database).await, stored);

    // Of a group, each hears of it: those before the one for which there was no room, and that one.
    let (go_on, held) = hold_writer(&database);
    let mut group = Vec::new();
    for key in -8..0 {
        let mut write = Box::pin(insert(&database, key, 500_000));
        assert!(is_pending(&mut write).await);
        group.push(write);
    }
    go_on.send(()).unwrap();
    for write in group {
        let error = write.await.unwrap_err();
        assert!(matches!(error, Error::DiskFull), "{error:?}");
    }
    // It wrote nothing, and was stored with them or before them.
    let held = held.await.unwrap();
    assert!(matches!(held, Ok(()) | Err(Error::DiskFull)), "{held:?}");
    assert_eq!(keys(&database).await, stored);

    fs::remove_file(ballast).unwrap();
    for key in -8..0 {
        insert(&database, key, 2_000).await.unwrap();
        stored.insert(key);
    }
    assert_eq!(keys(&database).await, stored);
    let sound = database.read(|conn| {
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        Ok(sound)
    });
    assert_eq!(sound.await.unwrap(), "ok");
    database.close().await;

    // What is in the file, without what was in memory.
    let database = Database::open(&settings(disk.path()), Clock::system()).unwrap();
    assert_eq!(keys(&database).await, stored);
    database.close().await;
}

#[tokio::test]
async fn a_site_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = Tmpfs::mount("16m") else {
        return;
    };
    let site = TestProcess::builder().folder(disk.path()).start().await;
    let (client, home) = (site.owner().await, site.url("/"));
    let add = async |number: usize| {
        // Nobody answers there, and nobody needs to.
        let monitor = Monitor::new(&format!("monitor {number}"), "http://127.0.0.1:9/");
        let answer = post_form(&client, &site.url("/monitors"), &monitor.pairs()).await;
        answer.unwrap()
    };
    assert_eq!(add(0).await.status(), 303);
    let filler = fill(disk.path());
    // What room the file has in itself is used first.
    let mut number = 1;
    let refused = loop {
        assert!(number < MONITORS_MAX, "the disk does not get full");
        let answer = add(number).await;
        if answer.status() != 303 {
            break answer;
        }
        number += 1;
    };
    assert_eq!(refused.status(), 507, "{}", site.log());
    let text = refused.text().await.unwrap();
    assert!(text.contains("No room"), "{text}");
    let page = client.get(&home).send().await.unwrap();
    assert_eq!(page.status(), 200, "{}", site.log());

    fs::remove_file(filler).unwrap();
    assert_eq!(add(MONITORS_MAX).await.status(), 303, "{}", site.log());
    let page = client
        .get(&home)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let names = (0..number).chain([MONITORS_MAX]);
    for name in names.map(|number| format!("monitor {number}<")) {
        assert!(page.contains(&name), "{name} is not there:\n{page}");
    }
    assert!(!page.contains(&format!("monitor {number}<")), "{page}");
}

#[tokio::test]
async fn a_site_that_has_no_room_to_start_says_so() {
    let Some(disk) = Tmpfs::mount("16m") else {
        return;
    };
    let start = || TestProcess::builder().folder(disk.path());
    let mut site = start().start().await;
    site.terminate();
    assert!(site.wait(SOON).await.success(), "{}", site.log());
    let filler = fill(disk.path());
    let mut site = start().spawn();
    let status = site.wait(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", site.log());
    let log = site.log();
    for part in ["cannot open data/site.sqlite3", "no room on its disk"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // A megabyte is enough.
    let held = fs::File::options().write(true).open(&filler).unwrap();
    let bytes = held.metadata().unwrap().len();
    held.set_len(bytes - (1 << 20)).unwrap();
    let site = start().start().await;
    let page = client().get(site.url("/")).send().await.unwrap();
    assert_eq!(page.status(), 200, "{}", site.log());
}
