//! JSON from programs.

use axum::Router;
use axum::routing::post;
use garde::Validate;
use houseboat::http::Json;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::support::in_process::InProcess;

#[derive(Deserialize, Serialize, Validate)]
struct Team {
    #[garde(length(chars, min = 1, max = 10))]
    name: String,
    #[garde(dive)]
    people: Vec<Person>,
    #[garde(skip)]
    #[serde(default)]
    rest: Value,
}

#[derive(Deserialize, Serialize, Validate)]
struct Person {
    #[garde(range(max = 150))]
    age: u8,
}

async fn site() -> InProcess {
    let echo = async |Json(team): Json<Team>| Json(team);
    InProcess::new(Router::new().route("/teams", post(echo))).await
}

async fn send(site: &InProcess, body: &str) -> (u16, Value) {
    let answer = site
        .ask(
            "POST",
            "/teams",
            &["content-type: application/json"],
            body.to_owned(),
        )
        .await;
    if answer.status != 200 {
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{}",
            answer.text()
        );
    }
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test]
async fn json_is_read_and_written() {
    let site = site().await;
    let team = json!({"name": "Ops", "people": [{"age": 30}], "rest": null});
    assert_eq!(send(&site, &team.to_string()).await, (200, team));
}

#[tokio::test]
async fn what_is_wrong_is_pointed_to() {
    let site = site().await;
    for (body, pointer, detail) in [
        (
            r#"{"name": "a", "people": [{"age": 1}, {"age": "x"}]}"#,
            "#/people/1/age",
            "Invalid type: string \"x\", expected u8.",
        ),
        (
            r#"{"name": "a", "people": [{}]}"#,
            "#/people/0",
            "Missing field `age`.",
        ),
        (
            r#"{"name": "a", "people": [5]}"#,
            "#/people/0",
            "Invalid type: integer `5`, expected an object.",
        ),
        (
            r"[1]",
            "#/0",
            "Invalid type: integer `1`, expected a string.",
        ),
        (
            r#"{"name": "", "people": []}"#,
            "#/name",
            "Fill in this field.",
        ),
        (
            r#"{"name": "a", "people": [{"age": 151}]}"#,
            "#/people/0/age",
            "Enter 150 or less.",
        ),
    ] {
        let (status, problem) = send(&site, body).await;
        assert_eq!(status, 422, "{body}");
        assert_eq!(
            problem["errors"][0],
            json!({"field": pointer, "detail": detail}),
            "{body}"
        );
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["instance"], "/teams");
    }
}

#[tokio::test]
async fn what_is_no_json_or_too_deep_is_refused() {
    let site = site().await;
    let deep = |depth: usize| {
        let rest = "[".repeat(depth) + &"]".repeat(depth);
        format!(r#"{{"name": "a", "people": [], "rest": {rest}}}"#)
    };
    assert_eq!(send(&site, &deep(31)).await.0, 200);
    for (body, text) in [
        (deep(32), "32 deep"),
        ("[".repeat(900_000), "32 deep"),
        ("{".to_owned(), "no JSON: line 1, column 1"),
        (String::new(), "no JSON"),
        (
            r#"{"name": "a", "people": []} x"#.to_owned(),
            "no JSON: line 1, column 29",
        ),
        ("{\"name\": \"\u{1}\"}".to_owned(), "no JSON"),
    ] {
        let (status, problem) = send(&site, &body).await;
        assert_eq!(status, 400);
        assert!(
            problem["detail"].as_str().unwrap().contains(text),
            "{problem}"
        );
    }
    assert_eq!(
        send(&site, &format!("\"{}\"", "x".repeat(2 << 20))).await.0,
        413
    );
    let bytes = b"{\"name\": \"\xff\"}".to_vec();
    assert_eq!(
        site.ask("POST", "/teams", &["content-type: application/json"], bytes)
            .await
            .status,
        400
    );
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "text/json",
    ] {
        let answer = site
            .ask("POST", "/teams", &[&format!("content-type: {media}")], "{}")
            .await;
        assert_eq!(answer.status, 415, "{media}");
    }
    assert_eq!(
        site.ask(
            "POST",
            "/teams",
            &["content-type: application/vnd.site+json; charset=utf-8"],
            "{}"
        )
        .await
        .status,
        422
    );
}
