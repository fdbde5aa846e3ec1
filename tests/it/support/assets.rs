//! A site with static files, asked by its router.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::Request;
use axum::http::StatusCode;
use houseboat::App;
use houseboat::Config;
use houseboat::app::Site;
use houseboat::database::Clock;
use houseboat::http::Assets;
use tower::ServiceExt;

/// An answer with a body of bytes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// A site with these files, whose database is in `folder`.
pub(crate) async fn open(folder: &Path, environment: &str, assets: Assets, clock: Clock) -> Site {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let variables = [
        ("HOUSEBOAT_ENV", environment.to_owned()),
        ("HOUSEBOAT_DATABASE__PATH", path("site.sqlite3")),
        ("HOUSEBOAT_CACHE__PATH", path("cache.sqlite3")),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let config: Config = Config::load_from(folder, variables).unwrap();
    let app = App::new("test").assets(assets);
    app.open(config, clock).await.unwrap()
}

/// Asks for an address.
pub(crate) async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.into(),
    }
}

/// Gets an address.
pub(crate) async fn get(router: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(router, "GET", path, headers).await
}
