//! Whole copies of the database in a second bucket, by a real S3 server.

use std::path::Path;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::replication::Error;
use houseboat::replication::Snapshot;
use houseboat::replication::SnapshotSettings;
use houseboat::replication::Snapshots;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::backup::DATABASE;
use crate::backup::fill;
use crate::backup::names;
use crate::backup::notes;
use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
use crate::database::settings as database_settings;
use crate::support::client::client;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::proxy::Fault;
use crate::support::proxy::Proxy;
use crate::support::s3::BUCKET;
use crate::support::s3::KEY;
use crate::support::s3::S3;
use crate::support::s3::SECRET;
use crate::support::s3::free_port;
use crate::support::tmpfs::Tmpfs;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn settings(server: &S3) -> SnapshotSettings {
    SnapshotSettings {
        bucket: BUCKET.to_owned(),
        path: "copies".to_owned(),
        endpoint: server.endpoint(),
        access_key_id: KEY.to_owned().into(),
        secret_access_key: SECRET.to_owned().into(),
        ..SnapshotSettings::default()
    }
}

fn snapshots(settings: &SnapshotSettings) -> Snapshots {
    Snapshots::new(settings, &[NOTES]).unwrap()
}

/// Runs the program with the database of `folder` and the snapshots of `server`.
fn program(folder: &Path, server: &S3, arguments: &[&str]) -> Printed {
    let variables = variables(server, &server.endpoint());
    let variables = variables.iter();
    let variables: Vec<_> = variables
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    run(folder, arguments, &variables)
}

/// What the program is told.
fn variables(server: &S3, endpoint: &str) -> Vec<(String, String)> {
    let mut variables = server.variables("copies");
    for (name, value) in &mut variables {
        *name = name.replace("REPLICATION", "SNAPSHOTS");
        if name.ends_with("ENDPOINT") {
            endpoint.clone_into(value);
        }
    }
    let (name, value) = DATABASE;
    variables.push((name.to_owned(), value.to_owned()));
    variables
}

/// Where the objects of a snapshot are.
fn object(server: &S3, snapshot: &Snapshot, ending: &str) -> std::path::PathBuf {
    let name = format!("copies/snapshots/{}{ending}", snapshot.name);
    server.objects().join(name)
}

fn is_snapshot_error<T: std::fmt::Debug>(done: &Result<T, Error>, part: &str) {
    let Err(Error::Snapshot(text)) = done else {
        panic!("{done:?}");
    };
    assert!(text.contains(part), "{text}");
}

/// Fetches one, and counts the notes in it.
async fn fetched(snapshots: &Snapshots, snapshot: &Snapshot, beside: &Path) -> Result<i64, Error> {
    snapshots
        .fetch(
            snapshot,
            beside,
            |_| {},
            async |file: &Path| Ok::<_, Error>(notes(file)),
        )
        .await
}

#[tokio::test]
async fn what_was_snapshot_comes_back() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 500).await;
    let data = database.path().parent().unwrap().to_owned();
    let before = names(&data);
    let snapshots = snapshots(&settings(&server));
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    assert_eq!(
        names(&data),
        before,
        "it leaves nothing beside the database"
    );
    insert(&database, "too late").await.unwrap();
    assert_eq!(made.schema["notes"], "V1__notes");
    assert!(made.packed_bytes < made.bytes);
    assert_eq!(snapshots.status().last, Some(made.made_at));
    assert_eq!(snapshots.list().await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(snapshots.find("latest").await.unwrap(), made);
    assert_eq!(snapshots.find(&made.name).await.unwrap(), made);
    let to = folder.path().join("elsewhere");
    assert_eq!(fetched(&snapshots, &made, &to).await.unwrap(), 500);
    assert_eq!(names(folder.path()), ["data"], "what was fetched is gone");
    is_gzip(&object(&server, &made, ".sqlite3.gz"));
}

/// Whoever has no program but `gunzip` can use it.
fn is_gzip(path: &Path) {
    let test = std::process::Command::new("gzip")
        .arg("-t")
        .arg(path)
        .status();
    assert!(test.unwrap().success());
}

#[tokio::test]
async fn the_program_makes_lists_and_restores_them() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 500).await;
    let path = database.path().to_owned();
    let none = program(folder.path(), &server, &["backup", "--list"]);
    assert_eq!(none.out, "there are no snapshots\n", "{}", none.err);
    let made = program(folder.path(), &server, &["backup", "--to-bucket"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let (name, _) = made.out.split_once(':').unwrap();
    let listed = program(folder.path(), &server, &["backup", "--list"]);
    assert!(listed.out.starts_with(name), "{}", listed.out);
    insert(&database, "too late").await.unwrap();
    database.close().await;
    let arguments = ["restore", "--from-snapshot", "latest"];
    let restored = program(folder.path(), &server, &arguments);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert!(restored.out.contains(name), "{}", restored.out);
    assert_eq!(notes(&path), 500);
    let data = names(path.parent().unwrap());
    assert!(data.iter().any(|name| name.contains(".before-restore-")));
    assert!(
        !data.iter().any(|name| name.contains("snapshot")),
        "{data:?}"
    );
}

#[tokio::test]
async fn a_restore_to_an_empty_disk_makes_the_database() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 50).await;
    let made = program(folder.path(), &server, &["backup", "--to-bucket"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    database.close().await;
    let empty = TempDir::new().unwrap();
    let arguments = ["restore", "--from-snapshot", "latest"];
    let restored = program(empty.path(), &server, &arguments);
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&empty.path().join("data/test.sqlite3")), 50);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_changes_nothing() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 50).await;
    database.close().await;
    let path = folder.path().join("data/test.sqlite3");
    for (arguments, part) in [
        (
            &["restore", "--from-snapshot", "latest"][..],
            "there is none",
        ),
        (&["restore", "--from-snapshot", "../x"], "no name of one"),
        (
            &["restore", "--from-snapshot", "20261121T073214Z-09af"],
            "there is no 20261121T073214Z-09af",
        ),
    ] {
        let done = program(folder.path(), &server, arguments);
        assert_eq!(done.code, Some(1), "{}", done.err);
        assert!(done.err.contains(part), "{}", done.err);
    }
    let bare = run(folder.path(), &["backup", "--to-bucket"], &[DATABASE]);
    assert_eq!(bare.code, Some(1));
    assert!(bare.err.contains("snapshots.bucket"), "{}", bare.err);
    for arguments in [&["backup"][..], &["backup", "x", "--list"]] {
        assert_eq!(program(folder.path(), &server, arguments).code, Some(2));
    }
    assert_eq!(notes(&path), 50);
}

#[tokio::test]
async fn one_that_is_damaged_is_refused() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 50).await;
    let snapshots = snapshots(&settings(&server));
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    let to = folder.path().join("elsewhere");
    let data = object(&server, &made, ".sqlite3.gz");
    let sound = std::fs::read(&data).unwrap();
    // gzip does not look at the time in its header, nor at what comes after its end.
    for position in [4, sound.len() / 2, sound.len() - 1] {
        let mut flipped = sound.clone();
        flipped[position] ^= 1;
        std::fs::write(&data, flipped).unwrap();
        is_snapshot_error(&fetched(&snapshots, &made, &to).await, "checksum");
    }
    std::fs::write(&data, &sound[..sound.len() - 1]).unwrap();
    is_snapshot_error(&fetched(&snapshots, &made, &to).await, "checksum");
    std::fs::write(&data, [&sound[..], b"more"].concat()).unwrap();
    let longer = fetched(&snapshots, &made, &to).await;
    assert!(matches!(longer, Err(Error::Refused(_))), "{longer:?}");
    std::fs::write(&data, &sound).unwrap();
    let mut other = made.clone();
    other.bytes -= 1;
    is_snapshot_error(&fetched(&snapshots, &other, &to).await, "bytes");
    assert_eq!(names(folder.path()), ["data"]);
    assert_eq!(fetched(&snapshots, &made, &to).await.unwrap(), 50);
}

#[tokio::test]
async fn without_its_note_it_does_not_count() {
    let server = S3::start().await;
    let (_folder, database) = database().await;
    let snapshots = snapshots(&settings(&server));
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    std::fs::remove_file(object(&server, &made, ".json")).unwrap();
    assert_eq!(snapshots.list().await.unwrap(), []);
    is_snapshot_error(&snapshots.find("latest").await, "there is none");
    is_snapshot_error(&snapshots.find(&made.name).await, "never finished");
}

#[tokio::test]
async fn a_server_that_is_gone_is_said_and_leaves_nothing() {
    let mut server = S3::start().await;
    let (_folder, database) = database().await;
    fill(&database, 500).await;
    let snapshots = snapshots(&settings(&server));
    let data = database.path().parent().unwrap().to_owned();
    let before = names(&data);
    let url = server.endpoint();
    server.stop();
    let failed = snapshots.make(&database, |_| {}).await;
    assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
    server.resume().await;
    assert_eq!(server.endpoint(), url);
    assert_eq!(snapshots.list().await.unwrap(), []);
    assert_eq!(names(&data), before);
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    assert_eq!(snapshots.list().await.unwrap(), [made]);
}

#[tokio::test]
async fn a_kill_before_the_end_leaves_nothing_that_counts() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 500).await;
    // The data arrives, and the program waits for the answer.
    let proxy = Proxy::start(&server.endpoint(), Fault::HoldsAnswers).await;
    let mut builder = TestProcess::builder().folder(folder.path());
    for argument in ["backup", "--to-bucket"] {
        builder = builder.argument(argument);
    }
    for (name, value) in variables(&server, &proxy.endpoint()) {
        builder = builder.variable(&name, value);
    }
    let mut process = builder.spawn();
    wait_for("upload", SOON, async || {
        (!server.list("copies/").is_empty()).then_some(())
    })
    .await;
    process.kill();
    let objects = server.list("copies/");
    assert!(
        objects.iter().all(|name| name.ends_with(".sqlite3.gz")),
        "{objects:?}"
    );
    let snapshots = snapshots(&settings(&server));
    assert_eq!(snapshots.list().await.unwrap(), []);
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    assert_eq!(snapshots.list().await.unwrap(), [made]);
    let data = names(database.path().parent().unwrap());
    assert!(
        !data.iter().any(|name| name.contains("snapshot")),
        "{data:?}"
    );
}

#[tokio::test]
async fn what_a_killed_one_left_is_taken_over_and_two_at_once_are_refused() {
    let server = S3::start().await;
    let (folder, database) = database().await;
    fill(&database, 50).await;
    let path = database.path().to_owned();
    for ending in ["snapshot", "snapshot.gz", "snapshot.partial"] {
        std::fs::write(path.with_added_extension(ending), "left").unwrap();
    }
    let lock = std::fs::File::create(path.with_added_extension("snapshot.lock")).unwrap();
    lock.lock().unwrap();
    let snapshots = snapshots(&settings(&server));
    is_snapshot_error(&snapshots.make(&database, |_| {}).await, "another process");
    drop(lock);
    let made = snapshots.make(&database, |_| {}).await.unwrap();
    let to = folder.path().join("elsewhere");
    assert_eq!(fetched(&snapshots, &made, &to).await.unwrap(), 50);
    let left = names(path.parent().unwrap());
    assert!(
        !left.iter().any(|name| name.contains("snapshot")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_disk_without_room_is_not_filled() {
    // The file, and 32 MiB that stay free; not twice the file more.
    let Some(disk) = Tmpfs::mount("48m") else {
        return;
    };
    let server = S3::start().await;
    let database = Database::open(&database_settings(disk.path()), Clock::system()).unwrap();
    database.migrate(&[NOTES]).await.unwrap();
    let snapshots = snapshots(&settings(&server));
    let small = snapshots.make(&database, |_| {}).await.unwrap();
    fill(&database, 12_000).await;
    let full = snapshots.make(&database, |_| {}).await;
    is_snapshot_error(&full, "there is no room");
    let mut large = small.clone();
    large.bytes = 1 << 30;
    let to = disk.path().join("elsewhere");
    is_snapshot_error(&fetched(&snapshots, &large, &to).await, "there is no room");
    assert_eq!(snapshots.list().await.unwrap(), [small]);
    insert(&database, "there is room for the site")
        .await
        .unwrap();
    database.close().await;
}

#[tokio::test]
async fn the_old_ones_go_when_a_new_one_is_made() {
    let server = S3::start().await;
    let folder = TempDir::new().unwrap();
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let clock = Clock::held(now);
    let database = Database::open(&database_settings(folder.path()), clock.clone()).unwrap();
    let snapshots = snapshots(&SnapshotSettings {
        keep: 2,
        keep_days: 3,
        ..settings(&server)
    });
    let left = server.objects().join("copies/snapshots");
    std::fs::create_dir_all(&left).unwrap();
    for name in ["20261121T110000Z-09af", "20261110T110000Z-09af"] {
        std::fs::write(left.join(format!("{name}.sqlite3.gz")), "unfinished").unwrap();
    }
    let mut made = Vec::new();
    for _ in 0..6 {
        made.insert(0, snapshots.make(&database, |_| {}).await.unwrap());
        clock.advance(Duration::from_hours(36));
    }
    // Of 0, 36, 72, 108 … hours ago when the last was made.
    assert_eq!(snapshots.list().await.unwrap(), made[..3]);
    let objects = server.list("copies/");
    let data = objects.iter().filter(|name| name.ends_with(".sqlite3.gz"));
    assert_eq!(data.count(), 3, "{objects:?}");
}

#[tokio::test]
async fn one_is_made_when_it_is_due_and_a_failure_shows() {
    let mut server = S3::start().await;
    let (_folder, database) = database().await;
    let snapshots = snapshots(&settings(&server));
    let stop = CancellationToken::new();
    let start = || {
        let (snapshots, database, stop) = (snapshots.clone(), database.clone(), stop.child_token());
        tokio::spawn(async move { snapshots.run(database, stop).await })
    };
    let first = start();
    let made = wait_for("snapshot", SOON, async || snapshots.status().last).await;
    first.abort();
    let _ = first.await;
    assert_eq!(snapshots.list().await.unwrap().len(), 1);
    // A restart finds in the bucket that none is due, and is told so by the bucket alone.
    let again = Snapshots::new(&settings(&server), &[NOTES]).unwrap();
    let (restarted, live, ending) = (again.clone(), database.clone(), stop.clone());
    let second = tokio::spawn(async move { restarted.run(live, ending).await });
    let last = wait_for("status", SOON, async || again.status().last).await;
    assert_eq!(last.as_second(), made.as_second());
    server.stop();
    let third = start();
    let error = wait_for("error", SOON, async || snapshots.status().error).await;
    assert!(error.contains("cannot reach the bucket"), "{error}");
    stop.cancel();
    for task in [second, third] {
        tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    }
    server.resume().await;
    assert_eq!(snapshots.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_site_makes_them_by_itself_and_says_when_it_cannot() {
    let server = S3::start().await;
    for command in ["serve", "start"] {
        // None is due while there is a young one.
        let _ = std::fs::remove_dir_all(server.objects().join("copies"));
        let folder = tempfile::tempdir().unwrap();
        let mut site = site(folder.path(), command, &server, &server.endpoint()).await;
        wait_for("snapshot in the bucket", SOON, async || {
            let is_in = site.log().contains("is in the bucket");
            (is_in && !server.list("copies/snapshots").is_empty()).then_some(())
        })
        .await;
        site.terminate();
        assert!(site.wait(SOON).await.success(), "{}", site.log());
    }
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let site = site(folder.path(), "serve", &server, &nowhere).await;
    wait_for("warning of /ready", SOON, async || {
        let ready = client().get(site.url("/ready")).send().await.unwrap();
        assert_eq!(ready.status(), 200);
        let ready = ready.text().await.unwrap();
        ready.contains("no snapshot could be made: ").then_some(())
    })
    .await;
}

async fn site(folder: &Path, command: &str, server: &S3, endpoint: &str) -> TestProcess {
    let builder = TestProcess::builder().folder(folder).argument(command);
    let variables = variables(server, endpoint);
    let builder = variables
        .into_iter()
        .fold(builder, |builder, (name, value)| {
            builder.variable(&name, value)
        });
    builder.start().await
}
