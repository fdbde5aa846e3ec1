//! Requests that wait for somebody who serves, and the limits of that.

use houseboat::http::HandoverSettings;

use crate::support::containers::Container;
use crate::support::containers::site;

fn limits(hold_max: usize, hold_ms: u64) -> HandoverSettings {
    HandoverSettings {
        hold_max,
        hold_ms,
        ..HandoverSettings::default()
    }
}

#[tokio::test]
async fn what_is_held_is_served_with_its_body() {
    let container = Container::start().await;
    let mut visitor = container.visit().await;
    visitor
        .send("POST /echo HTTP/1.1\r\nhost: site.test\r\ncontent-length: 11\r\n\r\nhello")
        .await;
    container.wait_for_held(1).await;
    assert_eq!(container.front.begun(), 0);
    container.front.serve(site("a"));
    visitor.send(" world").await;
    assert_eq!(visitor.answer().await.text(), "hello world");
}

#[tokio::test]
async fn a_large_body_waits_in_the_network() {
    const LENGTH: usize = 10 << 20;
    let container = Container::start().await;
    let mut visitor = container.visit().await;
    let head =
        format!("POST /echo HTTP/1.1\r\nhost: site.test\r\ncontent-length: {LENGTH}\r\n\r\n");
    visitor.send(head).await;
    container.wait_for_held(1).await;
    container.front.serve(site("a"));
    let answer = visitor.exchange(&vec![7; LENGTH]).await;
    assert!(answer.body.len() == LENGTH && answer.body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn one_more_than_there_are_places_is_told_to_come_back() {
    let container = Container::with(&limits(2, 60_000)).await;
    let mut held = Vec::new();
    for count in 1..=2 {
        let mut visitor = container.visit().await;
        visitor.ask("GET", "/name", &[]).await;
        container.wait_for_held(count).await;
        held.push(visitor);
    }
    let mut third = container.visit().await;
    let answer = third.get("/name").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(answer.text().contains("The site is starting"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");

    // The stylesheet of that page is there all the same.
    let text = answer.text();
    let href = text
        .split("href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let style = third.get(href).await;
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, "text/css; charset=utf-8")
    );

    third
        .ask("GET", "/name", &["accept: application/json"])
        .await;
    let answer = third.answer().await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("retry-after"), "1");

    container.front.serve(site("a"));
    for mut visitor in held {
        assert_eq!(visitor.answer().await.text(), "a");
    }
    assert_eq!(third.get("/name").await.text(), "a");
}

#[tokio::test]
async fn who_has_waited_too_long_is_told_to_come_back_later() {
    let container = Container::with(&limits(2, 50)).await;
    let mut visitor = container.visit().await;
    let start = std::time::Instant::now();
    let answer = visitor.get("/name").await;
    assert!(start.elapsed().as_millis() >= 50);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert!(answer.text().contains("takes longer than usual"));
    assert_eq!(container.front.held(), 0);
    // The connection is as good as before.
    container.front.serve(site("a"));
    assert_eq!(visitor.get("/name").await.text(), "a");
}

#[tokio::test]
async fn a_visitor_who_goes_away_gives_the_place_back() {
    let container = Container::with(&limits(2, 60_000)).await;
    let mut visitor = container.visit().await;
    visitor.ask("GET", "/name", &[]).await;
    let mut other = container.visit().await;
    other
        .send("POST /echo HTTP/1.1\r\nhost: site.test\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    container.wait_for_held(2).await;
    drop(visitor);
    container.wait_for_held(1).await;
    drop(other);
    container.wait_for_held(0).await;
}

#[tokio::test]
async fn what_is_passed_on_gives_its_place_back() {
    let (a, b) = (Container::start().await, Container::start().await);
    b.front.serve(site("b"));
    let mut visitor = a.visit().await;
    visitor.ask("GET", "/never", &[]).await;
    a.wait_for_held(1).await;
    a.front.pass(b.peer());
    b.wait_for_begun(1).await;
    assert_eq!(a.front.held(), 0);
}
