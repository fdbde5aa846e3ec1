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
use garde::Validate;
use houseboat::auth::User;
use houseboat::auth::users_only;
use houseboat::database;
use houseboat::database::Database;
use houseboat::database::Transaction;
use houseboat::http::Errors;
use houseboat::http::Flash;
use houseboat::http::Form;
use houseboat::http::OnceKey;
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
use crate::site::pages::Of;
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

/// A form that asks no more than to be sent.
#[derive(Deserialize, Validate)]
struct Confirmed {}

/// The page is kept with the number of the last change that shows on it, so it is never behind one; with a message on
/// it, it is made for the one who gets that.
async fn status(
    State(context): State<Context>,
    user: Option<User>,
    flash: Flash,
) -> Result<Html<String>> {
    let frame = frame(user.is_some()).telling(&flash);
    if !frame.messages.is_empty() {
        let now = context.database.now();
        let page = context
            .database
            .read(move |conn| views::status(conn, now, frame));
        return Ok(Html(page.await?.render()?));
    }
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
    flash: Flash,
) -> Result<Html<String>> {
    let (now, frame) = (database.now(), frame(user.is_some()).telling(&flash));
    let page = database
        .read(move |conn| views::monitor(conn, id, now, frame))
        .await;
    Ok(Html(found(page)?.render()?))
}

async fn new(key: OnceKey) -> Result<Html<String>> {
    form(Of::New(key), MonitorForm::default(), Errors::default())
}

async fn edit(State(database): State<Database>, Path(id): Path<i64>) -> Result<Html<String>> {
    let monitor = find(&database, id).await?;
    form(
        Of::Monitor(id),
        MonitorForm::from_input(&monitor),
        Errors::default(),
    )
}

async fn ask_delete(
    State(database): State<Database>,
    Path(id): Path<i64>,
    key: OnceKey,
) -> Result<Html<String>> {
    let monitor = find(&database, id).await?;
    let page = DeletePage {
        frame: frame(true),
        key,
        id,
        name: monitor.name,
        address: monitor.target.address,
    };
    Ok(Html(page.render()?))
}

/// Stores the monitor and enqueues its first check, or neither; once, however often the form is sent.
async fn create(
    State(context): State<Context>,
    key: OnceKey,
    form: Form<MonitorForm>,
) -> Result<Response> {
    let entered = form.check()?;
    let input = match check(&context, &entered).await {
        Ok(input) => input,
        Err(errors) => return refused(Of::New(key), entered, errors),
    };
    let told = Flash::notice(format!("The monitor “{}” is there.", input.name));
    let queue = context.queue.clone();
    let write = form.once()?.write(&context.database, move |tx| {
        if monitors::count(tx)? >= MONITORS_MAX {
            return Ok(None);
        }
        let id = monitors::insert(tx, &input)?;
        enqueue_check(&queue, tx, id)?;
        Ok(Some(id))
    });
    match write.await? {
        Some(id) => Ok((told, to_monitor(id)).into_response()),
        None => refused(Of::New(key), entered, too_many()),
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
            return refused(Of::Monitor(id), entered, errors);
        }
    };
    let told = Flash::notice(format!("The changes to “{}” are saved.", input.name));
    let queue = context.queue.clone();
    change(&context.database, move |tx| {
        let changed = monitors::update(tx, id, &input)?;
        // While it is paused, the job finds that and does nothing.
        enqueue_check(&queue, tx, id)?;
        Ok(changed)
    })
    .await?;
    Ok((told, to_monitor(id)).into_response())
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
async fn pause(State(context): State<Context>, Path(id): Path<i64>) -> Result<(Flash, Redirect)> {
    change(&context.database, move |tx| {
        incidents::close(tx, id)?;
        monitors::set_activity(tx, id, Activity::Paused)
    })
    .await?;
    let told = Flash::notice("The monitor is paused: nothing is checked until it is resumed.");
    Ok((told, to_monitor(id)))
}

async fn resume(State(context): State<Context>, Path(id): Path<i64>) -> Result<(Flash, Redirect)> {
    let queue = context.queue.clone();
    change(&context.database, move |tx| {
        enqueue_check(&queue, tx, id)?;
        monitors::set_activity(tx, id, Activity::Watched)
    })
    .await?;
    Ok((Flash::notice("The monitor is resumed."), to_monitor(id)))
}

/// Once, however often the button is pressed: who comes second is told the same.
async fn delete(
    State(context): State<Context>,
    Path(id): Path<i64>,
    form: Form<Confirmed>,
) -> Result<(Flash, Redirect)> {
    let queue = context.queue.clone();
    let write = form.once()?.write(&context.database, move |tx| {
        let monitor = monitors::find(tx, id)?.ok_or_else(missing)?;
        queue.enqueue(tx, PruneHistory::request())?;
        monitors::delete(tx, id)?;
        Ok(monitor.input.name)
    });
    let name = found(write.await)?;
    let told = Flash::notice(format!("The monitor “{name}” is deleted."));
    Ok((told, Redirect::to("/")))
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

fn form(of: Of, form: MonitorForm, errors: Errors) -> Result<Html<String>> {
    let page = FormPage {
        frame: frame(true),
        of,
        form,
        errors,
    };
    Ok(Html(page.render()?))
}

/// The form again, as it was entered, with what is wrong beside each field.
fn refused(of: Of, entered: MonitorForm, errors: Errors) -> Result<Response> {
    let page = form(of, entered, errors)?;
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
