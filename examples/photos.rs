//! A page to which visitors send photos: a form with a file, shown again on a mistake, done once however often it is
//! sent, and a message after it.

use askama::Template;
use garde::Validate;
use houseboat::axum::extract::State;
use houseboat::axum::http::StatusCode;
use houseboat::axum::response::{Html, IntoResponse, Redirect, Response};
use houseboat::axum::{Router, routing::get, routing::post};
use houseboat::database::{Database, Migrations};
use houseboat::http::{
    Download, Error, Errors, Flash, Input, Nonce, OnceKey, Path, Result, Upload, Uploads,
};
use houseboat::rusqlite::{OptionalExtension, params};
use houseboat::{App, Context, rusqlite};

#[derive(Template)]
#[template(path = "photos.html")]
struct Page {
    nonce: Nonce,
    key: OnceKey,
    flash: Flash,
    input: Input,
    errors: Errors,
    photos: Vec<Photo>,
}

struct Photo {
    id: i64,
    title: String,
}

#[derive(serde::Deserialize, Validate)]
struct NewPhoto {
    #[garde(length(chars, min = 1, max = 100))]
    title: String,
}

/// What of a page is for one visitor.
type Visit = (Nonce, OnceKey, Flash);

async fn list(State(db): State<Database>, visit: Visit) -> Result<Html<String>> {
    page(&db, visit, Input::default(), Errors::default()).await
}

async fn page(
    db: &Database,
    (nonce, key, flash): Visit,
    input: Input,
    errors: Errors,
) -> Result<Html<String>> {
    let photos = db.read(|conn| {
        let mut query =
            conn.prepare_cached("SELECT id, title FROM photos ORDER BY id DESC LIMIT 20")?;
        let photos = query.query_map([], |row| {
            let (id, title) = (row.get(0)?, row.get(1)?);
            Ok(Photo { id, title })
        });
        Ok(photos?.collect::<rusqlite::Result<_>>()?)
    });
    let photos = photos.await?;
    let page = Page {
        nonce,
        key,
        flash,
        input,
        errors,
        photos,
    };
    Ok(Html(page.render()?))
}

async fn create(
    State(db): State<Database>,
    visit: Visit,
    upload: Upload<NewPhoto>,
) -> Result<Response> {
    let checked = upload.check();
    let (new, photo) = match (checked, upload.file("photo")) {
        (Ok(new), Some(photo)) => (new, photo),
        (checked, _) => {
            let wrong = checked.err();
            let wrong = wrong.unwrap_or_else(|| upload.wrong("photo", "Choose a photo."));
            let page = page(&db, visit, wrong.input, wrong.errors).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    let (media, bytes) = (photo.media(), photo.bytes().await?);
    let write = upload.once()?.write(&db, move |tx| {
        let sql = "INSERT INTO photos (title, media, bytes) VALUES (?1, ?2, ?3)";
        tx.execute(sql, params![new.title, media, &*bytes])?;
        Ok(tx.last_insert_rowid())
    });
    let id = write.await?;
    let told = Flash::notice(format!("Photo {id} is here."));
    Ok((told, Redirect::to("/")).into_response())
}

async fn show(State(db): State<Database>, Path(id): Path<i64>) -> Result<Download> {
    let photo = db.read(move |conn| {
        let sql = "SELECT media, bytes FROM photos WHERE id = ?1";
        let photo = conn.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(photo.optional()?)
    });
    let photo: Option<(String, Vec<u8>)> = photo.await?;
    let (media, bytes) = photo.ok_or_else(Error::not_found)?;
    Ok(Download::new(format!("photo-{id}"), media, bytes).shown())
}

const MIGRATIONS: Migrations = Migrations::new(
    "photos",
    &[(
        "V1__photos",
        "CREATE TABLE photos (id INTEGER PRIMARY KEY, title TEXT NOT NULL, media TEXT NOT NULL, bytes BLOB NOT NULL) STRICT",
    )],
);

fn main() -> std::process::ExitCode {
    let uploads = Uploads::new(&["image/png", "image/jpeg"]).file_bytes_max(5 << 20);
    let routes: Router<Context> = Router::new()
        .route("/", get(list))
        .route("/photos", post(create).layer(uploads))
        .route("/photos/{id}", get(show));
    houseboat::run(App::new("photos").migrations(MIGRATIONS).routes(routes))
}
