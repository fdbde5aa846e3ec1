//! A real browser, headless, with a profile of its own.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::Client;
use fantoccini::ClientBuilder;
use fantoccini::Locator;
use fantoccini::elements::Element;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(5);
const FIND: Duration = Duration::from_secs(10);

const ARGUMENTS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
];

/// What the visitor's system prefers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// A browser with one window; it and its driver end when dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    page: Client,
    session: String,
    driver: Driver,
    _profile: TempDir,
}

#[derive(Debug)]
struct Driver {
    child: Child,
    url: String,
}

impl Browser {
    /// Starts a browser, or says why `test` is skipped; where all tests are wanted, a missing browser fails it.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if !slow(test) {
            return None;
        }
        let driver = Driver::start().await;
        let profile = TempDir::new().unwrap();
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({ "goog:chromeOptions": { "args": arguments } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted.as_object().unwrap().clone());
        let page = builder.connect(&driver.url).await.expect("chromium starts");
        let session = page.session_id().await.unwrap().unwrap();
        Some(Self {
            page,
            session,
            driver,
            _profile: profile,
        })
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// Waits for the first element that matches `css`.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let find = async || self.page.find(Locator::Css(css)).await.ok();
        wait_for(&format!("element {css}"), FIND, find).await
    }

    pub(crate) async fn has(&self, css: &str) -> bool {
        self.page.find(Locator::Css(css)).await.is_ok()
    }

    /// Replaces what stands in the field that matches `css`.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub(crate) async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap();
    }

    /// Waits until the page shows `text`.
    pub(crate) async fn wait_for_text(&self, text: &str, deadline: Duration) {
        let shows = async || self.text().await.contains(text).then_some(());
        wait_for(&format!("{text:?} on the page"), deadline, shows).await;
    }

    /// What a visitor can read.
    pub(crate) async fn text(&self) -> String {
        let script = "return document.body ? document.body.innerText : ''";
        let text = self.page.execute(script, Vec::new()).await.unwrap();
        text.as_str().unwrap_or_default().to_owned()
    }

    /// How far the page is wider than the window: 0 where nothing has to be scrolled sideways.
    pub(crate) async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - window.innerWidth";
        self.page
            .execute(script, Vec::new())
            .await
            .unwrap()
            .as_i64()
            .unwrap()
            .max(0)
    }

    /// Makes the page `width` by `height` CSS pixels, narrower than a real window could be.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    pub(crate) async fn prefer(&self, scheme: Scheme) {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes what the window shows to `target/screenshots/<name>.png`.
    pub(crate) async fn screenshot(&self, name: &str) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("screenshots");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, self.page.screenshot().await.unwrap()).unwrap();
        path
    }

    /// Sends a command of the DevTools protocol, through the driver's own door for them.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let url = format!(
            "{}/session/{}/goog/cdp/execute",
            self.driver.url, self.session
        );
        let body = json!({ "cmd": command, "params": parameters });
        let response = client().post(url).json(&body).send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{command}: {}",
            response.text().await.unwrap()
        );
        response.json().await.unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its driver would leave the browser running; where this fails, nothing better is left to do.
        let _ = self.driver.end(&self.session);
    }
}

impl Driver {
    async fn start() -> Self {
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .expect("chromedriver is installed, as TEST_ALL asks");
        let driver = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let status = format!("{}/status", driver.url);
        let client = client();
        let ready = async || {
            client
                .get(&status)
                .send()
                .await
                .ok()?
                .status()
                .is_success()
                .then_some(())
        };
        wait_for("answer of chromedriver", START, ready).await;
        driver
    }

    /// Ends the session and its browser, without a runtime: it is called while a test unwinds.
    fn end(&self, session: &str) -> io::Result<()> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(END))?;
        write!(
            stream,
            "DELETE /session/{session} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut first = [0];
        stream.read_exact(&mut first)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only when the driver is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the system for a port; chromedriver would not say which one it took for 0.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
