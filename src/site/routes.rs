//! What each address answers.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use houseboat::auth::User;
use houseboat::auth::users_only;
use houseboat::database;
use houseboat::database::Database;
use houseboat::database::Transaction;
use houseboat::http::Errors;
use houseboat::http::Form;
use houseboat::http::Path;
use houseboat::http::Result;
use serde::Deserialize;
use serde::Serialize;

use crate::site::Context;
use crate::site::form::MonitorForm;
use crate::site::form::MonitorInput;
use crate::site::incidents;
use crate::site::jobs::PruneHistory;
use crate::site::jobs::enqueue_check;
use crate::site::monitors;
use crate::site::monitors::Activity;
use crate::site::monitors::MONITORS_MAX;
use crate::site::pages::DeletePage;
use crate::site::pages::FormPage;
use crate::site::views;
use crate::site::views::found;
use crate::site::views::frame;
use crate::site::views::missing;

/// Uptimes are of the time up to now, so a page without news is made anew after this.
const STATUS_TTL: Duration = Duration::from_secs(10);

/// What is on the status page is for everybody; what changes it, and the forms for that, for those who are signed in.
pub(crate) fn routes() -> Router<Context> {
    let public = Router::new()
        .route("/", get(status))
        .route("/monitors/{id}", get(show));
    let private = Router::new()
        .route("/monitors/new", get(new))
        .route("/monitors", post(create))
        .route("/monitors/{id}", post(update))
        .route("/monitors/{id}/edit", get(edit))
        .route("/monitors/{id}/pause", post(pause))
        .route("/monitors/{id}/resume", post(resume))
        .route("/monitors/{id}/delete", get(ask_delete).post(delete))
        .layer(users_only());
    public.merge(private)
}

/// The status page as it is kept.
#[derive(Deserialize, Serialize)]
struct Kept {
    /// The last change that shows on it.
    revision: i64,
    page: String,
}

/// The page is kept with the number of the last change that shows on it, so it is never behind one.
async fn status(State(context): State<Context>, user: Option<User>) -> Result<Html<String>> {
    let frame = frame(user.is_some());
    let key = if frame.is_user {
        "status-of-users"
    } else {
        "status"
    };
    let Context {
        database, cache, ..
    } = context;
    let revision = database.read(monitors::revision).await?;
    let kept: Option<Kept> = cache.get(key).await;
    if let Some(kept) = kept.filter(|kept| kept.revision == revision) {
        return Ok(Html(kept.page));
    }
    let now = database.now();
    let page = database.read(move |conn| views::status(conn, now, frame));
    let page = page.await?;
    let page = page.render()?;
    let kept = Kept { revision, page };
    cache.put(key, &kept, STATUS_TTL).await?;
    Ok(Html(kept.page))
}

async fn show(
    State(database): State<Database>,
    Path(id): Path<i64>,
    user: Option<User>,
) -> Result<Html<String>> {
    let (now, frame) = (database.now(), frame(user.is_some()));
    let page = database
        .read(move |conn| views::monitor(conn, id, now, frame))
        .await;
    Ok(Html(found(page)?.render()?))
}

async fn new() -> Result<Html<String>> {
    form(None, MonitorForm::default(), Errors::default())
}

async fn edit(State(database): State<Database>, Path(id): Path<i64>) -> Result<Html<String>> {
    let monitor = find(&database, id).await?;
    form(
        Some(id),
        MonitorForm::from_input(&monitor),
        Errors::default(),
    )
}

async fn ask_delete(State(database): State<Database>, Path(id): Path<i64>) -> Result<Html<String>> {
    let monitor = find(&database, id).await?;
    let page = DeletePage {
        frame: frame(true),
        id,
        name: monitor.name,
        address: monitor.target.address,
    };
    Ok(Html(page.render()?))
}

/// Stores the monitor and enqueues its first check, or neither.
async fn create(State(context): State<Context>, form: Form<MonitorForm>) -> Result<Response> {
    let entered = form.check()?;
    let input = match check(&context, &entered).await {
        Ok(input) => input,
        Err(errors) => return refused(None, entered, errors),
    };
    let queue = context.queue.clone();
    let id = context
        .database
        .write(move |tx| {
            if monitors::count(tx)? >= MONITORS_MAX {
                return Ok(None);
            }
            let id = monitors::insert(tx, &input)?;
            enqueue_check(&queue, tx, id)?;
            Ok(Some(id))
        })
        .await?;
    match id {
        Some(id) => Ok(to_monitor(id).into_response()),
        None => refused(None, entered, too_many()),
    }
}

async fn update(
    State(context): State<Context>,
    Path(id): Path<i64>,
    form: Form<MonitorForm>,
) -> Result<Response> {
    let entered = form.check()?;
    let input = match check(&context, &entered).await {
        Ok(input) => input,
        Err(errors) => {
            find(&context.database, id).await?;
            return refused(Some(id), entered, errors);
        }
    };
    let queue = context.queue.clone();
    change(&context.database, move |tx| {
        let changed = monitors::update(tx, id, &input)?;
        // While it is paused, the job finds that and does nothing.
        enqueue_check(&queue, tx, id)?;
        Ok(changed)
    })
    .await?;
    Ok(to_monitor(id).into_response())
}

/// What the form says, and what is known of the address now.
async fn check(context: &Context, entered: &MonitorForm) -> Result<MonitorInput, Errors> {
    let input = entered.check()?;
    let network = context.settings.network();
    if network.is_out_of_reach(&input.target.address).await {
        let mut errors = Errors::default();
        let message = "Enter an address on the internet: this one is on a private network, which this site does not check.";
        errors.add("address", message);
        return Err(errors);
    }
    Ok(input)
}

/// An incident that goes on ends here: nobody looks any more.
async fn pause(State(context): State<Context>, Path(id): Path<i64>) -> Result<Redirect> {
    change(&context.database, move |tx| {
        incidents::close(tx, id)?;
        monitors::set_activity(tx, id, Activity::Paused)
    })
    .await?;
    Ok(to_monitor(id))
}

async fn resume(State(context): State<Context>, Path(id): Path<i64>) -> Result<Redirect> {
    let queue = context.queue.clone();
    change(&context.database, move |tx| {
        enqueue_check(&queue, tx, id)?;
        monitors::set_activity(tx, id, Activity::Watched)
    })
    .await?;
    Ok(to_monitor(id))
}

async fn delete(State(context): State<Context>, Path(id): Path<i64>) -> Result<Redirect> {
    let queue = context.queue.clone();
    change(&context.database, move |tx| {
        queue.enqueue(tx, PruneHistory::request())?;
        monitors::delete(tx, id)
    })
    .await?;
    Ok(Redirect::to("/"))
}

/// Does something to a monitor, or nothing at all and answers 404 if `work` says that there is none.
async fn change(
    database: &Database,
    work: impl FnOnce(&Transaction<'_>) -> database::Result<bool> + Send + 'static,
) -> Result<()> {
    let done = database.write(move |tx| if work(tx)? { Ok(()) } else { Err(missing()) });
    found(done.await)
}

async fn find(database: &Database, id: i64) -> Result<MonitorInput> {
    let monitor = database.read(move |conn| monitors::find(conn, id)?.ok_or_else(missing));
    Ok(found(monitor.await)?.input)
}

fn form(id: Option<i64>, form: MonitorForm, errors: Errors) -> Result<Html<String>> {
    let frame = frame(true);
    let page = FormPage {
        frame,
        id,
        form,
        errors,
    };
    Ok(Html(page.render()?))
}

/// The form again, as it was entered, with what is wrong beside each field.
fn refused(id: Option<i64>, entered: MonitorForm, errors: Errors) -> Result<Response> {
    let page = form(id, entered, errors)?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

fn too_many() -> Errors {
    let mut errors = Errors::default();
    let message = format!("There are {MONITORS_MAX} monitors already; delete one to make room.");
    errors.add("name", message);
    errors
}

fn to_monitor(id: i64) -> Redirect {
    Redirect::to(&format!("/monitors/{id}"))
}
