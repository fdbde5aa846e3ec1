//! A site that is asked without a connection, as if by whom the test says.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::http::Request;
use axum::http::StatusCode;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::database::Clock;
use houseboat::http::Assets;
use tempfile::TempDir;
use tower::ServiceExt;

/// A site of the test's routes.
#[derive(Debug)]
pub(crate) struct Asked {
    _folder: TempDir,
    router: Router,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Asked {
    /// With settings, as variables have them.
    pub(crate) async fn new(routes: Router<Context>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut variables = vec![
            ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
            ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
        ];
        let settings = settings.iter();
        variables.extend(settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::load_from(folder.path(), variables).unwrap();
        let assets = Assets::new(&[("site.css", b"body { margin: 0 }")]);
        let app = App::new("test").routes(routes).assets(assets);
        let site = app.open(config, Clock::system()).await.unwrap();
        Self {
            _folder: folder,
            router: site.router(),
        }
    }

    /// Its routes, with all layers around them.
    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Asks as the other end of the connection at `peer`.
    pub(crate) async fn ask(
        &self,
        peer: &str,
        (method, uri): (&str, &str),
        headers: &[(&str, &str)],
    ) -> Told {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer: SocketAddr = format!("{peer}:4711").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Told {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }
}

impl Told {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}
