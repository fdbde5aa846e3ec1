//! What containers ask one another, and who is let in.

use std::time::Duration;
use std::time::Instant;

use houseboat::http::Control;
use houseboat::http::Peer;
use houseboat::http::PeerError;
use tokio::time::timeout;

use crate::support::containers::Container;
use crate::support::containers::site;
use crate::support::fake::Act;
use crate::support::fake::Fake;
use crate::support::raw::Raw;
use crate::support::waiting::slow;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn only_who_shows_the_key_is_let_in() {
    let container = Container::start().await;
    container.front.serve(site("a"));
    let key = container.key.clone();
    let other = key.chars().rev().collect::<String>();
    let wrong = [
        String::new(),
        "x".to_owned(),
        key[1..].to_owned(),
        format!("{key}0"),
        other,
    ];
    let mut lines: Vec<String> = wrong
        .iter()
        .map(|key| format!("houseboat-key: {key}"))
        .collect();
    lines.push("x-else: 1".to_owned());
    for line in &lines {
        for more in [
            "x-more: 1",
            "houseboat-control: ask",
            "houseboat-control: knock",
        ] {
            let mut stranger = Raw::connect(container.peers).await;
            stranger.ask("GET", "/name", &[line, more]).await;
            let answer = stranger.answer().await;
            assert_eq!((answer.status, answer.text().as_str()), (403, ""), "{line}");
        }
    }
    let mut peer = Raw::connect(container.peers).await;
    let shown = format!("houseboat-key: {key}");
    peer.ask("GET", "/headers", &[&shown, "houseboat-hops: 1"])
        .await;
    let answer = peer.answer().await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "host: site.test\n")
    );
    peer.ask("GET", "/name", &[&shown, "houseboat-control: dance"])
        .await;
    assert_eq!(peer.answer().await.status, 501);
}

#[tokio::test]
async fn no_key_is_no_way_in() {
    let container = Container::start().await;
    container.front.serve(site("a"));
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    let (front, stop) = (container.front.clone(), container.stop.clone());
    let control = tokio::sync::mpsc::channel(1).0;
    tokio::spawn(async move {
        front
            .run_peers(door, String::new().into(), control, stop)
            .await;
    });
    for headers in [&["houseboat-key: "][..], &[]] {
        let mut stranger = Raw::connect(address).await;
        stranger.ask("GET", "/name", headers).await;
        assert_eq!(stranger.answer().await.status, 403);
    }
}

#[tokio::test]
async fn a_container_is_found_among_strangers() {
    let (a, b, stranger) = (
        Container::start().await,
        Container::start().await,
        Container::start().await,
    );
    stranger.front.serve(site("stranger"));
    b.front.serve(site("b"));
    let nobody = "127.0.0.1:1".to_owned();
    let addresses = vec![
        nobody.clone(),
        "no address".to_owned(),
        stranger.peers.to_string(),
        b.peers.to_string(),
    ];
    a.front.pass(Peer::new(addresses, &b.key));
    let mut visitor = a.visit().await;
    assert_eq!(visitor.get("/name").await.text(), "b");

    let lost = Peer::new(vec![nobody, stranger.peers.to_string()], &b.key);
    let error = lost.ask().await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{lost:?}"),
        format!("{:?}", a.front),
    ] {
        assert!(!text.contains(&b.key), "{text}");
    }
    a.front.pass(lost);
    visitor.ask("GET", "/name", &[]).await;
    a.wait_for_held(1).await;
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "a");
}

#[tokio::test]
async fn a_container_that_comes_back_with_another_key_is_a_stranger() {
    let fake = Fake::start(Act::Send(
        "HTTP/1.1 403 Forbidden\r\nhouseboat-refused: key\r\ncontent-length: 0\r\n\r\n",
    ))
    .await;
    let a = Container::start().await;
    let peer = Peer::new(vec![fake.address.to_string()], "key");
    assert!(matches!(peer.ask().await, Err(PeerError::Stranger { .. })));
    a.front.pass(peer);
    let mut visitor = a.visit().await;
    // Nothing was done with it, and nothing of a body is gone: so even this one waits.
    visitor
        .send("POST /name HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\n\r\n")
        .await;
    a.wait_for_held(1).await;
    // Of this one something is gone, and the rest is of no use to anybody.
    let mut other = a.visit().await;
    other
        .send("POST /name HTTP/1.1\r\nhost: s\r\ncontent-length: 9\r\n\r\nhello")
        .await;
    assert_eq!(other.answer().await.status, 502);
    a.front.serve(site("a"));
    assert_eq!(visitor.answer().await.text(), "a");
}

#[tokio::test]
async fn a_question_is_answered() {
    let mut container = Container::start().await;
    let peer = container.peer();
    let asking = tokio::spawn(async move { peer.ask().await });
    match container.control.recv().await.unwrap() {
        Control::Ask { answer } => answer.send("epoch 7".to_owned()).unwrap(),
        other @ Control::Wait { .. } => panic!("{other:?}"),
    }
    assert_eq!(asking.await.unwrap().unwrap(), "epoch 7");

    let peer = container.peer();
    let asking = tokio::spawn(async move { peer.ask().await });
    drop(container.control.recv().await);
    let error = asking.await.unwrap().unwrap_err();
    assert!(
        matches!(error, PeerError::Refused(status) if status == 503),
        "{error}"
    );
}

#[tokio::test]
async fn who_waits_is_told_however_late() {
    let mut container = Container::start().await;
    let peer = container.peer();
    let waiting = tokio::spawn(async move { peer.wait("{\"id\":7}".to_owned()).await });
    let Control::Wait { question, answer } = container.control.recv().await.unwrap() else {
        panic!("another question");
    };
    assert_eq!(question, "{\"id\":7}");
    // Another one who waits sees the signs of life.
    let mut raw = Raw::connect(container.peers).await;
    let key = format!("houseboat-key: {}", container.key);
    let headers = [&key, "houseboat-control: wait", "content-length: 0"];
    raw.ask("POST", "/", &headers).await;
    let other = container.control.recv().await;
    assert_eq!(raw.head().await.status, 200);
    for _ in 0..2 {
        assert_eq!(raw.read_exactly(6).await, b"1\r\n\n\r\n");
    }
    drop(other);
    // It breaks off, and does not end as if that were the answer.
    assert!(raw.rest().await.is_empty());
    assert!(!answer.is_closed());
    answer.send("it is yours".to_owned()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "it is yours");
}

#[tokio::test]
async fn who_waits_learns_that_nobody_answers_and_who_is_waited_for_that_nobody_waits() {
    let mut container = Container::start().await;
    let peer = container.peer();
    let waiting = tokio::spawn({
        let peer = peer.clone();
        async move { peer.wait(String::new()).await }
    });
    drop(container.control.recv().await);
    assert!(matches!(waiting.await.unwrap(), Err(PeerError::Broken(_))));

    let waiting = tokio::spawn(async move { peer.wait(String::new()).await });
    let Some(Control::Wait { mut answer, .. }) = container.control.recv().await else {
        panic!("another question");
    };
    waiting.abort();
    timeout(PATIENCE, answer.closed()).await.unwrap();

    // A container that ends does not wait for those who wait for it.
    let peer = container.peer();
    let waiting = tokio::spawn(async move { peer.wait(String::new()).await });
    let asked = container.control.recv().await;
    container.shut().await;
    assert!(waiting.await.unwrap().is_err());
    drop(asked);
}

#[tokio::test]
async fn a_container_that_hangs_is_not_waited_for() {
    if !slow("5 s of silence") {
        return;
    }
    let fake = Fake::start(Act::Stay(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n",
    ))
    .await;
    let peer = Peer::new(vec![fake.address.to_string()], "key");
    let start = Instant::now();
    let error = peer.wait(String::new()).await.unwrap_err();
    assert!(matches!(error, PeerError::Silent(_)), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(5));
}
