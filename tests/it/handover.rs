//! One front, turned from one mode to another: nobody is lost, and nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::routing::get;
use axum::routing::post;
use houseboat::http::Role;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::containers::Container;
use crate::support::containers::site;
use crate::support::raw::Raw;
use crate::support::waiting::is_pending;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn one_connection_lives_through_every_mode() {
    let (a, b) = (Container::start().await, Container::start().await);
    b.front.serve(site("b"));
    let mut visitor = a.visit().await;

    visitor.ask("GET", "/name", &[]).await;
    a.wait_for_held(1).await;
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "a");
    assert_eq!(visitor.get("/name").await.text(), "a");

    a.front.pass(b.peer());
    assert_eq!(visitor.get("/name").await.text(), "b");

    a.front.hold();
    visitor.ask("GET", "/name", &[]).await;
    a.wait_for_held(1).await;
    a.front.pass(b.peer());
    assert_eq!(visitor.answer().await.text(), "b");

    a.front.serve(site("a again"));
    assert_eq!(visitor.get("/name").await.text(), "a again");
    assert_eq!(a.front.held(), 0);
}

/// Two sites on one counter, which notice when both are at work.
#[derive(Default)]
struct Ledger {
    rows: AtomicUsize,
    at_work: [AtomicUsize; 2],
}

impl Ledger {
    async fn write(&self, who: usize) -> &'static str {
        self.at_work[who].fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let both = self.at_work[1 - who].load(Ordering::SeqCst) > 0;
        self.rows.fetch_add(1, Ordering::SeqCst);
        self.at_work[who].fetch_sub(1, Ordering::SeqCst);
        if both { "two at once" } else { "written" }
    }

    fn site(self: &Arc<Self>, who: usize) -> Router {
        let (ledger, reader) = (Arc::clone(self), Arc::clone(self));
        let write = async move |body: Bytes| {
            assert_eq!(body.len(), BODY);
            ledger.write(who).await
        };
        let read = async move || reader.rows.load(Ordering::SeqCst).to_string();
        Router::new().route("/rows", post(write).get(read))
    }
}

const CONNECTIONS: usize = 50;
const BODY: usize = 3_000;

/// Each deploy hands over from one container to the other, and half of the visitors come to each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_between_two_containers_and_none_is_done_twice() {
    let containers = [Container::start().await, Container::start().await];
    let ledger = Arc::new(Ledger::default());
    containers[0].front.serve(ledger.site(0));
    containers[1].front.pass(containers[0].peer());

    let answers = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let mut visitors = JoinSet::new();
    for index in 0..CONNECTIONS {
        let visitor = containers[index % 2].visit().await;
        visitors.spawn(write_and_read(
            visitor,
            Arc::clone(&answers),
            Arc::clone(&over),
        ));
    }
    let handovers = if slow("15 of 20 hand-overs") { 20 } else { 5 };
    for turn in 0..handovers {
        let more = answers.load(Ordering::SeqCst) + 2 * CONNECTIONS;
        wait_for("more answers", PATIENCE, async || {
            assert!(visitors.try_join_next().is_none(), "a visitor gave up");
            (answers.load(Ordering::SeqCst) >= more).then_some(())
        })
        .await;
        let (old, new) = (&containers[turn % 2], &containers[1 - turn % 2]);
        old.front.hold();
        old.front.ended().await;
        // The old one tells the new one, which may know it before or after the old one passes on.
        if fastrand::bool() {
            new.front.hold();
            old.front.pass(new.peer());
            new.front.serve(ledger.site(1 - turn % 2));
        } else {
            old.front.pass(new.peer());
            tokio::task::yield_now().await;
            new.front.serve(ledger.site(1 - turn % 2));
        }
    }
    over.store(true, Ordering::SeqCst);
    let acknowledged: usize = visitors.join_all().await.into_iter().sum();
    assert_eq!(ledger.rows.load(Ordering::SeqCst), acknowledged);
}

/// Returns how many writes were acknowledged.
async fn write_and_read(
    mut visitor: Raw,
    answers: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) -> usize {
    let mut written = 0;
    let request = format!(
        "POST /rows HTTP/1.1\r\nhost: site.test\r\ncontent-length: {BODY}\r\n\r\n{}",
        "x".repeat(BODY)
    );
    while !over.load(Ordering::SeqCst) {
        visitor.send(&request).await;
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "written"));
        written += 1;
        let answer = visitor.get("/rows").await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().parse::<usize>().unwrap() >= written);
        answers.fetch_add(2, Ordering::SeqCst);
    }
    written
}

/// A site that sends what the test gives it.
fn streaming() -> (mpsc::Sender<Bytes>, Router) {
    let (sender, receiver) = mpsc::channel::<Bytes>(8);
    let receiver = Arc::new(tokio::sync::Mutex::new(Some(receiver)));
    let handler = async move || {
        let receiver = receiver.lock().await.take().unwrap();
        Body::from_stream(futures_util::stream::unfold(
            receiver,
            async |mut receiver| {
                let bytes = receiver.recv().await?;
                Some((Ok::<_, std::io::Error>(bytes), receiver))
            },
        ))
    };
    (sender, Router::new().route("/stream", get(handler)))
}

#[tokio::test]
async fn a_request_counts_until_its_answer_is_sent() {
    let container = Container::start().await;
    let (sender, router) = streaming();
    let mut visitor = container.visit().await;
    visitor.ask("GET", "/stream", &[]).await;
    container.wait_for_held(1).await;
    container.front.serve(router);
    sender.send(Bytes::from_static(b"one ")).await.unwrap();
    assert_eq!(visitor.head().await.status, 200);
    assert_eq!(container.front.begun(), 1);

    container.front.hold();
    let mut ended = Box::pin(container.front.ended());
    assert!(is_pending(&mut ended).await);
    sender.send(Bytes::from_static(b"two ")).await.unwrap();
    assert_eq!(visitor.read_exactly(16).await, b"4\r\none \r\n4\r\ntwo ");
    assert!(is_pending(&mut ended).await);
    drop(sender);
    ended.await;
    assert_eq!(container.front.begun(), 0);
}

#[tokio::test]
async fn a_visitor_who_goes_away_no_longer_counts() {
    let container = Container::start().await;
    container.front.serve(site("a"));
    let mut visitors = Vec::new();
    for _ in 0..3 {
        let mut visitor = container.visit().await;
        visitor.ask("GET", "/never", &[]).await;
        visitors.push(visitor);
    }
    container.wait_for_begun(3).await;
    drop(visitors);
    container.front.ended().await;
}

#[tokio::test]
async fn each_container_answers_for_itself_how_it_is() {
    let (a, b) = (Container::start().await, Container::start().await);
    let mut visitor = a.visit().await;
    // A platform that took it for healthy would end the one that serves.
    a.role(Role::Starting);
    assert_eq!(visitor.get("/up").await.status, 503);
    assert_eq!(visitor.get("/ready").await.status, 503);
    for (role, status, ready) in [
        (Role::Taking, 503, false),
        (Role::Restoring, 503, false),
        (Role::Migrating, 503, false),
        (Role::Standby, 200, true),
    ] {
        a.role(role);
        assert_eq!(visitor.get("/up").await.text(), "up\n");
        let answer = visitor.get("/ready").await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &json["ready"]), (status, &ready.into()));
        assert_eq!(json["role"], format!("{role:?}").to_lowercase());
        assert_eq!(json["progress"], serde_json::Value::Null);
    }
    a.status.send_modify(|status| {
        status.role = Role::Restoring;
        status.progress = Some(houseboat::http::Progress {
            done: 7,
            total: None,
        });
    });
    let json: serde_json::Value =
        serde_json::from_slice(&visitor.get("/ready").await.body).unwrap();
    assert_eq!(json["progress"]["done"], 7);

    a.role(Role::Standby);
    b.front.serve(site("b"));
    b.role(Role::Serving);
    a.front.pass(b.peer());
    assert_eq!(visitor.get("/name").await.text(), "b");
    assert!(visitor.get("/ready").await.text().contains("standby"));

    a.front.serve(site("a"));
    a.role(Role::Serving);
    assert_eq!(visitor.get("/ready").await.text(), "the site's own");
    a.role(Role::Draining);
    let answer = visitor.get("/up").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "stopping\n"));
    assert_eq!(visitor.get("/ready").await.status, 503);
    assert_eq!(visitor.get("/name").await.text(), "a");
    visitor.ask("POST", "/up", &["content-length: 0"]).await;
    assert_eq!(visitor.answer().await.status, 405);
}

#[tokio::test]
async fn a_stop_finishes_what_is_begun_and_lets_go_of_what_is_held() {
    let container = Container::start().await;
    let (sender, router) = streaming();
    container.front.serve(router);
    let mut begun = container.visit().await;
    begun.ask("GET", "/stream", &[]).await;
    container.wait_for_begun(1).await;
    container.front.hold();
    let mut held = container.visit().await;
    held.ask("GET", "/name", &[]).await;
    container.wait_for_held(1).await;

    let shut = tokio::spawn(container.shut());
    let answer = held.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    sender.send(Bytes::from_static(b"the end")).await.unwrap();
    drop(sender);
    assert_eq!(begun.answer().await.text(), "the end");
    shut.await.unwrap();
}
