//! A real S3 server on this machine, its objects plain files in a folder.

use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::waiting::wait_for;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const KEY: &str = "houseboat-test";
pub(crate) const SECRET: &str = "houseboat-test-secret";

/// A server with one bucket; it ends with the test.
#[derive(Debug)]
pub(crate) struct S3 {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    is_open: bool,
}

impl S3 {
    pub(crate) async fn start() -> Self {
        Self::with(false).await
    }

    /// One that knows no keys, and takes requests that are not signed alone.
    pub(crate) async fn start_open() -> Self {
        Self::with(true).await
    }

    async fn with(is_open: bool) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut server = Self {
            child: None,
            port: free_port(),
            folder,
            is_open,
        };
        server.resume().await;
        server
    }

    /// Starts it again on the same port, with what it had.
    pub(crate) async fn resume(&mut self) {
        let port = self.port.to_string();
        let keys = ["--access-key", KEY, "--secret-key", SECRET];
        let child = Command::new("s3s-fs")
            .args(["--host", "127.0.0.1", "--port", &port])
            .args(if self.is_open { &[][..] } else { &keys })
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("s3s-fs is not on the PATH: cargo install s3s-fs --version 0.14.1 --features binary --locked");
        self.child = Some(child);
        let address = ("127.0.0.1", self.port);
        wait_for("S3 server", Duration::from_secs(20), async || {
            TcpStream::connect(address).is_ok().then_some(())
        })
        .await;
    }

    /// Ends it, as an outage does: connections are refused.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to it: STOP makes it accept connections and answer nothing, CONT goes on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(status.success());
        while name == "STOP" && !is_stopped(&id) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder whose files are the objects of the bucket.
    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The variables that make a program replicate to `path` in this bucket.
    pub(crate) fn variables(&self, path: &str) -> Vec<(String, String)> {
        [
            ("BUCKET", BUCKET.to_owned()),
            ("PATH", path.to_owned()),
            ("ENDPOINT", self.endpoint()),
            ("ACCESS_KEY_ID", KEY.to_owned()),
            ("SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
        .map(|(name, value)| (format!("HOUSEBOAT_REPLICATION__{name}"), value))
        .to_vec()
    }

    /// Every object's path in the bucket that begins with `prefix`, sorted.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.objects(), &self.objects(), &mut found);
        found.retain(|path| path.starts_with(prefix));
        found.sort();
        found
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in folder.read_dir().unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            found.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// Whether every thread of a process has stopped; each does so in its own time.
fn is_stopped(id: &str) -> bool {
    let threads = Path::new("/proc").join(id).join("task");
    threads.read_dir().unwrap().flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
