//! A site of the test's own routes, served over a socket, at a time that stands still.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use houseboat::App;
use houseboat::Config;
use houseboat::Context;
use houseboat::database::Clock;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::support::raw::Raw;
use crate::support::raw::RawAnswer;

#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) context: Context,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Served {
    pub(crate) async fn start(routes: Router<Context>) -> Self {
        Self::with(routes, &[]).await
    }

    /// With settings, as variables have them.
    pub(crate) async fn with(routes: Router<Context>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut variables = vec![
            ("HOUSEBOAT_DATABASE__PATH".to_owned(), path("site.sqlite3")),
            ("HOUSEBOAT_CACHE__PATH".to_owned(), path("cache.sqlite3")),
        ];
        let settings = settings.iter();
        variables.extend(settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::load_from(folder.path(), variables).unwrap();
        let clock = Clock::held(Timestamp::from_second(1_800_000_000).unwrap());
        let site = App::new("test").routes(routes);
        let site = site.open(config, clock.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let context = site.context().clone();
        let stop = CancellationToken::new();
        tokio::spawn(site.serve(listener, stop.clone()));
        Self {
            address,
            clock,
            context,
            _folder: folder,
            _stop: stop.drop_guard(),
        }
    }

    /// Asks on a connection of its own; `headers` are whole lines.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[&str]) -> RawAnswer {
        let mut visitor = Raw::connect(self.address).await;
        visitor.ask(method, path, headers).await;
        if method == "HEAD" {
            visitor.head().await
        } else {
            visitor.answer().await
        }
    }

    pub(crate) async fn get(&self, path: &str) -> RawAnswer {
        self.ask("GET", path, &[]).await
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
