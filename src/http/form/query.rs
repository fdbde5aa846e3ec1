//! What an address has in it: the query, and the parts of its path.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::http::Error;
use crate::http::form::pairs;
use crate::http::form::reading;
use crate::http::form::reading::Read;

/// The query of an address, read as a [`Form`](crate::http::Form) is; 400 with what is wrong where it does not fit.
///
/// ```
/// use houseboat::http::Query;
///
/// #[derive(serde::Deserialize)]
/// struct Which { page: Option<u32>, #[serde(default)] sort: String }
///
/// async fn list(Query(which): Query<Which>) -> String {
///     format!("page {}", which.page.unwrap_or(1))
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/", houseboat::axum::routing::get(list));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let pairs = pairs::urlencoded(parts.uri.query().unwrap_or_default().as_bytes())?;
        let Read { value, errors, .. } = reading::read(&pairs, "");
        match value.filter(|_| errors.is_empty()) {
            Some(value) => Ok(Self(value)),
            None => Err(Error::new(
                StatusCode::BAD_REQUEST,
                "The address of this page is not right: what comes after its ? does not fit.",
            )
            .with_errors(errors.into_list())),
        }
    }
}

/// The parts of a path that a route names; 404 where they do not fit: what is no number is no monitor.
///
/// ```
/// use houseboat::http::Path;
///
/// async fn show(Path(id): Path<i64>) -> String {
///     format!("monitor {id}")
/// }
/// # let _: houseboat::axum::Router = houseboat::axum::Router::new()
/// #     .route("/monitors/{id}", houseboat::axum::routing::get(show));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            // A route without such a part, or a type with parts of its own, is a mistake of the site.
            Err(rejection) if rejection.status().is_server_error() => {
                Err(Error::internal(rejection.body_text()))
            }
            Err(rejection) => Err(Error::not_found().because(rejection.body_text())),
        }
    }
}
