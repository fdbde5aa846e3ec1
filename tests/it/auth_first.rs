//! The first run, and the command `users`, beside the real program.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use reqwest::Client;
use rusqlite::Connection;

use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::process::command;
use crate::support::site::database;
use crate::support::site::number;
use crate::support::waiting::wait_for;

const OWNER: &str = "owner@site.test";
const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(20);

/// The link in the log.
async fn link(site: &TestProcess) -> String {
    wait_for("link in the log", PATIENCE, async || link_in(&site.log())).await
}

fn link_in(log: &str) -> Option<String> {
    let start = log
        .find("http://127.0.0.1:")
        .filter(|_| log.contains("/account/first?token="));
    let start = start.and_then(|_| log.find("open http"))? + "open ".len();
    log[start..].split_whitespace().next().map(str::to_owned)
}

fn users(site: &TestProcess, arguments: &[&str]) -> Printed {
    let arguments = [&["users"], arguments].concat();
    run(site.folder(), &arguments, &[])
}

async fn sign_in(client: &Client, site: &TestProcess, password: &str) -> u16 {
    let fields = [("email", OWNER), ("password", password)];
    let answer = post_form(client, &site.url("/account/sign-in"), &fields).await;
    answer.unwrap().status().as_u16()
}

#[tokio::test]
async fn the_log_has_a_link_by_which_the_owners_account_is_made_once() {
    let mut site = TestProcess::start().await;
    let old = link(&site).await;
    assert!(old.starts_with(&site.url("/account/first?token=")), "{old}");
    let client = client();
    let setting_up = client.get(site.url("/account")).send().await.unwrap();
    assert_eq!(setting_up.status(), 503);
    assert!(!setting_up.text().await.unwrap().contains("token"));
    // A new one at each start, and the old one is over.
    site.terminate();
    assert!(site.wait(PATIENCE).await.success());
    let folder = site.folder().to_owned();
    let second = TestProcess::builder().folder(&folder).start().await;
    let new = link(&second).await;
    let token = |link: &str| link.split_once("token=").unwrap().1.to_owned();
    assert_ne!(token(&old), token(&new));
    let page = second.url(&format!("/account/first?token={}", token(&old)));
    assert_eq!(client.get(page).send().await.unwrap().status(), 404);
    let page = client.get(&new).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let token = token(&new);
    let fields = |password| {
        [
            ("token", token.as_str()),
            ("email", OWNER),
            ("password", password),
        ]
    };
    let path = second.url("/account/first");
    let refused = post_form(&client, &path, &fields("password"))
        .await
        .unwrap();
    assert_eq!(refused.status(), 422);
    let good = fields(PASSWORD);
    let both = tokio::join!(
        post_form(&client, &path, &good),
        post_form(&client, &path, &good),
    );
    let mut statuses = [both.0, both.1].map(|answer| answer.unwrap().status().as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404], "{}", second.log());
    assert_eq!(sign_in(&client, &second, PASSWORD).await, 303);
    assert_eq!(number(&database(&folder), "SELECT count(*) FROM users"), 1);
    assert_eq!(number(&database(&folder), "SELECT count(*) FROM tokens"), 0);
    // The links stand in the log where they are told, and in no line of a request; nor does a password.
    assert_eq!(second.log().matches(&token).count(), 1, "{}", second.log());
    assert!(!second.log().contains(PASSWORD));
    drop(second);
    let third = TestProcess::builder().folder(&folder).start().await;
    assert_eq!(sign_in(&client, &third, PASSWORD).await, 303);
    assert!(!third.log().contains("no owner yet"), "{}", third.log());
}

#[tokio::test]
async fn the_command_line_makes_an_owner_beside_the_site() {
    let site = TestProcess::start().await;
    let client = client();
    let first = link(&site).await;
    let added = with_input(
        &site,
        &["create", "--email", OWNER, "--owner", "--password"],
        PASSWORD,
    );
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(added.out, format!("{OWNER}: added\n"));
    assert_eq!(
        client.get(&first).send().await.unwrap().status(),
        404,
        "the link is over"
    );
    assert_eq!(sign_in(&client, &site, PASSWORD).await, 303);
    let again = users(&site, &["create", "--email", "OWNER@site.test"]);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.err.contains("has an account already"), "{again:?}");
    let bad = with_input(
        &site,
        &["create", "--email", "b@site.test", "--password"],
        "12345678",
    );
    assert_eq!(bad.code, Some(2), "{bad:?}");
    let listed = users(&site, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["email"], OWNER);
    assert_eq!(listed[0]["role"], "owner");
    assert_eq!(listed[0]["state"], "active");
}

fn with_input(site: &TestProcess, arguments: &[&str], input: &str) -> Printed {
    let mut child = command(site.folder())
        .arg("users")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{input}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Printed {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn the_command_line_helps_who_is_locked_out() {
    let site = TestProcess::builder()
        .variable("HOUSEBOAT_AUTH__ACCOUNT_ATTEMPTS_MAX", "5")
        .start()
        .await;
    let client = client();
    let created = users(
        &site,
        &["create", "--email", OWNER, "--name", "Olga", "--owner"],
    );
    assert_eq!(created.code, Some(0), "{created:?}");
    let listed = users(&site, &["list"]);
    assert!(
        listed
            .out
            .starts_with(&format!("{OWNER}: owner, invited, since ")),
        "{listed:?}"
    );
    set_password(&client, &site, created.out.trim(), PASSWORD).await;
    assert_eq!(sign_in(&client, &site, PASSWORD).await, 303);
    // Too many attempts, and a link.
    for _ in 0..5 {
        assert_eq!(sign_in(&client, &site, "wrong").await, 422);
    }
    assert_eq!(sign_in(&client, &site, PASSWORD).await, 429);
    let reset = users(&site, &["reset", "OWNER@site.test"]);
    set_password(&client, &site, reset.out.trim(), "another good password").await;
    let counted = users(&site, &["sessions", OWNER]);
    assert_eq!(counted.out, format!("{OWNER}: 1\n"));
    let ended = users(&site, &["sessions", OWNER, "--revoke"]);
    assert_eq!(ended.out, format!("{OWNER}: 1 ended\n"));
    let disabled = users(&site, &["disable", OWNER]);
    assert_eq!(disabled.code, Some(1), "{disabled:?}");
    assert!(disabled.err.contains("is the last owner"), "{disabled:?}");
    let member = "member@site.test";
    users(&site, &["create", "--email", member]);
    assert_eq!(
        users(&site, &["disable", member]).out,
        format!("{member}: disabled\n")
    );
    assert_eq!(
        users(&site, &["disable", member]).out,
        format!("{member}: was disabled already\n")
    );
    assert_eq!(users(&site, &["reset", member]).code, Some(1));
    assert_eq!(
        users(&site, &["enable", member]).out,
        format!("{member}: enabled\n")
    );
    let off = users(&site, &["totp-off", OWNER]);
    assert_eq!(off.out, format!("{OWNER}: no code was asked for\n"));
    for verb in ["reset", "enable", "disable", "sessions", "totp-off"] {
        let missing = users(&site, &[verb, "nobody@site.test"]);
        assert_eq!(missing.code, Some(1), "{missing:?}");
        assert!(
            missing.err.contains("nobody has the address"),
            "{missing:?}"
        );
    }
}

#[tokio::test]
async fn the_command_line_lists_everybody() {
    let site = TestProcess::start().await;
    users(&site, &["create", "--email", OWNER, "--owner"]);
    let path = site.folder().join("data/site.sqlite3");
    #[expect(
        clippy::disallowed_methods,
        reason = "it changes the file as another program would"
    )]
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    conn.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2100)
         INSERT INTO users (email, email_key, role, created_at)
         SELECT 'p' || i || '@site.test', 'p' || i || '@site.test', 'member', 0 FROM n",
        [],
    )
    .unwrap();
    let listed = users(&site, &["list"]);
    let lines: Vec<_> = listed.out.lines().collect();
    assert!(lines[0].starts_with(OWNER), "{}", lines[0]);
    assert_eq!(lines.len(), 2_101);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 2_101);
    let json = users(&site, &["list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2_101);
}

/// By a link that the command line printed: it does not know at which port the site listens.
async fn set_password(client: &Client, site: &TestProcess, link: &str, password: &str) {
    let (address, token) = link.split_once("/account/reset?token=").unwrap();
    assert!(address.starts_with("http://127.0.0.1:"), "{link}");
    let fields = [("token", token), ("password", password)];
    let set = post_form(client, &site.url("/account/reset"), &fields).await;
    assert_eq!(set.unwrap().status(), 303, "{}", site.log());
}
