//! Forms: what a handler gets of them, and what a visitor is told.

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use garde::Validate;
use houseboat::Context;
use houseboat::http;
use houseboat::http::Form;
use houseboat::http::Password;
use houseboat::http::Path;
use houseboat::http::Query;
use houseboat::http::Wrong;
use serde::Deserialize;

use crate::support::in_process::Answer;
use crate::support::in_process::InProcess;
use crate::support::in_process::Parts;

#[derive(Debug, Deserialize, Validate)]
struct New {
    #[garde(length(chars, min = 1, max = 10))]
    name: String,
    #[garde(range(min = 30, max = 100))]
    interval: u32,
    #[garde(skip)]
    paused: bool,
    #[garde(length(max = 3), inner(length(chars, min = 2)))]
    tags: Vec<String>,
    #[garde(skip)]
    note: Option<String>,
    #[garde(range(max = 9.5))]
    weight: Option<f32>,
    #[garde(skip)]
    kind: Kind,
    #[garde(skip)]
    colour: Colour,
    #[garde(length(chars, min = 12))]
    phrase: Password,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Http,
    Tcp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Colour(String);

impl TryFrom<String> for Colour {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "" | "red" | "blue" => Ok(Self(text)),
            "inside" => Err("InvalidColour { code: 7 }"),
            _ => Err("Choose red or blue."),
        }
    }
}

/// All that is wrong, and all that is to be shown again, a line each.
fn lines(wrong: &Wrong) -> Response {
    let mut lines: Vec<String> = wrong
        .errors
        .iter()
        .map(|(field, text)| format!("{field}! {text}"))
        .collect();
    for field in [
        "name",
        "interval",
        "tags",
        "note",
        "weight",
        "kind",
        "phrase",
        "new_password",
    ] {
        lines.extend(
            wrong
                .input
                .all(field)
                .map(|text| format!("{field}= {text}")),
        );
    }
    if wrong.input.is_checked("paused") {
        lines.push("paused".to_owned());
    }
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        [("content-type", "text/html")],
        lines.join("\n"),
    )
        .into_response()
}

async fn create(form: Form<New>) -> http::Result<Response> {
    let new = match form.check() {
        Ok(new) => new,
        Err(wrong) => return Ok(lines(&wrong)),
    };
    if new.name == "taken" {
        return Ok(lines(&form.wrong("name", "This name is taken.")));
    }
    assert!(!format!("{new:?} {form:?}").contains("correct horse"));
    let New {
        name,
        interval,
        paused,
        tags,
        note,
        weight,
        kind,
        colour,
        phrase,
    } = new;
    let phrase = phrase.expose().len();
    let colour = colour.0;
    Ok(format!(
        "{name} {interval} {paused} {tags:?} {note:?} {weight:?} {kind:?} {colour} {phrase}"
    )
    .into_response())
}

async fn short(form: Form<New>) -> http::Result<String> {
    Ok(form.check()?.name)
}

/// Nothing can stand in the place of a code.
#[derive(Debug, Deserialize, Validate)]
struct Strict {
    #[garde(skip)]
    code: Code,
    #[garde(skip)]
    word: Password,
    #[garde(skip)]
    count: u8,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Code(String);

impl TryFrom<String> for Code {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_code = text.len() == 4;
        is_code
            .then_some(Self(text))
            .ok_or("Enter the four digits.")
    }
}

/// What is told of a form that has a code.
async fn strict(form: Form<Strict>) -> String {
    match form.check() {
        Ok(strict) => format!(
            "{} {} {}",
            strict.code.0,
            strict.word.expose(),
            strict.count
        ),
        Err(wrong) => format!("{:?} {:?}", wrong.errors, wrong.input),
    }
}

#[derive(Debug, Deserialize)]
struct Which {
    page: Option<u8>,
    #[serde(default)]
    only: Vec<u8>,
}

fn routes() -> Router<Context> {
    Router::new()
        .route("/new", post(create))
        .route("/short", post(short))
        .route("/strict", post(strict))
        .route(
            "/list",
            get(async |Query(which): Query<Which>| format!("{:?} {:?}", which.page, which.only)),
        )
        .route(
            "/item/{id}",
            get(async |Path(id): Path<i64>| id.to_string()),
        )
        .route(
            "/two/{a}/{b}",
            get(async |Path(id): Path<i64>| id.to_string()),
        )
}

async fn site() -> InProcess {
    InProcess::new(routes()).await
}

const PHRASE: (&str, &str) = ("phrase", "correct horse battery");
const RIGHT: [(&str, &str); 5] = [
    ("name", "Shöp & Co"),
    ("interval", " 60 "),
    ("kind", "tcp"),
    ("colour", "red"),
    PHRASE,
];

/// Both ways in which a browser may send it.
async fn both(site: &InProcess, path: &str, pairs: &[(&str, &str)]) -> Answer {
    let parts = pairs.iter().fold(Parts::default(), |parts, (name, value)| {
        parts.field(name, value)
    });
    let parts = site.post_parts(path, &parts).await;
    let plain = site.post(path, crate::support::client::form(pairs)).await;
    assert_eq!(
        (parts.status, parts.text()),
        (plain.status, plain.text()),
        "sent in parts, and not"
    );
    plain
}

#[tokio::test]
async fn a_form_becomes_its_type() {
    let site = site().await;
    let answer = both(&site, "/new", &RIGHT).await;
    assert_eq!(answer.text(), "Shöp & Co 60 false [] None None Tcp red 21");
    let mut all = RIGHT.to_vec();
    all.extend([
        ("paused", "on"),
        ("tags", "ab"),
        ("tags", "cd"),
        ("note", ""),
        ("weight", "2.5"),
        ("more", "x"),
    ]);
    let answer = both(&site, "/new", &all).await;
    assert_eq!(
        answer.text(),
        r#"Shöp & Co 60 true ["ab", "cd"] None Some(2.5) Tcp red 21"#
    );
    all.extend([("note", "a\r\nb")]);
    let answer = both(&site, "/new", &all).await;
    // Two notes, of which the first one is empty.
    assert_eq!(
        (
            answer.status,
            answer.text().lines().next().unwrap().to_owned()
        ),
        (
            422,
            "note! This field came more than once, and has one value only.".to_owned()
        )
    );
}

#[tokio::test]
async fn every_mistake_is_told_at_once_with_what_was_entered() {
    let site = site().await;
    let pairs = [
        ("interval", ""),
        ("name", "much too long a name"),
        ("paused", "maybe"),
        ("tags", "a"),
        ("tags", "bc"),
        ("weight", "heavy"),
        ("kind", "carrier pigeon"),
        ("colour", "green"),
        ("phrase", "short"),
        ("new_password", "also secret"),
        ("note", "<b>"),
    ];
    let answer = both(&site, "/new", &pairs).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.text(),
        "name! Enter at most 10 characters.\n\
         interval! Enter a whole number, 0 or more.\n\
         paused! Choose yes or no.\n\
         tags! Enter at least 2 characters.\n\
         weight! Enter a number, such as 2.5.\n\
         kind! Choose one of http, tcp.\n\
         colour! Choose red or blue.\n\
         phrase! Enter at least 12 characters.\n\
         name= much too long a name\n\
         interval= \n\
         tags= a\n\
         tags= bc\n\
         note= <b>\n\
         weight= heavy\n\
         kind= carrier pigeon"
    );
}

#[tokio::test]
async fn one_wrong_number_is_an_error_of_its_field_alone() {
    let site = site().await;
    for (interval, text) in [
        ("", "Enter a whole number, 0 or more."),
        ("-1", "Enter a whole number, 0 or more."),
        ("1.5", "Enter a whole number, 0 or more."),
        ("4294967296", "This number is too large."),
        (
            "99999999999999999999999999999999999999999999",
            "This number is too large.",
        ),
        ("29", "Enter 30 or more."),
        ("101", "Enter 100 or less."),
    ] {
        let mut pairs = RIGHT.to_vec();
        pairs[1] = ("interval", interval);
        let answer = both(&site, "/new", &pairs).await;
        let text = format!("interval! {text}\nname= Shöp & Co\ninterval= {interval}\nkind= tcp");
        assert_eq!((answer.status, answer.text()), (422, text));
    }
    let answer = both(&site, "/new", &[("name", "a"), PHRASE]).await;
    assert_eq!(
        answer.text(),
        "interval! Fill in this field.\nkind! Fill in this field.\ncolour! Fill in this field.\nname= a"
    );
}

#[tokio::test]
async fn lists_have_their_own_words_and_programmers_texts_stay_inside() {
    let site = site().await;
    let mut pairs = RIGHT.to_vec();
    pairs[3] = ("colour", "inside");
    pairs.extend([("tags", "aa"); 4]);
    let text = both(&site, "/new", &pairs).await.text();
    assert!(
        text.starts_with("tags! Enter at most 3 of the list.\ncolour! Enter a valid value.\n"),
        "{text}"
    );
}

#[tokio::test]
async fn where_nothing_can_stand_in_a_fields_place_the_others_are_read_all_the_same() {
    let site = site().await;
    let right = both(
        &site,
        "/strict",
        &[("code", "1234"), ("word", "sesame"), ("count", "1")],
    )
    .await;
    assert_eq!(right.text(), "1234 sesame 1");
    let wrong = both(
        &site,
        "/strict",
        &[("code", "1"), ("count", "x"), ("word", "sesame")],
    )
    .await;
    assert_eq!(
        wrong.text(),
        r#"Errors([("code", "Enter the four digits."), ("count", "Enter a whole number from 0 to 255.")]) Input([("code", "1"), ("count", "x")])"#
    );
}

#[tokio::test]
async fn a_handler_adds_what_only_it_can_find() {
    let site = site().await;
    let mut pairs = RIGHT.to_vec();
    pairs[0] = ("name", "taken");
    let answer = both(&site, "/new", &pairs).await;
    assert_eq!(
        answer.text(),
        "name! This name is taken.\nname= taken\ninterval=  60 \nkind= tcp"
    );
}

#[tokio::test]
async fn a_form_that_no_page_is_made_for_is_listed() {
    let site = site().await;
    let pairs = crate::support::client::form(&RIGHT[1..]);
    let answer = site.post("/short", pairs).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer
            .text()
            .contains("<li><strong>name</strong>: Fill in this field.</li>"),
        "{}",
        answer.text()
    );
    let form = [
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
    ];
    let answer = site
        .ask(
            "POST",
            "/short",
            &form,
            "interval=2&kind=http&colour=&phrase=",
        )
        .await;
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], 422);
    assert_eq!(
        problem["errors"][0],
        serde_json::json!({"field": "name", "detail": "Fill in this field."})
    );
    assert_eq!(problem["errors"][1]["field"], "interval");
}

#[tokio::test]
async fn an_address_that_does_not_fit_gets_a_page() {
    let site = site().await;
    assert_eq!(
        site.get("/list?page=3&only=1&only=2").await.text(),
        "Some(3) [1, 2]"
    );
    assert_eq!(site.get("/list?page=&other=x").await.text(), "None []");
    let answer = site.get("/list?page=300&only=x").await;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(
        text.contains("<strong>page</strong>: Enter a whole number from 0 to 255."),
        "{text}"
    );
    assert!(text.contains("<strong>only</strong>"), "{text}");
    assert_eq!(site.get("/list?page=1&page=2").await.status, 400);
    assert_eq!(site.get("/list?page=%").await.status, 400);
    assert_eq!(site.get("/item/7").await.text(), "7");
    for path in [
        "/item/seven",
        "/item/99999999999999999999",
        "/item/%ff",
        "/item/1%00",
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer.text().contains("nothing at this address") && !answer.text().contains("i64")
        );
    }
    let answer = site.get("/two/1/2").await;
    assert_eq!(answer.status, 500, "the site's own mistake");
    assert!(!answer.text().contains("path"), "{}", answer.text());
}
