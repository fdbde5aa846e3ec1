//! Many connections, reading and writing through the site while its jobs run.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use reqwest::Client;
use reqwest::Response;
use tokio::task::JoinSet;

use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::waiting::slow;

const CONNECTIONS: usize = 64;
/// Enough for a page that costs something, few enough that the page is not all the test does.
const MONITORS: usize = 40;
/// Fewer would show nothing.
const ANSWERS_MIN: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_that_the_database_is_locked() {
    let length = Duration::from_secs(if slow("27 of 30 s of load") { 30 } else { 3 });
    let site = Arc::new(TestProcess::start().await);
    let targets = [
        Target::answers("hello").await,
        Target::fails().await,
        Target::closes().await,
    ];
    let mut pages = Vec::new();
    for index in 0..MONITORS {
        let target = &targets[index % targets.len()];
        let monitor = Monitor::new(&format!("monitor {index}"), &target.url("/"));
        pages.push(monitor.create(&site).await);
    }

    let pages = Arc::new(pages);
    let answers = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + length;
    let mut visitors = JoinSet::new();
    let owner = site.owner().await;
    for _ in 0..CONNECTIONS {
        let (site, pages, answers) = (Arc::clone(&site), Arc::clone(&pages), Arc::clone(&answers));
        let (target, client) = (targets[0].url("/"), owner.clone());
        visitors.spawn(async move {
            // A busy machine takes longer for as much.
            while Instant::now() < end || answers.load(Ordering::Relaxed) < ANSWERS_MIN {
                visit(&client, &site, &pages, &target).await;
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    visitors.join_all().await;

    let checks = number(&database(site.folder()), "SELECT count(*) FROM checks");
    assert!(
        checks >= i64::try_from(MONITORS).unwrap(),
        "the jobs did not run: {checks} checks"
    );
    assert_log_is_calm(&site.log());
}

/// One request of a mix that reads more than it writes.
async fn visit(client: &Client, site: &TestProcess, pages: &[String], target: &str) {
    let page = &pages[fastrand::usize(..pages.len())];
    match fastrand::u8(..10) {
        0..=4 => assert_status(&get(client, &site.url("/")).await, 200, site),
        5..=6 => assert_status(&get(client, &site.url(page)).await, 200, site),
        7 => assert_status(
            &post(client, &site.url(&format!("{page}/pause")), &[]).await,
            303,
            site,
        ),
        8 => assert_status(
            &post(client, &site.url(&format!("{page}/resume")), &[]).await,
            303,
            site,
        ),
        _ => {
            let monitor = Monitor::new(&format!("edited {}", fastrand::u32(..)), target);
            assert_status(
                &post(client, &site.url(page), &monitor.pairs()).await,
                303,
                site,
            );
        }
    }
}

async fn get(client: &Client, url: &str) -> Response {
    client.get(url).send().await.unwrap()
}

async fn post(client: &Client, url: &str, pairs: &[(&str, &str)]) -> Response {
    post_form(client, url, pairs).await.unwrap()
}

fn assert_status(answer: &Response, expected: u16, site: &TestProcess) {
    let status = answer.status();
    assert_eq!(status, expected, "{}\n{}", answer.url(), site.log());
}

fn assert_log_is_calm(log: &str) {
    let words = ["locked", "busy", "panic", "error"];
    let troubled = log.lines().filter(|line| {
        // On a busy machine a statement may be slow; its text has a column of that name.
        if line.contains("a statement was slow") {
            return false;
        }
        let line = line.to_lowercase();
        words.iter().any(|word| line.contains(word))
    });
    let troubled: Vec<&str> = troubled.take(10).collect();
    assert!(troubled.is_empty(), "{}", troubled.join("\n"));
}
