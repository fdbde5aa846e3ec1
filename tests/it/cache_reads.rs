//! What reads of the cache file may cost those who write it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::rusqlite::Connection;

use crate::support::cache::Form;
use crate::support::cache::NEVER;
use crate::support::cache::Stage;
use crate::support::cache::text;
use crate::support::waiting::wait_for;

const MIB: u64 = 1 << 20;
const KEYS: usize = 500;
const SOON: Duration = Duration::from_secs(20);

/// With a bound of 4 MiB the WAL is to have 128 KiB; a reader that is not given a core makes it longer for a while.
const WAL_BYTES_MAX: u64 = MIB * 3 / 2;

fn small(settings: &mut Settings) {
    settings.bytes_max = 4 * MIB;
    settings.value_bytes_max = 256 << 10;
}

fn wal(settings: &Settings) -> PathBuf {
    let mut path = settings.path.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Waits until all that was put is in the file.
async fn written(cache: &Cache) {
    wait_for("write", SOON, async || {
        (cache.stats().waiting_bytes == 0).then_some(())
    })
    .await;
}

/// Reads as fast as it can until it is told to stop, and counts.
async fn read_on(cache: Cache, stop: Arc<AtomicBool>, reads: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let key = format!("k{}", fastrand::usize(..KEYS));
        let found: Option<String> = cache.get(&key).await;
        assert!(found.is_none_or(|value| value.starts_with(&key)));
        reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_never_rest_do_not_make_the_wal_grow() {
    let stage = Stage::with(Form::File, small).await;
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = read_on(stage.cache(), Arc::clone(&stop), Arc::clone(&reads));
            tokio::spawn(reader)
        })
        .collect();
    let mut longest = 0;
    for round in 0..20 {
        for key in 0..KEYS {
            let value = format!("k{key} {round} {}", "v".repeat(2_000));
            stage
                .cache()
                .put(format!("k{key}"), &value, NEVER)
                .await
                .unwrap();
        }
        written(&stage.cache()).await;
        longest = longest.max(fs::metadata(wal(&stage.settings)).map_or(0, |wal| wal.len()));
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(reads.load(Ordering::Relaxed) > KEYS);
    assert!(longest > 0 && longest <= WAL_BYTES_MAX, "{longest} bytes");
}

#[tokio::test]
async fn who_has_read_and_rests_holds_nobody_up() {
    let stage = Stage::with(Form::File, small).await;
    for key in 0..50 {
        stage
            .cache()
            .put(format!("k{key}"), "first", NEVER)
            .await
            .unwrap();
    }
    written(&stage.cache()).await;
    assert_eq!(text(&stage.cache(), "k7").await.as_deref(), Some("first"));
    #[expect(clippy::disallowed_methods, reason = "as another process would")]
    let other = Connection::open(&stage.settings.path).unwrap();
    // Busy, as long as anybody looks at the file through the WAL.
    wait_for("rest", SOON, async || {
        let cut = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy = other.query_row(cut, [], |row| row.get::<_, bool>(0));
        (!is_busy.unwrap()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_read_sees_what_was_written_before_it() {
    let stage = Stage::with(Form::File, small).await;
    for round in 0..10 {
        stage.cache().put("k", &round, NEVER).await.unwrap();
        written(&stage.cache()).await;
        assert_eq!(stage.cache().get("k").await, Some(round));
    }
    stage.cache().delete("k").await;
    assert_eq!(stage.cache().get::<u32>("k").await, None);
}
