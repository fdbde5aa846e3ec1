//! This test program, started once more to run one of its tests alone: a process that may be asked, and killed.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

/// Tells the program that it is the twin, and what it is to do.
const ORDERS: &str = "HOUSEBOAT_TEST_TWIN";
/// What begins a line that was said, and not printed by the test harness.
const SAID: &str = "twin: ";
/// How soon it says something, on a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// The other process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Twin {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Twin {
    /// Starts the program to run `test`, whose [`orders`] these are.
    pub(crate) fn start(test: &str, orders: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ORDERS, orders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::unbounded_channel();
        let reader = thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(SAID) {
                    // Who does not listen any more needs nothing.
                    let _ = send.send(said.to_owned());
                }
            }
        });
        Self {
            child,
            lines,
            reader: Some(reader),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next thing it says.
    pub(crate) async fn says(&mut self) -> String {
        let said = tokio::time::timeout(SOON, self.lines.recv()).await;
        said.expect("it says something in time").expect("it lives")
    }

    /// Gives it a line, and gives what it says to that.
    pub(crate) async fn ask(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.says().await
    }

    /// Kills it, and gives all that it said and nobody has heard.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Ends with the pipe.
        self.reader.take().unwrap().join().unwrap();
        std::iter::from_fn(|| self.lines.try_recv().ok()).collect()
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this process is to do, if it is a twin.
pub(crate) fn orders() -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the test that is configured, not the site"
    )]
    std::env::var(ORDERS).ok()
}

/// Where a twin says things: one `write(2)` for a line, so that a kill leaves no half of one.
pub(crate) fn voice() -> impl Fn(&str) + Clone {
    let out = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let out = std::sync::Arc::new(File::from(out));
    move |line: &str| {
        let mut out = &*out;
        out.write_all(format!("\n{SAID}{line}\n").as_bytes())
            .unwrap();
    }
}
