//! Containers of one site, `examples/ledger.rs`: real programs, each with a Litestream of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Deref;
use std::ops::DerefMut;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use houseboat::database;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::process::Builder;
use crate::support::process::TestProcess;
use crate::support::replica::replication;
use crate::support::s3::S3;
use crate::support::waiting::wait_for;

/// For whatever takes a moment, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The shortest that the settings take.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Where a site has its data, below its folder.
pub(crate) const DATABASE: &str = "data/site.sqlite3";

/// What Cargo tells a test of the package, and a build only of the one that it builds.
const OF_TESTS: [&str; 8] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// What the containers of one site are given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    variables: Vec<(String, OsString)>,
}

/// A container: the process and its Litestream, which both end when it is dropped.
#[derive(Debug)]
pub(crate) struct Container {
    process: TestProcess,
    /// Litestreams that were left by a process that was killed alone.
    orphans: Vec<u32>,
}

impl Fleet {
    /// Containers that replicate to this server, or nothing.
    pub(crate) fn new(s3: Option<&S3>) -> Self {
        let mut fleet = Self::default()
            // Not each of thousands of requests.
            .set("HOUSEBOAT_LOG__LEVEL", "info,houseboat::http::layers=warn")
            .set("HOUSEBOAT_REPLICATION__LEASE_MS", "3000")
            .set("HOUSEBOAT_HANDOVER__GRACE_MS", "30000")
            .set("HOUSEBOAT_HANDOVER__LINGER_MS", "4000");
        for (name, value) in s3.map(|s3| s3.variables("site")).unwrap_or_default() {
            fleet = fleet.set(&name, value);
        }
        fleet
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.variables.iter().any(|(known, _)| known == name)
    }

    pub(crate) fn builder(&self, folder: &Path) -> Builder {
        let variables = self.variables.iter();
        variables
            .fold(TestProcess::builder(), |builder, (name, value)| {
                builder.variable(name, value)
            })
            .program(program())
            .folder(folder)
            .argument("start")
    }

    /// Starts one and waits until it takes requests.
    pub(crate) async fn start(&self, folder: &Path) -> Container {
        Container::of(self.builder(folder).start().await)
    }

    /// Starts one and waits until it serves by itself.
    pub(crate) async fn serve(&self, folder: &Path) -> Container {
        let container = self.start(folder).await;
        container.is("serving").await;
        container
    }

    /// Starts one that ends by itself, and gives its exit code and what it said.
    pub(crate) async fn ends(&self, folder: &Path, within: Duration) -> (Option<i32>, String) {
        let mut container = Container::of(self.builder(folder).spawn());
        let code = container.end_within(within).await;
        (code, container.log())
    }
}

impl Container {
    pub(crate) fn of(process: TestProcess) -> Self {
        let orphans = Vec::new();
        Self { process, orphans }
    }

    /// What `/ready` says, and with which status.
    pub(crate) async fn ready(&self) -> (u16, Value) {
        let answer = client().get(self.url("/ready")).send().await;
        let Ok(answer) = answer else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Waits until it has this role.
    pub(crate) async fn is(&self, role: &str) {
        let has = async || (self.ready().await.1["role"] == role).then_some(());
        self.wait_for(&format!("role {role}"), has).await;
    }

    /// Waits until `/ready` says that it is well, with this among its warnings; an empty text is found in none.
    pub(crate) async fn warns(&self, text: &str) {
        let warns = async || {
            let (status, ready) = self.ready().await;
            let warnings = ready["warnings"].to_string();
            let is_said = if text.is_empty() {
                warnings == "[]"
            } else {
                warnings.contains(text)
            };
            (status == 200 && is_said).then_some(())
        };
        self.wait_for(&format!("warning {text:?}"), warns).await;
    }

    /// Waits until its log has this.
    pub(crate) async fn says(&self, text: &str) {
        let says = async || self.log().contains(text).then_some(());
        self.wait_for(&format!("line with {text:?}"), says).await;
    }

    /// The status of `/up`, which a platform asks for.
    pub(crate) async fn up(&self) -> u16 {
        let answer = client().get(self.url("/up")).send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    /// Waits as [`wait_for`] does; its log says why that was in vain.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &str,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + SOON;
        let probe = async || match probe().await {
            Some(found) => Some(Some(found)),
            None => (Instant::now() > end).then_some(None),
        };
        let found = wait_for(what, 2 * SOON, probe).await;
        found.unwrap_or_else(|| panic!("no {what} within {SOON:?}:\n{}", self.log()))
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        self.end_within(SOON).await
    }

    /// Waits for its end, which is to come within this time, and gives the exit code.
    pub(crate) async fn end_within(&mut self, within: Duration) -> Option<i32> {
        let ended = tokio::time::timeout(within, self.process.wait(2 * within)).await;
        let Ok(status) = ended else {
            panic!("no end within {within:?}:\n{}", self.log());
        };
        status.code()
    }

    /// Whether it has said that it stored this.
    pub(crate) async fn writes(&self, text: &str) -> bool {
        self.write(text).await == 200
    }

    /// The status of its answer to a write; 0 without one.
    pub(crate) async fn write(&self, text: &str) -> u16 {
        let request = client().post(self.url("/rows")).body(text.to_owned());
        let answer = request.header("sec-fetch-site", "same-origin").send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    /// Ends it as a platform does; it has ended well.
    pub(crate) async fn stop(mut self) -> String {
        self.terminate();
        assert_eq!(self.end().await, Some(0), "{}", self.log());
        self.log()
    }

    /// Takes it down as a whole, as a container is that is killed.
    pub(crate) fn crash(&mut self) {
        let litestreams = self.litestreams();
        self.process.kill();
        end(&litestreams);
    }

    /// Takes the process down, and leaves its Litestream.
    pub(crate) fn crash_alone(&mut self) {
        self.orphans = self.litestreams();
        self.process.kill();
    }

    /// The ids of the Litestreams that run for it.
    pub(crate) fn litestreams(&self) -> Vec<u32> {
        let parent = self.id().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split(' ').nth(1)) == Some(parent.as_str())
        })
        .collect()
    }
}

impl Deref for Container {
    type Target = TestProcess;

    fn deref(&self) -> &TestProcess {
        &self.process
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut TestProcess {
        &mut self.process
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let litestreams = self.litestreams();
        self.process.kill();
        end(&litestreams);
        end(&self.orphans);
    }
}

/// Whether this process runs; one that has ended and nobody asks for does not.
pub(crate) fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with('Z'))
}

/// Kills what a container has left.
pub(crate) fn end(processes: &[u32]) {
    for id in processes {
        // It fails when the process is gone already.
        let id = id.to_string();
        let _ = Command::new("kill").args(["-s", "KILL", &id]).output();
    }
}

/// The ledger, built as these tests are.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("ledger"))
}

/// A program of `examples/`, built as these tests are.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", name]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // Build scripts look at these, and would run again with those of a test.
    for name in OF_TESTS {
        cargo.env_remove(name);
    }
    let ended = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(ended.success(), "the example `{name}` does not build");
    let site = Path::new(env!("CARGO_BIN_EXE_houseboat"));
    site.with_file_name("examples").join(name)
}

/// The file as another program would open it.
pub(crate) fn open(database: &Path) -> Connection {
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file as another program would"
    )]
    let conn = Connection::open(database).unwrap();
    conn.busy_timeout(SOON).unwrap();
    conn
}

/// The rows of a ledger that nobody has open; its file is sound.
pub(crate) fn rows(database: &Path) -> BTreeSet<String> {
    assert!(database.exists(), "no database at {}", database.display());
    let conn = open(database);
    let check = conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok", "{}", database.display());
    let mut query = conn.prepare("SELECT text FROM rows").unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The record in the bucket.
pub(crate) fn record(s3: &S3) -> Value {
    let text = std::fs::read(s3.objects().join("site/lease.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// What a new machine would have: the generation that the record names, restored and checked in full.
pub(crate) async fn restored(s3: &S3) -> BTreeSet<String> {
    let record = record(s3);
    let generation = record["generation"].as_str().unwrap();
    let folder = TempDir::new().unwrap();
    let settings = database::Settings {
        path: folder.path().join(DATABASE),
        ..database::Settings::default()
    };
    houseboat::replication::restore(&replication(s3), &settings, generation, None, |_| {})
        .await
        .unwrap();
    rows(&settings.path)
}
