//! A process that has lost the right to write stores nothing, and says so.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Fence;
use houseboat::database::Settings;
use tempfile::TempDir;

fn open(folder: &TempDir, fence: Fence) -> Database {
    let settings = Settings {
        path: folder.path().join("test.sqlite3"),
        ..Settings::default()
    };
    Database::open_behind(&settings, Clock::system(), fence).unwrap()
}

async fn insert(database: &Database) -> Result<(), Error> {
    let insert = database.write(|tx| {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY)")?;
        tx.execute("INSERT INTO rows DEFAULT VALUES", [])?;
        Ok(())
    });
    insert.await
}

async fn count(database: &Database) -> i64 {
    let count = database
        .read(|conn| Ok(conn.query_row("SELECT count(*) FROM rows", [], |row| row.get(0))?));
    count.await.unwrap()
}

#[tokio::test]
async fn nothing_is_written_behind_a_closed_fence() {
    let folder = TempDir::new().unwrap();
    let fence = Fence::closed();
    let database = open(&folder, fence.clone());
    assert!(matches!(insert(&database).await, Err(Error::Fenced)));
    fence.extend(Fence::now() + Duration::from_mins(1));
    insert(&database).await.unwrap();
    fence.shut();
    let error = insert(&database).await.unwrap_err();
    assert!(matches!(error, Error::Fenced), "{error}");
    // Reads go on: what is there is no worse for being old.
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_fence_that_closes_during_a_write_keeps_it_out() {
    let folder = TempDir::new().unwrap();
    let fence = Fence::open();
    let database = open(&folder, fence.clone());
    insert(&database).await.unwrap();
    let shut = fence.clone();
    let ran = Arc::new(AtomicBool::new(false));
    let after = Arc::clone(&ran);
    let told = database.write(move |tx| {
        tx.execute("INSERT INTO rows DEFAULT VALUES", [])?;
        tx.after_commit(move || after.store(true, Ordering::SeqCst));
        // As if the process were paused here until another one had taken over.
        shut.shut();
        Ok(())
    });
    assert!(matches!(told.await, Err(Error::Fenced)));
    assert_eq!(count(&database).await, 1);
    assert!(
        !ran.load(Ordering::SeqCst),
        "what follows a commit ran without one"
    );
}
