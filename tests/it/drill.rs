//! The command `drill`: what it says of a replica that is sound, and of those that are not.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::holder::FILE;
use crate::support::holder::PLACE;
use crate::support::holder::command;
use crate::support::holder::done;
use crate::support::holder::generation;
use crate::support::holder::insert;
use crate::support::holder::objects;
use crate::support::holder::refused;
use crate::support::holder::start;
use crate::support::process::TestProcess;
use crate::support::replica::LONG;
use crate::support::replica::Replicated;
use crate::support::replica::names;
use crate::support::replica::replication;
use crate::support::s3::S3;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What the bucket keeps of the last drill.
fn last(s3: &S3) -> Value {
    let bytes = fs::read(s3.objects().join(PLACE).join("drill.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A drill that finds what is wrong; gives that.
fn finds(s3: &S3, folder: &Path) -> String {
    let printed = command(s3, folder, &["drill"], &[]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.out.ends_with("FAILED\n"), "{printed:?}");
    assert!(printed.err.contains("the drill failed: "), "{printed:?}");
    let error = last(s3)["error"].as_str().unwrap().to_owned();
    assert!(printed.err.contains(&error), "{printed:?}");
    assert_eq!(scratch(folder), [""; 0]);
    error
}

/// Flips a bit in those that have none flipped yet.
fn flip(objects: &[PathBuf], damaged: &mut HashSet<PathBuf>) {
    for object in objects {
        if damaged.insert(object.clone()) {
            let mut bytes = fs::read(object).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(object, bytes).unwrap();
        }
    }
}

/// Spoils the objects of the generation until a drill beside a site finds it; gives what it found.
async fn found(s3: &S3, folder: &Path, mut spoil: impl FnMut(&[PathBuf])) -> String {
    let found = wait_for("drill that fails", LONG, async || {
        spoil(&objects(s3, &generation(s3)));
        let printed = command(s3, folder, &["drill"], &[]);
        (printed.code != Some(0)).then_some(())
    });
    found.await;
    let error = last(s3)["error"].as_str().unwrap().to_owned();
    assert_eq!(scratch(folder), [""; 0]);
    error
}

/// What a drill has left beside the database.
fn scratch(folder: &Path) -> Vec<String> {
    let mut names = names(&folder.join("data"));
    names.retain(|name| name.contains(".drill") && !name.ends_with(".drill.lock"));
    names
}

async fn ready(site: &TestProcess) -> Value {
    let answer = client().get(site.url("/ready")).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn stop(mut site: TestProcess) {
    site.terminate();
    assert!(site.wait(LONG).await.success(), "{}", site.log());
}

#[tokio::test]
async fn a_sound_replica_passes_with_a_site_and_without_one() {
    if !slow("drills beside a site and without one") {
        return;
    }
    let (s3, one) = (S3::start().await, folder());
    let error = refused(&s3, one.path(), &["drill"]);
    assert!(error.contains("nothing in the bucket yet"), "{error}");
    let site = start(&s3, one.path(), &[]).await;
    // Somebody writes all the time.
    let is_over = Arc::new(AtomicBool::new(false));
    let (path, over) = (one.path().to_owned(), Arc::clone(&is_over));
    let writer = std::thread::spawn(move || {
        for number in 0.. {
            insert(&path, &format!("word {number}"));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    for _ in 0..3 {
        let said = done(&s3, one.path(), &["drill"]);
        assert!(said.contains("are as in the database"), "{said}");
        assert!(said.ends_with("\nok\n"), "{said}");
        let last = last(&s3);
        assert_eq!(last["error"], Value::Null);
        assert_eq!(last["generation"], generation(&s3).as_str());
        // The schema, the marks, the queue's tables and the site's.
        assert!(last["tables"].as_u64().unwrap() >= 5, "{last}");
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let said = done(&s3, one.path(), &["drill"]);
    assert!(said.contains("; 0 were written meanwhile"), "{said}");
    assert_eq!(scratch(one.path()), [""; 0]);
    assert_eq!(ready(&site).await["ready"], true);
    stop(site).await;

    let said = done(&s3, one.path(), &["drill"]);
    assert!(said.contains("not compared: no litestream"), "{said}");
    let elsewhere = folder();
    done(&s3, elsewhere.path(), &["drill"]);
    assert!(!elsewhere.path().join(FILE).exists());
}

#[tokio::test]
async fn damage_is_found_and_told_until_it_is_gone() {
    if !slow("drills of a damaged replica") {
        return;
    }
    let (s3, one) = (S3::start().await, folder());
    let site = start(&s3, one.path(), &[]).await;
    insert(one.path(), "one");
    done(&s3, one.path(), &["drill"]);
    // Litestream replaces what it has uploaded by what it compacts, and so heals it now and then.
    let mut damaged = HashSet::new();
    let error = found(&s3, one.path(), |objects| flip(objects, &mut damaged));
    assert!(error.await.contains("is damaged"));
    stop(site).await;
    flip(&objects(&s3, &generation(&s3)), &mut damaged);
    assert!(finds(&s3, one.path()).contains("is damaged"));

    // The next start says so until a drill goes well; its own generation is whole.
    let site = start(&s3, one.path(), &[]).await;
    let warned = wait_for("warning of the drill", LONG, async || {
        let ready = ready(&site).await;
        let warning = ready["warnings"][0].as_str()?.to_owned();
        Some((ready["ready"].clone(), warning))
    });
    let (is_ready, warning) = warned.await;
    assert_eq!(is_ready, true);
    assert!(warning.contains("cannot be relied on: "), "{warning}");
    done(&s3, one.path(), &["drill"]);

    insert(one.path(), "two");
    done(&s3, one.path(), &["drill"]);
    let error = found(&s3, one.path(), |objects| {
        for object in &objects[..objects.len() - 1] {
            fs::remove_file(object).unwrap();
        }
    });
    error.await;
}

#[tokio::test]
async fn a_replica_that_two_have_written_is_found() {
    let (s3, one) = (S3::start().await, folder());
    let _site = start(&s3, one.path(), &[]).await;
    insert(one.path(), "one");
    done(&s3, one.path(), &["drill"]);
    // What the lease and the generations are there to prevent.
    let replication = replication(&s3);
    let other = Replicated::start(&replication, &generation(&s3)).await;
    // It comes further than the one here.
    for round in 0..40 {
        other.write(round * 10..round * 10 + 10).await;
        other.synced().await;
        if round < 5 {
            insert(one.path(), &format!("round {round}"));
        }
    }
    finds(&s3, one.path());
}
