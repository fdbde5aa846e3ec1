//! Long reads do not hold short ones up.

use std::time::Duration;

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Error;
use houseboat::database::Result;
use houseboat::database::Settings;
use houseboat::settings::Auto;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::database::settings;
use crate::support::waiting::is_pending;
use crate::support::waiting::so_far;

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_secs(10);

fn endless(conn: &Connection) -> Result<i64> {
    let sql =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

fn two_readers() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let two_readers = Settings {
        readers: Auto::Given(2),
        waiting_max: 16,
        ..settings(folder.path())
    };
    let database = Database::open(&two_readers, Clock::system()).unwrap();
    (folder, database)
}

#[tokio::test]
async fn short_reads_pass_more_long_ones_than_there_are_readers() {
    let (_folder, database) = two_readers();
    let patient = database.within(HOUR);
    // One place, as a page of a site is.
    let begin = || Box::pin(patient.read(endless));
    let mut long = Vec::new();
    for _ in 0..10 {
        let mut read = begin();
        assert!(is_pending(&mut read).await);
        long.push(read);
    }
    let hasty = database.within(SOON);
    for number in 0..100 {
        let short = hasty.read(move |_| Ok(number));
        assert_eq!(short.await.unwrap(), number);
    }
    // The place is known by now: its reads wait for one another, and are refused when too many do.
    let mut refused = 0;
    for _ in 0..20 {
        let mut read = begin();
        match so_far(&mut read).await {
            None => long.push(read),
            Some(Err(Error::Overloaded { waiting_max: 16 })) => refused += 1,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "none was refused");
    assert_eq!(hasty.read(|_| Ok(7)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_place_whose_reads_are_short_again_is_served_again() {
    let (_folder, database) = two_readers();
    let read = |is_long: bool, time: Duration| {
        let database = database.within(time);
        async move {
            let read = database.read(move |conn| if is_long { endless(conn) } else { Ok(1) });
            read.await
        }
    };
    let late = read(true, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    for _ in 0..20 {
        assert_eq!(read(false, SOON).await.unwrap(), 1);
    }
    // Whichever lane the threads ended up in, each lane has some.
    let other = database.within(SOON);
    for _ in 0..20 {
        assert_eq!(other.read(|_| Ok(2)).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn closing_ends_both_lanes() {
    let (_folder, database) = two_readers();
    let patient = database.within(HOUR);
    let mut long = Vec::new();
    for _ in 0..6 {
        let mut read = Box::pin(patient.read(endless));
        assert!(is_pending(&mut read).await);
        long.push(read);
    }
    tokio::time::timeout(SOON, database.close()).await.unwrap();
    for read in long {
        let end = read.await;
        assert!(matches!(end, Err(Error::Closed)), "{end:?}");
    }
    assert!(matches!(
        database.read(|_| Ok(())).await,
        Err(Error::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_it_is_closed_is_answered() {
    for _ in 0..50 {
        let (_folder, database) = two_readers();
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..8 {
            let database = database.clone();
            callers.spawn(async move {
                loop {
                    let answer = if number % 2 == 0 {
                        database.write(|_| Ok(())).await
                    } else {
                        database.within(HOUR).read(|_| Ok(())).await
                    };
                    if matches!(answer, Err(Error::Closed)) {
                        return;
                    }
                }
            });
        }
        tokio::task::yield_now().await;
        database.close().await;
        tokio::time::timeout(SOON, callers.join_all())
            .await
            .unwrap();
    }
}
