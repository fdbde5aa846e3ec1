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
use fantoccini::actions::InputSource;
use fantoccini::actions::MOUSE_BUTTON_LEFT;
use fantoccini::actions::MouseActions;
use fantoccini::actions::PointerAction;
use fantoccini::elements::Element;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::owner::EMAIL;
use crate::support::owner::PASSWORD;
use crate::support::process::TestProcess;
use crate::support::waiting::slow;
use crate::support::waiting::wait_for;

const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(5);
const FIND: Duration = Duration::from_secs(10);

/// What a page may have before what is looked for.
const STEPS_MAX: usize = 60;

/// The keys as WebDriver writes them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";

/// All its rules, and that a finger can hit what is to be hit.
const AXE: &str = "return axe.run(document, { rules: { 'target-size': { enabled: true } } }).then((all) => \
    all.violations.map((it) => `${it.id}: ${it.help}: ${it.nodes.map((node) => node.html + ' ' + \
    node.any.map((any) => any.message).join(' ')).join(' | ')}`))";

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

    pub(crate) async fn double_click(&self, css: &str) {
        let (element, button) = (self.find(css).await, MOUSE_BUTTON_LEFT);
        let mut actions =
            MouseActions::new("mouse".to_owned()).then(PointerAction::MoveToElement {
                element,
                duration: None,
                x: 0.0,
                y: 0.0,
            });
        for _ in 0..2 {
            actions = actions
                .then(PointerAction::Down { button })
                .then(PointerAction::Up { button });
        }
        self.page.perform_actions(actions).await.unwrap();
    }

    /// Runs a script in the page, and waits for what it promises.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
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

    /// Takes the page's picture in both widths and both schemes.
    ///
    /// It fails where the page has to be scrolled sideways, and where axe finds something in the way of people.
    pub(crate) async fn look(&self, page: &str) {
        for (width, height) in [(1280, 900), (360, 780)] {
            self.resize(width, height).await;
            for (scheme, name) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
                self.prefer(scheme).await;
                assert_eq!(self.overflow().await, 0, "{page} at {width} px is too wide");
                self.screenshot(&format!("{page}-{width}-{name}")).await;
                let found = self.barriers().await;
                assert!(found.is_empty(), "{page} at {width} px, {name}: {found:#?}");
            }
        }
    }

    /// What axe finds wrong with the page: each rule with the elements that break it.
    pub(crate) async fn barriers(&self) -> Vec<String> {
        let script = format!("{}\n{AXE}", axe());
        let found = self.page.execute(&script, Vec::new()).await.unwrap();
        let found = found.as_array().unwrap().iter();
        found.map(|it| it.as_str().unwrap().to_owned()).collect()
    }

    /// Signs in as the owner of a site, who is made if there is none.
    pub(crate) async fn sign_in(&self, site: &TestProcess) {
        site.signed_in().await;
        self.goto(&site.url("/account/sign-in")).await;
        self.fill("#email", EMAIL).await;
        self.fill("#password", PASSWORD).await;
        self.click("main form button").await;
        self.find("form[action='/account/sign-out']").await;
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let focused = self.page.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    /// Goes on with the tabulator until the focus is on what matches `css`; each step on the way can be seen.
    pub(crate) async fn tab_to(&self, css: &str) {
        let mut passed = Vec::new();
        for _ in 0..STEPS_MAX {
            let script = "const e = document.activeElement, s = getComputedStyle(e); return [e.matches(arguments[0]), \
                          e === document.body || s.outlineStyle !== 'none', e.outerHTML.slice(0, 80)]";
            let found = self.page.execute(script, vec![json!(css)]).await.unwrap();
            assert_eq!(found[1], true, "the focus cannot be seen: {found}");
            if found[0] == true {
                return;
            }
            passed.push(found[2].clone());
            self.press(TAB).await;
        }
        panic!("no key leads to {css}: {passed:#?}");
    }

    /// The path of the page.
    pub(crate) async fn path(&self) -> String {
        self.page.current_url().await.unwrap().path().to_owned()
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

/// The program that looks for barriers, from the file that a variable names: it is no part of the repository.
fn axe() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the tests that are configured, not the site"
    )]
    let path = std::env::var_os("AXE_CORE").expect("AXE_CORE names axe.min.js, as TEST_ALL asks");
    fs::read_to_string(path).unwrap()
}

/// Asks the system for a port; chromedriver would not say which one it took for 0.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
