//! What the queue promises.

use std::time::Duration;
use std::time::Instant;

use houseboat::database::Clock;
use houseboat::database::Error;
use houseboat::queue;
use houseboat::queue::Maintenance;
use houseboat::queue::Priority;
use houseboat::queue::Request;
use houseboat::queue::Settings;
use houseboat::queue::State;

use crate::support::jobs::Act;
use crate::support::jobs::Linger;
use crate::support::jobs::Rash;
use crate::support::jobs::SOON;
use crate::support::jobs::Site;
use crate::support::jobs::held;
use crate::support::jobs::open;
use crate::support::waiting::wait_for;

#[tokio::test]
async fn a_job_runs_once_and_is_completed() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.id();
    site.drain().await;
    assert_eq!(site.notes.all(), ["go"]);
    assert_eq!(site.row(id).await, ("completed".to_owned(), 1, 0, None));
}

#[tokio::test]
async fn a_job_is_not_enqueued_when_its_transaction_is_rolled_back() {
    let site = Site::new(Clock::system()).await;
    let queue = site.queue.clone();
    let write = site.database.write(move |tx| -> Result<(), Error> {
        queue.enqueue(tx, &Act::new("ghost"))?;
        Err(Error::abort("no"))
    });
    write.await.unwrap_err();
    assert!(site.counts().await.is_empty());
}

#[tokio::test]
async fn a_waiting_worker_is_woken_by_the_commit() {
    let site = Site::new(Clock::system()).await;
    let never_polls = Settings {
        poll_ms: 3_600_000,
        ..Settings::default()
    };
    let (stop, worker) = site.work(never_polls);
    // Long enough for the worker to have found nothing and to wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    site.enqueue(&Act::new("go")).await;
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["go"]).then_some(())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(5));
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn an_error_a_panic_and_a_timeout_are_each_tried_again() {
    let site = Site::new(Clock::system()).await;
    for (word, error) in [
        ("fail once", "it failed"),
        ("panic once", "it panicked: on purpose"),
        ("hang once", "it took longer than 300ms"),
    ] {
        let id = site.enqueue(&Act::new(word)).await.id();
        site.drain().await;
        let (state, attempt, _, text) = site.row(id).await;
        assert_eq!(
            (state.as_str(), attempt, text.as_deref()),
            ("completed", 2, Some(error)),
            "{word}"
        );
    }
}

#[tokio::test]
async fn a_job_that_keeps_failing_is_discarded_with_its_error() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("fail")).await.id();
    site.drain().await;
    assert_eq!(site.notes.all(), ["fail", "fail", "fail"]);
    assert_eq!(
        site.row(id).await,
        ("discarded".to_owned(), 3, 0, Some("it failed".to_owned()))
    );
}

#[tokio::test]
async fn a_snoozed_job_runs_again_and_spends_no_attempt() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("snooze once")).await.id();
    site.drain().await;
    assert_eq!(site.notes.all().len(), 2);
    assert_eq!(site.row(id).await, ("completed".to_owned(), 1, 0, None));
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_reason() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("cancel")).await.id();
    site.drain().await;
    assert_eq!(
        site.row(id).await,
        ("cancelled".to_owned(), 1, 0, Some("not needed".to_owned()))
    );
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time() {
    let clock = held();
    let site = Site::new(clock.clone()).await;
    let quick = Settings {
        poll_ms: 100,
        ..Settings::default()
    };
    site.enqueue(Request::new(&Act::new("later")).run_in(Duration::from_mins(1)))
        .await;
    let (stop, worker) = site.work(quick);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(site.notes.all().is_empty());
    clock.advance(Duration::from_mins(1));
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["later"]).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn what_is_due_runs_by_priority_and_then_by_time() {
    let site = Site::new(Clock::system()).await;
    for (word, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high", Priority::High),
        ("normal 2", Priority::Normal),
    ] {
        site.enqueue(Request::new(&Act::new(word)).priority(priority))
            .await;
    }
    let one_at_a_time = Settings {
        workers: 1,
        ..Settings::default()
    };
    let (stop, worker) = site.work(one_at_a_time);
    wait_for("end of it", SOON, async || {
        (site.pending().await == 0).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.notes.all(), ["high", "normal 1", "normal 2", "low"]);
}

#[tokio::test]
async fn no_more_jobs_run_at_a_time_than_there_are_workers() {
    let site = Site::new(Clock::system()).await;
    for _ in 0..5 {
        site.enqueue(&Linger {}).await;
    }
    let three = Settings {
        workers: 3,
        stop_ms: 0,
        ..Settings::default()
    };
    let (stop, worker) = site.work(three);
    wait_for("end of it", SOON, async || {
        (site.notes.all().len() == 3).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(site.notes.all().len(), 3);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_unique_job_is_enqueued_once_until_it_has_ended() {
    let site = Site::new(Clock::system()).await;
    let request = || Request::new(&Act::new("only")).unique("the key");
    assert!(site.enqueue(request()).await.is_new());
    assert!(!site.enqueue(request()).await.is_new());
    site.drain().await;
    assert!(site.enqueue(request()).await.is_new());
}

#[tokio::test]
async fn a_stopped_worker_lets_a_job_end() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Linger {}).await.id();
    let (stop, worker) = site.work(Settings::default());
    wait_for("start", SOON, async || {
        (site.notes.all() == ["linger"]).then_some(())
    })
    .await;
    stop.cancel();
    site.notes.release.notify_one();
    worker.await.unwrap();
    assert_eq!(site.notes.all(), ["linger", "linger ended"]);
    assert_eq!(site.row(id).await.0, "completed");
}

#[tokio::test]
async fn a_stopped_worker_puts_back_what_does_not_end() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Linger {}).await.id();
    let short = Settings {
        stop_ms: 50,
        ..Settings::default()
    };
    let (stop, worker) = site.work(short);
    wait_for("end of it", SOON, async || {
        (site.notes.all() == ["linger"]).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(site.row(id).await, ("available".to_owned(), 0, 0, None));
}

#[tokio::test]
async fn jobs_of_a_dead_process_run_again() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("again")).await.id();
    site.sql("UPDATE jobs SET state = 'executing', attempt = 1")
        .await;
    let rescued = site.queue.rescue().await.unwrap();
    assert_eq!((rescued.available, rescued.discarded), (1, 0));
    site.drain().await;
    let (state, attempt, deaths, _) = site.row(id).await;
    // A death is counted as such, and not as an attempt.
    assert_eq!((state.as_str(), attempt, deaths), ("completed", 1, 0));
}

#[tokio::test]
async fn a_job_that_keeps_killing_the_process_is_set_aside() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Linger {}).await.id();
    for _ in 0..3 {
        site.sql("UPDATE jobs SET state = 'executing', attempt = attempt + 1")
            .await;
        site.queue.rescue().await.unwrap();
    }
    let (state, _, deaths, error) = site.row(id).await;
    assert_eq!((state.as_str(), deaths), ("discarded", 3));
    assert_eq!(error.unwrap(), "the process died each time this job ran");
}

#[tokio::test]
async fn jobs_that_ran_beside_a_killer_are_not_set_aside_for_it() {
    let site = Site::new(Clock::system()).await;
    let killer = site.enqueue(&Linger {}).await.id();
    for word in ["one", "two", "three"] {
        site.enqueue(&Act::new(word)).await;
    }
    // Twice, the process dies while all of them run.
    for _ in 0..2 {
        site.sql("UPDATE jobs SET state = 'executing', attempt = attempt + 1")
            .await;
        site.queue.rescue().await.unwrap();
    }
    // From now on each runs alone, the killer first; the process dies a third time.
    let (stop, worker) = site.work(Settings::default());
    wait_for("killer", SOON, async || {
        (site.notes.all() == ["linger"]).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(site.notes.all(), ["linger"], "nothing runs beside it");
    worker.abort();
    drop(stop);
    let rescued = site.queue.rescue().await.unwrap();
    assert_eq!((rescued.available, rescued.discarded), (0, 1));
    site.drain().await;
    assert_eq!(site.row(killer).await.0, "discarded");
    assert_eq!(site.notes.all(), ["linger", "one", "two", "three"]);
}

#[tokio::test]
async fn a_suspect_waits_until_nothing_else_runs() {
    let site = Site::new(Clock::system()).await;
    site.enqueue(&Linger {}).await;
    let (stop, worker) = site.work(Settings::default());
    wait_for("start", SOON, async || {
        (site.notes.all() == ["linger"]).then_some(())
    })
    .await;
    let queue = site.queue.clone();
    let write = site.database.write(move |tx| {
        let id = queue.enqueue(tx, &Act::new("suspect"))?.id();
        Ok(tx.execute("UPDATE jobs SET deaths = 2 WHERE id = ?1", [id])?)
    });
    write.await.unwrap();
    site.enqueue(&Act::new("other")).await;
    wait_for("other job", SOON, async || {
        (site.notes.all().len() == 2).then_some(())
    })
    .await;
    site.notes.release.notify_one();
    wait_for("end of it", SOON, async || {
        (site.pending().await == 0).then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(
        site.notes.all(),
        ["linger", "other", "linger ended", "suspect"]
    );
}

#[tokio::test]
async fn a_backoff_that_panics_stops_nothing() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Rash {}).await.id();
    let (stop, worker) = site.work(Settings::default());
    wait_for("failure", SOON, async || {
        (site.row(id).await.0 == "retryable").then_some(())
    })
    .await;
    let next = site.enqueue(&Act::new("next")).await.id();
    wait_for("next job", SOON, async || {
        (site.row(next).await.0 == "completed").then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_is_parked_and_spends_no_attempt() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.id();
    site.sql("UPDATE jobs SET kind = 'of tomorrow'").await;
    let other = site.enqueue(&Act::new("known")).await.id();
    let (stop, worker) = site.work(Settings::default());
    wait_for("end of it", SOON, async || {
        (site.row(other).await.0 == "completed").then_some(())
    })
    .await;
    stop.cancel();
    worker.await.unwrap();
    let (state, attempt, _, error) = site.row(id).await;
    assert_eq!((state.as_str(), attempt), ("parked", 0));
    assert!(error.unwrap().contains("no program that runs jobs knows"));
}

#[tokio::test]
async fn arguments_that_cannot_be_read_are_parked_with_the_reason() {
    let site = Site::new(Clock::system()).await;
    let id = site.enqueue(&Act::new("go")).await.id();
    site.sql("UPDATE jobs SET arguments = '{\"verb\": \"go\"}'")
        .await;
    let (stop, worker) = site.work(Settings::default());
    let error = wait_for("end of it", SOON, async || site.row(id).await.3).await;
    stop.cancel();
    worker.await.unwrap();
    assert!(error.contains("missing field `word`"), "{error}");
    let (state, attempt, ..) = site.row(id).await;
    assert_eq!((state.as_str(), attempt), ("parked", 0));
}

#[tokio::test]
async fn arguments_over_the_bound_are_refused() {
    let site = Site::new(Clock::system()).await;
    let queue = site.queue.clone();
    let job = Act::new(&"x".repeat(queue::ARGUMENTS_BYTES_MAX));
    let write = site.database.write(move |tx| Ok(queue.enqueue(tx, &job)?));
    let error = write.await.unwrap_err().to_string();
    assert!(error.contains("more than the 65536"), "{error}");
}

#[tokio::test]
async fn jobs_that_ended_long_ago_are_pruned_and_others_kept() {
    let clock = held();
    let site = Site::new(clock.clone()).await;
    for state in [
        "completed",
        "discarded",
        "cancelled",
        "available",
        "executing",
        "retryable",
    ] {
        let write = site.database.write(move |tx| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
                       INSERT INTO jobs (kind, arguments, state, priority, attempts_max, run_at, enqueued_at,
                           finished_at)
                       SELECT 'act', '{}', ?1, 1, 3, ?2, ?2, ?2 FROM n";
            Ok(tx.execute(sql, rusqlite::params![state, tx.now_ms()])?)
        });
        write.await.unwrap();
    }
    let maintenance = Maintenance::new(site.queue.clone(), Settings::default());
    assert_eq!(maintenance.prune().await.unwrap(), 0);
    clock.advance(Duration::from_hours(25));
    assert_eq!(maintenance.prune().await.unwrap(), 700);
    clock.advance(Duration::from_hours(720));
    assert_eq!(maintenance.prune().await.unwrap(), 1_400);
    let left: Vec<_> = site.counts().await.into_keys().collect();
    assert_eq!(left, [State::Available, State::Executing, State::Retryable]);
}

#[tokio::test]
async fn jobs_survive_a_restart() {
    let mut site = Site::new(Clock::system()).await;
    site.enqueue(&Act::new("kept")).await;
    site.database.close().await;
    (site.database, site.queue) = open(&site.folder, &site.clock).await;
    site.drain().await;
    assert_eq!(site.notes.all(), ["kept"]);
}
