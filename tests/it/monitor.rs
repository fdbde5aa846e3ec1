//! What the status monitor promises, seen by a visitor without a browser.

use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::database::Clock;
use reqwest::Client;
use reqwest::Response;
use rusqlite::Connection;

use crate::support::cache::NEVER;
use crate::support::cache::settings;
use crate::support::client::client;
use crate::support::client::once_key;
use crate::support::client::post_form;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::targets::Target;
use crate::support::targets::Webhook;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

struct Visitor {
    site: TestProcess,
    client: Client,
}

impl Visitor {
    async fn new() -> Self {
        let site = TestProcess::start().await;
        let client = site.owner().await;
        Self { site, client }
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.client.get(self.site.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Response {
        post_form(&self.client, &self.site.url(path), pairs)
            .await
            .unwrap()
    }

    /// Deletes the monitor at a path, and gives the status of the answer.
    async fn delete(&self, path: &str) -> u16 {
        let pairs = [("_once", &*once_key())];
        let answer = self.post(&format!("{path}/delete"), &pairs).await;
        answer.status().as_u16()
    }

    /// Waits until a page has, or has no more, a text.
    async fn wait_for_page(&self, path: &str, text: &str) {
        let shows = async || self.page(path).await.contains(text).then_some(());
        wait_for(text, SOON, shows).await;
    }

    fn number(&self, sql: &str) -> i64 {
        number(&database(self.site.folder()), sql)
    }
}

#[tokio::test]
async fn the_status_page_shows_each_change_at_once() {
    let visitor = Visitor::new().await;
    assert!(visitor.page("/").await.contains("Nothing is watched yet"));
    let target = Target::answers("hello").await;
    let mut monitor = Monitor::new("Bakery", &target.url("/"));
    let path = monitor.create(&visitor.site).await;
    assert!(visitor.page("/").await.contains("Bakery"));
    visitor.wait_for_page("/", "The monitor is up").await;
    let edited = visitor
        .post(&path, &monitor.set("name", "Café <Ünal>").pairs())
        .await;
    assert_eq!(edited.status(), 303);
    let page = visitor.page("/").await;
    assert!(
        !page.contains("Bakery") && !page.contains("<Ünal>"),
        "escaped: {page}"
    );
    for (action, text) in [
        ("pause", "Everything is paused"),
        ("resume", "The monitor is up"),
    ] {
        assert_eq!(
            visitor
                .post(&format!("{path}/{action}"), &[])
                .await
                .status(),
            303
        );
        assert!(visitor.page("/").await.contains(text), "{action}");
    }
    assert_eq!(visitor.delete(&path).await, 303);
    assert!(visitor.page("/").await.contains("Nothing is watched yet"));
}

#[tokio::test]
async fn the_status_page_is_kept_in_the_cache() {
    // Users have one of their own.
    let visitor = Visitor {
        site: TestProcess::start().await,
        client: client(),
    };
    let first = visitor.page("/").await;
    let settings = settings(&visitor.site.folder().join("data"));
    let cache = Cache::open(&settings, Clock::system()).await;
    let mut kept = wait_for("page in the file", SOON, async || {
        cache.get::<serde_json::Value>("status").await
    })
    .await;
    assert_eq!(kept["page"], first);
    assert_eq!(visitor.page("/").await, first);
    // What is in the cache is what is shown, unless it is of another revision.
    kept["page"] = "forged".into();
    cache.put("status", &kept, NEVER).await.unwrap();
    wait_for("forged page", SOON, async || {
        (visitor.page("/").await == "forged").then_some(())
    })
    .await;
    kept["revision"] = 7.into();
    cache.put("status", &kept, NEVER).await.unwrap();
    wait_for("page of this revision", SOON, async || {
        let page = visitor.page("/").await;
        page.contains("Nothing is watched yet").then_some(())
    })
    .await;
    cache.close().await;
}

#[tokio::test]
async fn nonsense_is_shown_again_with_what_is_wrong_and_not_stored() {
    let visitor = Visitor::new().await;
    let nonsense = [
        ("name", " "),
        ("address", "ftp://example.com"),
        ("method", "BREW"),
        ("expected_status", "1000"),
        ("interval_s", "5"),
        ("timeout_s", "zero"),
        ("failures_max", "-1"),
    ];
    let answer = visitor.post("/monitors", &nonsense).await;
    assert_eq!(answer.status(), 422);
    let page = answer.text().await.unwrap();
    for (field, entered) in nonsense {
        assert!(page.contains(&format!("id=\"{field}-error\"")), "{field}");
        if field != "method" {
            assert!(
                page.contains(&format!("value=\"{entered}\"")),
                "{field} is as it was entered"
            );
        }
    }
    assert_eq!(
        visitor.post("/monitors", &[]).await.status(),
        422,
        "no field at all"
    );
    assert_eq!(visitor.number("SELECT count(*) FROM monitors"), 0);
    assert_eq!(
        visitor.number("SELECT count(*) FROM jobs WHERE kind = 'check_monitor'"),
        0
    );
}

#[tokio::test]
async fn a_monitor_that_is_not_there_is_a_404_and_changes_nothing() {
    let visitor = Visitor::new().await;
    for path in [
        "/monitors/7",
        "/monitors/7/edit",
        "/monitors/7/delete",
        "/monitors/seven",
    ] {
        let answer = visitor
            .client
            .get(visitor.site.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
    let valid = Monitor::new("x", "http://example.com/");
    for path in [
        "/monitors/7",
        "/monitors/7/pause",
        "/monitors/7/resume",
        "/monitors/7/delete",
    ] {
        assert_eq!(
            visitor.post(path, &valid.pairs()).await.status(),
            404,
            "{path}"
        );
    }
    let jobs = "SELECT count(*) FROM jobs WHERE kind IN ('check_monitor', 'prune_history')";
    assert_eq!(visitor.number(jobs), 0);
}

#[tokio::test]
async fn each_way_to_fail_is_told_apart() {
    let visitor = Visitor::new().await;
    let (fails, hangs) = (Target::fails().await, Target::hangs().await);
    let (closes, mut gone) = (Target::closes().await, Target::answers("hello").await);
    let refused = gone.url("/");
    gone.switch_off().await;
    let plain = Target::answers("hello").await;
    let tls = plain.url("/").replace("http:", "https:");
    for (address, words) in [
        (fails.url("/"), "expected 200, got 500"),
        (hangs.url("/"), "no answer within 2 s"),
        (closes.url("/"), "closed before the answer was complete"),
        (refused, "refused"),
        (tls, "certificate"),
        ("http://nowhere.invalid/".to_owned(), "no address"),
    ] {
        let path = Monitor::new(words, &address).create(&visitor.site).await;
        visitor.wait_for_page(&path, "ongoing").await;
        let page = visitor.page(&path).await.to_lowercase();
        assert!(
            page.contains(words) || words == "certificate",
            "{words}: {page}"
        );
    }
    let causes = "SELECT count(DISTINCT cause) FROM incidents WHERE ended_at IS NULL";
    assert_eq!(visitor.number(causes), 6);
}

#[tokio::test]
async fn an_alert_is_sent_when_a_monitor_goes_down_and_when_it_comes_back() {
    let webhook = Webhook::listen().await;
    let site = TestProcess::builder()
        .variable("HOUSEBOAT_SITE__WEBHOOK_URL", webhook.url())
        .variable("APP_URL", "https://status.example/");
    let site = site.start().await;
    let client = site.owner().await;
    let (fails, answers) = (Target::fails().await, Target::answers("hello").await);
    let mut monitor = Monitor::new("Bakery", &fails.url("/"));
    webhook.refuse(1);
    let path = monitor.create(&site).await;
    let down = wait_for("alert", SOON, async || webhook.posts().first().cloned()).await;
    assert_eq!(webhook.refused(), 1, "it is sent again after a refusal");
    let log = site.log();
    let line = log
        .lines()
        .find(|line| line.contains("will be tried again"))
        .unwrap();
    assert!(
        line.contains("job.kind=\"send_alert\"") && line.contains("job.id="),
        "{line}"
    );
    assert_eq!(
        (&down["event"], &down["monitor"]["name"]),
        (&"down".into(), &"Bakery".into())
    );
    assert_eq!(down["incident"]["detail"], "expected 200, got 500");
    assert!(down["incident"]["ended_at"].is_null());
    let page = format!("https://status.example{path}");
    assert_eq!(down["url"], page, "where to look");

    post_form(
        &client,
        &site.url(&path),
        &monitor.set("address", &answers.url("/")).pairs(),
    )
    .await
    .unwrap();
    let up = wait_for("second alert", SOON, async || {
        webhook.posts().get(1).cloned()
    })
    .await;
    assert_eq!(up["event"], "up");
    assert_eq!(up["incident"]["id"], down["incident"]["id"]);
    assert!(up["incident"]["ended_at"].is_string());
    assert!(
        !site.log().contains(&webhook.url()),
        "the address is a secret"
    );
}

#[tokio::test]
async fn an_alert_that_is_overtaken_by_the_recovery_is_not_sent_after_it() {
    let webhook = Webhook::listen().await;
    let site = TestProcess::builder().variable("HOUSEBOAT_SITE__WEBHOOK_URL", webhook.url());
    let site = site.start().await;
    let client = site.owner().await;
    let (fails, answers) = (Target::fails().await, Target::answers("hello").await);
    // The first alert is refused, and its second try is 2 s away.
    webhook.refuse(1);
    let mut monitor = Monitor::new("Bakery", &fails.url("/"));
    let path = monitor.create(&site).await;
    wait_for("refusal", SOON, async || {
        (webhook.refused() == 1).then_some(())
    })
    .await;
    let edit = monitor.set("address", &answers.url("/"));
    post_form(&client, &site.url(&path), &edit.pairs())
        .await
        .unwrap();
    let ended = "SELECT count(*) FROM jobs WHERE kind = 'send_alert' AND state IN ('completed', 'cancelled')";
    let both = async || (number(&database(site.folder()), ended) == 2).then_some(());
    wait_for("end of both alerts", SOON, both).await;
    let events: Vec<_> = webhook
        .posts()
        .iter()
        .map(|post| post["event"].clone())
        .collect();
    assert_eq!(events, ["up"]);
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_stop_the_checks() {
    let visitor = Visitor::new().await;
    let fails = Target::fails().await;
    let mut monitor = Monitor::new("Bakery", &fails.url("/"));
    let path = monitor.set("failures_max", "2").create(&visitor.site).await;
    visitor.wait_for_page(&path, "got 500").await;
    // As if all that is stored had been stored by a clock that was six hours ahead, and well.
    let conn = writable(&visitor.site);
    conn.execute_batch(
        "UPDATE monitors SET next_check_at = next_check_at + 21600000;
         INSERT INTO checks (monitor_id, at, duration_ms) SELECT monitor_id, at + 21600000, 5 FROM checks;",
    )
    .unwrap();
    visitor.wait_for_page("/", "is down").await;
    assert_eq!(
        visitor.number("SELECT count(*) FROM incidents WHERE ended_at IS NULL"),
        1
    );
}

#[tokio::test]
async fn a_monitor_that_was_down_is_not_called_up_before_it_is_checked_again() {
    let visitor = Visitor::new().await;
    let hangs = Target::fails().await;
    let monitor = Monitor::new("Bakery", &hangs.url("/"));
    let path = monitor.create(&visitor.site).await;
    visitor.wait_for_page("/", "The monitor is down").await;
    assert_eq!(
        visitor.post(&format!("{path}/pause"), &[]).await.status(),
        303
    );
    // Nothing runs jobs any more, so what is shown is what is known.
    let conn = writable(&visitor.site);
    conn.execute_batch("UPDATE monitors SET paused = 0, next_check_at = next_check_at + 3600000, interval_ms = 86400000")
        .unwrap();
    assert!(visitor.page(&path).await.contains("Waiting for a check"));
}

#[tokio::test]
async fn deleting_a_monitor_takes_its_history_and_what_is_older_than_is_kept() {
    let visitor = Visitor::new().await;
    let target = Target::answers("hello").await;
    let mut paths = Vec::new();
    for name in ["kept", "deleted"] {
        let monitor = Monitor::new(name, &target.url("/"));
        paths.push(monitor.create(&visitor.site).await);
        visitor
            .wait_for_page(&paths[paths.len() - 1], "as expected")
            .await;
    }
    // More than go in one transaction; the first monitor's last ten days are within the 90 that are kept.
    let conn = writable(&visitor.site);
    let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
                  INSERT INTO checks (monitor_id, at, duration_ms)
                  SELECT ?1, (SELECT max(at) FROM checks) - i * 3600000, 5 FROM n";
    conn.execute(insert, [1]).unwrap();
    conn.execute(insert, [2]).unwrap();
    assert_eq!(visitor.number("SELECT count(*) FROM checks"), 5_002);
    assert_eq!(visitor.delete(&paths[1]).await, 303);
    let gone = "SELECT count(*) FROM monitors WHERE id = 2";
    wait_for("end of it", SOON, async || {
        (visitor.number(gone) == 0).then_some(())
    })
    .await;
    // The check itself, and one for each hour of 90 days but the last, which is a little too old by now.
    assert_eq!(visitor.number("SELECT count(*) FROM checks"), 90 * 24);
    for table in ["checks", "periods", "incidents"] {
        assert_eq!(
            visitor.number(&format!(
                "SELECT count(*) FROM {table} WHERE monitor_id = 2"
            )),
            0
        );
    }
}

fn writable(site: &TestProcess) -> Connection {
    let path = site.folder().join("data/site.sqlite3");
    #[expect(
        clippy::disallowed_methods,
        reason = "it changes the file as another program would"
    )]
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(SOON).unwrap();
    conn
}
