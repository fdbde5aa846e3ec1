//! The real program, in a folder of its own, stopped when the test ends.

use std::ffi::OsString;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStderr;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Client;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::owner::CHEAP;
use crate::support::owner::SignedIn;
use crate::support::waiting::wait_for;

const START: Duration = Duration::from_secs(20);
const LISTENING: &str = "listening on http://";

/// How a [`TestProcess`] is to be started.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    program: Option<PathBuf>,
    folder: Option<PathBuf>,
    arguments: Vec<String>,
    variables: Vec<(String, OsString)>,
}

/// A running site; killed when dropped.
#[derive(Debug)]
pub(crate) struct TestProcess {
    child: Child,
    folder: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log, and ends with it.
    reader: JoinHandle<()>,
    address: String,
    owner: OnceCell<SignedIn>,
    /// Deletes the folder when the process is gone.
    _own_folder: Option<TempDir>,
}

impl Builder {
    /// Runs this program instead of the reference site.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Runs in `folder`, which outlives the process, instead of a fresh one.
    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the site and waits until it listens.
    pub(crate) async fn start(self) -> TestProcess {
        let mut process = self.spawn();
        let log = Arc::clone(&process.log);
        let child = &mut process.child;
        let address = wait_for("line with the address", START, async || {
            let lines = log.lock().unwrap();
            let exited = child.try_wait().unwrap();
            assert!(
                exited.is_none(),
                "the site ended ({exited:?}):\n{}",
                lines.join("\n")
            );
            lines.iter().find_map(|line| address_in(line))
        });
        process.address = address.await;
        process
    }

    /// Starts the program without waiting for an address, for commands that end by themselves.
    pub(crate) fn spawn(self) -> TestProcess {
        let own_folder = self.folder.is_none().then(|| TempDir::new().unwrap());
        let folder = self
            .folder
            .or_else(|| Some(own_folder.as_ref()?.path().to_owned()))
            .unwrap();
        let program = self.program.as_deref();
        let program = program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_houseboat")));
        let mut child = command_of(program, &folder)
            .args(self.arguments)
            .envs(CHEAP)
            .envs(self.variables)
            .spawn()
            .unwrap();
        let log = Arc::default();
        let reader = keep_lines(child.stderr.take().unwrap(), Arc::clone(&log));
        TestProcess {
            child,
            folder,
            log,
            reader,
            address: String::new(),
            owner: OnceCell::new(),
            _own_folder: own_folder,
        }
    }
}

impl TestProcess {
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// The site with its defaults, in a fresh folder.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// The address and port it listens on.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The URL of `path`, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The site's owner, made or signed in at the first call.
    pub(crate) async fn signed_in(&self) -> &SignedIn {
        let url = self.url("");
        let sign_in = async || SignedIn::owner(&url, || self.log()).await;
        self.owner.get_or_init(sign_in).await
    }

    /// A client of the site's owner.
    pub(crate) async fn owner(&self) -> Client {
        self.signed_in().await.client.clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that the process wrote to its standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Asks the process to stop, as a container's host does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks the process to stop, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal by the `kill` program: a call of libc would be unsafe code.
    pub(crate) fn signal(&self, name: &str) {
        let arguments = ["-s", name, &self.id().to_string()];
        let status = Command::new("kill").args(arguments).status().unwrap();
        assert!(status.success(), "the process is gone:\n{}", self.log());
    }

    /// Takes the process down as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended, and all that it said is in the log.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        wait_for("end of the process", deadline, async || {
            let ended = self.child.try_wait().unwrap();
            ended.filter(|_| self.reader.is_finished())
        })
        .await
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, to be run in `folder`, with nothing of this environment but what it needs.
pub(crate) fn command(folder: &Path) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_houseboat")), folder)
}

fn command_of(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.env_clear().env("HOUSEBOAT_SERVER__PORT", "0");
    for name in ["HOME", "PATH"] {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program gets these two and nothing else"
        )]
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn keep_lines(stderr: ChildStderr, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.lock().unwrap().push(without_colours(&line));
        }
    })
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first
        + &parts
            .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest))
            .collect::<String>()
}

fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(LISTENING)?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
