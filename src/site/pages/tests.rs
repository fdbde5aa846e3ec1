//! What the pages say.

use axum::extract::FromRequestParts;

use super::*;
use crate::site::chart::Window;

fn now() -> Timestamp {
    "2026-11-21T14:03:12Z".parse().unwrap()
}

fn frame() -> Frame {
    let [stylesheet, script, icon] =
        ["/a/site.css", "/a/site.js", "/a/icon.svg"].map(str::to_owned);
    Frame {
        is_user: true,
        stylesheet,
        script,
        icon,
        messages: Vec::new(),
    }
}

fn chart() -> Chart {
    let start = now() - SignedDuration::from_hours(24);
    Chart::new(
        Window {
            start,
            end: now(),
            step: SignedDuration::from_mins(15),
        },
        &[],
    )
}

fn check(failure: Option<Failure>) -> Check {
    let at = now() - SignedDuration::from_secs(12);
    Check {
        at,
        duration: Duration::from_millis(45),
        status: Some(200),
        failure,
    }
}

fn failed() -> Check {
    let detail = "expected 200, got 500".to_owned();
    check(Some(Failure {
        cause: Cause::Status,
        detail,
    }))
}

fn row(state: State, last: Option<Check>) -> MonitorRow {
    MonitorRow {
        id: 7,
        name: "<Shop> & \"Co\"".to_owned(),
        address: "https://example.org/?a=1&b=<2>".to_owned(),
        state,
        uptime: Uptime {
            day: Some(0.99996),
            week: Some(1.0),
            quarter: None,
        },
        last,
        chart: chart(),
    }
}

fn status(monitors: Vec<MonitorRow>) -> String {
    StatusPage {
        frame: frame(),
        now: now(),
        monitors,
    }
    .render()
    .unwrap()
}

fn sentence(states: &[State]) -> String {
    let html = status(states.iter().map(|state| row(*state, None)).collect());
    let (_, rest) = html.split_once("<h1>").unwrap();
    let (sentence, rest) = rest.split_once("</h1>").unwrap();
    let (_, rest) = rest.split_once("<p>").unwrap();
    let (remarks, _) = rest.split_once("updated").unwrap();
    format!("{sentence}|{}", remarks.trim_end_matches(" · "))
}

fn monitor() -> MonitorPage {
    let form = MonitorForm {
        name: "<Shop>".to_owned(),
        address: "https://example.org/?a=1&b=2".to_owned(),
        ..MonitorForm::default()
    };
    MonitorPage {
        frame: frame(),
        now: now(),
        id: 7,
        input: form.check().unwrap(),
        state: State::Down,
        uptime: Uptime::default(),
        chart: chart(),
        days: Vec::new(),
        incidents: Vec::new(),
        checks: vec![failed()],
    }
}

#[test]
fn one_sentence_says_how_all_monitors_are() {
    let failing = State::Failing {
        failures: 1,
        failures_max: 2,
    };
    let (up, down, paused, pending) = (State::Up, State::Down, State::Paused, State::Pending);
    assert_eq!(sentence(&[up]), "The monitor is up|");
    assert_eq!(sentence(&[up, up, up, up]), "All 4 monitors are up|");
    assert_eq!(
        sentence(&[up, failing]),
        "Both monitors are up|1 is failing"
    );
    assert_eq!(sentence(&[up, down, up]), "1 of 3 monitors is down|");
    assert_eq!(
        sentence(&[down, up, down, paused]),
        "2 of 3 monitors are down|1 is paused"
    );
    assert_eq!(sentence(&[down, down]), "Both monitors are down|");
    assert_eq!(sentence(&[down; 3]), "All 3 monitors are down|");
    assert_eq!(sentence(&[down]), "The monitor is down|");
    assert_eq!(
        sentence(&[paused, paused]),
        "Everything is paused|2 are paused"
    );
    let waiting = "Waiting for the first check|1 waits for its first check";
    assert_eq!(sentence(&[pending]), waiting);
}

#[test]
fn an_empty_list_says_what_to_do() {
    let html = status(Vec::new());
    assert!(html.contains("Nothing is watched yet") && html.contains("Add the first monitor"));
}

#[test]
fn a_row_says_state_uptime_and_trouble_in_words() {
    let html = status(vec![row(State::Down, Some(failed()))]);
    for words in [
        "Down</span>",
        ": expected 200, got 500",
        "99.99 %",
        "100 %",
        "no data",
        "45 ms",
    ] {
        assert!(html.contains(words), "{words} is not in {html}");
    }
    assert!(html.contains("data-ago>12 s ago</time>"), "{html}");
}

#[test]
fn what_people_entered_is_escaped() {
    let html = status(vec![row(State::Up, None)]);
    assert!(!html.contains("<Shop>") && !html.contains("<2>"), "{html}");
    assert!(html.contains("&#60;Shop&#62;"), "{html}");
    let html = monitor().render().unwrap();
    assert!(!html.contains("<Shop>"), "{html}");
}

#[test]
fn a_monitor_page_leads_to_everything_that_can_be_done() {
    let html = monitor().render().unwrap();
    for link in [
        "/monitors/7/pause\"",
        "/monitors/7/edit\"",
        "/monitors/7/delete\"",
    ] {
        assert!(html.contains(link), "{link}");
    }
    let html = MonitorPage {
        state: State::Paused,
        ..monitor()
    }
    .render()
    .unwrap();
    assert!(html.contains("/monitors/7/resume\"") && !html.contains("/monitors/7/pause\""));
}

#[test]
fn an_incident_is_ongoing_until_it_ends() {
    let start = now() - SignedDuration::from_mins(98);
    let detail = "expected 200, got 500".to_owned();
    let ongoing = Incident {
        start,
        end: None,
        cause: Cause::Status,
        detail,
    };
    let ended = Incident {
        end: Some(start + SignedDuration::from_mins(7)),
        ..ongoing.clone()
    };
    let html = |incident| {
        MonitorPage {
            incidents: vec![incident],
            ..monitor()
        }
        .render()
        .unwrap()
    };
    let (ongoing, ended) = (html(ongoing), html(ended));
    assert!(ongoing.contains("ongoing") && ongoing.contains("1 h 38 min"));
    assert!(!ended.contains("ongoing") && ended.contains("7 min"));
    assert!(ended.contains("21 Nov 2026, 12:32 UTC"), "{ended}");
}

#[test]
fn a_wrong_field_is_tied_to_its_message() {
    let form = MonitorForm {
        interval_s: "<5>".to_owned(),
        ..monitor_form()
    };
    let errors = form.check().unwrap_err();
    let html = FormPage {
        frame: frame(),
        of: Of::Monitor(7),
        form,
        errors,
    }
    .render()
    .unwrap();
    let (_, field) = html.split_once("<input id=\"interval_s\"").unwrap();
    let (field, _) = field.split_once('>').unwrap();
    assert!(field.contains("value=\"&#60;5&#62;\""), "{field}");
    assert!(field.contains("aria-invalid=\"true\""), "{field}");
    assert!(
        field.contains("aria-describedby=\"interval_s-hint interval_s-error\""),
        "{field}"
    );
    assert!(html.contains("id=\"interval_s-error\">Enter whole seconds from 30 to 86400.<"));
    assert!(html.contains("<a href=\"#interval_s\">") && html.contains("1 field to put right"));
    assert_eq!(html.matches("aria-invalid").count(), 1);
}

#[tokio::test]
async fn a_form_keeps_the_method_and_posts_to_its_monitor() {
    let form = MonitorForm {
        method: "PUT".to_owned(),
        ..monitor_form()
    };
    let key = key().await;
    let hidden = format!("<input type=\"hidden\" name=\"_once\" value=\"{key}\">");
    let page = FormPage {
        frame: frame(),
        of: Of::New(key),
        form,
        errors: Errors::default(),
    };
    let html = page.render().unwrap();
    assert!(
        html.contains("<option selected>PUT</option>") && html.contains("action=\"/monitors\"")
    );
    assert!(html.contains(&hidden), "{html}");
    let html = FormPage {
        of: Of::Monitor(7),
        ..page
    }
    .render()
    .unwrap();
    assert!(html.contains("action=\"/monitors/7\"") && html.contains("Save changes"));
    assert!(
        !html.contains("_once"),
        "it may be saved as often as one likes"
    );
}

async fn key() -> OnceKey {
    let (mut parts, ()) = axum::http::Request::new(()).into_parts();
    OnceKey::from_request_parts(&mut parts, &()).await.unwrap()
}

#[tokio::test]
async fn deleting_asks_first() {
    let (name, address) = ("Shop".to_owned(), "https://example.org/".to_owned());
    let html = DeletePage {
        frame: frame(),
        key: key().await,
        id: 7,
        name,
        address,
    }
    .render()
    .unwrap();
    assert!(html.contains("Delete Shop?") && html.contains("action=\"/monitors/7/delete\""));
}

fn monitor_form() -> MonitorForm {
    MonitorForm::from_input(&monitor().input)
}
