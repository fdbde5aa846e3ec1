//! Litestream as a child: it copies, comes back, and leaves nothing behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use houseboat::replication::Error;
use houseboat::replication::Litestream;
use houseboat::replication::Settings;
use houseboat::replication::Stopped;
use jiff::Timestamp;

use crate::database::settings;
use crate::support::client::client;
use crate::support::log;
use crate::support::replica::FIRST;
use crate::support::replica::LONG;
use crate::support::replica::Replicated;
use crate::support::replica::SECOND;
use crate::support::replica::open;
use crate::support::replica::replication;
use crate::support::replica::restored;
use crate::support::replica::text;
use crate::support::s3::S3;
use crate::support::s3::SECRET;
use crate::support::s3::free_port;
use crate::support::waiting::wait_for;

#[tokio::test]
async fn ten_thousand_rows_go_to_the_bucket_and_come_back() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let site = Replicated::start(&settings, FIRST).await;
    for rows in [0..4_000, 4_000..9_000, 9_000..10_000] {
        site.write(rows).await;
        site.synced().await;
    }
    let stopped = site.stop(LONG).await;
    assert!(
        matches!(stopped, Stopped::Synced { txid: 1.. }),
        "{stopped:?}"
    );
    let rows = restored(&settings, FIRST).await;
    let expected: Vec<String> = (0..10_000).map(text).collect();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn what_is_written_just_before_the_stop_is_in_the_bucket() {
    let s3 = S3::start().await;
    let settings = Settings {
        // It would not come by itself.
        sync_ms: 60_000,
        ..replication(&s3)
    };
    let site = Replicated::start(&settings, FIRST).await;
    site.write(0..3).await;
    let stopped = site.stop(LONG).await;
    assert!(matches!(stopped, Stopped::Synced { .. }), "{stopped:?}");
    assert_eq!(restored(&settings, FIRST).await.len(), 3);
}

#[tokio::test]
async fn a_killed_litestream_comes_back_and_goes_on() {
    log::keep();
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let site = Replicated::start(&settings, FIRST).await;
    site.write(0..100).await;
    site.synced().await;
    let first = process(&site.settings.path).unwrap();
    signal(first, "KILL");
    site.write(100..200).await;
    let second = wait_for("another litestream", LONG, async || {
        process(&site.settings.path).filter(|id| *id != first)
    })
    .await;
    assert_ne!(first, second);
    assert_eq!(site.litestream.restarts(), 1);
    wait_for("the rows in the bucket", LONG, async || {
        let synced = site.litestream.control().sync(LONG).await.is_ok();
        synced.then_some(())
    })
    .await;
    site.stop(LONG).await;
    assert_eq!(restored(&settings, FIRST).await.len(), 200);
    let lines = log::lines(&["litestream died", "signal: 9"]);
    assert!(!lines.is_empty());
}

#[tokio::test]
async fn one_that_died_just_before_the_stop_copies_the_rest_all_the_same() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let site = Replicated::start(&settings, FIRST).await;
    site.write(0..10).await;
    site.synced().await;
    signal(process(&site.settings.path).unwrap(), "KILL");
    site.write(10..20).await;
    let stopped = site.stop(LONG).await;
    assert!(matches!(stopped, Stopped::Synced { .. }), "{stopped:?}");
    assert_eq!(restored(&settings, FIRST).await.len(), 20);
}

#[tokio::test]
async fn a_stop_without_the_bucket_ends_in_time_and_says_so() {
    let mut s3 = S3::start().await;
    let settings = replication(&s3);
    for hangs in [false, true] {
        let generation = if hangs { SECOND } else { FIRST };
        let site = Replicated::start(&settings, generation).await;
        site.write(0..10).await;
        site.synced().await;
        if hangs {
            s3.signal("STOP");
        } else {
            s3.stop();
        }
        site.write(10..20).await;
        let start = Instant::now();
        let within = Duration::from_secs(1);
        let stopped = site.stop(within).await;
        let took = start.elapsed();
        assert!(matches!(stopped, Stopped::NotSynced(_)), "{stopped:?}");
        assert!(took < within + Duration::from_secs(1), "{took:?}");
        assert_eq!(process(&site.settings.path), None);
        if hangs {
            s3.signal("CONT");
        } else {
            s3.resume().await;
        }
    }
}

#[tokio::test]
async fn killed_it_is_gone_at_once_and_stays_so() {
    let s3 = S3::start().await;
    let site = Replicated::start(&replication(&s3), FIRST).await;
    site.synced().await;
    let id = process(&site.settings.path).unwrap();
    site.litestream.kill();
    wait_for("its end", LONG, async || (!is_alive(id)).then_some(())).await;
    let stopped = site.stop(LONG).await;
    assert!(matches!(stopped, Stopped::NotSynced(_)), "{stopped:?}");
    assert_eq!(process(&site.settings.path), None);
    assert_eq!(site.litestream.restarts(), 0);
}

#[tokio::test]
async fn dropped_it_is_gone() {
    let s3 = S3::start().await;
    let folder = tempfile::tempdir().unwrap();
    let database = settings(folder.path());
    let open = open(&database).await;
    let litestream = Litestream::start(&replication(&s3), &database.path, FIRST).await;
    let litestream = litestream.unwrap();
    litestream.sync(LONG).await.unwrap();
    let id = process(&database.path).unwrap();
    drop(litestream);
    wait_for("its end", LONG, async || (!is_alive(id)).then_some(())).await;
    open.close().await;
}

#[tokio::test]
async fn one_that_was_left_behind_is_ended_first() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let site = Replicated::start(&settings, FIRST).await;
    site.synced().await;
    let orphan = process(&site.settings.path).unwrap();
    // As after a kill of the whole program: nobody watches it any more.
    site.stop.cancel();
    let next = Litestream::start(&settings, &site.settings.path, SECOND).await;
    let next = next.unwrap();
    assert_ne!(process_of(&next).await, orphan);
    wait_for("its end", LONG, async || (!is_alive(orphan)).then_some(())).await;
    site.write(0..5).await;
    next.sync(LONG).await.unwrap();
    assert_eq!(restored(&settings, SECOND).await.len(), 5);
    assert_eq!(next.generation(), SECOND);
}

#[tokio::test]
async fn one_that_hangs_is_killed_in_time() {
    let s3 = S3::start().await;
    let site = Replicated::start(&replication(&s3), FIRST).await;
    site.synced().await;
    let id = process(&site.settings.path).unwrap();
    signal(id, "STOP");
    let stopped = site.stop(Duration::from_secs(1)).await;
    assert!(matches!(stopped, Stopped::NotSynced(_)), "{stopped:?}");
    assert!(!is_alive(id));
}

#[tokio::test]
async fn a_new_generation_has_everything_from_its_start() {
    let s3 = S3::start().await;
    let settings = replication(&s3);
    let site = Replicated::start(&settings, FIRST).await;
    site.write(0..500).await;
    site.synced().await;
    // The database stays open, and its `-wal` where it is.
    site.stop.cancel();
    let stopped = site.litestream.stop(LONG).await;
    assert!(matches!(stopped, Stopped::Synced { .. }), "{stopped:?}");
    let objects = s3.list(&format!("site/generations/{FIRST}/"));
    let path = &site.settings.path;
    let left = notes(path).join("left");
    std::fs::write(&left, "").unwrap();
    let second = Litestream::start(&settings, path, SECOND).await.unwrap();
    assert!(!left.exists());
    second.sync(LONG).await.unwrap();
    assert_eq!(restored(&settings, SECOND).await.len(), 500);
    // The other one is as it was.
    assert_eq!(s3.list(&format!("site/generations/{FIRST}/")), objects);
    assert_eq!(restored(&settings, FIRST).await.len(), 500);
    second.stop(LONG).await;
}

#[tokio::test]
async fn every_setting_takes_effect() {
    let s3 = S3::start().await;
    let metrics = format!("127.0.0.1:{}", free_port());
    let settings = Settings {
        litestream_metrics: metrics.clone(),
        sync_ms: 300,
        snapshot_hours: 7,
        keep_hours: 99,
        ..replication(&s3)
    };
    let site = Replicated::start(&settings, FIRST).await;
    site.synced().await;
    let id = process(&site.settings.path).unwrap();
    let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let variables: Vec<&str> = environment.split('\0').collect();
    let wrong = |name: &&&str| name.starts_with("AWS_") || name.starts_with("LITESTREAM_");
    assert_eq!(variables.iter().find(wrong), None);
    let arguments = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
    assert!(!arguments.contains(SECRET), "{arguments}");

    // What Litestream itself says of the same file and environment.
    let config = site.settings.path.with_added_extension("litestream.yml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(!text.contains(SECRET));
    let said = said_by_litestream(&config, &variables).await;
    for part in [
        "sync-interval=300ms",
        "bucket=bucket",
        "region=us-east-1",
        &format!("path=site/generations/{FIRST}"),
        &format!("endpoint={}", s3.endpoint()),
        "level=9 interval=7h0m0s",
        "control socket listening",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let enforced = said.split("enforcing snapshot retention").nth(1).unwrap();
    let before = enforced.split("timestamp=").nth(1).unwrap();
    let before: Timestamp = before.split_whitespace().next().unwrap().parse().unwrap();
    let hours = (Timestamp::now() - before).get_seconds() / 3600
        + i64::from((Timestamp::now() - before).get_hours());
    assert_eq!(hours, 99, "{before}");

    let socket = site.settings.path.with_added_extension("litestream.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(notes(&site.settings.path).is_dir());
    let page = client()
        .get(format!("http://{metrics}/metrics"))
        .send()
        .await
        .unwrap();
    assert!(page.text().await.unwrap().contains("litestream_txid"));
    let last = site
        .litestream
        .control()
        .last_sync()
        .await
        .unwrap()
        .unwrap();
    assert!(last.duration_until(Timestamp::now()).as_secs() < 20);
    site.stop(LONG).await;
}

#[tokio::test]
async fn without_the_bucket_the_last_sync_stands_still() {
    let mut s3 = S3::start().await;
    let site = Replicated::start(&replication(&s3), FIRST).await;
    site.synced().await;
    let control = site.litestream.control();
    let first = control.last_sync().await.unwrap();
    wait_for("a later sync", LONG, async || {
        (control.last_sync().await.unwrap() > first).then_some(())
    })
    .await;
    s3.stop();
    // With nothing new there is nothing to send.
    control.sync(LONG).await.unwrap();
    site.write(0..1).await;
    let error = control.sync(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Error::Litestream(_)), "{error}");
    let stood = control.last_sync().await.unwrap();
    assert!(control.sync(Duration::from_secs(1)).await.is_err());
    assert_eq!(control.last_sync().await.unwrap(), stood);
    site.litestream.kill();
    let ended = async || control.last_sync().await.is_err().then_some(());
    wait_for("an error of the socket", LONG, ended).await;
}

#[tokio::test]
async fn a_program_that_is_missing_old_or_mute_is_refused_before_anything_else() {
    Litestream::check(&Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = |text: &str| {
        let path = folder.path().join(format!("litestream-{}", text.len()));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let missing = folder.path().join("nothing").display().to_string();
    for (litestream, part) in [
        (missing, "install Litestream 0.5.17"),
        (program("echo v0.5.16"), "must be 0.5.17 or later"),
        (program("exit 1"), "must be 0.5.17 or later"),
    ] {
        let settings = Settings {
            litestream,
            ..Settings::default()
        };
        let error = Litestream::check(&settings).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.contains(&settings.litestream), "{error}");
    }
}

#[tokio::test]
async fn a_long_path_and_odd_letters_are_no_obstacle() {
    let s3 = S3::start().await;
    let replica = replication(&s3);
    let folder = tempfile::tempdir().unwrap();
    let odd = folder
        .path()
        .join(format!("a \"b\" $c \\ é: 'd' & {}", "x".repeat(120)));
    let database = settings(&odd);
    for letter in ["#", "%", "?"] {
        let path = odd.join(letter).join("test.sqlite3");
        let error = Litestream::start(&replica, &path, FIRST).await.unwrap_err();
        assert!(
            error.to_string().contains("take another database.path"),
            "{error}"
        );
    }
    let open = open(&database).await;
    let site = Replicated::with(folder, database, open, &replica, FIRST).await;
    site.write(0..5).await;
    site.synced().await;
    let stopped = site.stop(LONG).await;
    assert!(matches!(stopped, Stopped::Synced { .. }), "{stopped:?}");
    assert_eq!(restored(&replica, FIRST).await.len(), 5);
}

/// The litestream that has this database in its environment.
fn process(database: &Path) -> Option<u32> {
    let wanted = database.with_added_extension("litestream.yml");
    let wanted = wanted.to_str().unwrap();
    let processes = Path::new("/proc").read_dir().unwrap().flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let words = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        words.contains("\0replicate\0") && words.contains(wanted) && is_alive(*id)
    })
}

async fn process_of(litestream: &Litestream) -> u32 {
    litestream.sync(LONG).await.unwrap();
    let path = litestream.database();
    process(path).unwrap()
}

fn is_alive(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

fn signal(id: u32, name: &str) {
    let arguments = ["-s", name, &id.to_string()];
    assert!(
        Command::new("kill")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

fn notes(database: &Path) -> std::path::PathBuf {
    let name = database.file_name().unwrap().to_str().unwrap();
    database.with_file_name(format!(".{name}-litestream"))
}

/// The first lines of a litestream of our own, for a database that is not there; at the level debug.
async fn said_by_litestream(config: &Path, variables: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(config).unwrap();
    let debug = folder.path().join("debug.yml");
    std::fs::write(&debug, text.replace("level: \"info\"", "level: \"debug\"")).unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new("litestream");
    command
        .arg("replicate")
        .arg("-config")
        .arg(&debug)
        .env_clear();
    command.stderr(std::fs::File::create(&log).unwrap());
    let own = ["DATABASE", "META", "SOCKET", "METRICS"]
        .map(|name| format!("HOUSEBOAT_LITESTREAM_{name}"));
    for (name, value) in variables.iter().filter_map(|line| line.split_once('=')) {
        if own.iter().any(|own| own == name) {
            let value = if name.ends_with("METRICS") {
                String::new()
            } else {
                folder.path().join(name).display().to_string()
            };
            command.env(name, value);
        } else {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().unwrap();
    let said = wait_for("its settings", LONG, async || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("enforcing snapshot retention")
            .then_some(said)
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    said
}
