//! A site of the test's own, asked without a network.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::Request;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::database::Clock;
use jiff::Timestamp;
use tempfile::TempDir;
use tower::ServiceExt;

/// A site whose files are open and of which nothing runs.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) router: Router,
    pub(crate) context: Context,
    pub(crate) clock: Clock,
    folder: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl InProcess {
    /// A site of these routes, in the environment `production`.
    pub(crate) async fn new(routes: Router<Context>) -> Self {
        Self::with(
            App::new("test").routes(routes),
            &[("HOUSEBOAT_ENV", "production")],
        )
        .await
    }

    pub(crate) async fn with(app: App, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut all = vec![
            ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
            ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
        ];
        let given = variables.iter();
        all.extend(given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::load_from(folder.path(), all).unwrap();
        let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
        let site = app.open(config, clock.clone()).await.unwrap();
        Self {
            router: site.router(),
            context: site.context().clone(),
            clock,
            folder,
        }
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks with headers, which are whole lines.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "site.test");
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Sends a request of the test's own.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.to_vec(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Sends a form as it stands.
    pub(crate) async fn post(&self, path: &str, form: impl Into<Body>) -> Answer {
        let media = "content-type: application/x-www-form-urlencoded";
        self.ask("POST", path, &[media], form).await
    }

    /// Sends a form of parts.
    pub(crate) async fn post_parts(&self, path: &str, parts: &Parts) -> Answer {
        self.ask("POST", path, &[&Parts::media()], parts.bytes())
            .await
    }
}

impl Answer {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The cookies that it sets, each as `name=value`, with the rest.
    pub(crate) fn cookies(&self) -> Vec<(String, String)> {
        let cookies = self.headers.get_all("set-cookie").iter();
        let split = |cookie: &str| {
            let (pair, rest) = cookie.split_once("; ").unwrap();
            (pair.to_owned(), rest.to_owned())
        };
        cookies
            .map(|cookie| split(cookie.to_str().unwrap()))
            .collect()
    }
}

/// A form of parts as a browser makes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts(Vec<u8>);

const BOUNDARY: &str = "----WebKitFormBoundaryABC123";

impl Parts {
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn file(mut self, name: &str, file: &str, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(Self::head(name, file).as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// What stands before a file.
    pub(crate) fn head(name: &str, file: &str) -> String {
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        )
    }

    pub(crate) fn media() -> String {
        format!("content-type: multipart/form-data; boundary={BOUNDARY}")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        bytes
    }
}
