//! A real Docker engine: images of the shipped Dockerfile, and containers that go with the test.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::command::Printed;
use crate::support::command::printed;
use crate::support::waiting::wait_for;

const START: Duration = Duration::from_mins(1);

/// Runs `docker` until it ends, whatever comes of it.
pub(crate) fn try_docker(arguments: &[&str]) -> Printed {
    let mut command = Command::new("docker");
    printed(command.args(arguments))
}

/// Runs `docker` and returns what it printed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let printed = try_docker(arguments);
    let hint = "tests/containers/start-docker.sh and base-images.sh ready a machine";
    assert_eq!(
        printed.code,
        Some(0),
        "docker {arguments:?}: {} ({hint})",
        printed.err
    );
    printed.out.trim().to_owned()
}

/// The image with the program that cargo has built in the place of the build stage, built once; its id.
pub(crate) fn shipped() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let program = folder.path().join("src/target/release/houseboat");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        strip(Path::new(env!("CARGO_BIN_EXE_houseboat")), &program);
        let context = format!("build={}", folder.path().display());
        build("houseboat-test", &["--build-context", &context])
    })
}

/// Builds the image as a platform does; returns its id.
pub(crate) fn whole_image() -> String {
    build("houseboat-test-whole", &[])
}

fn build(tag: &str, more: &[&str]) -> String {
    let arguments = ["build", "--quiet", "--network", "host", "--tag", tag];
    let root = env!("CARGO_MANIFEST_DIR");
    docker(&[&arguments[..], more, &[root]].concat())
}

/// Puts the ledger that cargo has built, an example, to `to`.
pub(crate) fn ledger(to: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_houseboat"));
    strip(&program.with_file_name("examples").join("ledger"), to);
}

/// Copies a program without what only a debugger reads.
fn strip(from: &Path, to: &Path) {
    let status = Command::new("strip").arg("-o").arg(to).arg(from).status();
    assert!(
        status.unwrap().success(),
        "{} was not stripped",
        from.display()
    );
}

/// A container, and the end of it.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    /// The site's port on this machine, if the container has the machine's network.
    port: Option<u16>,
}

impl Container {
    /// `docker run --detach`, with the site's port on any of this machine's.
    pub(crate) fn run(options: &[&str], image: &str) -> Self {
        let arguments = ["run", "--detach", "--publish", "127.0.0.1::8000"];
        let id = docker(&[&arguments[..], options, &[image]].concat());
        Self { id, port: None }
    }

    /// `docker run --detach` on this machine's own network, where its servers are; the site is at `port`.
    pub(crate) fn run_on_host(port: u16, options: &[&str], image: &str) -> Self {
        let variable = format!("--env=PORT={port}");
        let arguments = ["run", "--detach", "--network=host", &variable];
        let id = docker(&[&arguments[..], options, &[image]].concat());
        Self {
            id,
            port: Some(port),
        }
    }

    /// The address of `path` as this machine reaches it.
    pub(crate) fn url(&self, path: &str) -> String {
        if let Some(port) = self.port {
            return format!("http://127.0.0.1:{port}{path}");
        }
        // It is another one after each start.
        let port = docker(&["port", &self.id, "8000/tcp"]);
        format!("http://{port}{path}")
    }

    /// A field of `docker inspect`, by a Go template.
    pub(crate) fn inspect(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, &self.id])
    }

    /// All that it wrote to both of its outputs.
    pub(crate) fn log(&self) -> String {
        let printed = try_docker(&["logs", &self.id]);
        printed.out + &printed.err
    }

    pub(crate) fn execute(&self, command: &[&str]) -> Printed {
        try_docker(&[&["exec", &self.id], command].concat())
    }

    /// Waits until the engine calls it healthy, and says how long that took.
    pub(crate) async fn healthy(&self) -> Duration {
        let begin = Instant::now();
        wait_for("healthy container", START, async || {
            let state = self.inspect("{{.State.Status}} {{.State.Health.Status}}");
            assert!(state.starts_with("running"), "{state}: {}", self.log());
            (state == "running healthy").then_some(())
        })
        .await;
        begin.elapsed()
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub(crate) async fn ended(&self) -> String {
        wait_for("end of the container", START, async || {
            let state = self.inspect("{{.State.Status}} {{.State.ExitCode}}");
            state.strip_prefix("exited ").map(str::to_owned)
        })
        .await
    }

    /// `docker stop` with its own 10 s of grace; returns the exit code, and how long it took.
    pub(crate) fn stop(&self) -> (String, Duration) {
        let begin = Instant::now();
        docker(&["stop", &self.id]);
        (self.inspect("{{.State.ExitCode}}"), begin.elapsed())
    }

    pub(crate) fn start(&self) {
        docker(&["start", &self.id]);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It fails only when the container is gone already.
        try_docker(&["rm", "--force", "--volumes", &self.id]);
    }
}

/// A volume with a name, which goes with the test.
#[derive(Debug)]
pub(crate) struct Volume {
    name: String,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let name = docker(&["volume", "create"]);
        Self { name }
    }

    /// The option of `docker run` that mounts it.
    pub(crate) fn option(&self) -> String {
        format!("--volume={}:/data", self.name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        try_docker(&["volume", "rm", "--force", &self.name]);
    }
}
