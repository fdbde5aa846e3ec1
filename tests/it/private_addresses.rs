//! Monitors of addresses on private networks, seen from outside.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

const SETTING: &str = "HOUSEBOAT_SITE__PRIVATE_ADDRESSES";

/// A server on the loopback that counts who comes.
struct Near {
    url: String,
    visits: Arc<AtomicUsize>,
}

impl Near {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let visits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&visits);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// The status and the page of a form that is sent.
async fn post(site: &TestProcess, path: &str, monitor: &Monitor) -> (u16, String) {
    let answer = post_form(&site.owner().await, &site.url(path), &monitor.pairs()).await;
    let answer = answer.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn in_production_the_form_refuses_what_is_near() {
    let target = Near::start().await;
    let production = TestProcess::builder().variable("HOUSEBOAT_ENV", "production");
    let production = production.variable("HOUSEBOAT_LOG__FORMAT", "text");
    let site = production.start().await;
    let mut monitor = Monitor::new("Shop", &target.url);
    for address in [
        &*target.url,
        "http://localhost/",
        "http://0x7f.1/",
        "http://[::1]/",
    ] {
        let (status, page) = post(&site, "/monitors", monitor.set("address", address)).await;
        assert_eq!(status, 422, "{address}");
        assert!(page.contains("this one is on a private network"), "{page}");
        assert!(page.contains("value=\"Shop\""), "{page}");
    }
    let (status, _) = post(
        &site,
        "/monitors",
        monitor.set("address", "http://a.invalid/"),
    )
    .await;
    assert_eq!(status, 303);
    let (status, page) = post(&site, "/monitors/1", monitor.set("address", &target.url)).await;
    assert_eq!(status, 422, "{page}");
    assert_eq!(target.visits(), 0);
}

#[tokio::test]
async fn a_monitor_from_before_fails_with_words_and_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let target = Near::start().await;
    let start = async |word: &str| {
        let builder = TestProcess::builder().folder(folder.path());
        builder.variable(SETTING, word).start().await
    };
    let site = start("allow").await;
    let monitor = Monitor::new("Shop", &target.url);
    let path = monitor.create(&site).await;
    let shows = async |site: &TestProcess, text: &str| {
        wait_for(text, SOON, async || {
            let page = client().get(site.url(&path)).send().await.unwrap();
            page.text().await.unwrap().contains(text).then_some(())
        })
        .await;
    };
    shows(&site, "200").await;
    drop(site);
    let asked = target.visits();
    let site = start("refuse").await;
    let resumed = post_form(
        &site.owner().await,
        &site.url(&format!("{path}/resume")),
        &[],
    )
    .await;
    assert_eq!(resumed.unwrap().status(), 303);
    shows(
        &site,
        "on a private network, which this site does not check",
    )
    .await;
    assert_eq!(target.visits(), asked);
}

#[tokio::test]
async fn another_word_is_no_setting() {
    let mut site = TestProcess::builder().variable(SETTING, "some").spawn();
    let code = site.wait(SOON).await;
    assert_eq!(code.code(), Some(2), "{}", site.log());
    assert!(
        site.log().contains("site.private_addresses"),
        "{}",
        site.log()
    );
}
