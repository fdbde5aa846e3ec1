//! What Litestream is asked while it runs, by its unix socket.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Method;
use hyper::Request;
use hyper::StatusCode;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::replication::Error;
use crate::replication::Result;

/// How long a question may take that Litestream answers from memory; it takes a millisecond.
const ANSWER: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes; they have some hundred.
const BYTES_MAX: usize = 64 * 1024;

/// A client of Litestream's control socket, for one database.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
    database: String,
}

/// How far the copy in the bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Position {
    /// The last transaction that Litestream has seen; it counts them itself.
    pub txid: u64,
    /// The last one that is in the bucket.
    pub replicated_txid: u64,
}

#[derive(Deserialize)]
struct List {
    databases: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    path: String,
    last_sync_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Readings {
    databases: Vec<Reading>,
}

#[derive(Deserialize)]
struct Reading {
    path: String,
    active: bool,
    #[serde(default)]
    operation: String,
    started_at: Option<Timestamp>,
    #[serde(default)]
    error: String,
}

impl Reading {
    fn is_done(&self) -> bool {
        !self.active && self.operation == "sync" && self.error.is_empty()
    }
}

#[derive(Deserialize)]
struct Info {
    pid: i32,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Control {
    pub(super) fn new(socket: &Path, database: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            database: database.display().to_string(),
        }
    }

    /// Waits until everything that is committed now is in the bucket, for `within` at most.
    ///
    /// It costs one request to the bucket, and some 5 ms where that is near; with nothing new it costs none, and does
    /// not notice that the bucket is gone. Given up, it goes on in Litestream until the bucket answers.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when it does not run, or did not manage in time.
    pub async fn sync(&self, within: Duration) -> Result<Position> {
        // With a time limit of its own, the read transaction by which Litestream holds the WAL ends with the request:
        // whoever checkpoints then begins the WAL anew under it, and damages the replica. A negative one means none.
        let question = serde_json::json!({
            "path": self.database, "wait": true, "timeout": -1,
        });
        let position: Position = self
            .ask(Method::POST, "/sync", question.to_string(), within)
            .await?;
        if position.replicated_txid < position.txid {
            return Err(Error::Litestream(format!(
                "only transaction {} of {} is in the bucket",
                position.replicated_txid, position.txid
            )));
        }
        Ok(position)
    }

    /// When Litestream's last upload ended, or there was none to make; none before the first.
    ///
    /// While all is well this is not much older than a second or `replication.sync_ms`. What it has is what was there
    /// when it began, and with a slow bucket that is long ago. Where nothing is written it goes on without the bucket,
    /// too, since nothing is missing there.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when it does not run, or does not answer within 5 s.
    pub async fn last_sync(&self) -> Result<Option<Timestamp>> {
        let list: List = self
            .ask(Method::GET, "/list", String::new(), ANSWER)
            .await?;
        let mut databases = list.databases.into_iter();
        match databases.find(|listed| listed.path == self.database) {
            Some(listed) => Ok(listed.last_sync_at),
            None => Err(Error::Litestream(format!(
                "it does not replicate {}",
                self.database
            ))),
        }
    }

    /// When Litestream began to read the WAL the last time, and whether that is over and went well.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when it does not run, or does not answer within 5 s.
    pub(super) async fn last_read(&self) -> Result<(Option<Timestamp>, bool)> {
        let readings: Readings = self
            .ask(Method::GET, "/debug/sync-status", String::new(), ANSWER)
            .await?;
        let mut databases = readings.databases.into_iter();
        let reading = databases.find(|reading| reading.path == self.database);
        Ok(reading.map_or((None, false), |it| (it.started_at, it.is_done())))
    }

    /// The process behind the socket; none when nobody listens there.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when somebody listens, and cannot be told or is out of reach in another container.
    pub(super) async fn process(&self) -> Result<Option<i32>> {
        let Ok(stream) = UnixStream::connect(&self.socket).await else {
            return Ok(None);
        };
        let seen = stream.peer_cred().ok().and_then(|peer| peer.pid());
        drop(stream);
        let info: Info = self
            .ask(Method::GET, "/info", String::new(), ANSWER)
            .await?;
        if seen == Some(info.pid) {
            return Ok(Some(info.pid));
        }
        Err(Error::Litestream(format!(
            "another container's litestream works on {}: stop that container first",
            self.database
        )))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
        within: Duration,
    ) -> Result<T> {
        let asked = self.answer(method, path, body);
        let (status, body) = match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(Error::Litestream(format!(
                    "no answer to {path} within {within:?}"
                )));
            }
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body)
                .map_err(|error| Error::Litestream(format!("cannot read its answer: {error}")));
        }
        let refusal = serde_json::from_slice::<Refusal>(&body);
        Err(Error::Litestream(refusal.map_or_else(
            |_| format!("{path}: {status}"),
            |refusal| format!("{path}: {}", refusal.error),
        )))
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Litestream(format!("{}: {error}", self.socket.display()))
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| failed(&error))?;
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "litestream")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let answer = client
                .send_request(request)
                .await
                .map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| failed(&error))?.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        // The connection is driven here, so that nothing of it outlives the question.
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(failed(&error)),
            },
        }
    }
}
